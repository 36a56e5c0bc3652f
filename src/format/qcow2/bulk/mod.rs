//! Writing a new image: host space from a cursor, one open L2 table, one open refcount block, and the header last.
//!
//! Until [`Bulk::finish`] the header cluster holds zeroes, so that an interrupted run leaves a
//! file that no program takes for an image. Memory: two clusters, a write buffer of 1 MiB, and
//! 8 bytes for each L2 table and refcount block.

mod batch;
pub(super) mod space;
mod tables;

use std::io::IoSlice;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::codec::{Compression, Encoder};
use crate::crypto::luks::{CreateOptions, NewVolume};
use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageSlot;
use crate::format::crypt::HeaderArea;
use crate::format::qcow2::data_file::DATA;
use crate::format::qcow2::disk::{
    CryptoExtension, Extension, Geometry, ImageHeader, L2Entry, SubclusterBitmap,
};
use crate::format::qcow2::open::NewParts;
use crate::format::qcow2::partial::PartialClusters;
use crate::format::qcow2::state::Qcow2;
use crate::format::{Bulk, Format, InitialContent, OpenNewContext, Reserved};
use crate::job::JobControl;
use crate::memory::{self, IoBuf};
use crate::secret::Secret;
use crate::size::SECTOR;
use crate::storage::data_cipher::DataCipher;
use crate::storage::{
    Durability, Preallocation, Storage, ZeroFlags, first_sector, grow, write_fresh, zero,
};

/// How far ahead the growth of the file is announced.
const EXPECTED: u64 = 256 << 20;

use space::HostSpace;
use tables::{Linear, Tables};

/// The arguments of [`Qcow2Bulk::new`].
#[derive(Debug)]
pub struct NewFiles {
    /// The empty image file.
    pub storage: Arc<dyn Storage>,
    /// The external data file.
    pub data: Option<Arc<dyn Storage>>,
    /// The header, except for the offsets of tables.
    pub header: ImageHeader,
    /// How clusters are compressed.
    pub compression: Compression,
    /// Anything but `Off` allocates every guest cluster at once.
    pub preallocation: Preallocation,
    /// Ends long operations.
    pub control: Arc<JobControl>,
    /// What was prepared before the files were opened.
    pub draft: Draft,
}

/// The tables of a new image, all in memory: nothing is written yet.
#[derive(Debug)]
pub struct Draft {
    geometry: Geometry,
    space: HostSpace,
    tables: Tables,
    encryption: Option<NewEncryption>,
}

impl Draft {
    /// The tables of an empty image; `encryption` is given if the header says that its data is encrypted.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn new(
        geometry: Geometry,
        l1_entries: u64,
        encryption: Option<NewEncryption>,
    ) -> Result<Self> {
        Ok(Self {
            geometry,
            space: HostSpace::new(geometry)?,
            tables: Tables::new(geometry, l1_entries)?,
            encryption,
        })
    }
}

/// How the data of a new image is encrypted.
#[derive(Debug)]
pub enum NewEncryption {
    /// The legacy cipher.
    Aes(DataCipher),
    /// Encrypted by the volume that this header describes.
    Luks(Box<NewVolume>),
}

/// A new image that is being filled.
#[derive(Debug)]
pub struct Qcow2Bulk {
    storage: Arc<dyn Storage>,
    data: Option<Arc<dyn Storage>>,
    cipher: Option<DataCipher>,
    geometry: Geometry,
    size: u64,
    has_backing: bool,
    version: u32,
    compression: Compression,
    preallocation: Preallocation,
    /// New space in the storages reads as zeroes.
    fresh: bool,
    /// Ends long operations.
    control: Arc<JobControl>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    header: ImageHeader,
    space: HostSpace,
    tables: Tables,
    /// Guest bytes before this offset are done.
    next_guest: u64,
    /// The storage has been told to expect writes up to here.
    expected: u64,
    /// Where the next compressed data may go.
    partial: PartialClusters,
    /// Some clusters are compressed.
    compressed: bool,
    finished: bool,
}

