//! How many parts of a table to read together if each request waits for a server or a device: more each time while
//! reads continue sequentially, and fewer after a failure.

use std::ops::Range;

use parking_lot::Mutex;

use crate::error::Result;
use crate::format::kept::Kept;
use crate::memory::{self, IoBuf};
use crate::storage::{ReadRange, Storage, steps};

/// Initial number of parts to read together.
const FIRST: usize = 16;
/// Maximum number of table bytes to read together.
pub(crate) const MOST_BYTES: u64 = 1 << 20;

/// One thread at a time reads ahead, so that what it reads is the only such data in a cache.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    is_on: bool,
    batch: Mutex<usize>,
}

impl ReadAhead {
    /// For tables in this storage.
    pub(crate) fn of(storage: &dyn Storage) -> Self {
        Self {
            is_on: steps::are_sent_together(storage),
            batch: Mutex::new(FIRST),
        }
    }

    /// Whether to read ahead, because requests are slow.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Calls `read` with the number of parts to read, at most `most`, if they are needed; this is checked again after
    /// waiting for other threads. A failure here will recur for whoever needs the part.
    pub(crate) fn run(
        &self,
        most: usize,
        mut is_needed: impl FnMut() -> bool,
        read: impl FnOnce(usize) -> Result<()>,
    ) {
        // A single part is read by whoever needs it.
        if !self.is_on || most < 2 || !is_needed() {
            return;
        }
        let mut batch = self.batch.lock();
        if is_needed() {
            let now = (*batch).min(most);
            *batch = match read(now) {
                Ok(()) => now.saturating_mul(2),
                Err(_) => (now / 4).max(2),
            };
        }
    }
}

impl ReadAhead {
    /// Brings pieces of `len` bytes each into memory together; `places` are their numbers and their offsets in the
    /// storage, and the first two are needed. `piece` creates a piece from its bytes and its number.
    pub(crate) fn bring<T>(
        &self,
        kept: &Kept<T>,
        storage: &dyn Storage,
        mut places: impl Iterator<Item = (u64, u64)>,
        len: usize,
        piece: impl Fn(&[u8], u64) -> Result<T>,
    ) {
        // A run may continue into the next piece.
        let first: [Option<(u64, u64)>; 2] = std::array::from_fn(|_| places.next());
        let is_unread = |place: &(u64, u64)| !kept.has(place.0);
        let is_needed = || first.iter().flatten().any(is_unread);
        let each = len as u64;
        let most = kept.most().min((MOST_BYTES / each.max(1)) as usize);
        self.run(most, is_needed, |count| {
            kept.bring(|| {
                let file_len = storage.len()?;
                let is_inside = |at: u64| at.checked_add(each).is_some_and(|end| end <= file_len);
                let mut wanted = Vec::new();
                let places = first.into_iter().flatten().chain(places).filter(is_unread);
                for place in places.filter(|(_, at)| is_inside(*at)).take(count) {
                    memory::push(&mut wanted, place)?;
                }
                let bytes = read_together(storage, wanted.iter().map(|(_, at)| *at..at + each))?;
                let mut pieces = Vec::new();
                for ((number, _), bytes) in wanted.iter().zip(bytes.chunks_exact(len.max(1))) {
                    memory::push(&mut pieces, (*number, piece(bytes, *number)?))?;
                }
                Ok(pieces)
            })
        });
    }
}

/// Reads these places and returns their bytes concatenated; adjacent places are read by one request.
///
/// # Errors
/// If I/O fails, or if memory is exhausted.
pub(crate) fn read_together(
    storage: &dyn Storage,
    places: impl Iterator<Item = Range<u64>> + Clone,
) -> Result<IoBuf> {
    let len = |place: &Range<u64>| (place.end - place.start) as usize;
    let total = places.clone().map(|place| len(&place)).sum();
    let mut bytes = memory::zeroed(total)?;
    let mut ranges: Vec<ReadRange<'_>> = Vec::new();
    let mut rest = &mut *bytes;
    let mut run: Option<Range<u64>> = None;
    for place in places.map(Some).chain([None]) {
        match (&mut run, &place) {
            (Some(run), Some(next)) if run.end == next.start => run.end = next.end,
            _ => {
                if let Some(run) = std::mem::replace(&mut run, place) {
                    let (now, later) = std::mem::take(&mut rest).split_at_mut(len(&run));
                    rest = later;
                    memory::push(&mut ranges, (run.start, now))?;
                }
            }
        }
    }
    storage.read_many_at(&mut ranges)?;
    drop(ranges);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::storage::MemoryStorage;

    #[test]
    fn places_are_read_in_their_order() {
        let storage = MemoryStorage::with_bytes("m", (0..=255).collect());
        let places = [2..4, 4..5, 100..101, 7..9];
        let bytes = read_together(&storage, places.into_iter()).unwrap();
        assert_eq!(bytes[..], [2, 3, 4, 100, 7, 8]);
        let none = read_together(&storage, std::iter::empty()).unwrap();
        assert!(none.is_empty());
    }

    fn on() -> ReadAhead {
        ReadAhead {
            is_on: true,
            batch: Mutex::new(FIRST),
        }
    }

    #[test]
    fn more_are_read_each_time_and_fewer_after_a_failure() {
        let ahead = on();
        let mut asked = Vec::new();
        let mut read = |ok| {
            ahead.run(
                100,
                || true,
                |count| {
                    asked.push(count);
                    match ok {
                        true => Ok(()),
                        false => Err(Error::corrupt("x")),
                    }
                },
            );
        };
        for ok in [
            true, true, true, true, false, false, false, false, true, true,
        ] {
            read(ok);
        }
        assert_eq!(asked, [16, 32, 64, 100, 100, 25, 6, 2, 2, 4]);
    }

    #[test]
    fn what_is_not_needed_is_not_read() {
        let ahead = on();
        let never = |_| -> Result<()> { panic!("nobody needs it") };
        ahead.run(100, || false, never);
        ahead.run(1, || true, never);
        let near = crate::storage::memory::MemoryStorage::new("near");
        ReadAhead::of(&near).run(100, || true, never);
        // Another thread has read it in the meantime.
        let mut looks = 0;
        let once = || {
            looks += 1;
            looks == 1
        };
        ahead.run(100, once, never);
    }
}
