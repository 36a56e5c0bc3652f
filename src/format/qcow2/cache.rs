//! The metadata cache: L2 tables and refcount blocks in slices of at most 4 KiB.
//!
//! A slice's big-endian words are decoded once into atomics, so that a lookup in a loaded slice takes no lock except,
//! briefly, that of its shard. A slice that is dirty or in use is never evicted: what is not on disk yet always stays
//! visible.

use std::collections::HashMap;

use crate::error::{Error, ErrorKind, Result};
use crate::memory::{self, IoBuf};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, OnceLock, Ordering, fence, yield_now};

const SHARDS: usize = 16;
/// Memory that a slice takes besides its words.
const SLICE: u64 = 256;

/// The kind of table that a slice belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// An L2 table.
    L2,
    /// A refcount block.
    Refcount,
}

/// The words of a slice, in host byte order.
pub(super) type Words = [AtomicU64];

/// A cached part of a table.
#[derive(Debug)]
pub(super) struct Slice {
    offset: u64,
    class: Class,
    words: OnceLock<Box<Words>>,
    /// Held while the slice is loaded; true if loading failed and the slice was dropped.
    load: Mutex<bool>,
    /// Odd while words are changing, so that readers of several words see a consistent state.
    version: AtomicU64,
    /// Held while words are changing; true if they differ from the disk.
    dirty: Mutex<bool>,
    used: AtomicBool,
}

impl Slice {
    fn new(class: Class, offset: u64) -> Self {
        Self {
            offset,
            class,
            words: OnceLock::new(),
            load: Mutex::new(false),
            version: AtomicU64::new(0),
            dirty: Mutex::new(false),
            used: AtomicBool::new(true),
        }
    }

    /// Host offset of the first byte.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    fn words(&self) -> &Words {
        self.words.get().map_or(&[], |words| words)
    }

    /// One word; 0 past the end.
    #[cfg(test)]
    fn word(&self, index: usize) -> u64 {
        self.words()
            .get(index)
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Runs `f` until it has seen a consistent state of the words; it may run several times.
    pub(super) fn read<R>(&self, mut f: impl FnMut(&Words) -> R) -> R {
        loop {
            let before = self.version.load(Ordering::Acquire);
            if before & 1 == 0 {
                let result = f(self.words());
                fence(Ordering::Acquire);
                if self.version.load(Ordering::Relaxed) == before {
                    return result;
                }
            }
            yield_now();
        }
    }

    /// Decodes the bytes read; has an effect only once.
    fn fill(&self, bytes: &[u8]) -> Result<()> {
        let words = bytes.chunks_exact(8);
        let words = memory::collect(words.map(|chunk| AtomicU64::new(be64(chunk))))?;
        let _ = self.words.set(words.into());
        Ok(())
    }

    fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        memory::reserve(&mut bytes, self.words().len() * 8)?;
        // By whole words: byte by byte is several times slower.
        for word in self.words() {
            bytes.extend_from_slice(&word.load(Ordering::Relaxed).to_be_bytes());
        }
        Ok(bytes)
    }
}

/// The contents of a dirty slice at one instant, to be written to disk.
#[derive(Debug)]
pub(super) struct Taken {
    /// The slice; holding it keeps it in the cache until the bytes are written.
    pub(super) slice: Arc<Slice>,
    /// The bytes to write at its offset.
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Shard {
    map: HashMap<u64, Arc<Slice>>,
    /// Keys in the order in which the clock hand visits them.
    ring: Vec<u64>,
    hand: usize,
}

/// The cache of one image.
#[derive(Debug)]
pub(super) struct Cache {
    slice_bytes: usize,
    shard_capacity: usize,
    shards: Box<[Mutex<Shard>]>,
    dirty: [Mutex<Dirty>; 2],
}

/// The slices of a class that differ from the disk.
#[derive(Debug, Default)]
struct Dirty {
    /// Has capacity for all cached slices of the class, so that marking one dirty never allocates.
    slices: HashMap<u64, Arc<Slice>>,
    /// How many of the class are cached, at least.
    cached: usize,
}

impl Cache {
    /// A cache of at most about `max_bytes`, in slices of `slice_bytes`.
    pub(super) fn new(slice_bytes: usize, max_bytes: u64) -> Self {
        let slices = usize::try_from(max_bytes / slice_bytes as u64).unwrap_or(usize::MAX);
        Self {
            slice_bytes,
            shard_capacity: (slices / SHARDS).max(4),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            dirty: [Mutex::default(), Mutex::default()],
        }
    }

