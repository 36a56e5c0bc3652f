//! The driver as the registry sees it: one trait method per operation.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bstr::BString;

use crate::error::Result;
use crate::extent::{Extent, StorageSlot};
use crate::format::blocks::main_slot;
use crate::format::unstated::{among, of};
use crate::format::{
    BackingChange, BackingRef, Below, Check, ChildSpec, Compress, DecodeAhead, Features, FileRole,
    FlushPlan, Format, FormatDriver, FormatFile, FormatInfo, FormatWrite, Immediate, IoGuard,
    Lineage, LongIoGuard, ParentRef, Signature,
};
use crate::options::COMPRESSION_LEVEL;
use crate::storage::{Durability, Storage, ZeroFlags};

use super::disk::MAGIC;
use super::{Qcow, create, inspect, open};

/// The entry in the registry.
pub static DRIVER: FormatDriver = FormatDriver {
    name: "qcow",
    of_images: Features::WRITE
        .union(Features::COMPRESS)
        .union(Features::CHECK)
        .union(Features::REPAIR),
    signature: Some(Signature {
        rank: 80,
        fits: |file| file.starts(MAGIC),
        footer: None,
    }),
    has_metadata: true,
    is_transparent: false,
    is_stream: false,
    children: &[ChildSpec::FILE, ChildSpec::BACKING],
    open: open::open,
    read_in_order: None,
    inspect: inspect::inspect,
    create: Some(create::plan),
    outline: create::outline,
    measure: Some(create::measure),
    create_options: create::OPTIONS,
    unstated: &[
        among("encrypt.format", &["aes"]),
        of(COMPRESSION_LEVEL, "2"),
    ],
    own_options: &[COMPRESSION_LEVEL],
    summary: create::SUMMARY,
    amend_options: &[],
    open_options: open::OPTIONS,
    secret_option: Some("encrypt.key-secret"),
    strong_options: &["encrypt.key-secret"],
    events: &[],
};

impl Format for Qcow {
    fn driver(&self) -> &'static str {
        DRIVER.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn cluster_size(&self) -> Option<u32> {
        u32::try_from(self.geometry.cluster()).ok()
    }

    fn request_alignment(&self) -> u32 {
        if self.encrypted { 512 } else { 1 }
    }

    fn map(&self, offset: u64, len: u64) -> Result<Extent> {
        let _io = self.users.enter();
        self.run(offset, len).map(|run| self.shown(run))
    }

    fn map_ahead(&self, offset: u64, end: u64) {
        if self.read_ahead.is_on() {
            let _io = self.users.enter();
            self.look_ahead(offset, end);
        }
    }

    fn status_span(&self) -> Option<u64> {
        Some(self.geometry.cluster())
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
        self.read_coded(buf, offset)
    }

    fn begin_io(&self) -> IoGuard<'_> {
        self.users.enter()
    }

    fn info(&self) -> Result<FormatInfo> {
        Ok(FormatInfo {
            cluster_size: Some(self.geometry.cluster()),
            encrypted: self.encrypted,
            ..FormatInfo::default()
        })
    }

    fn backing_change(&self) -> Option<&dyn BackingChange> {
        Some(self)
    }

    fn close(&self) -> Result<()> {
        self.flush_all(self.durability)
    }

    fn checker(&self) -> Option<&dyn Check> {
        Some(self)
    }

    fn lineage(&self) -> Option<&dyn Lineage> {
        Some(self)
    }

    fn writer(&self) -> Option<&dyn FormatWrite> {
        Some(self)
    }

    fn immediate(&self) -> Option<&dyn Immediate> {
        Some(self)
    }

    fn decode_ahead(&self) -> Option<&dyn DecodeAhead> {
        Some(self)
    }
}

impl Lineage for Qcow {
    fn parent(&self) -> Option<ParentRef> {
        let name = self.backing.lock().clone()?;
        Some(ParentRef::named(BackingRef { name, format: None }))
    }
}

impl DecodeAhead for Qcow {
    fn decode_ahead(&self, offset: u64, most: u64) -> Result<u64> {
        let cluster = self.geometry.cluster();
        if cluster > most {
            return Ok(offset.saturating_add(cluster));
        }
        let _io = self.users.enter();
        self.decode_cluster_ahead(offset)
    }

    fn keep_more(&self, bytes: usize) {
        self.decoded.keep_more(bytes);
    }
}

impl FormatWrite for Qcow {
    fn write(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()> {
        self.write_guest(buf, offset, below)
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

    fn compressor(&self) -> Option<&dyn Compress> {
        (!self.encrypted).then_some(self as &dyn Compress)
    }
}

impl Immediate for Qcow {
    fn try_locate(&self, offset: u64, len: u64) -> Result<Option<Extent>> {
        let run = self.try_run(offset, len)?;
        Ok(run.map(|run| self.shown(run)))
    }

    fn try_read_encoded(&self, _buf: &mut [u8], _offset: u64, _may_decode: bool) -> Result<bool> {
        Ok(false)
    }

    fn begin_long_io(&self) -> LongIoGuard {
        self.users.enter_long()
    }

    fn overwrites_memory(&self, offset: u64, len: u64) -> bool {
        self.try_place(offset, len).is_some() && self.storage.limits().writes_to_memory
    }

    fn in_place_range(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)> {
        self.try_place(offset, len)
    }

    fn note_in_place_write(&self, _offset: u64, _len: u64) {}

    fn direct_range(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)> {
        self.try_place(offset, len)
    }

    fn flush_plan(&self, durability: Durability) -> FlushPlan {
        self.try_flush_plan(durability)
    }

    fn note_failed_flush(&self) {
        self.lost.store(true, Ordering::Release);
    }
}