impl Qcow2Bulk {
    /// Starts the image; with preallocation, also lays it out.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`], or if I/O fails.
    pub fn new(target: NewFiles) -> Result<Self> {
        let NewFiles {
            storage,
            data,
            mut header,
            compression,
            preallocation,
            control,
            draft,
        } = target;
        let Draft {
            geometry,
            mut space,
            tables,
            encryption,
        } = draft;
        let holds_data = data.as_ref().unwrap_or(&storage);
        let fresh = holds_data.limits().grown_is_zero && holds_data.is_empty()?;
        if !storage.is_empty()? {
            // A device, or a file of another tool: old contents must not be taken for the header.
            storage.write_zeroes(0, geometry.cluster_size(), ZeroFlags::empty())?;
        }
        let size = header.header.size;
        let cipher = match encryption {
            None => None,
            Some(new) => Some(new.start(&storage, geometry, &mut space, &mut header)?),
        };
        let bulk = Self {
            cipher,
            geometry,
            size,
            has_backing: header.backing_file.is_some(),
            version: header.header.version,
            compression,
            preallocation,
            fresh,
            state: Mutex::new(State {
                tables,
                space,
                header,
                next_guest: 0,
                expected: 0,
                partial: PartialClusters::new(geometry.cluster_bits()),
                compressed: false,
                finished: false,
            }),
            storage,
            data,
            control,
        };
        if preallocation != Preallocation::Off {
            bulk.preallocate()?;
        }
        Ok(bulk)
    }

    /// Allocates all L2 tables and guest clusters: tables first, then the data contiguously.
    fn preallocate(&self) -> Result<()> {
        let control = &*self.control;
        let state = &mut *self.state.lock();
        let cluster = self.geometry.cluster_size();
        let clusters = self.geometry.guest_clusters(self.size);
        let tables = state.tables.l1_entries() as u64;
        let l1 = state.space.take(self.l1_clusters(state), &*self.storage)?;
        state.header.header.l1_offset = l1;
        let first_table = state.space.take(tables, &*self.storage)?;
        if self.data.is_some() {
            let linear = Linear { base: 0, clusters };
            state.tables.preallocate(first_table, linear, &self.control);
            return Ok(());
        }
        // The refcounts are all 1, so that their blocks can go before the data too.
        let place = state.space.finish(clusters, &*self.storage, control)?;
        state.header.header.reftable_offset = place.reftable_offset;
        state.header.header.reftable_clusters = place.reftable_clusters;
        let base = place.l1_offset;
        state
            .tables
            .preallocate(first_table, Linear { base, clusters }, &self.control);
        let end = base
            .checked_add(clusters * cluster)
            .ok_or_else(Error::image_too_large)?;
        let len = self.storage.len()?;
        if self.fresh {
            self.storage.set_len(base.max(len), Preallocation::Off)?;
            let mode = match self.preallocation {
                Preallocation::Metadata => Preallocation::Off,
                mode => mode,
            };
            grow(&*self.storage, end, mode, control)
        } else {
            let flags = match self.preallocation {
                Preallocation::Metadata => ZeroFlags::MAY_UNMAP,
                _ => ZeroFlags::empty(),
            };
            control.expect(end - base);
            zero(&*self.storage, base, end, flags, control)
        }
    }

    /// Announces to the storage, in large steps, how far the file is about to grow.
    fn hint_growth(&self, state: &mut State) {
        let used = state.space.next() * self.geometry.cluster_size();
        if used <= state.expected {
            return;
        }
        if !self.fresh || self.data.is_some() || state.tables.linear().is_some() {
            state.expected = u64::MAX;
            return;
        }
        let left = self.size.saturating_sub(state.next_guest);
        state.expected = used.saturating_add(left.min(EXPECTED));
        if let Some(host) = self.storage.host() {
            host.hint_growth(state.expected);
        }
    }

    /// Where the finished file ends: with its last cluster, but with the last sector of its L1 table if it is
    /// compressed, since clusters of megabytes would undo much of the savings.
    fn end_of_file(&self, state: &State, l1_bytes: u64) -> u64 {
        let end = state.space.next() * self.geometry.cluster_size();
        let l1 = state.header.header.l1_offset;
        let l1_is_last = l1 + self.l1_clusters(state) * self.geometry.cluster_size() == end;
        if !state.compressed || !l1_is_last {
            return end;
        }
        l1 + l1_bytes.next_multiple_of(SECTOR)
    }

    fn l1_clusters(&self, state: &State) -> u64 {
        self.geometry
            .clusters_for(state.tables.l1_entries() as u64 * 8)
    }

    /// Checks a reservation and returns its end.
    fn check_order(&self, state: &State, guest_offset: u64, len: u64) -> Result<u64> {
        let unit = self.geometry.subcluster_size();
        let end = guest_offset.checked_add(len).filter(|&end| {
            len > 0
                && end <= self.size
                && guest_offset.is_multiple_of(unit)
                && (end.is_multiple_of(unit) || end == self.size)
        });
        match end {
            Some(end) if guest_offset >= state.next_guest && !state.finished => Ok(end),
            _ => Err(Error::out_of_order(guest_offset, len)),
        }
    }

