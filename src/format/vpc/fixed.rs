//! A fixed disk: contiguous guest bytes, followed by the footer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bstr::BString;
use parking_lot::Mutex;

use crate::error::{Error, Result, ResultExt};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::blocks::main_slot;
use crate::format::{
    Below, Check, FileRole, FlushPlan, Format, FormatFile, FormatInfo, FormatWrite, Immediate,
    IoGuard, Lineage, LongIoGuard, ParentId, ParentRef, Resize,
};
use crate::job::JobControl;
use crate::storage::{Durability, Preallocation, Storage, ZEROES_FAILED, ZeroFlags, fill, zero};

use super::behind::{holds_data, two_sizes};
use super::disk::{FOOTER_LEN, Footer, Geometry};
use super::{DRIVER, MAX_FIXED, check_size};

/// An open fixed disk.
#[derive(Debug)]
pub(super) struct Fixed {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) footer: Mutex<Footer>,
    pub(super) len: AtomicU64,
    pub(super) writable: bool,
    pub(super) durability: Durability,
    /// The checksum of the footer is wrong.
    pub(super) is_damaged: AtomicBool,
}

impl Fixed {
    fn check_writable(&self) -> Result<()> {
        match self.writable {
            true => Ok(()),
            false => Err(Error::os(libc::EROFS)),
        }
    }

    pub(super) fn barrier(&self) -> Result<()> {
        match self.durability {
            Durability::Synced => self.storage.sync(Durability::Synced),
            _ => Ok(()),
        }
    }
}

impl Format for Fixed {
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
        let run = self.storage.extent(offset, len)?;
        let kind = if run.zero {
            ExtentKind::Zero {
                slot: StorageSlot::MAIN,
                host_offset: Some(offset),
            }
        } else {
            ExtentKind::Data {
                slot: StorageSlot::MAIN,
                host_offset: offset,
            }
        };
        Ok(Extent {
            len: run.len.min(len),
            kind,
        })
    }

    fn locate(&self, offset: u64, len: u64) -> Result<Extent> {
        let kind = ExtentKind::Data {
            slot: StorageSlot::MAIN,
            host_offset: offset,
        };
        Ok(Extent { len, kind })
    }

    fn has_fixed_places(&self) -> bool {
        true
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
        self.storage.read_at(buf, offset)
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

    fn lineage(&self) -> Option<&dyn Lineage> {
        Some(self)
    }

    fn writer(&self) -> Option<&dyn FormatWrite> {
        Some(self)
    }

    fn checker(&self) -> Option<&dyn Check> {
        Some(self)
    }

    fn immediate(&self) -> Option<&dyn Immediate> {
        Some(self)
    }
}

impl Lineage for Fixed {
    fn parent(&self) -> Option<ParentRef> {
        None
    }

    fn id(&self) -> Option<ParentId> {
        Some(ParentId::Uuid(self.footer.lock().uuid))
    }
}

impl FormatWrite for Fixed {
    fn write(&self, buf: &[u8], offset: u64, _below: &dyn Below) -> Result<()> {
        self.check_writable()?;
        self.storage.write_at(buf, offset)
    }

    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        _below: &dyn Below,
    ) -> Result<()> {
        self.check_writable()?;
        self.storage.write_zeroes(offset, len, flags)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.check_writable()?;
        let flags = ZeroFlags::MAY_UNMAP | ZeroFlags::NO_FALLBACK;
        self.storage.write_zeroes(offset, len, flags)
    }

    fn flush(&self, durability: Durability) -> Result<()> {
        self.storage.sync(durability)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        Some(self)
    }
}

