//! The driver as registered: one trait method per operation.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bstr::BString;

use crate::bytes::be32;
use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::qcow2::data_file::DATA;
use crate::format::unstated::of;
use crate::format::{
    Amend, BackingChange, BackingRef, Below, Bitmaps, Check, ChildSpec, Compress, DecodeAhead,
    Features, FileRole, FlushPlan, Format, FormatDriver, FormatFile, FormatInfo, FormatWrite,
    Immediate, IoGuard, Lineage, LongIoGuard, OpenContext, ParentRef, Resize, Signature, Snapshots,
    SpaceCount,
};
use crate::job::JobControl;
use crate::options::COMPRESSION_LEVEL;
use crate::storage::{Durability, Preallocation, Storage, ZeroFlags};

use super::create;
use super::disk::MAGIC;
use super::state::Qcow2;

/// The driver's entry in the registry.
pub static DRIVER: FormatDriver = FormatDriver {
    name: "qcow2",
    of_images: Features::WRITE
        .union(Features::COMPRESS)
        .union(Features::CHECK)
        .union(Features::RESIZE)
        .union(Features::REPAIR)
        .union(Features::SNAPSHOTS)
        .union(Features::BITMAPS),
    signature: Some(Signature {
        rank: 70,
        fits: |file| file.starts(&MAGIC) && be32(file.head, 4).is_some_and(|version| version >= 2),
        footer: None,
    }),
    has_metadata: true,
    is_transparent: false,
    is_stream: false,
    children: &[ChildSpec::FILE, ChildSpec::DATA_FILE, ChildSpec::BACKING],
    open,
    read_in_order: None,
    inspect: super::inspect::inspect,
    create: Some(create::plan),
    outline: create::outline,
    measure: Some(super::measure::measure),
    create_options: create::OPTIONS,
    unstated: &[of("compat", "1.1"), of("data_file_raw", "off")],
    own_options: &[COMPRESSION_LEVEL],
    summary: create::SUMMARY,
    amend_options: super::amend::OPTIONS,
    open_options: super::open_options::OPTIONS,
    secret_option: Some("encrypt.key-secret"),
    strong_options: &["encrypt.key-secret"],
    events: super::events::ALL,
};

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    Ok(Box::new(Qcow2::open(&context)?))
}

impl Format for Qcow2 {
    fn driver(&self) -> &'static str {
        "qcow2"
    }

    fn len(&self) -> u64 {
        self.virtual_size()
    }

    fn cluster_size(&self) -> Option<u32> {
        Some(self.layout.cluster_size() as u32)
    }

    fn layer_unit(&self) -> Option<u32> {
        Some(self.layout.subcluster_size() as u32)
    }

    fn request_alignment(&self) -> u32 {
        if self.encrypted { 512 } else { 1 }
    }

    fn map(&self, offset: u64, len: u64) -> Result<Extent> {
        let _guard = self.limbo.enter();
        let mut extent = self.map_run(offset, len)?;
        if self.encrypted && matches!(extent.kind, ExtentKind::Data { .. }) {
            extent.kind = ExtentKind::Encoded { compressed: false };
        }
        Ok(extent)
    }

    fn map_ahead(&self, offset: u64, end: u64) {
        if self.read_ahead.is_on() {
            let _guard = self.limbo.enter();
            self.look_ahead(offset, end);
        }
    }

    fn status_span(&self) -> Option<u64> {
        let (entries, cluster) = (self.layout.l2_entries(), self.layout.cluster_size());
        entries.checked_mul(cluster)
    }

    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        match slot {
            StorageSlot::MAIN => Ok(&self.storage),
            DATA => self.data_file.as_ref().ok_or_else(|| {
                Error::new(
                    ErrorKind::Invalid,
                    format!("'{}': the data file is not open", self.storage.name()),
                )
            }),
            StorageSlot(other) => Err(Error::new(
                ErrorKind::Internal,
                format!("qcow2 has no storage {other}"),
            )),
        }
    }

    fn visit_files<'a>(&'a self, visit: &mut dyn FnMut(FormatFile<'a>)) {
        visit(FormatFile::own(&self.storage));
        if let Some(data) = &self.data_file {
            visit(FormatFile::data(DATA, data));
        }
    }

    fn closed_files(&self) -> Vec<(FileRole, BString)> {
        if !self.has_data_file || self.data_file.is_some() {
            return Vec::new();
        }
        let name = self.header.lock().data_file_name();
        vec![(FileRole::Data, name.unwrap_or_default())]
    }

    fn read_encoded(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read_coded(buf, offset)
    }

    fn begin_io(&self) -> IoGuard<'_> {
        self.limbo.enter()
    }

    fn info(&self) -> Result<FormatInfo> {
        let image = self.header.lock().clone();
        super::info::info(&self.storage, &image)
    }

    fn close(&self) -> Result<()> {
        self.close_all()
    }

    fn checker(&self) -> Option<&dyn Check> {
        Some(self)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }

    fn amender(&self) -> Option<&dyn Amend> {
        Some(self)
    }

    fn bitmaps(&self) -> Option<&dyn Bitmaps> {
        (self.version() >= 3).then_some(self as &dyn Bitmaps)
    }

    fn backing_change(&self) -> Option<&dyn BackingChange> {
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

    fn space_count(&self) -> Option<&dyn SpaceCount> {
        Some(self)
    }

    fn decode_ahead(&self) -> Option<&dyn DecodeAhead> {
        Some(self)
    }
}

