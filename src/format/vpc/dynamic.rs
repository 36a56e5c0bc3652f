//! A dynamic disk: blocks that are allocated when they are written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bstr::BString;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::extent::{Extent, StorageSlot};
use crate::format::blocks::{Blocks, Layout};
use crate::format::{
    BackingChange, Below, Check, FileRole, FlushPlan, Format, FormatFile, FormatInfo, FormatWrite,
    Immediate, IoGuard, LongIoGuard, ParentId, ParentRef, Resize,
};
use crate::job::JobControl;
use crate::storage::{Durability, Preallocation, Storage, ZeroFlags};

use super::DRIVER;
use super::differencing::Differencing;
use super::disk::DynamicHeader;
use super::open::Damage;
use super::records::Records;

/// An open dynamic disk.
#[derive(Debug)]
pub(super) struct Dynamic {
    pub(super) blocks: Blocks<Records>,
    pub(super) header: Mutex<DynamicHeader>,
    /// Both footers are whole: it was seen to, or they were.
    is_whole: AtomicBool,
    /// What counts while there is a parent.
    differencing: Differencing,
}

impl Dynamic {
    pub(super) fn new(
        blocks: Blocks<Records>,
        header: DynamicHeader,
        parent: Option<ParentRef>,
    ) -> Self {
        Self {
            differencing: Differencing::new(parent),
            is_whole: AtomicBool::new(blocks.keeper.damage() == Damage::None),
            blocks,
            header: Mutex::new(header),
        }
    }

    /// Which sectors are the disk's own; None where all are.
    pub(super) fn own(&self) -> Option<&Differencing> {
        self.blocks.is_overlay().then_some(&self.differencing)
    }

    /// The disk has that parent from now on, or none; nothing of what was known of sectors counts.
    pub(super) fn set_parent(&self, parent: Option<ParentRef>) {
        let is_overlay = parent.is_some();
        self.differencing.sectors.clear();
        *self.differencing.parent.lock() = parent;
        self.blocks.keeper.set_differencing(is_overlay);
        self.blocks.set_overlay(is_overlay);
    }

    /// Before the first change both footers are made whole.
    pub(super) fn make_whole(&self) -> Result<()> {
        self.blocks.check_writable()?;
        if self.is_whole.load(Ordering::Acquire) {
            return Ok(());
        }
        let end = self.blocks.used()?;
        self.blocks.keeper.repair(&*self.blocks.storage, end)?;
        self.is_whole.store(true, Ordering::Release);
        Ok(())
    }
}

impl Format for Dynamic {
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
        if let Some(own) = self.own() {
            return self.map_sectors(own, offset, len);
        }
        let _io = self.blocks.begin_io();
        self.blocks.map(offset, len)
    }

    fn layer_unit(&self) -> Option<u32> {
        match self.own() {
            Some(_) => Some(512),
            None => self.cluster_size(),
        }
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
            "Nothing is encoded in a VPC image",
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
        self.own()?.parent.lock().clone()
    }

    fn parent_id(&self) -> Option<ParentId> {
        Some(ParentId::Uuid(self.blocks.keeper.footer().uuid))
    }

    fn close(&self) -> Result<()> {
        self.flush(self.blocks.durability())
    }

    fn backing_change(&self) -> Option<&dyn BackingChange> {
        Some(self)
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

impl FormatWrite for Dynamic {
    fn write(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()> {
        self.make_whole()?;
        if let Some(own) = self.own() {
            return self.write_sectors(own, buf, offset, below);
        }
        self.blocks.write(buf, offset, below)
    }

    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()> {
        self.make_whole()?;
        if let Some(own) = self.own() {
            return self.zero_sectors(own, offset, len, flags, below);
        }
        self.blocks.write_zeroes(offset, len, flags, below)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.make_whole()?;
        if let Some(own) = self.own() {
            return self.discard_sectors(own, offset, len);
        }
        self.blocks.discard(offset, len)
    }

    fn flush(&self, durability: Durability) -> Result<()> {
        match self.own() {
            Some(own) => self.flush_sectors(own, durability),
            None => self.blocks.flush(durability),
        }
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        Some(self)
    }
}

impl Resize for Dynamic {
    fn resize_above(
        &self,
        len: u64,
        preallocation: Preallocation,
        below: &dyn Below,
        control: &JobControl,
    ) -> Result<()> {
        self.make_whole()?;
        self.resize(len, preallocation, below, control)
    }
}

impl Immediate for Dynamic {
    fn try_locate(&self, offset: u64, len: u64) -> Result<Option<Extent>> {
        match self.own() {
            // Bitmaps may have to be read.
            Some(_) => Ok(None),
            None => Ok(self.blocks.map_now(offset, len)),
        }
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
        match self.is_whole.load(Ordering::Acquire) && self.own().is_none() {
            true => self.blocks.in_place_range(offset, len),
            false => None,
        }
    }

    fn note_in_place_write(&self, _offset: u64, _len: u64) {}

    fn direct_range(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)> {
        self.in_place_range(offset, len)
    }

    fn flush_plan(&self, durability: Durability) -> FlushPlan {
        match self.own() {
            Some(_) => FlushPlan::Call,
            None => self.blocks.flush_plan(durability),
        }
    }

    fn note_failed_flush(&self) {
        self.blocks.note_failed_flush();
    }
}