    fn shard_index(&self, offset: u64) -> usize {
        let mixed = (offset / self.slice_bytes as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> 60) as usize % SHARDS
    }

    fn shard(&self, offset: u64) -> &Mutex<Shard> {
        &self.shards[self.shard_index(offset)]
    }

    fn dirty_set(&self, class: Class) -> &Mutex<Dirty> {
        &self.dirty[class as usize]
    }

    /// The slice at `offset`, loaded by `load` (which fills the bytes) when it is not cached.
    pub(super) fn get(
        &self,
        class: Class,
        offset: u64,
        load: impl Fn(&mut [u8]) -> Result<()>,
    ) -> Result<Arc<Slice>> {
        loop {
            let slice = self.lookup_or_insert(class, offset)?;
            if slice.class != class {
                return Err(Error::corrupt(format!(
                    "the cluster at {offset:#x} is used both as L2 table and as refcount block"
                ))
                .with_offset(offset));
            }
            if slice.words.get().is_some() {
                return Ok(slice);
            }
            let mut failed = slice.load.lock();
            if *failed {
                continue;
            }
            if slice.words.get().is_none() {
                let loaded = memory::zeroed(self.slice_bytes)
                    .and_then(|mut bytes| load(&mut bytes).map(|()| bytes))
                    .and_then(|bytes| slice.fill(&bytes));
                if let Err(error) = loaded {
                    *failed = true;
                    self.forget(&slice);
                    return Err(error);
                }
            }
            drop(failed);
            return Ok(slice);
        }
    }

    /// Ensures that `count` slices from `offset` on are loaded, the missing ones by one call of `load`, and returns
    /// them. The range passed to `load` covers at least the missing ones.
    pub(super) fn get_run(
        &self,
        class: Class,
        offset: u64,
        count: u64,
        load: impl Fn(&mut [u8], u64) -> Result<()>,
    ) -> Result<Vec<Arc<Slice>>> {
        let step = self.slice_bytes as u64;
        let mut slices = Vec::new();
        memory::reserve(&mut slices, count as usize)?;
        for n in 0..count {
            slices.push(self.lookup_or_insert(class, offset + n * step)?);
        }
        // Errors are found again below, where each slice is read on its own.
        let _ = self.fill_missing(class, &slices, |missing| {
            let (Some(first), Some(last)) = (missing.first(), missing.last()) else {
                return Ok((IoBuf::new(), Vec::new()));
            };
            let mut bytes = memory::zeroed((last + step - first) as usize)?;
            load(&mut bytes, *first)?;
            let places = missing.iter().map(|offset| (offset - first) as usize);
            Ok((bytes, memory::collect(places)?))
        });
        slices
            .iter()
            .map(|slice| self.get(class, slice.offset, |bytes| load(bytes, slice.offset)))
            .collect()
    }

    /// Whether the slice at `offset` is loaded.
    pub(super) fn is_loaded(&self, offset: u64) -> bool {
        let shard = self.shard(offset).lock();
        let slice = shard.map.get(&offset);
        slice.is_some_and(|slice| slice.words.get().is_some())
    }

    /// How many slices may be loaded together: a fraction of the capacity, so that they are still cached when they are
    /// needed.
    pub(super) fn most_ahead(&self) -> usize {
        self.shard_capacity * SHARDS / 4
    }

    /// Loads those of the slices at ascending `offsets` that are not loaded, by one call of `load`, which gets adjacent
    /// ones as one range. Offsets that crowd one shard, as only a crafted image has them, are skipped.
    ///
    /// # Errors
    /// If `load` fails: none of them is loaded then, and whoever needs one tries again.
    pub(super) fn load_many(
        &self,
        class: Class,
        offsets: &[u64],
        load: impl FnOnce(&mut [(u64, &mut [u8])]) -> Result<()>,
    ) -> Result<()> {
        let mut slices = Vec::new();
        memory::reserve(&mut slices, offsets.len())?;
        // Slices that are held cannot be evicted, so they must not fill a shard.
        let mut room = [self.shard_capacity / 2; SHARDS];
        for offset in offsets {
            if let Some(left @ 1..) = room.get_mut(self.shard_index(*offset)) {
                *left -= 1;
                slices.push(self.lookup_or_insert(class, *offset)?);
            }
        }
        let step = self.slice_bytes;
        self.fill_missing(class, &slices, |missing| {
            let mut bytes = memory::zeroed(missing.len() * step)?;
            let mut ranges = Vec::new();
            let mut rest = &mut *bytes;
            for run in missing.chunk_by(|one, next| one + step as u64 == *next) {
                let Some((now, later)) = rest.split_at_mut_checked(run.len() * step) else {
                    break;
                };
                rest = later;
                if let Some(first) = run.first() {
                    memory::push(&mut ranges, (*first, now))?;
                }
            }
            load(&mut ranges)?;
            let places = (0..missing.len()).map(|n| n * step);
            Ok((bytes, memory::collect(places)?))
        })
    }

