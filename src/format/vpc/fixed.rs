//! A fixed disk: the guest bytes in a line, the footer behind them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bstr::BString;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::blocks::main_slot;
use crate::format::{
    Below, FileRole, FlushPlan, Format, FormatFile, FormatInfo, FormatWrite, Immediate, IoGuard,
    LongIoGuard, ParentId, ParentRef, Resize,
};
use crate::job::JobControl;
use crate::storage::{Durability, Preallocation, Storage, ZeroFlags, grow};

use super::disk::{FOOTER_LEN, Footer, Geometry};
use super::{DRIVER, check_size};

/// An open fixed disk.
#[derive(Debug)]
pub(super) struct Fixed {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) footer: Mutex<Footer>,
    pub(super) len: AtomicU64,
    pub(super) writable: bool,
    pub(super) durability: Durability,
}

impl Fixed {
    fn check_writable(&self) -> Result<()> {
        match self.writable {
            true => Ok(()),
            false => Err(Error::os(libc::EROFS)),
        }
    }

    fn barrier(&self) -> Result<()> {
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

    fn parent(&self) -> Option<ParentRef> {
        None
    }

    fn parent_id(&self) -> Option<ParentId> {
        Some(ParentId::Uuid(self.footer.lock().uuid))
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

    fn immediate(&self) -> Option<&dyn Immediate> {
        Some(self)
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
    /// The footer is written behind the new end before what was there last is given up: at every instant one
    /// of them ends the file.
    fn resize_above(
        &self,
        len: u64,
        preallocation: Preallocation,
        _: &dyn Below,
        control: &JobControl,
    ) -> Result<()> {
        self.check_writable()?;
        check_size(len)?;
        let old = self.len();
        if len == old {
            return Ok(());
        }
        if preallocation == Preallocation::Metadata {
            return Err(Error::unsupported(
                "Unsupported preallocation mode: metadata",
            ));
        }
        if len < old && preallocation != Preallocation::Off {
            return Err(Error::invalid(
                "Preallocation can't be used for shrinking an image",
            ));
        }
        let footer = &mut *self.footer.lock();
        let mut new = footer.clone();
        new.current_size = len;
        new.geometry = Geometry::MAX;
        let storage = &*self.storage;
        let file_len = storage.len()?;
        let end = len + FOOTER_LEN as u64;
        if storage.limits().fixed_len && end != file_len {
            return Err(Error::unsupported("Cannot resize device files"));
        }
        if len > old {
            grow(storage, end, preallocation, control)?;
            let moved = storage
                .write_at(&new.to_bytes(), len)
                .and_then(|()| self.barrier());
            if let Err(error) = moved {
                // The footer that counts is where it was.
                let _ = storage.set_len(file_len, Preallocation::Off);
                return Err(error);
            }
            // What was behind the old end is the guest's now.
            storage.write_zeroes(old, (file_len - old).min(len - old), ZeroFlags::empty())?;
        } else {
            control.checkpoint()?;
            storage.write_at(&new.to_bytes(), len)?;
            self.barrier()?;
            storage.set_len(end, Preallocation::Off)?;
        }
        self.barrier()?;
        *footer = new;
        self.len.store(len, Ordering::Release);
        Ok(())
    }
}

impl Immediate for Fixed {
    fn try_locate(&self, offset: u64, len: u64) -> Result<Option<Extent>> {
        self.locate(offset, len).map(Some)
    }

    fn try_read_encoded(&self, _buf: &mut [u8], _offset: u64) -> Result<bool> {
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
        // The storage remembers it.
    }
}
