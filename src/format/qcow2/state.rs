//! An open qcow2 image: the state that all parts of the driver share.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::error::{Error, Result};
use crate::format::decoded::DecodedUnits;
use crate::format::inflight::InFlight;
use crate::format::read_ahead::ReadAhead;
use crate::storage::data_cipher::DataCipher;
use crate::storage::{Durability, Step, Storage, steps};

use super::allocator::{Alloc, L1_UNIT};
use super::bitmaps::recorder::Recorder;
use super::cache::{Cache, Class, Slice};
use super::disk::{CompressionType, ImageHeader, L1Entry, RefcountWidth};
use super::events;
use super::hex::Hex;
use super::layout::Layout;
use super::overlap::MetaMap;
use super::snapshot::views::{View, Views};
use crate::format::limbo::Limbo;
use crate::format::units::Units;

/// Number of write units in a table of this many words.
pub(super) fn units_of(words: usize) -> u64 {
    (words as u64).div_ceil(L1_UNIT)
}

/// An open image.
///
/// Lock order, outermost first: `reshaping`, an in-flight reservation, the bitmaps' session,
/// `l2_alloc`, `pass`, `read_ahead`, `l1`, `alloc`,
/// `header`; then the cache's own locks and the small ones. None is held across data I/O except `reshaping`, which no
/// read or write takes, and the reservation, which only excludes others that remap the same guest clusters.
#[derive(Debug)]
pub struct Qcow2 {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) data_file: Option<Arc<dyn Storage>>,
    pub(super) layout: Layout,
    /// 2 or 3; see [`Qcow2::version`].
    pub(super) version: AtomicU32,
    pub(super) has_data_file: bool,
    pub(super) raw_data_file: bool,
    pub(super) has_backing: AtomicBool,
    /// Refcounts are written late; see [`Qcow2::lazy`].
    pub(super) lazy: AtomicBool,
    /// log2 of the refcount bits; see [`Qcow2::counts`].
    pub(super) refcount_order: AtomicU32,
    pub(super) encrypted: bool,
    /// The cipher of guest data, if the image is encrypted and open for more than its metadata.
    pub(super) cipher: Option<DataCipher>,
    /// The ID of the secret that opened the image.
    pub(super) secret_id: Option<String>,
    pub(super) read_only: bool,
    /// Opened for writing guest data: the allocator is loaded and knows where metadata is.
    pub(super) protected: bool,
    pub(super) durability: Durability,
    /// Level for compressed writes; None for the default.
    pub(super) compression_level: Option<i64>,
    pub(super) header: Mutex<ImageHeader>,
    pub(super) size: AtomicU64,
    pub(super) l1: RwLock<L1>,
    /// Units of the L1 table that differ from the disk.
    pub(super) l1_dirty: Mutex<Units>,
    /// Held while an L2 table is allocated or copied.
    pub(super) l2_alloc: Mutex<()>,
    pub(super) cache: Cache,
    pub(super) read_ahead: ReadAhead,
    /// Decoded clusters, kept after a compressed cluster was read in part.
    pub(super) decoded: DecodedUnits,
    pub(super) alloc: Mutex<Alloc>,
    pub(super) meta: MetaMap,
    pub(super) limbo: Limbo,
    pub(super) inflight: InFlight,
    /// Held by the one thread that resizes or amends the image or changes its snapshots.
    pub(super) reshaping: Mutex<()>,
    /// Held by the one thread that writes metadata out.
    pub(super) pass: Mutex<()>,
    /// Held by the one thread that releases freed clusters.
    pub(super) reclaiming: Mutex<()>,
    pub(super) recorder: Recorder,
    /// The first write has been prepared for: dirty bit, bitmaps.
    pub(super) prepared: Mutex<bool>,
    pub(super) is_prepared: AtomicBool,
    /// The snapshots of this image that are being read.
    pub(super) views: Views,
    /// In a view of a snapshot, keeps the snapshot from being deleted.
    pub(super) _view: Option<View>,
    /// Metadata was found damaged: no more writes are allowed.
    pub(super) broken: AtomicBool,
    /// Refcounts are higher than the number of references, and the dirty bit has to stay set because of that.
    pub(super) uncounted: AtomicBool,
    /// A sync failed: what it covered may be lost, so no later flush may succeed.
    pub(super) lost: AtomicBool,
}

/// The active L1 table.
#[derive(Debug, Default)]
pub(super) struct L1 {
    /// Host offset.
    pub(super) offset: u64,
    /// The entries of the table.
    pub(super) entries: Box<[AtomicU64]>,
}

impl L1 {
    /// The entry at `index`; 0 past the end.
    pub(super) fn get(&self, index: u64) -> L1Entry {
        let entry = usize::try_from(index)
            .ok()
            .and_then(|index| self.entries.get(index));
        L1Entry(entry.map_or(0, |entry| entry.load(Ordering::Acquire)))
    }

    /// Number of write units of the table.
    pub(super) fn units(&self) -> u64 {
        units_of(self.entries.len())
    }
}

impl Qcow2 {
    /// The virtual size in bytes.
    pub(super) fn virtual_size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// The version of the format, which an amendment may change.
    pub(super) fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether refcounts are written late, under the dirty bit.
    pub(super) fn lazy(&self) -> bool {
        self.lazy.load(Ordering::Acquire)
    }

    /// The layout with the present width of refcounts, which an amendment may change.
    pub(super) fn counts(&self) -> Layout {
        let order = self.refcount_order.load(Ordering::Acquire);
        match RefcountWidth::from_order(order) {
            Some(width) => Layout(self.layout.with_refcount_width(width)),
            None => self.layout,
        }
    }