impl Lineage for Qcow2 {
    fn parent(&self) -> Option<ParentRef> {
        let image = self.header.lock();
        Some(ParentRef::named(BackingRef {
            name: image.backing_file.clone()?.into(),
            format: image.backing_format(),
        }))
    }
}

impl DecodeAhead for Qcow2 {
    fn decode_ahead(&self, offset: u64, most: u64) -> Result<u64> {
        let cluster = self.layout.cluster_size();
        if cluster > most {
            return Ok(offset.saturating_add(cluster));
        }
        self.decode_cluster_ahead(offset)
    }

    fn keep_more(&self, bytes: usize) {
        self.decoded.keep_more(bytes);
    }
}

impl FormatWrite for Qcow2 {
    fn write(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()> {
        let written = self.write_guest(buf, offset, below);
        self.record(offset, buf.len() as u64);
        written
    }

    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()> {
        let zeroed = self.zero_guest(offset, len, flags, below);
        self.record(offset, len);
        zeroed
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let discarded = self.discard_guest(offset, len);
        self.record(offset, len);
        discarded
    }

    fn flush(&self, durability: Durability) -> Result<()> {
        self.flush_all(durability)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        Some(self)
    }

    fn compressor(&self) -> Option<&dyn Compress> {
        (!self.has_data_file && !self.encrypted).then_some(self as &dyn Compress)
    }
}

impl Resize for Qcow2 {
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

impl Immediate for Qcow2 {
    fn try_locate(&self, offset: u64, len: u64) -> Result<Option<Extent>> {
        let mut extent = self.try_map(offset, len)?;
        if let Some(extent) = extent.as_mut()
            && self.encrypted
            && matches!(extent.kind, ExtentKind::Data { .. })
        {
            extent.kind = ExtentKind::Encoded { compressed: false };
        }
        Ok(extent)
    }

    fn try_read_encoded(&self, buf: &mut [u8], offset: u64, may_decode: bool) -> Result<bool> {
        self.try_read_coded(buf, offset, may_decode)
    }

    fn begin_long_io(&self) -> LongIoGuard {
        self.limbo.enter_long()
    }

    fn overwrites_memory(&self, offset: u64, len: u64) -> bool {
        !self.encrypted
            && self.is_prepared.load(Ordering::Acquire)
            && self.data_storage().limits().writes_to_memory
            && self.try_is_in_place(offset, len)
    }

    fn in_place_range(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)> {
        self.try_place(offset, len)
    }

    fn note_in_place_write(&self, offset: u64, len: u64) {
        self.record(offset, len);
    }

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

impl SpaceCount for Qcow2 {
    fn host_bytes_in_use(&self, enough: u64) -> Result<u64> {
        let bits = self.layout.cluster_bits();
        self.count_clusters_in_use(enough.div_ceil(1 << bits))
            .map(|clusters| clusters << bits)
    }
}
