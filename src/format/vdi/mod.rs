//! VDI, the disk images of VirtualBox: a header, a table of blocks, blocks.
//!
//! There is no published specification; see `docs/formats/vdi.md`.

mod check;
mod create;
mod disk;
mod inspect;
mod overlay;
mod records;
mod reshape;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bstr::BString;

use crate::bytes::le32;
use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::blocks::{Blocks, ByteOrder, Entry, Layout, Parts, Table};
use crate::format::{
    BackingChange, Below, Check, ChildSpec, Features, FileRole, FlushPlan, Format, FormatDriver,
    FormatFile, FormatInfo, FormatWrite, Immediate, IoGuard, LongIoGuard, OpenContext, ParentId,
    ParentRef, ParentSearch, Resize, Signature,
};
use crate::job::JobControl;
use crate::storage::{Durability, Preallocation, Storage, ZeroFlags};

use disk::{HEAD_LEN, Header, ImageType, SIGNATURE, SIGNATURE_AT, VdiLayout};
use records::Records;

/// The VDI format.
pub static DRIVER: FormatDriver = FormatDriver {
    name: "vdi",
    of_images: Features::WRITE
        .union(Features::RESIZE)
        .union(Features::CHECK)
        .union(Features::REPAIR),
    signature: Some(Signature {
        rank: 60,
        fits: |file| le32(file.head, SIGNATURE_AT) == Some(SIGNATURE),
        footer: None,
    }),
    has_metadata: true,
    is_transparent: false,
    is_stream: false,
    children: &[ChildSpec::FILE, ChildSpec::BACKING],
    open,
    inspect: inspect::inspect,
    create: Some(create::plan),
    outline: create::outline,
    measure: Some(create::measure),
    create_options: create::OPTIONS,
    summary: create::SUMMARY,
    amend_options: &[],
    open_options: &[],
    secret_option: None,
    strong_options: &[],
    events: &[],
};

/// An open image.
#[derive(Debug)]
struct Vdi {
    blocks: Blocks<Records>,
    image_type: ImageType,
    /// The header says that the contents have changed since it was opened.
    is_noted: AtomicBool,
}

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    let storage = context.storage;
    let mut head = vec![0; HEAD_LEN];
    storage.read_at(&mut head, 0)?;
    let header = Header::from_bytes(&head)?;
    let file_len = storage.len()?;
    if header.table_end() > file_len {
        return Err(Error::corrupt("The file ends within the block map").with_offset(file_len));
    }
    let table = Table::on_disk(
        u64::from(header.blocks),
        u64::from(header.table_offset),
        ByteOrder::Little,
    )?;
    let writable = !context.read_only && !storage.read_only();
    Ok(Box::new(Vdi {
        image_type: header.image_type,
        is_noted: AtomicBool::new(false),
        blocks: Blocks::new(Parts {
            storage,
            layout: VdiLayout::of(&header),
            table,
            len: virtual_size(&header),
            is_overlay: !header.link.is_nil(),
            writable,
            durability: context.durability,
            keeper: Records::new(header, context.durability),
        }),
    }))
}

/// The virtual size: whole sectors, as far as there are blocks.
fn virtual_size(header: &Header) -> u64 {
    let room = u64::from(header.blocks) * u64::from(header.block_size);
    header.disk_size.next_multiple_of(512).min(room)
}

impl Vdi {
    fn is_fixed(&self) -> bool {
        self.image_type == ImageType::Fixed
    }

    /// Says in the header that the contents change, the first time that they do.
    fn note_change(&self) -> Result<()> {
        self.blocks.check_writable()?;
        if !self.is_noted.load(Ordering::Acquire) {
            self.blocks.keeper.note_change(&*self.blocks.storage)?;
            self.is_noted.store(true, Ordering::Release);
        }
        Ok(())
    }
}