    /// The subclusters of guest cluster `cluster` that `guest..end` covers: the first and their number.
    fn subclusters(&self, cluster: u64, guest: u64, end: u64) -> (u32, u32) {
        let size = self.geometry.subcluster_size();
        let start = cluster << self.geometry.cluster_bits();
        let first = guest.saturating_sub(start) / size;
        let last = end
            .saturating_sub(start)
            .min(self.geometry.cluster_size())
            .div_ceil(size);
        (first as u32, last.saturating_sub(first) as u32)
    }

    /// Whether part of guest cluster `first` has already been written, and its place is not fixed in advance.
    fn continues(&self, state: &State, first: u64) -> bool {
        let begun = first << self.geometry.cluster_bits() < state.next_guest;
        begun && self.data.is_none() && state.tables.linear().is_none()
    }

    /// The host offset of guest cluster `first`, the first of `count` contiguous clusters; of a single one if it
    /// continues a cluster.
    fn host_run(&self, state: &mut State, first: u64, count: u64) -> Result<u64> {
        let cluster = self.geometry.cluster_size();
        if let Some(linear) = state.tables.linear() {
            return Ok(linear.base + first * cluster);
        }
        if self.data.is_some() {
            return Ok(first * cluster);
        }
        if self.continues(state, first) {
            // Further subclusters of the last cluster.
            let (entry, _) = state.tables.get(first, &*self.storage)?;
            if entry.offset() != 0 && !entry.is_compressed() {
                return Ok(entry.offset());
            }
        }
        state.space.take(count, &*self.storage)
    }
}

