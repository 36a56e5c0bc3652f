//! Writing a new image: grains are allocated in order in each extent, tables are written when they are full, and the
//! headers and the descriptor last.

use std::io::IoSlice;
use std::sync::Arc;

use bstr::BString;
use parking_lot::Mutex;

use crate::codec::{Compression, Encoder};
use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageSlot;
use crate::format::{Bulk, InitialContent, Reserved};
use crate::job::JobControl;
use crate::memory::{self, IoBuf};
use crate::size::SECTOR;
use crate::storage::{Durability, Preallocation, Storage, ZeroFlags, first_sector, grow, zero};

use super::super::disk::marker::{GRAIN_MARKER, Special, grain_marker, special};
use super::super::disk::{Flags, SparseHeader};
use super::super::encode::encode_grain;
use super::layout::SparseLayout;
use super::spec::{Spec, Subformat};
use super::tables::Tables;

/// Size of a grain in bytes.
const GRAIN: u64 = SparseLayout::GRAIN * SECTOR;

/// An extent that is being filled.
#[derive(Debug)]
pub(super) struct NewPart {
    /// The first guest byte.
    start: u64,
    /// Number of guest bytes.
    len: u64,
    slot: StorageSlot,
    storage: Arc<dyn Storage>,
    /// New space in the file reads as zeroes.
    fresh: bool,
    sparse: Option<NewSparse>,
}

#[derive(Debug)]
struct NewSparse {
    layout: SparseLayout,
    state: Mutex<SparseState>,
}

#[derive(Debug)]
struct SparseState {
    tables: Tables,
    /// The sector of the next grain.
    next: u64,
    /// The grain that was placed last.
    last: Option<u64>,
}

impl NewPart {
    /// A part of `len` bytes from guest offset `start` on, which is sparse if it has a layout.
    ///
    /// # Errors
    /// If memory cannot be allocated, or the length of the file cannot be determined.
    pub(super) fn new(
        start: u64,
        len: u64,
        slot: u16,
        storage: &Arc<dyn Storage>,
        layout: Option<SparseLayout>,
    ) -> Result<Self> {
        let sparse = match layout {
            None => None,
            Some(layout) => Some(NewSparse {
                layout,
                state: Mutex::new(SparseState {
                    tables: Tables::new(layout)?,
                    next: layout.overhead,
                    last: None,
                }),
            }),
        };
        Ok(Self {
            start,
            len,
            slot: StorageSlot(slot),
            fresh: storage.limits().grown_is_zero && storage.is_empty()?,
            storage: storage.clone(),
            sparse,
        })
    }

    /// Sets the length of a flat extent; clears the metadata area of a sparse one, and preallocates its grains.
    fn begin(&self, preallocation: Preallocation, control: &JobControl) -> Result<()> {
        let out = &*self.storage;
        let Some(sparse) = &self.sparse else {
            if out.limits().fixed_len {
                return match preallocation {
                    Preallocation::Off | Preallocation::Metadata => Ok(()),
                    _ => zero(out, 0, self.len, ZeroFlags::empty(), control),
                };
            }
            return grow(out, self.len, preallocation, control);
        };
        let overhead = sparse.layout.overhead * SECTOR;
        if !self.fresh {
            out.write_zeroes(0, overhead, ZeroFlags::empty())?;
        }
        if preallocation == Preallocation::Off {
            return Ok(());
        }
        let end = overhead.saturating_add(self.len.next_multiple_of(GRAIN));
        if self.fresh {
            grow(out, end, preallocation, control)?;
        } else {
            zero(out, overhead, end, ZeroFlags::empty(), control)?;
        }
        let state = &mut *sparse.state.lock();
        for grain in 0..self.len.div_ceil(GRAIN) {
            let sector = sparse.layout.overhead + grain * SparseLayout::GRAIN;
            let word = u32::try_from(sector).map_err(|_| too_large())?;
            state.tables.set(grain, word, out)?;
        }
        state.next = end / SECTOR;
        Ok(())
    }

    /// Allocates consecutive places for the grains of a range.
    fn place(&self, within: u64, len: u64) -> Result<u64> {
        let Some(sparse) = &self.sparse else {
            return Ok(within);
        };
        let state = &mut *sparse.state.lock();
        let (first, end) = (within / GRAIN, (within + len).div_ceil(GRAIN));
        let sector = state.next;
        let next = sector + (end - first) * SparseLayout::GRAIN;
        if next > u64::from(u32::MAX) {
            return Err(too_large());
        }
        for grain in first..end {
            let word = sector + (grain - first) * SparseLayout::GRAIN;
            state.tables.set(grain, word as u32, &*self.storage)?;
        }
        state.next = next;
        state.last = Some(end - 1);
        Ok(sector * SECTOR)
    }