    /// Fills those of `slices`, in ascending order of offsets, that are not loaded: `read` gets their offsets, and
    /// returns bytes and where those of each slice begin.
    fn fill_missing(
        &self,
        class: Class,
        slices: &[Arc<Slice>],
        read: impl FnOnce(&[u64]) -> Result<(IoBuf, Vec<usize>)>,
    ) -> Result<()> {
        // With their locks held nobody else loads them, so what is read now is authoritative. The locks are taken in
        // ascending order, so that no two threads deadlock.
        let mut missing: Vec<_> = slices
            .iter()
            .filter(|slice| slice.class == class && slice.words.get().is_none())
            .map(|slice| (slice, slice.load.lock()))
            .filter(|(slice, failed)| !**failed && slice.words.get().is_none())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let offsets = memory::collect(missing.iter().map(|(slice, _)| slice.offset));
        let loaded = offsets.and_then(|offsets| read(&offsets));
        for (n, (slice, failed)) in missing.iter_mut().enumerate() {
            let bytes = loaded.as_ref().ok().and_then(|(bytes, places)| {
                let at = *places.get(n)?;
                bytes.get(at..at + self.slice_bytes)
            });
            if bytes.is_none_or(|bytes| slice.fill(bytes).is_err()) {
                **failed = true;
                self.forget(slice);
            }
        }
        loaded.map(drop)
    }