impl Format for Vdi {
    fn driver(&self) -> &'static str {
        DRIVER.name
    }

    fn len(&self) -> u64 {
        self.blocks.len()
    }

    fn cluster_size(&self) -> Option<u32> {
        u32::try_from(self.blocks.layout().block_size()).ok()
    }

    fn request_alignment(&self) -> u32 {
        1
    }

    fn map(&self, offset: u64, len: u64) -> Result<Extent> {
        let _io = self.blocks.begin_io();
        let (entry, len) = self.blocks.run(offset, len)?;
        // In a fixed image the host knows best what was never written.
        if let (Entry::At(host), true) = (entry, self.is_fixed()) {
            let run = self.blocks.storage.extent(host, len)?;
            if run.zero {
                return Ok(Extent {
                    len: run.len.min(len),
                    kind: ExtentKind::Zero {
                        host_offset: Some(host),
                    },
                });
            }
            return self.blocks.map(offset, run.len.min(len));
        }
        self.blocks.map(offset, len)
    }

    fn locate(&self, offset: u64, len: u64) -> Result<Extent> {
        self.blocks.map(offset, len)
    }

    fn has_fixed_places(&self) -> bool {
        self.is_fixed()
    }

    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        self.blocks.storage(slot)
    }

    fn visit_files<'a>(&'a self, visit: &mut dyn FnMut(FormatFile<'a>)) {
        visit(FormatFile::own(&self.blocks.storage));
    }

    fn closed_files(&self) -> Vec<(FileRole, BString)> {
        Vec::new()
    }

    fn read_encoded(&self, _buf: &mut [u8], _offset: u64) -> Result<()> {
        Err(Error::new(
            crate::ErrorKind::Internal,
            "Nothing is encoded in a VDI image",
        ))
    }

    fn begin_io(&self) -> IoGuard<'_> {
        self.blocks.begin_io()
    }

    fn info(&self) -> Result<FormatInfo> {
        Ok(FormatInfo {
            cluster_size: Some(self.blocks.layout().block_size()),
            ..FormatInfo::default()
        })
    }

    fn parent(&self) -> Option<ParentRef> {
        self.parent_ref()
    }

    fn parent_search(&self) -> Option<&'static ParentSearch> {
        Some(&overlay::SEARCH)
    }

    fn parent_id(&self) -> Option<ParentId> {
        Some(overlay::id_of(&self.blocks.keeper.header()))
    }

    fn backing_change(&self) -> Option<&dyn BackingChange> {
        Some(self)
    }

    fn close(&self) -> Result<()> {
        self.blocks.flush(self.blocks.durability())
    }

    fn checker(&self) -> Option<&dyn Check> {
        Some(self)
    }

    fn writer(&self) -> Option<&dyn FormatWrite> {
        Some(self)
    }

    fn immediate(&self) -> Option<&dyn Immediate> {
        Some(self)
    }
}

impl FormatWrite for Vdi {
    fn write(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()> {
        self.note_change()?;
        self.blocks.write(buf, offset, below)
    }

    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()> {
        self.note_change()?;
        self.blocks.write_zeroes(offset, len, flags, below)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.note_change()?;
        self.blocks.discard(offset, len)
    }

    fn flush(&self, durability: Durability) -> Result<()> {
        self.blocks.flush(durability)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        Some(self)
    }
}

impl Resize for Vdi {
    fn resize_above(
        &self,
        len: u64,
        preallocation: Preallocation,
        below: &dyn Below,
        control: &JobControl,
    ) -> Result<()> {
        self.note_change()?;
        self.resize(len, preallocation, below, control)
    }
}

impl Immediate for Vdi {
    fn try_locate(&self, offset: u64, len: u64) -> Result<Option<Extent>> {
        Ok(self.blocks.map_now(offset, len))
    }

    fn try_read_encoded(&self, _buf: &mut [u8], _offset: u64) -> Result<bool> {
        // Nothing is encoded.
        Ok(false)
    }

    fn begin_long_io(&self) -> LongIoGuard {
        self.blocks.begin_long_io()
    }

    fn overwrites_memory(&self, offset: u64, len: u64) -> bool {
        self.in_place_range(offset, len).is_some() && self.blocks.storage.limits().writes_to_memory
    }

    fn in_place_range(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)> {
        match self.is_noted.load(Ordering::Acquire) {
            true => self.blocks.in_place_range(offset, len),
            false => None,
        }
    }

    fn note_in_place_write(&self, _offset: u64, _len: u64) {}

    fn direct_range(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)> {
        self.in_place_range(offset, len)
    }

    fn flush_plan(&self, durability: Durability) -> FlushPlan {
        self.blocks.flush_plan(durability)
    }

    fn note_failed_flush(&self) {
        self.blocks.note_failed_flush();
    }
}
