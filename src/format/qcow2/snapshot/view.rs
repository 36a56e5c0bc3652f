//! Reading a snapshot.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bstr::BStr;
use parking_lot::{Mutex, RwLock};

use crate::error::{Error, Result};
use crate::format::decoded::DecodedUnits;
use crate::format::inflight::InFlight;
use crate::format::limbo::Limbo;
use crate::format::qcow2::bitmaps::recorder::Recorder;
use crate::format::qcow2::cache::Cache;
use crate::format::qcow2::disk::MAX_L1_BYTES;
use crate::format::qcow2::overlap::MetaMap;
use crate::format::qcow2::state::{L1, Qcow2};
use crate::format::read_ahead::ReadAhead;
use crate::memory;
use crate::storage::Durability;

use super::table::position;

/// Memory for the tables of a view, in bytes.
const CACHE_BYTES: u64 = 8 << 20;

impl Qcow2 {
    /// A read-only view of the image as it was.
    pub(super) fn view_snapshot(&self, id: &BStr) -> Result<Self> {
        let (entries, _) = self.snapshot_table()?;
        let at = position(&entries, id)?;
        let Some(entry) = entries.get(at) else {
            return Err(Self::no_snapshot(id));
        };
        let tables = self.snapshot_l1(entry)?;
        let size = entry.extra.disk_size.unwrap_or(self.virtual_size());
        if size > i64::MAX as u64 || self.layout.l1_entries(size) * 8 > MAX_L1_BYTES {
            return Err(Error::corrupt("The snapshot records an impossible size"));
        }
        let mut image = self.header.lock().clone();
        image.header.l1_offset = entry.l1_offset;
        image.header.l1_entries = entry.l1_entries;
        image.header.size = size;
        Ok(Self {
            storage: self.storage.clone(),
            data_file: self.data_file.clone(),
            layout: self.layout,
            version: self.version().into(),
            has_data_file: self.has_data_file,
            compression_level: self.compression_level,
            raw_data_file: self.raw_data_file,
            has_backing: self.has_backing().into(),
            lazy: AtomicBool::default(),
            refcount_order: self.refcount_order.load(Ordering::Acquire).into(),
            encrypted: self.encrypted,
            cipher: self.cipher.clone(),
            secret_id: None,
            read_only: true,
            protected: false,
            durability: Durability::None,
            header: Mutex::new(image),
            size: AtomicU64::new(size),
            l1: RwLock::new(L1 {
                offset: entry.l1_offset,
                entries: memory::collect(tables.into_iter().map(AtomicU64::new))?
                    .into_boxed_slice(),
            }),
            l1_dirty: Mutex::default(),
            l2_alloc: Mutex::default(),
            cache: Cache::new(self.layout.slice_bytes() as usize, CACHE_BYTES),
            alloc: Mutex::default(),
            meta: MetaMap::default(),
            decoded: DecodedUnits::default(),
            limbo: Limbo::default(),
            inflight: InFlight::default(),
            reshaping: Mutex::default(),
            pass: Mutex::default(),
            reclaiming: Mutex::default(),
            read_ahead: ReadAhead::of(&*self.storage),
            recorder: Recorder::default(),
            prepared: Mutex::default(),
            is_prepared: AtomicBool::default(),
            views: self.views.clone(),
            _view: Some(self.views.enter(id)),
            broken: AtomicBool::default(),
            uncounted: AtomicBool::default(),
            lost: AtomicBool::default(),
        })
    }
}