    /// The compression type of compressed clusters.
    pub(super) fn compression(&self) -> CompressionType {
        self.header.lock().header.compression
    }

    /// The storage that holds guest data.
    pub(super) fn data_storage(&self) -> &Arc<dyn Storage> {
        self.data_file.as_ref().unwrap_or(&self.storage)
    }

    /// A cached slice of a table, loaded where needed. `offset` is a multiple of the slice size.
    pub(super) fn slice(&self, class: Class, offset: u64) -> Result<Arc<Slice>> {
        self.cache
            .get(class, offset, |bytes| self.load(class, bytes, offset))
    }

    /// `count` slices of a table from `offset` on; those that are not cached are read together.
    pub(super) fn slices(&self, class: Class, offset: u64, count: u64) -> Result<Vec<Arc<Slice>>> {
        self.cache.get_run(class, offset, count, |bytes, at| {
            self.load(class, bytes, at)
        })
    }

    /// Announces a step that is about to be taken on the image's own file.
    pub(super) fn announce(&self, step: Step) {
        steps::announce(&*self.storage, step);
    }

    /// Reads slices of a table.
    fn load(&self, class: Class, bytes: &mut [u8], offset: u64) -> Result<()> {
        self.check_table_in_file(offset)?;
        self.announce(match class {
            Class::L2 => Step::L2Load,
            Class::Refcount => Step::RefblockLoad,
        });
        self.storage.read_at(bytes, offset)?;
        trace_load(class, bytes, offset);
        Ok(())
    }

    /// Refuses a slice of a table that lies past the end of the file.
    fn check_table_in_file(&self, offset: u64) -> Result<()> {
        let table = offset - self.layout.in_cluster(offset);
        if table >= self.storage.len()? {
            return Err(Error::corrupt(format!(
                "'{}': a metadata table at offset {table:#x} lies past the end of the file",
                self.storage.name()
            ))
            .with_offset(table));
        }
        Ok(())
    }

    /// The slice of the L2 table at `table` that maps the guest offset, and the entry's index in it.
    pub(super) fn l2_slice(&self, table: u64, guest: u64) -> Result<(Arc<Slice>, u64)> {
        let (offset, index) = self.l2_place(table, guest);
        Ok((self.slice(Class::L2, offset)?, index))
    }

    /// As [`Self::l2_slice`], if the slice is in memory: in this cache or the host's.
    pub(super) fn l2_slice_now(&self, table: u64, guest: u64) -> Option<(Arc<Slice>, u64)> {
        let (offset, index) = self.l2_place(table, guest);
        let slice = self.cache.try_get(Class::L2, offset, |bytes| {
            self.check_table_in_file(offset)?;
            let loaded = self
                .storage
                .try_read(&mut [IoSliceMut::new(bytes)], offset)?;
            if loaded {
                trace_load(Class::L2, bytes, offset);
            }
            Ok(loaded)
        })?;
        Some((slice, index))
    }

    /// The offset of that slice, and the entry's index in it.
    pub(super) fn l2_place(&self, table: u64, guest: u64) -> (u64, u64) {
        let index = self.layout.l2_index(guest);
        let in_slice = index % self.layout.slice_entries();
        let first = index - in_slice;
        (table + first * self.layout.l2_entry_size() as u64, in_slice)
    }

    /// The L1 entry for a guest offset, with its table's alignment checked. None if there is no table.
    pub(super) fn l2_table(&self, guest: u64) -> Result<Option<L1Entry>> {
        let index = self.layout.l1_index(guest);
        let entry = self.l1.read().get(index);
        let offset = entry.offset();
        if offset == 0 {
            return Ok(None);
        }
        if self.layout.in_cluster(offset) != 0 {
            return Err(self.corruption(
                format!(
                    "L2 table offset {} unaligned (L1 index: {})",
                    Hex(offset),
                    Hex(index)
                ),
                offset,
            ));
        }
        Ok(Some(entry))
    }

    /// Replaces an L1 entry in memory; the next pass writes it.
    pub(super) fn set_l1(&self, index: u64, entry: L1Entry) {
        let l1 = self.l1.read();
        if let Some(slot) = usize::try_from(index)
            .ok()
            .and_then(|index| l1.entries.get(index))
        {
            slot.store(entry.0, Ordering::Release);
            self.l1_dirty.lock().add(index / L1_UNIT);
        }
    }

    /// Refuses to write if the image is not open for that.
    pub(super) fn check_writable(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::open_read_only(self.storage.name()));
        }
        if self.encrypted && self.cipher.is_none() {
            return Err(Error::needs_secret("encrypt.key-secret"));
        }
        if !self.protected {
            return Err(Error::invalid(format!(
                "'{}' was opened for its metadata alone",
                self.storage.name()
            )));
        }
        if self.broken.load(Ordering::Acquire) {
            return Err(Error::corrupt(format!(
                "'{}': the image is marked corrupt; no more writes are accepted",
                self.storage.name()
            )));
        }
        Ok(())
    }

    /// Refuses a guest range that passes the end of the image.
    pub(super) fn check_range(&self, offset: u64, len: u64) -> Result<u64> {
        offset
            .checked_add(len)
            .filter(|end| *end <= self.virtual_size())
            .ok_or_else(|| {
                Error::invalid(format!(
                    "'{}': the range at {offset} of {len} bytes passes the end of the image",
                    self.storage.name()
                ))
            })
    }
}

pub(super) fn trace_load(class: Class, bytes: &[u8], offset: u64) {
    let event = match class {
        Class::L2 => &events::L2_LOAD,
        Class::Refcount => &events::REFCOUNT_LOAD,
    };
    event.emit(|| format!("offset={offset:#x} bytes={}", bytes.len()));
}
