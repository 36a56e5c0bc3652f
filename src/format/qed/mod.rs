//! QED: clusters behind tables in two levels, over a backing file or none.

mod check;
mod create;
mod disk;
mod inspect;
mod open;
mod overlay;
mod records;
mod resize;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bstr::BString;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Extent, StorageSlot};
use crate::format::blocks::{Blocks, Layout};
use crate::format::{
    BackingChange, Below, Check, ChildSpec, Features, FileRole, FlushPlan, Format, FormatDriver,
    FormatFile, FormatInfo, FormatWrite, Immediate, IoGuard, LongIoGuard, ParentRef, Resize,
    Signature,
};
use crate::job::JobControl;
use crate::storage::{Durability, Preallocation, Storage, ZeroFlags};

use disk::MAGIC;
use records::Records;

/// The QED format.
pub static DRIVER: FormatDriver = FormatDriver {
    name: "qed",
    of_images: Features::WRITE
        .union(Features::RESIZE)
        .union(Features::CHECK)
        .union(Features::REPAIR),
    signature: Some(Signature {
        rank: 20,
        fits: |file| file.starts(MAGIC),
        footer: None,
    }),
    has_metadata: true,
    is_transparent: false,
    is_stream: false,
    children: &[ChildSpec::FILE, ChildSpec::BACKING],
    open: open::open,
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
struct Qed {
    blocks: Blocks<Records>,
    /// Features that are lost by a change are gone from the header.
    is_noted: AtomicBool,
    /// The name of the backing file, as it stands in the image.
    backing: parking_lot::Mutex<Option<BString>>,
}

impl Qed {
    /// Clears the features that are lost by a change, before the first one.
    fn note_change(&self) -> Result<()> {
        self.blocks.check_writable()?;
        if !self.is_noted.load(Ordering::Acquire) {
            let storage = &*self.blocks.storage;
            let cleared = self
                .blocks
                .keeper
                .change(storage, |header| header.autoclear = 0)?;
            if cleared {
                self.blocks.barrier()?;
            }
            self.is_noted.store(true, Ordering::Release);
        }
        Ok(())
    }
}

impl Format for Qed {
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
        self.blocks.map(offset, len)
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
            ErrorKind::Internal,
            "Nothing is encoded in a QED image",
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

    fn backing_change(&self) -> Option<&dyn BackingChange> {
        Some(self)
    }

    fn close(&self) -> Result<()> {
        self.blocks.close()
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

impl FormatWrite for Qed {
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

impl Resize for Qed {
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

impl Immediate for Qed {
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