impl Resize for Fixed {
    /// At all times the file ends with a footer: one with the old size is written after the new space until that is
    /// ready, and a single write of one sector puts the new size into effect. What is past the new end is removed last.
    fn resize_above(
        &self,
        len: u64,
        preallocation: Preallocation,
        _: &dyn Below,
        control: &JobControl,
    ) -> Result<()> {
        self.check_writable()?;
        check_size(len, MAX_FIXED)?;
        let old = self.len();
        if len == old {
            return Ok(());
        }
        if preallocation == Preallocation::Metadata {
            return Err(Error::no_metadata_preallocation());
        }
        if len < old && preallocation != Preallocation::Off {
            return Err(Error::no_preallocated_shrink());
        }
        let footer = &mut *self.footer.lock();
        let mut new = footer.clone();
        new.current_size = len;
        new.geometry = Geometry::MAX;
        new.shrunk_from = None;
        let storage = &*self.storage;
        let file_len = storage.len()?;
        let end = len + FOOTER_LEN as u64;
        let limits = storage.limits();
        if limits.fixed_len && end != file_len {
            return Err(Error::unsupported(format!(
                "Cannot resize {}",
                limits.fixed_kind
            )));
        }
        if end < file_len {
            storage.check_shrink(end)?;
        }
        control.checkpoint()?;
        let last = last_footer(file_len);
        let named = old..footer.largest_size().min(last);
        if len > old && holds_data(storage, named, footer, || control.checkpoint())? {
            return Err(two_sizes(footer));
        }
        let behind = footer.largest_size()..last;
        if !is_being_cut(footer, last)
            && !limits.fixed_len
            && holds_data(storage, behind, footer, || control.checkpoint())?
        {
            return Err(Error::unsupported(
                "There is data between the disk and its footer, which may say too small a size; convert the image to leave that behind",
            ));
        }
        if len > last {
            let made = storage
                .write_at(&footer.to_bytes(), len)
                .and_then(|()| self.barrier())
                .and_then(|()| make_space(storage, file_len, len, preallocation, control));
            if let Err(error) = made {
                // The old footer is as good as the new one.
                let _ = storage.set_len(file_len, Preallocation::Off);
                return Err(error);
            }
        }
        if len > old {
            // What was past the old end belongs to the guest now.
            storage.write_zeroes(old, file_len.min(len) - old, ZeroFlags::empty())?;
            self.barrier()?;
        }
        // Until the file is truncated, the footer says that what is past the disk is not data.
        let mut published = new.clone();
        published.shrunk_from = (len < last).then_some(last);
        storage.write_at(&published.to_bytes(), last.max(len))?;
        *footer = new;
        self.len.store(len, Ordering::Release);
        self.barrier()?;
        if len < last {
            storage.write_at(&footer.to_bytes(), len)?;
            self.barrier()?;
            storage.set_len(end, Preallocation::Off)?;
            self.barrier()?;
        }
        Ok(())
    }
}

/// Whether the footer, which is at `last`, says that a shrink has begun there.
pub(super) fn is_being_cut(footer: &Footer, last: u64) -> bool {
    footer.shrunk_from == Some(last)
}

/// The offset of the footer in a file of that length; a footer of 511 bytes counts as complete, too.
pub(super) fn last_footer(file_len: u64) -> u64 {
    let len = FOOTER_LEN as u64;
    file_len.saturating_sub(len - 1) / len * len
}

/// Fills `start..end`, where nothing has been written yet, with zeroes, preallocated as requested.
fn make_space(
    storage: &dyn Storage,
    start: u64,
    end: u64,
    preallocation: Preallocation,
    control: &JobControl,
) -> Result<()> {
    if start >= end {
        return Ok(());
    }
    let is_full = preallocation == Preallocation::Full;
    if preallocation != Preallocation::Off || !storage.limits().grown_is_zero {
        control.expect(end - start);
        // Even for a full preallocation: a full disk is noticed before any time is spent.
        zero(storage, start, end, ZeroFlags::empty(), control).context(|| match is_full {
            true => ZEROES_FAILED.into(),
            false => "Could not preallocate new data".into(),
        })?;
    }
    match is_full {
        true => fill(storage, start, end, control),
        false => Ok(()),
    }
}

impl Immediate for Fixed {
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

    fn overwrites_memory(&self, _offset: u64, _len: u64) -> bool {
        self.storage.limits().writes_to_memory
    }

    fn in_place_range(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)> {
        self.direct_range(offset, len)
    }

    fn note_in_place_write(&self, _offset: u64, _len: u64) {}

    fn direct_range(&self, offset: u64, _len: u64) -> Option<(StorageSlot, u64)> {
        self.writable.then_some((StorageSlot::MAIN, offset))
    }

    fn flush_plan(&self, durability: Durability) -> FlushPlan {
        FlushPlan::of(StorageSlot::MAIN, self.storage.sync_plan(durability))
    }

    fn note_failed_flush(&self) {
        // The storage remembers the failure.
    }
}
