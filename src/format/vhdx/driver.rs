//! The driver as the registry sees it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bstr::BString;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::unstated::{of, one_of};
use crate::format::{
    BackingChange, Below, Check, ChildSpec, Features, FileRole, FlushPlan, Format, FormatDriver,
    FormatFile, FormatInfo, FormatWrite, Immediate, IoGuard, Lineage, LongIoGuard, ParentId,
    ParentRef, Resize, Sectors, Signature,
};
use crate::job::JobControl;
use crate::storage::{Durability, Preallocation, Storage, ZeroFlags};

use super::create;
use super::disk::SIGNATURE;
use super::open;
use super::parent;
use super::state::Vhdx;

/// The driver's entry in the registry.
pub static DRIVER: FormatDriver = FormatDriver {
    name: "vhdx",
    of_images: Features::WRITE
        .union(Features::CHECK)
        .union(Features::REPAIR)
        .union(Features::RESIZE),
    signature: Some(Signature {
        rank: 30,
        fits: |file| file.starts(SIGNATURE),
        footer: None,
    }),
    has_metadata: true,
    is_transparent: false,
    is_stream: false,
    children: &[ChildSpec::FILE, ChildSpec::PARENT],
    open: |context| Ok(Box::new(Vhdx::open(&context)?)),
    read_in_order: None,
    inspect: super::inspect::inspect,
    create: Some(create::plan),
    outline: create::outline,
    measure: Some(create::measure),
    create_options: create::OPTIONS,
    unstated: &[
        of("block_state_zero", "on"),
        of("log_size", "1048576"),
        one_of("subformat", "dynamic", &["dynamic", "fixed"]),
    ],
    own_options: create::OWN,
    summary: create::SUMMARY,
    amend_options: &[],
    open_options: open::OPTIONS,
    secret_option: None,
    strong_options: open::STRONG_OPTIONS,
    events: &[],
};

impl Format for Vhdx {
    fn driver(&self) -> &'static str {
        DRIVER.name
    }

    fn len(&self) -> u64 {
        self.virtual_size()
    }

    fn cluster_size(&self) -> Option<u32> {
        Some(self.geometry().block_size() as u32)
    }

    fn layer_unit(&self) -> Option<u32> {
        Some(match self.geometry().has_parent() {
            true => self.geometry().sector() as u32,
            false => self.geometry().block_size() as u32,
        })
    }

    fn request_alignment(&self) -> u32 {
        // In a partially present block, each sector is either here or in the parent.
        match self.geometry().has_parent() {
            true => self.geometry().sector() as u32,
            false => 1,
        }
    }

    fn map(&self, offset: u64, len: u64) -> Result<Extent> {
        let _guard = self.limbo.enter();
        let extent = self.map_run(offset, len)?;
        let ExtentKind::Data { host_offset, .. } = extent.kind else {
            return Ok(extent);
        };
        // Blocks are large: the host knows best which parts of them were never written. If it cannot tell, the tables
        // decide, which are all that QEMU's tools look at.
        let run = match self.storage.extent(host_offset, extent.len) {
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(_) => return Ok(extent),
            Ok(run) => run,
        };
        Ok(Extent {
            len: run.len.min(extent.len),
            kind: match run.zero {
                true => ExtentKind::Zero {
                    slot: StorageSlot::MAIN,
                    host_offset: Some(host_offset),
                },
                false => extent.kind,
            },
        })
    }

    fn map_ahead(&self, offset: u64, end: u64) {
        if self.read_ahead.is_on() {
            let _guard = self.limbo.enter();
            self.look_ahead(offset, end);
        }
    }

    fn locate(&self, offset: u64, len: u64) -> Result<Extent> {
        self.map_run(offset, len)
    }

    fn has_fixed_places(&self) -> bool {
        self.fixed
    }

    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        if slot == StorageSlot::MAIN {
            return Ok(&self.storage);
        }
        Err(Error::new(ErrorKind::Internal, "A VHDX has one file only"))
    }

    fn visit_files<'a>(&'a self, visit: &mut dyn FnMut(FormatFile<'a>)) {
        visit(FormatFile::own(&self.storage));
    }

    fn closed_files(&self) -> Vec<(FileRole, BString)> {
        Vec::new()
    }

    fn read_encoded(&self, _buf: &mut [u8], _offset: u64) -> Result<()> {
        Err(Error::new(
            ErrorKind::Internal,
            "Nothing in a VHDX is encoded",
        ))
    }

    fn begin_io(&self) -> IoGuard<'_> {
        self.limbo.enter()
    }

    fn info(&self) -> Result<FormatInfo> {
        Ok(FormatInfo {
            cluster_size: Some(self.geometry().block_size()),
            ..FormatInfo::default()
        })
    }

    fn close(&self) -> Result<()> {
        self.close_all()
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

    fn backing_change(&self) -> Option<&dyn BackingChange> {
        Some(self)
    }

    fn immediate(&self) -> Option<&dyn Immediate> {
        Some(self)
    }
}

impl Lineage for Vhdx {
    fn parent(&self) -> Option<ParentRef> {
        let metadata = self.metadata.lock();
        let locator = metadata.items.locator.as_ref()?;
        parent::of_locator(locator).ok()
    }

    fn id(&self) -> Option<ParentId> {
        Some(ParentId::DataWriteGuid(
            self.headers.lock().current.data_write,
        ))
    }

    fn disk_id(&self) -> Option<Uuid> {
        Some(self.disk_id)
    }

    fn sectors(&self) -> Option<Sectors> {
        let items = &self.metadata.lock().items;
        Some(Sectors {
            logical: items.logical_sector,
            physical: items.physical_sector,
        })
    }
}

impl FormatWrite for Vhdx {
    fn write(&self, buf: &[u8], offset: u64, _below: &dyn Below) -> Result<()> {
        self.write_guest(buf, offset)
    }

    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()> {
        self.zero_guest(offset, len, flags, below)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.discard_guest(offset, len)
    }

    fn flush(&self, durability: Durability) -> Result<()> {
        self.flush_all(durability)
    }

    fn prepare(&self) -> Result<()> {
        self.prepare_write()
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        Some(self)
    }
}

impl Resize for Vhdx {
    fn resize_above(
        &self,
        len: u64,
        preallocation: Preallocation,
        below: &dyn Below,
        control: &JobControl,
    ) -> Result<()> {
        self.check_writable()?;
        let _one = self.reshaping.lock();
        self.change_size(len, preallocation, below, control)
    }
}

impl Immediate for Vhdx {
    fn try_locate(&self, offset: u64, len: u64) -> Result<Option<Extent>> {
        self.try_map(offset, len)
    }

    fn try_read_encoded(&self, _buf: &mut [u8], _offset: u64, _may_decode: bool) -> Result<bool> {
        // Nothing is encoded.
        Ok(false)
    }

    fn begin_long_io(&self) -> LongIoGuard {
        self.limbo.enter_long()
    }

    fn overwrites_memory(&self, offset: u64, len: u64) -> bool {
        self.storage.limits().writes_to_memory && self.try_place(offset, len).is_some()
    }

    fn in_place_range(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)> {
        self.try_place(offset, len)
    }

    fn note_in_place_write(&self, _offset: u64, _len: u64) {}

    fn direct_range(&self, _offset: u64, _len: u64) -> Option<(StorageSlot, u64)> {
        None
    }

    fn flush_plan(&self, durability: Durability) -> FlushPlan {
        self.way_to_flush(durability)
    }

    fn note_failed_flush(&self) {
        self.lost.store(true, Ordering::Release);
    }
}
