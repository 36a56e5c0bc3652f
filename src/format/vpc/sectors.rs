//! The bitmaps of a differencing disk: which sectors of a block are its own, with the first one in the most significant
//! bit.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::error::Result;
use crate::format::kept::Kept;
use crate::format::read_ahead::ReadAhead;
use crate::memory::{self, IoBuf};
use crate::storage::Storage;

/// The bitmap of one block.
#[derive(Debug)]
pub(super) struct Bits(Box<[AtomicU8]>);

impl Bits {
    fn of(bytes: &[u8]) -> Result<Self> {
        let bytes = memory::collect(bytes.iter().copied().map(AtomicU8::new))?;
        Ok(Self(bytes.into_boxed_slice()))
    }

    /// Whether the block has the sector.
    pub(super) fn has(&self, sector: u64) -> bool {
        let byte = self.0.get((sector / 8) as usize);
        byte.is_some_and(|byte| byte.load(Ordering::Acquire) & (0x80 >> (sector % 8)) != 0)
    }

    /// How many sectors, starting with the first, are alike.
    pub(super) fn run(&self, sectors: Range<u64>) -> u64 {
        let first = self.has(sectors.start);
        let mut at = sectors.start + 1;
        while at < sectors.end && self.has(at) == first {
            at += 1;
        }
        at - sectors.start
    }

    fn set(&self, sectors: Range<u64>) {
        for sector in sectors {
            if let Some(byte) = self.0.get((sector / 8) as usize) {
                byte.fetch_or(0x80 >> (sector % 8), Ordering::AcqRel);
            }
        }
    }

    fn bytes(&self) -> Result<IoBuf> {
        let mut bytes = memory::zeroed(self.0.len())?;
        for (to, from) in bytes.iter_mut().zip(&self.0) {
            *to = from.load(Ordering::Acquire);
        }
        Ok(bytes)
    }
}

/// Maximum size of cached bitmaps in bytes.
const MOST_BYTES: u64 = 8 << 20;

/// A changed bitmap with its block, and its bytes as they are to be written.
pub(super) type Changed = (u64, Arc<Bits>, IoBuf);

/// The bitmaps that have been used, by the index of their block.
#[derive(Debug)]
pub(super) struct Sectors {
    known: Kept<Bits>,
    /// Those that are not on disk yet.
    dirty: Mutex<HashMap<u64, Arc<Bits>>>,
    read_ahead: ReadAhead,
}

impl Sectors {
    /// For bitmaps of that many bytes in a storage.
    pub(super) fn new(storage: &dyn Storage, len: u64) -> Self {
        Self {
            known: Kept::new((MOST_BYTES / len.max(1)) as usize),
            dirty: Mutex::default(),
            read_ahead: ReadAhead::of(storage),
        }
    }

    /// The bitmap of block `index`, which is `len` bytes long and located at `at`.
    ///
    /// # Errors
    /// If reading it fails.
    pub(super) fn get(
        &self,
        storage: &dyn Storage,
        index: u64,
        at: u64,
        len: u64,
    ) -> Result<Arc<Bits>> {
        self.known.get_or_read(index, || {
            let mut bytes = memory::zeroed(len as usize)?;
            storage.read_at(&mut bytes, at)?;
            Bits::of(&bytes)
        })
    }

    /// Whether bitmaps are read ahead.
    pub(super) fn looks_ahead(&self) -> bool {
        self.read_ahead.is_on()
    }

    /// Reads bitmaps of `len` bytes into memory in batches; `blocks` are blocks with the offsets of their bitmaps.
    pub(super) fn bring(
        &self,
        storage: &dyn Storage,
        blocks: impl Iterator<Item = (u64, u64)>,
        len: u64,
    ) {
        let bits = |bytes: &[u8], _| Bits::of(bytes);
        self.read_ahead
            .bring(&self.known, storage, blocks, len as usize, bits);
    }

