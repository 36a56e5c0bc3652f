//! Raw: the guest bytes verbatim, optionally a window of the file.

mod create;
mod inspect;
mod snapshots;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bstr::{BStr, BString};
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::magic::PROBE_BYTES;
use crate::format::{
    Below, ChildSpec, Features, FileRole, FlushPlan, Format, FormatDriver, FormatFile, FormatInfo,
    FormatWrite, Immediate, IoGuard, LongIoGuard, OpenContext, Probe, RecogniseFn, Resize,
    Snapshots,
};
use crate::job::JobControl;
use crate::options::{OptionKind, OptionSpec};
use crate::storage::{Durability, Preallocation, Step, Storage, ZeroFlags, grow, steps};

/// The sector size: virtual sizes are multiples of it.
const SECTOR: u64 = 512;

/// The raw format.
pub static DRIVER: FormatDriver = FormatDriver {
    name: "raw",
    of_images: Features::WRITE.union(Features::RESIZE),
    signature: None,
    has_metadata: false,
    is_transparent: true,
    is_stream: true,
    children: &[ChildSpec::FILE],
    open,
    read_in_order: None,
    inspect: inspect::inspect,
    create: Some(create::plan),
    outline: create::outline,
    measure: Some(create::measure),
    create_options: create::OPTIONS,
    unstated: &[],
    own_options: &[],
    summary: &[("size", None)],
    amend_options: &[],
    open_options: &[
        OptionSpec {
            name: "offset",
            kind: OptionKind::Size,
            help: "offset in the file where the disk begins",
            default: Some("0"),
            allowed: &[],
        },
        OptionSpec {
            name: "size",
            kind: OptionKind::Size,
            help: "virtual disk size",
            default: None,
            allowed: &[],
        },
    ],
    secret_option: None,
    strong_options: &["offset", "size"],
    events: &[],
};

#[derive(Debug)]
struct Raw {
    storage: Arc<dyn Storage>,
    /// Offset of the disk in the storage.
    start: u64,
    len: AtomicU64,
    /// A size was given: the disk is a window that cannot be resized.
    window: bool,
    writable: bool,
    durability: Durability,
    /// For the first sector of a disk whose format was probed.
    first_sector: Option<FirstSector>,
}

/// Prevents a disk that was probed as raw from being recognised as another format the next time.
#[derive(Debug)]
struct FirstSector {
    recognise: RecogniseFn,
    /// Held while the sector is checked and written.
    writing: Mutex<()>,
}

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    let storage = context.storage;
    let file_len = round_up(storage.len()?)?;
    let start = context.options.num("offset").unwrap_or(0);
    if start > file_len {
        return Err(Error::invalid(format!(
            "Offset ({start}) cannot be greater than size of the containing file ({file_len})"
        )));
    }
    let size = context.options.num("size");
    let len = match size {
        Some(size) if size > file_len - start => {
            // Two spaces before "actual": programs match the line as qemu-img prints it.
            return Err(Error::invalid(format!(
                "The sum of offset ({start}) and size ({size}) has to be smaller or equal to the  actual size of the containing file ({file_len})"
            )));
        }
        Some(size) if size % SECTOR != 0 => {
            return Err(Error::invalid("Specified size is not multiple of 512"));
        }
        Some(size) => size,
        None => round_up(file_len - start)?,
    };
    Ok(Box::new(Raw {
        start,
        len: AtomicU64::new(len),
        window: size.is_some(),
        writable: !context.read_only && !storage.read_only(),
        durability: context.durability,
        first_sector: context.probed.map(|recognise| FirstSector {
            recognise,
            writing: Mutex::default(),
        }),
        storage,
    }))
}

fn round_up(len: u64) -> Result<u64> {
    len.checked_next_multiple_of(SECTOR)
        .filter(|len| *len <= i64::MAX as u64)
        .ok_or_else(|| Error::new(crate::ErrorKind::Limit, "The file is too large"))
}

impl Raw {
    fn host(&self, offset: u64) -> u64 {
        self.start + offset
    }

    /// Runs `write`; for the first sector of a disk whose format was probed, only if the sector will not look like an
    /// image of another format afterwards.
    fn checking_first_sector(
        &self,
        offset: u64,
        len: u64,
        patch: impl FnOnce(&mut [u8]),
        write: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let first = PROBE_BYTES as u64;
        let Some(sector) = self
            .first_sector
            .as_ref()
            .filter(|_| offset < first && len > 0)
        else {
            return write();
        };
        let _held = sector.writing.lock();
        let mut head = [0; PROBE_BYTES];
        self.storage.read_at(&mut head, self.start)?;
        let end = offset.saturating_add(len).min(first);
        patch(&mut head[offset as usize..end as usize]);
        let probe = Probe {
            head: &head,
            name: BStr::new(""),
        };
        match (sector.recognise)(&probe) {
            Some(_) => Err(Error::os(libc::EPERM)),
            None => write(),
        }
    }
}