    /// Writes the tables; the header is written later.
    fn finish(&self, is_stream: bool) -> Result<()> {
        let Some(sparse) = &self.sparse else {
            return Ok(());
        };
        let out = &*self.storage;
        let state = &mut *sparse.state.lock();
        state.tables.flush(out)?;
        for directory in sparse.layout.directories() {
            let bytes = sparse.layout.directory_bytes(directory)?;
            if !bytes.is_empty() {
                out.write_at(&bytes, directory * SECTOR)?;
            }
        }
        let mut end = state.next * SECTOR;
        if is_stream {
            out.write_at(&special(Special::EndOfStream, 0), end)?;
            end += SECTOR;
        }
        if !out.limits().fixed_len && out.len()? != end {
            out.set_len(end, Preallocation::Off)?;
        }
        Ok(())
    }

    /// Allocates space for a compressed grain of this length.
    fn place_encoded(&self, within: u64, len: u64) -> Result<u64> {
        let sparse = self.sparse.as_ref().ok_or_else(Error::no_compression)?;
        let state = &mut *sparse.state.lock();
        let sector = state.next;
        let next = sector.saturating_add(len.div_ceil(SECTOR));
        let word = u32::try_from(sector).map_err(|_| too_large())?;
        u32::try_from(next).map_err(|_| too_large())?;
        state.tables.set(within / GRAIN, word, &*self.storage)?;
        state.next = next;
        Ok(sector * SECTOR)
    }
}

/// A new image that is being filled.
#[derive(Debug)]
pub(super) struct VmdkBulk {
    own: Arc<dyn Storage>,
    parts: Vec<NewPart>,
    subformat: Subformat,
    compression: Compression,
    zeroed: bool,
    has_parent: bool,
    preallocated: bool,
    size: u64,
    descriptor: BString,
    /// Guest bytes before this offset are finished.
    next_guest: Mutex<u64>,
    /// A grain of zeroes as stored in a stream, without its marker.
    encoded_zeroes: IoBuf,
}

impl VmdkBulk {
    /// Begins the extents.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn new(
        spec: &Spec,
        own: Arc<dyn Storage>,
        parts: Vec<NewPart>,
        descriptor: BString,
        control: &JobControl,
    ) -> Result<Self> {
        let mut encoded_zeroes = IoBuf::new();
        if spec.subformat == Subformat::StreamOptimized {
            let zeroes = memory::zeroed(GRAIN as usize)?;
            let limit = zeroes.len();
            Encoder::new().encode(spec.compression, &zeroes, limit, &mut encoded_zeroes)?;
        }
        if spec.preallocation != Preallocation::Off {
            control.expect(spec.sectors * SECTOR);
        }
        for part in &parts {
            part.begin(spec.preallocation, control)?;
        }
        Ok(Self {
            own,
            subformat: spec.subformat,
            compression: spec.compression,
            zeroed: spec.zeroed,
            has_parent: spec.parent.is_some(),
            preallocated: spec.preallocation != Preallocation::Off,
            size: spec.sectors * SECTOR,
            parts,
            descriptor,
            next_guest: Mutex::new(0),
            encoded_zeroes,
        })
    }

    fn is_stream(&self) -> bool {
        self.subformat == Subformat::StreamOptimized
    }

    /// The part that contains a guest offset, and the number of its bytes from there on.
    fn part(&self, guest: u64) -> Result<(&NewPart, u64)> {
        let at = self.parts.partition_point(|part| part.start <= guest);
        let part = at.checked_sub(1).and_then(|at| self.parts.get(at));
        part.map(|part| (part, (part.start + part.len).saturating_sub(guest)))
            .filter(|(_, left)| *left > 0)
            .ok_or_else(Error::past_new_disk)
    }

    /// Checks that reservations come in order.
    fn check_order(&self, guest: u64, len: u64) -> Result<()> {
        let next = &mut *self.next_guest.lock();
        let end = guest.checked_add(len).filter(|end| *end <= self.size);
        match end {
            Some(end) if self.subformat.is_flat() || guest >= *next => {
                *next = end;
                Ok(())
            }
            _ => Err(Error::out_of_order(guest, len)),
        }
    }
}