    /// The slice at `offset` if it is loaded, or if `load`, which returns whether it could, loads it at once. None also
    /// if another thread is currently loading it.
    pub(super) fn try_get(
        &self,
        class: Class,
        offset: u64,
        load: impl Fn(&mut [u8]) -> Result<bool>,
    ) -> Option<Arc<Slice>> {
        {
            let shard = self.shard(offset).lock();
            if let Some(slice) = shard.map.get(&offset) {
                if slice.class != class || slice.words.get().is_none() {
                    return None;
                }
                slice.used.store(true, Ordering::Relaxed);
                return Some(slice.clone());
            }
        }
        // Any error is reported by the path that blocks.
        let load = |bytes: &mut [u8]| match load(bytes)? {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Busy, "the table is not in memory")),
        };
        self.get(class, offset, load).ok()
    }

    fn lookup_or_insert(&self, class: Class, offset: u64) -> Result<Arc<Slice>> {
        let mut shard = self.shard(offset).lock();
        if let Some(slice) = shard.map.get(&offset) {
            slice.used.store(true, Ordering::Relaxed);
            return Ok(slice.clone());
        }
        memory::headroom(SLICE)?;
        shard.map.try_reserve(1).map_err(|_| memory::lack())?;
        memory::reserve(&mut shard.ring, 1)?;
        self.dirty_set(class).lock().expect_one()?;
        let slice = Arc::new(Slice::new(class, offset));
        if let Some(evicted) = shard.insert(offset, slice.clone(), self.shard_capacity) {
            self.dirty_set(evicted.class).lock().expect_one_less();
        }
        Ok(slice)
    }

    fn forget(&self, slice: &Arc<Slice>) {
        let mut shard = self.shard(slice.offset).lock();
        if shard
            .map
            .get(&slice.offset)
            .is_some_and(|other| Arc::ptr_eq(other, slice))
        {
            shard.map.remove(&slice.offset);
            self.dirty_set(slice.class).lock().expect_one_less();
        }
    }

    /// Changes words of a slice; readers see either all of the changes or none.
    pub(super) fn modify<R>(&self, slice: &Arc<Slice>, f: impl FnOnce(&Words) -> R) -> R {
        let mut dirty = slice.dirty.lock();
        let version = slice.version.load(Ordering::Relaxed);
        slice
            .version
            .store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        let result = f(slice.words());
        slice
            .version
            .store(version.wrapping_add(2), Ordering::Release);
        if !*dirty {
            *dirty = true;
            self.dirty_set(slice.class)
                .lock()
                .slices
                .insert(slice.offset, slice.clone());
        }
        result
    }

    /// Takes the contents of all dirty slices of a class, sorted by offset; they count as clean from then on.
    ///
    /// # Errors
    /// If memory cannot be allocated for them: they stay dirty then.
    pub(super) fn take_dirty(&self, class: Class) -> Result<Vec<Taken>> {
        let mut slices = Vec::new();
        {
            let set = &mut self.dirty_set(class).lock().slices;
            memory::reserve(&mut slices, set.len())?;
            slices.extend(set.drain().map(|(_, slice)| slice));
        }
        let mut taken = Vec::new();
        let mut outcome = memory::reserve(&mut taken, slices.len());
        for slice in slices {
            let copied = outcome.and_then(|()| {
                let mut dirty = slice.dirty.lock();
                let bytes = slice.to_bytes()?;
                *dirty = false;
                Ok(bytes)
            });
            outcome = match copied {
                Ok(bytes) => {
                    taken.push(Taken { slice, bytes });
                    Ok(())
                }
                Err(error) => {
                    // It is still marked dirty, so no other thread adds it to the set.
                    let mut set = self.dirty_set(class).lock();
                    set.slices.insert(slice.offset, slice);
                    Err(error)
                }
            };
        }
        if let Err(error) = outcome {
            self.put_back(taken);
            return Err(error);
        }
        taken.sort_unstable_by_key(|taken| taken.slice.offset);
        Ok(taken)
    }

    /// Marks slices dirty again after writing them has failed.
    pub(super) fn put_back(&self, taken: Vec<Taken>) {
        for taken in taken {
            self.modify(&taken.slice, |_| ());
        }
    }

    /// Total size of the dirty slices in bytes.
    pub(super) fn dirty_bytes(&self) -> u64 {
        let slices: usize = self.dirty.iter().map(|set| set.lock().slices.len()).sum();
        (slices * self.slice_bytes) as u64
    }

    /// Whether any slices of a class need to be written.
    pub(super) fn is_dirty(&self, class: Class) -> bool {
        !self.dirty_set(class).lock().slices.is_empty()
    }

    /// Total size of dirty slices, in bytes, above which they should be written.
    pub(super) fn dirty_limit(&self) -> u64 {
        (self.shard_capacity * SHARDS * self.slice_bytes) as u64 / 2
    }

    /// Drops all cached slices of a host range, dirty or not: the range no longer holds a table, or holds a new one.
    pub(super) fn invalidate(&self, offset: u64, len: u64) {
        let mut at = offset;
        while at < offset.saturating_add(len) {
            if let Some(slice) = self.shard(at).lock().map.remove(&at) {
                self.dirty_set(slice.class).lock().expect_one_less();
            }
            for set in &self.dirty {
                set.lock().slices.remove(&at);
            }
            at += self.slice_bytes as u64;
        }
    }

    #[cfg(test)]
    fn cached(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().map.len()).sum()
    }
}

impl Dirty {
    /// Prepares for one more cached slice of the class.
    fn expect_one(&mut self) -> Result<()> {
        let all = self.cached + 1;
        let more = all.saturating_sub(self.slices.len());
        self.slices.try_reserve(more).map_err(|_| memory::lack())?;
        self.cached = all;
        Ok(())
    }

    fn expect_one_less(&mut self) {
        self.cached = self.cached.saturating_sub(1);
    }
}

impl Shard {
    /// Adds a slice for which capacity is reserved; returns the one evicted for it, if any.
    fn insert(&mut self, key: u64, slice: Arc<Slice>, capacity: usize) -> Option<Arc<Slice>> {
        self.map.insert(key, slice);
        if self.ring.len() < capacity {
            self.ring.push(key);
            return None;
        }
        // Two rounds clear every "used" mark; what is left then is dirty or in use.
        for _ in 0..self.ring.len() * 2 {
            let hand = self.hand % self.ring.len();
            self.hand = hand + 1;
            let Some(&candidate) = self.ring.get(hand) else {
                break;
            };
            let idle = match self.map.get(&candidate) {
                Some(slice) => {
                    Arc::strong_count(slice) == 1 && !slice.used.swap(false, Ordering::Relaxed)
                }
                None => true,
            };
            if idle && candidate != key {
                self.ring[hand] = key;
                return self.map.remove(&candidate);
            }
        }
        self.ring.push(key);
        None
    }
}