    /// Adds a new block, which has none of its sectors.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(super) fn begin(&self, index: u64, len: u64) -> Result<()> {
        let bits = Bits::of(&memory::zeroed(len as usize)?)?;
        self.known.put(index, bits)
    }

    /// Marks these sectors as present in the file.
    ///
    /// # Errors
    /// If there is not enough memory; nothing has changed then.
    pub(super) fn set(&self, index: u64, bits: &Arc<Bits>, sectors: Range<u64>) -> Result<()> {
        let mut dirty = self.dirty.lock();
        dirty.try_reserve(1).map_err(|_| memory::lack())?;
        bits.set(sectors);
        dirty.insert(index, bits.clone());
        Ok(())
    }

    /// Discards all of them; changes must be on disk.
    pub(super) fn clear(&self) {
        self.dirty.lock().clear();
        self.known.clear();
    }

    /// Takes the changed bitmaps, as they are now. They must be held until they are written, because what the disk has
    /// until then is out of date.
    ///
    /// # Errors
    /// If there is not enough memory; nothing is taken then.
    pub(super) fn take(&self) -> Result<Vec<Changed>> {
        let mut dirty = self.dirty.lock();
        let mut taken = Vec::new();
        for (index, bits) in dirty.iter() {
            memory::push(&mut taken, (*index, bits.clone(), bits.bytes()?))?;
        }
        dirty.clear();
        taken.sort_unstable_by_key(|(index, ..)| *index);
        Ok(taken)
    }

    /// Puts back bitmaps that were not written after all.
    pub(super) fn put_back(&self, taken: Vec<Changed>) {
        let taken = taken.into_iter().map(|(index, bits, _)| (index, bits));
        self.dirty.lock().extend(taken);
    }
}

/// Number of blocks of a dynamic disk whose bitmaps can be known to be full at the same time.
const SLOTS: usize = 1 << 15;

/// Blocks whose bitmaps mark all their sectors as present, the latest one of each slot.
#[derive(Debug, Default)]
pub(super) struct FullBitmaps(OnceLock<Box<[AtomicU32]>>);

impl FullBitmaps {
    /// Whether the bitmap of a block is known to be full.
    pub(super) fn has(&self, index: u64) -> bool {
        let slots = self.0.get();
        let slot = slots.and_then(|slots| slots.get(index as usize % SLOTS));
        slot.is_some_and(|slot| u64::from(slot.load(Ordering::Acquire)) == index + 1)
    }

    /// Notes that the bitmap of a block is full.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(super) fn note(&self, index: u64) -> Result<()> {
        if self.0.get().is_none() {
            let slots = memory::collect((0..SLOTS).map(|_| AtomicU32::new(0)))?;
            // If another thread was first, its value is the same.
            let _ = self.0.set(slots.into_boxed_slice());
        }
        let slots = self.0.get();
        if let Some(slot) = slots.and_then(|slots| slots.get(index as usize % SLOTS)) {
            slot.store(index as u32 + 1, Ordering::Release);
        }
        Ok(())
    }

    /// Forgets everything.
    pub(super) fn forget(&self) {
        for slot in self.0.get().into_iter().flatten() {
            slot.store(0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    #[test]
    fn what_is_known_of_a_block_is_not_known_of_another_in_its_slot() {
        let full = FullBitmaps::default();
        full.forget();
        assert!(!full.has(0));
        full.note(0).unwrap();
        full.note(7).unwrap();
        assert!(full.has(0) && full.has(7) && !full.has(1));
        let other = 7 + SLOTS as u64;
        assert!(!full.has(other));
        full.note(other).unwrap();
        assert!(full.has(other) && !full.has(7));
        full.forget();
        assert!(!full.has(0) && !full.has(other));
    }

    /// Many readers compete for the cache while bitmaps are being written, which the disk does not have yet.
    #[test]
    fn bitmaps_stay_until_they_are_written() {
        let disk = MemoryStorage::with_bytes("m", vec![0; 512]);
        let sectors = Sectors::new(&disk, MOST_BYTES / 4);
        let get = |index| sectors.get(&disk, index, 0, 512).unwrap();
        let crowd = || (1..20).for_each(|index| drop(get(index)));
        sectors.set(0, &get(0), 3..5).unwrap();
        crowd();
        let taken = sectors.take().unwrap();
        crowd();
        assert!(get(0).has(3));
        sectors.put_back(taken);
        crowd();
        let taken = sectors.take().unwrap();
        assert_eq!((taken.len(), taken[0].2[0]), (1, 0b0001_1000));
        disk.write_at(&taken[0].2, 0).unwrap();
        drop(taken);
        crowd();
        assert!(get(0).has(3) && sectors.take().unwrap().is_empty());
    }

    #[test]
    fn the_first_sector_is_the_most_significant_bit() {
        let bits = Bits::of(&[0b1100_0000, 0b0000_0001]).unwrap();
        let set: Vec<u64> = (0..20).filter(|sector| bits.has(*sector)).collect();
        assert_eq!(set, [0, 1, 15]);
        assert_eq!(bits.run(0..16), 2);
        assert_eq!(bits.run(2..16), 13);
        bits.set(2..9);
        assert_eq!(bits.run(0..16), 9);
        assert_eq!(&bits.bytes().unwrap()[..], [0xff, 0b1000_0001]);
    }
}