impl Format for Raw {
    fn driver(&self) -> &'static str {
        DRIVER.name
    }

    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn cluster_size(&self) -> Option<u32> {
        None
    }

    fn request_alignment(&self) -> u32 {
        1
    }

    fn map(&self, offset: u64, len: u64) -> Result<Extent> {
        let host_offset = self.host(offset);
        let run = self.storage.extent(host_offset, len)?;
        let kind = if run.zero {
            ExtentKind::Zero {
                slot: StorageSlot::MAIN,
                host_offset: Some(host_offset),
            }
        } else {
            ExtentKind::Data {
                slot: StorageSlot::MAIN,
                host_offset,
            }
        };
        Ok(Extent {
            len: run.len.min(len),
            kind,
        })
    }

    fn locate(&self, offset: u64, len: u64) -> Result<Extent> {
        let host_offset = self.host(offset);
        let kind = ExtentKind::Data {
            slot: StorageSlot::MAIN,
            host_offset,
        };
        Ok(Extent { len, kind })
    }

    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        main_slot(&self.storage, slot)
    }

    fn visit_files<'a>(&'a self, visit: &mut dyn FnMut(FormatFile<'a>)) {
        visit(FormatFile::own(&self.storage));
    }

    fn closed_files(&self) -> Vec<(FileRole, BString)> {
        Vec::new()
    }

    fn read_encoded(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.storage.read_at(buf, self.host(offset))
    }

    fn begin_io(&self) -> IoGuard<'_> {
        IoGuard::UNGUARDED
    }

    fn info(&self) -> Result<FormatInfo> {
        Ok(FormatInfo::default())
    }

    fn close(&self) -> Result<()> {
        if self.writable {
            self.storage.sync(self.durability)?;
        }
        Ok(())
    }

    fn writer(&self) -> Option<&dyn FormatWrite> {
        Some(self)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        let whole = self.start == 0 && !self.window;
        (whole && self.storage.snapshots().is_some()).then_some(self)
    }

    fn immediate(&self) -> Option<&dyn Immediate> {
        Some(self)
    }
}

impl FormatWrite for Raw {
    fn write(&self, buf: &[u8], offset: u64, _below: &dyn Below) -> Result<()> {
        self.checking_first_sector(
            offset,
            buf.len() as u64,
            |head| head.copy_from_slice(&buf[..head.len()]),
            || {
                steps::announce(&*self.storage, Step::WriteAio);
                self.storage.write_at(buf, self.host(offset))
            },
        )
    }

    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        _below: &dyn Below,
    ) -> Result<()> {
        self.checking_first_sector(
            offset,
            len,
            |head| head.fill(0),
            || self.storage.write_zeroes(self.host(offset), len, flags),
        )
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.storage.discard(self.host(offset), len)
    }

    fn flush(&self, durability: Durability) -> Result<()> {
        self.storage.sync(durability)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        Some(self)
    }
}

impl Resize for Raw {
    fn resize_above(
        &self,
        len: u64,
        preallocation: Preallocation,
        _: &dyn Below,
        control: &JobControl,
    ) -> Result<()> {
        if self.window {
            return Err(Error::unsupported("Cannot resize fixed-size raw disks"));
        }
        if preallocation == Preallocation::Metadata {
            return Err(Error::no_metadata_preallocation());
        }
        let end = self
            .start
            .checked_add(len)
            .ok_or_else(Error::new_size_not_positive)?;
        let len = round_up(len)?;
        let limits = self.storage.limits();
        if limits.fixed_len && end != self.storage.len()? {
            return Err(Error::unsupported(format!(
                "Cannot resize {}",
                limits.fixed_kind
            )));
        }
        // The rest of the last sector is not in the file, and reads as zeroes.
        grow(&*self.storage, end, preallocation, control)?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    fn grown_is_zero(&self) -> bool {
        self.storage.limits().grown_is_zero
    }
}

impl Immediate for Raw {
    fn try_locate(&self, offset: u64, len: u64) -> Result<Option<Extent>> {
        self.locate(offset, len).map(Some)
    }

    fn try_read_encoded(&self, _buf: &mut [u8], _offset: u64, _may_decode: bool) -> Result<bool> {
        // Nothing is encoded.
        Ok(false)
    }

    fn begin_long_io(&self) -> LongIoGuard {
        LongIoGuard::UNGUARDED
    }

    fn overwrites_memory(&self, offset: u64, len: u64) -> bool {
        self.direct_range(offset, len).is_some() && self.storage.limits().writes_to_memory
    }

    fn in_place_range(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)> {
        self.direct_range(offset, len)
    }

    fn note_in_place_write(&self, _offset: u64, _len: u64) {}

    fn direct_range(&self, offset: u64, _len: u64) -> Option<(StorageSlot, u64)> {
        let checked = self.first_sector.is_some() && offset < PROBE_BYTES as u64;
        (!checked).then(|| (StorageSlot::MAIN, self.host(offset)))
    }

    fn flush_plan(&self, durability: Durability) -> FlushPlan {
        FlushPlan::of(StorageSlot::MAIN, self.storage.sync_plan(durability))
    }

    fn note_failed_flush(&self) {
        // The storage remembers it.
    }
}

fn main_slot(storage: &Arc<dyn Storage>, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
    if slot == StorageSlot::MAIN {
        Ok(storage)
    } else {
        Err(Error::new(
            crate::ErrorKind::Internal,
            "A raw image has one file only",
        ))
    }
}