impl Bulk for VmdkBulk {
    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        if slot == StorageSlot::MAIN {
            return Ok(&self.own);
        }
        let part = self.parts.iter().find(|part| part.slot == slot);
        part.map(|part| &part.storage).ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                format!("The new image has no extent {}", slot.0),
            )
        })
    }

    fn data_storages(&self) -> Vec<&Arc<dyn Storage>> {
        self.parts.iter().map(|part| &part.storage).collect()
    }

    fn takes_raw_writes(&self) -> bool {
        !self.is_stream()
    }

    fn write_zero_data(
        &self,
        (slot, host): (StorageSlot, u64),
        guest_offset: u64,
        len: u64,
    ) -> Result<()> {
        let storage = self.storage(slot)?;
        if !self.is_stream() {
            return storage.write_zeroes(host, len, ZeroFlags::empty());
        }
        let marker = grain_marker(guest_offset / SECTOR, self.encoded_zeroes.len() as u32);
        storage.write_vectored_at(
            &[IoSlice::new(&marker), IoSlice::new(&self.encoded_zeroes)],
            host,
        )
    }

    fn encode_unit(&self) -> Option<u32> {
        (!self.subformat.is_flat()).then_some(GRAIN as u32)
    }

    fn zero_unit(&self) -> u32 {
        match self.subformat.is_flat() {
            true => SECTOR as u32,
            false => GRAIN as u32,
        }
    }

    fn alignment(&self) -> u64 {
        match self.subformat {
            Subformat::MonolithicFlat | Subformat::Vmfs => 1 << 63,
            // Parts begin at multiples of 2 GiB.
            Subformat::TwoGbFlat => 1 << 31,
            Subformat::MonolithicSparse | Subformat::TwoGbSparse => GRAIN,
            Subformat::StreamOptimized => 1,
        }
    }

    fn initial_content(&self) -> InitialContent {
        let fresh = self.parts.iter().all(|part| part.fresh);
        let in_place = self.subformat.is_flat() || self.preallocated;
        InitialContent {
            unreserved_is_zero: fresh || !in_place,
            unwritten_is_zero: fresh && !self.is_stream(),
        }
    }

    fn encode(
        &self,
        scratch: &mut Encoder,
        guest_offset: u64,
        unit: &[u8],
        out: &mut IoBuf,
    ) -> Result<bool> {
        if self.subformat.is_flat() {
            return Err(Error::no_compression());
        }
        if !self.is_stream() {
            // Only streams hold compressed grains.
            return Ok(false);
        }
        encode_grain(scratch, self.compression, guest_offset, unit, out)?;
        Ok(true)
    }

    fn reserve(&self, guest_offset: u64, len: u64) -> Result<Reserved> {
        let (part, left) = self.part(guest_offset)?;
        let within = guest_offset - part.start;
        if self.is_stream() {
            // Only zeroes get here: everything else is encoded.
            let len = len.min(left).min(GRAIN);
            self.check_order(guest_offset, len)?;
            let bytes = GRAIN_MARKER + self.encoded_zeroes.len();
            return Ok(Reserved {
                slot: part.slot,
                offset: part.place_encoded(within, bytes as u64)?,
                len,
            });
        }
        let len = len.min(left);
        self.check_order(guest_offset, len)?;
        let offset = match &part.sparse {
            Some(sparse) if self.preallocated => sparse.layout.overhead * SECTOR + within,
            _ => part.place(within, len)?,
        };
        let behind = (within + len).next_multiple_of(GRAIN) - (within + len);
        if behind > 0 && part.sparse.is_some() && !part.fresh {
            // Otherwise the old content would become visible if the disk grew.
            part.storage
                .write_zeroes(offset + len, behind, ZeroFlags::empty())?;
        }
        Ok(Reserved {
            slot: part.slot,
            offset,
            len,
        })
    }

    fn reserve_encoded(&self, guest_offset: u64, encoded_len: u32) -> Result<(StorageSlot, u64)> {
        let (part, left) = self.part(guest_offset)?;
        if !self.is_stream() || !guest_offset.is_multiple_of(GRAIN) {
            return Err(Error::no_compression());
        }
        self.check_order(guest_offset, left.min(GRAIN))?;
        let host = part.place_encoded(guest_offset - part.start, u64::from(encoded_len))?;
        Ok((part.slot, host))
    }

    fn reserve_zero(&self, guest_offset: u64, len: u64) -> Result<()> {
        if !self.has_parent {
            return Ok(());
        }
        if !self.zeroed {
            return Err(Error::unsupported(
                "Without zeroed grains zeroes cannot hide a backing file without being stored",
            ));
        }
        self.check_order(guest_offset, len)?;
        let (mut at, end) = (guest_offset, guest_offset + len);
        while at < end {
            let (part, left) = self.part(at)?;
            let len = left.min(end - at);
            let within = at - part.start;
            if let Some(sparse) = &part.sparse {
                let state = &mut *sparse.state.lock();
                for grain in within / GRAIN..(within + len).div_ceil(GRAIN) {
                    state.tables.set(grain, 1, &*part.storage)?;
                }
            }
            at += len;
        }
        Ok(())
    }

    fn finish(&self, durability: Durability) -> Result<()> {
        for part in &self.parts {
            part.finish(self.is_stream())?;
        }
        let synced = durability == Durability::Synced;
        for part in &self.parts {
            let is_own = self.subformat.is_one_file();
            if is_own {
                part.storage.write_at(&self.descriptor, SECTOR)?;
            }
            // No header may reach the disk before what it refers to.
            if synced {
                part.storage.sync(durability)?;
            }
            if let Some(sparse) = &part.sparse {
                let header = header_of(self.subformat, self.zeroed, &sparse.layout);
                part.storage.write_at(&header.to_bytes(), 0)?;
            }
            if !is_own || !synced {
                part.storage.sync(durability)?;
            }
        }
        if !self.subformat.is_one_file() {
            // A truncated text could name fewer extents.
            let (first, rest) = first_sector(&self.descriptor);
            if !rest.is_empty() {
                self.own.write_at(rest, SECTOR)?;
                if synced {
                    self.own.sync(durability)?;
                }
            }
            self.own.write_at(first, 0)?;
        }
        self.own.sync(durability)
    }
}