impl Bulk for Qcow2Bulk {
    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        match (slot, &self.data) {
            (StorageSlot::MAIN, _) => Ok(&self.storage),
            (DATA, Some(data)) => Ok(data),
            _ => Err(Error::new(
                ErrorKind::Internal,
                format!("The new image has no storage {}", slot.0),
            )),
        }
    }

    fn data_storages(&self) -> Vec<&Arc<dyn Storage>> {
        vec![self.data.as_ref().unwrap_or(&self.storage)]
    }

    fn takes_raw_writes(&self) -> bool {
        self.cipher.is_none()
    }

    fn write_data(
        &self,
        (slot, host): (StorageSlot, u64),
        guest_offset: u64,
        bufs: &[IoSlice<'_>],
    ) -> Result<()> {
        let storage = self.storage(slot)?;
        match (&self.cipher, bufs) {
            (Some(cipher), bufs) => cipher.write(&**storage, bufs, host, guest_offset),
            (None, bufs) => write_fresh(&**storage, bufs, host),
        }
    }

    fn write_zero_data(
        &self,
        (slot, host): (StorageSlot, u64),
        guest_offset: u64,
        len: u64,
    ) -> Result<()> {
        let storage = self.storage(slot)?;
        match &self.cipher {
            Some(cipher) => cipher.write_zeroes(&**storage, len, host, guest_offset),
            None => storage.write_zeroes(host, len, ZeroFlags::empty()),
        }
    }

    fn encode_unit(&self) -> Option<u32> {
        Some(self.geometry.cluster_size() as u32)
    }

    fn zero_unit(&self) -> u32 {
        self.geometry.subcluster_size() as u32
    }

    fn alignment(&self) -> u64 {
        self.geometry.cluster_size()
    }

    fn initial_content(&self) -> InitialContent {
        let linear = self.preallocation != Preallocation::Off;
        // Zeroes on the host decrypt to noise.
        let zero = self.fresh && self.cipher.is_none();
        InitialContent {
            // Subclusters of preallocated clusters start unallocated.
            unreserved_is_zero: !linear || zero || self.geometry.extended_l2(),
            unwritten_is_zero: zero,
        }
    }

    fn encode(
        &self,
        scratch: &mut Encoder,
        _guest_offset: u64,
        unit: &[u8],
        out: &mut IoBuf,
    ) -> Result<bool> {
        let size = self.geometry.cluster_size() as usize;
        if self.data.is_some() || self.cipher.is_some() {
            return Err(Error::no_compression());
        }
        if unit.len() >= size {
            return scratch.encode(self.compression, unit, size, out);
        }
        // The cluster at the end of the image is stored in full.
        let mut padded = memory::zeroed(size)?;
        for (to, from) in padded.iter_mut().zip(unit) {
            *to = *from;
        }
        scratch.encode(self.compression, &padded, size, out)
    }

    fn reserve(&self, guest_offset: u64, len: u64) -> Result<Reserved> {
        let state = &mut *self.state.lock();
        let asked = self.check_order(state, guest_offset, len)?;
        let first = self.geometry.cluster_of(guest_offset);
        let end = match self.continues(state, first) {
            // Other clusters may have been allocated since this one.
            true => asked.min((first + 1) << self.geometry.cluster_bits()),
            false => asked,
        };
        let last = self.geometry.cluster_of(end - 1);
        let out = &*self.storage;
        state.tables.place(first, last, &mut state.space, out)?;
        let host = self.host_run(state, first, last - first + 1)?;
        if state.tables.linear().is_none() || self.geometry.extended_l2() {
            for cluster in first..=last {
                let (from, count) = self.subclusters(cluster, guest_offset, end);
                let bitmap = if self.geometry.extended_l2() {
                    let (_, old) = state.tables.get(cluster, out)?;
                    old.with_allocated(from, count)
                } else {
                    SubclusterBitmap::default()
                };
                let offset = host + (cluster - first) * self.geometry.cluster_size();
                let entry = L2Entry::data(offset, true);
                state.tables.set(cluster, entry, bitmap, out)?;
            }
        }
        state.next_guest = end;
        self.hint_growth(state);
        let slot = if self.data.is_some() {
            DATA
        } else {
            StorageSlot::MAIN
        };
        let (offset, len) = (
            host + self.geometry.in_cluster(guest_offset),
            end - guest_offset,
        );
        let behind = end.next_multiple_of(self.geometry.subcluster_size()) - end;
        if behind > 0 && self.data.is_none() && !self.initial_content().unwritten_is_zero {
            // A larger disk would expose the old contents.
            self.write_zero_data((slot, offset + len), end, behind)?;
        }
        Ok(Reserved { slot, offset, len })
    }

    fn reserve_encoded(&self, guest_offset: u64, encoded_len: u32) -> Result<(StorageSlot, u64)> {
        let state = &mut *self.state.lock();
        let cluster = self.geometry.cluster_size();
        let len = u64::from(encoded_len);
        if self.data.is_some() || self.cipher.is_some() || state.tables.linear().is_some() {
            return Err(Error::no_compression());
        }
        let rest = self.size.saturating_sub(guest_offset).min(cluster);
        let end = self.check_order(state, guest_offset, rest)?;
        if !guest_offset.is_multiple_of(cluster) || len == 0 || len >= cluster {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("{len} compressed bytes at guest offset {guest_offset} are no unit"),
            ));
        }
        let index = self.geometry.cluster_of(guest_offset);
        let out = &*self.storage;
        state.tables.place(index, index, &mut state.space, out)?;
        let host = state.pack(len, &self.geometry, out)?;
        state.compressed = true;
        let entry = L2Entry::compressed(host, len, &self.geometry).ok_or_else(|| {
            Error::new(
                ErrorKind::Limit,
                "The image would grow too large for compressed clusters",
            )
            .with_errno(libc::EFBIG)
        })?;
        state
            .tables
            .set(index, entry, SubclusterBitmap::default(), out)?;
        state.next_guest = end;
        Ok((StorageSlot::MAIN, host))
    }

    fn reserve_zero(&self, guest_offset: u64, len: u64) -> Result<()> {
        let state = &mut *self.state.lock();
        let end = self.check_order(state, guest_offset, len)?;
        if !self.has_backing {
            state.next_guest = end;
            return Ok(());
        }
        if self.version < 3 {
            return Err(Error::unsupported(
                "Version 2 images cannot hide a backing file behind zeroes without storing them",
            ));
        }
        let out = &*self.storage;
        let (first, last) = (
            self.geometry.cluster_of(guest_offset),
            self.geometry.cluster_of(end - 1),
        );
        state.tables.place(first, last, &mut state.space, out)?;
        for cluster in first..=last {
            if self.geometry.extended_l2() {
                let (from, count) = self.subclusters(cluster, guest_offset, end);
                let (entry, old) = state.tables.get(cluster, out)?;
                let bitmap = old.with_zero(from, count);
                state.tables.set(cluster, entry, bitmap, out)?;
            } else {
                let entry = L2Entry::zero(None);
                state
                    .tables
                    .set(cluster, entry, SubclusterBitmap::default(), out)?;
            }
        }
        state.next_guest = end;
        Ok(())
    }

    fn finish(&self, durability: Durability) -> Result<()> {
        let state = &mut *self.state.lock();
        if state.finished {
            return Err(Error::new(
                ErrorKind::Internal,
                "The new image is finished already",
            ));
        }
        state.finished = true;
        let out = &*self.storage;
        state.tables.finish(out)?;
        let l1 = state.tables.l1_bytes()?;
        if state.header.header.reftable_clusters == 0 {
            let preallocated = state.tables.linear().is_some();
            let clusters = if preallocated {
                0
            } else {
                self.l1_clusters(state)
            };
            let place = state.space.finish(clusters, out, &self.control)?;
            state.header.header.reftable_offset = place.reftable_offset;
            state.header.header.reftable_clusters = place.reftable_clusters;
            if !preallocated && !l1.is_empty() {
                state.header.header.l1_offset = place.l1_offset;
            }
        }
        if !l1.is_empty() {
            out.write_at(&l1, state.header.header.l1_offset)?;
        }
        let end = self.end_of_file(state, l1.len() as u64);
        let len = out.len()?;
        // Less may have been written than was announced.
        let spare = (1..u64::MAX).contains(&state.expected) && len > end;
        if (len < end || spare) && !out.limits().fixed_len {
            out.set_len(end, Preallocation::Off)?;
        }
        if let Some(data) = &self.data {
            data.sync(durability)?;
        }
        let header = state.header.to_bytes()?;
        let (first, rest) = first_sector(&header);
        if !rest.is_empty() {
            out.write_at(rest, SECTOR)?;
        }
        if durability == Durability::Synced {
            // The header must not reach the disk before what it points to.
            out.sync(durability)?;
        }
        out.write_at(first, 0)?;
        out.sync(durability)
    }

    fn open_finished(&self, context: &OpenNewContext<'_>) -> Result<Box<dyn Format>> {
        let new = NewParts {
            storage: self.storage.clone(),
            data_file: self.data.clone(),
            image: self.state.lock().header.clone(),
            cipher: self.cipher.clone(),
        };
        Ok(Box::new(Qcow2::of_new(new, context)?))
    }
}