fn be64(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk()
        .map_or(0, |word| u64::from_be_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(value: u64) -> impl Fn(&mut [u8]) -> Result<()> {
        move |buf| {
            for chunk in buf.chunks_exact_mut(8) {
                chunk.copy_from_slice(&value.to_be_bytes());
            }
            Ok(())
        }
    }

    #[test]
    fn what_is_cached_becomes_dirty_without_more_memory() {
        let cache = Cache::new(512, 1 << 20);
        let room = || cache.dirty_set(Class::L2).lock().slices.capacity();
        let slices = (1..=100).map(|n| cache.get(Class::L2, n << 9, fill(1)).unwrap());
        let slices: Vec<_> = slices.collect();
        let before = room();
        for _ in 0..2 {
            for slice in &slices {
                cache.modify(slice, |words| words[0].store(7, Ordering::Relaxed));
            }
            assert_eq!(cache.take_dirty(Class::L2).unwrap().len(), 100);
            assert_eq!(room(), before);
        }
    }

    #[test]
    fn words_are_decoded_once_and_written_back_as_they_were() {
        let cache = Cache::new(512, 1 << 20);
        let slice = cache.get(Class::L2, 0x1000, fill(0x0102_0304)).unwrap();
        assert_eq!(slice.word(63), 0x0102_0304);
        assert_eq!(slice.word(64), 0);
        cache.modify(&slice, |words| words[1].store(7, Ordering::Relaxed));
        let taken = cache.take_dirty(Class::L2).unwrap();
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].bytes[4..16], [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert!(!cache.is_dirty(Class::L2));
        cache.put_back(taken);
        assert_eq!(cache.dirty_bytes(), 512);
    }

    #[test]
    fn dirty_and_held_slices_survive_pressure_and_clean_ones_go() {
        let cache = Cache::new(512, 0);
        let held = cache.get(Class::L2, 0, fill(1)).unwrap();
        let dirty = cache.get(Class::Refcount, 512, fill(2)).unwrap();
        cache.modify(&dirty, |words| words[0].store(9, Ordering::Relaxed));
        drop(dirty);
        for n in 2..10_000 {
            cache.get(Class::L2, n * 512, fill(n)).unwrap();
        }
        assert!(cache.cached() <= SHARDS * 4 + 2);
        let again = cache.get(Class::L2, 0, fill(5)).unwrap();
        assert!(Arc::ptr_eq(&held, &again));
        let again = cache.get(Class::Refcount, 512, fill(5)).unwrap();
        assert_eq!(again.word(0), 9);
    }

    #[test]
    fn a_failed_load_is_tried_again() {
        let cache = Cache::new(512, 0);
        let fail = |_: &mut [u8]| Err(Error::corrupt("x"));
        assert!(cache.get(Class::L2, 0, fail).is_err());
        assert_eq!(cache.get(Class::L2, 0, fill(3)).unwrap().word(0), 3);
        assert!(cache.get(Class::Refcount, 0, fill(3)).is_err());
    }

    #[test]
    fn a_run_is_loaded_by_one_call_around_what_is_there() {
        let cache = Cache::new(512, 1 << 20);
        let there = cache.get(Class::L2, 1024, fill(1)).unwrap();
        cache.modify(&there, |words| words[0].store(9, Ordering::Relaxed));
        let calls = AtomicU64::new(0);
        let load = |bytes: &mut [u8], at: u64| {
            calls.fetch_add(1, Ordering::Relaxed);
            assert_eq!((at, bytes.len()), (0, 2048));
            fill(7)(bytes)
        };
        let run = cache.get_run(Class::L2, 0, 4, load).unwrap();
        let words: Vec<u64> = run.iter().map(|slice| slice.word(0)).collect();
        assert_eq!(words, [7, 7, 9, 7]);
        cache.get_run(Class::L2, 0, 4, load).unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn slices_apart_are_loaded_by_one_call() {
        let cache = Cache::new(512, 1 << 20);
        cache.get(Class::L2, 1024, fill(9)).unwrap();
        let mut asked = Vec::new();
        let offsets = [0, 512, 1024, 4096];
        let load = |ranges: &mut [(u64, &mut [u8])]| {
            for (at, bytes) in ranges {
                asked.push((*at, bytes.len()));
                fill(*at + 1)(bytes)?;
            }
            Ok(())
        };
        cache.load_many(Class::L2, &offsets, load).unwrap();
        assert_eq!(asked, [(0, 1024), (4096, 512)]);
        let none = |_: &mut [u8]| Err(Error::corrupt("not loaded"));
        let words = offsets.map(|at| cache.get(Class::L2, at, none).unwrap().word(0));
        assert_eq!(words, [1, 1, 9, 4097]);
        // After a failure each slice is loaded by whoever needs it.
        let fails = |_: &mut [(u64, &mut [u8])]| Err(Error::corrupt("x"));
        assert!(cache.load_many(Class::L2, &[8192], fails).is_err());
        assert_eq!(cache.get(Class::L2, 8192, fill(3)).unwrap().word(0), 3);
    }

    #[test]
    fn what_is_loaded_together_keeps_the_limit_wherever_it_stands() {
        let cache = Cache::new(512, 64 << 10);
        let limit = 128;
        let load = |ranges: &mut [(u64, &mut [u8])]| {
            ranges.iter_mut().try_for_each(|(_, bytes)| fill(1)(bytes))
        };
        // All in one shard, as a header can cause.
        let of_one: Vec<u64> = (0..10_000)
            .map(|n| n * 512)
            .filter(|at| cache.shard_index(*at) == 3)
            .collect();
        for some in of_one.chunks(cache.most_ahead()) {
            cache.load_many(Class::L2, some, load).unwrap();
        }
        assert!(cache.cached() <= limit / SHARDS, "{}", cache.cached());
        let anywhere: Vec<u64> = (0..10_000).map(|n| n * 512).collect();
        for some in anywhere.chunks(cache.most_ahead()) {
            cache.load_many(Class::L2, some, load).unwrap();
        }
        assert!(cache.cached() <= limit, "{}", cache.cached());
    }

    #[test]
    fn a_run_that_cannot_be_read_at_once_is_read_slice_by_slice() {
        let cache = Cache::new(512, 0);
        let load = |bytes: &mut [u8], at: u64| match (bytes.len(), at) {
            (512, 0 | 512) => fill(3)(bytes),
            _ => Err(Error::corrupt("x")),
        };
        assert_eq!(cache.get_run(Class::L2, 0, 2, load).unwrap().len(), 2);
        assert!(cache.get_run(Class::L2, 0, 3, load).is_err());
        assert_eq!(cache.get(Class::L2, 1024, fill(4)).unwrap().word(0), 4);
    }

    #[test]
    fn what_cannot_be_loaded_at_once_is_left_to_others() {
        let cache = Cache::new(512, 0);
        assert!(cache.try_get(Class::L2, 0, |_| Ok(false)).is_none());
        assert!(
            cache
                .try_get(Class::L2, 0, |_| Err(Error::corrupt("x")))
                .is_none()
        );
        let loaded = |value| {
            move |bytes: &mut [u8]| {
                fill(value)(bytes)?;
                Ok(true)
            }
        };
        assert_eq!(cache.try_get(Class::L2, 0, loaded(4)).unwrap().word(0), 4);
        assert_eq!(
            cache.try_get(Class::L2, 0, |_| Ok(false)).unwrap().word(0),
            4
        );
        assert!(cache.try_get(Class::Refcount, 0, loaded(4)).is_none());
        assert_eq!(cache.get(Class::L2, 0, fill(5)).unwrap().word(0), 4);
    }

    #[test]
    fn readers_of_two_words_never_see_a_torn_pair() {
        let cache = Cache::new(512, 0);
        let slice = cache.get(Class::L2, 0, fill(0)).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 0..20_000 {
                    cache.modify(&slice, |words| {
                        words[0].store(n, Ordering::Relaxed);
                        words[1].store(n, Ordering::Relaxed);
                    });
                }
            });
            while !writer.is_finished() {
                let (a, b) = slice.read(|words| {
                    (
                        words[0].load(Ordering::Relaxed),
                        words[1].load(Ordering::Relaxed),
                    )
                });
                assert_eq!(a, b);
            }
        });
    }
}