/// Durably turns an empty file into a part of a split disk: flat, or sparse with or without zeroed grains.
///
/// # Errors
/// If I/O fails.
pub(in super::super) fn make_part(
    storage: &Arc<dyn Storage>,
    sectors: u64,
    sparse: Option<bool>,
    preallocation: Preallocation,
    control: &JobControl,
    durability: Durability,
) -> Result<()> {
    let layout = match sparse {
        None => None,
        Some(_) => Some(SparseLayout::new(sectors, false, true).ok_or_else(too_large)?),
    };
    let part = NewPart::new(0, sectors.saturating_mul(SECTOR), 0, storage, layout)?;
    part.begin(preallocation, control)?;
    part.finish(false)?;
    // No header may reach the disk before what it refers to.
    storage.sync(durability)?;
    if let Some((layout, zeroed)) = layout.zip(sparse) {
        let header = header_of(Subformat::TwoGbSparse, zeroed, &layout);
        storage.write_at(&header.to_bytes(), 0)?;
        storage.sync(durability)?;
    }
    Ok(())
}

/// The header of an extent of a disk of this kind.
pub(super) fn header_of(subformat: Subformat, zeroed: bool, layout: &SparseLayout) -> SparseHeader {
    let mut flags = Flags::LINE_ENDS;
    let (version, compression) = match (subformat, zeroed) {
        (Subformat::StreamOptimized, _) => {
            flags |= Flags::COMPRESSED | Flags::MARKERS;
            (3, 1)
        }
        (_, true) => (2, 0),
        (_, false) => (1, 0),
    };
    flags.set(Flags::REDUNDANT, layout.redundant != 0);
    flags.set(Flags::ZEROED, zeroed);
    SparseHeader {
        version,
        flags,
        capacity: layout.capacity,
        grain: SparseLayout::GRAIN,
        descriptor: layout.descriptor,
        descriptor_len: layout.descriptor_len,
        table_entries: SparseLayout::ENTRIES as u32,
        redundant: layout.redundant,
        directory: layout.directory,
        has_footer: false,
        overhead: layout.overhead,
        unclean: false,
        compression,
    }
}

pub(super) fn too_large() -> Error {
    Error::new(
        ErrorKind::Limit,
        "The extent would grow past 2 TiB, beyond which no grain table points",
    )
    .with_errno(libc::EFBIG)
}