impl NewEncryption {
    /// The legacy cipher with a passphrase.
    ///
    /// # Errors
    /// If the cipher cannot be set up.
    pub fn aes(passphrase: &Secret) -> Result<Self> {
        DataCipher::aes(passphrase.bytes()).map(Self::Aes)
    }

    /// A LUKS header with the passphrase in its first key slot.
    ///
    /// # Errors
    /// As [`NewVolume::new`].
    pub fn luks(
        options: &CreateOptions,
        passphrase: &Secret,
        control: &JobControl,
    ) -> Result<Self> {
        NewVolume::new(options, false, passphrase.bytes(), control)
            .map(Box::new)
            .map(Self::Luks)
    }

    /// Returns the cipher; for LUKS, the header is allocated and written at once.
    fn start(
        self,
        storage: &Arc<dyn Storage>,
        geometry: Geometry,
        space: &mut HostSpace,
        image: &mut ImageHeader,
    ) -> Result<DataCipher> {
        let new = match self {
            Self::Aes(cipher) => return Ok(cipher),
            Self::Luks(new) => new,
        };
        let len = new.header_len();
        let offset = space.take(geometry.clusters_for(len), &**storage)?;
        let volume = new.write(&HeaderArea::new(storage.clone(), offset))?;
        for extension in &mut image.extensions {
            if let Extension::Crypto(place) = extension {
                *place = CryptoExtension { offset, len };
            }
        }
        Ok(DataCipher::luks(&volume))
    }
}

impl State {
    /// Reserves host bytes for compressed data of `len` bytes, packed behind other data if there is space.
    fn pack(&mut self, len: u64, geometry: &Geometry, out: &dyn Storage) -> Result<u64> {
        let fitting = self.partial.fitting(len);
        if let Some(at) = fitting.or_else(|| self.partial.newest()) {
            let cluster = geometry.cluster_of(at);
            match self.space.count(cluster) {
                Some(count) if count < geometry.refcount_width().max() => {
                    let next_to_it = cluster + 1 == self.space.next();
                    if fitting.is_some() || next_to_it {
                        self.space.set_count(cluster, count + 1)?;
                        if fitting.is_none() {
                            self.space.take_next(1)?;
                        }
                        self.partial.take(at, len);
                        return Ok(at);
                    }
                }
                _ => self.partial.forget(cluster),
            }
        }
        let host = self.space.take(1, out)?;
        self.partial.note(host + len);
        Ok(host)
    }
}
