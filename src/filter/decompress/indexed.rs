//! A compressed file that tells which part of it holds what: a part is unpacked when it is asked for.

use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::DRIVER;
use crate::codec::container::Index;
use crate::crew;
use crate::error::{Error, Result, ResultExt};
use crate::extent::StorageExtent;
use crate::format::decoded::DecodedUnits;
use crate::job::JobControl;
use crate::job::without_signals;
use crate::memory::IoBuf;
use crate::policy::OpenPolicy;
use crate::storage::forward::{forward, read_only};
use crate::storage::{Limits, Storage};
use crate::zero::is_zero;

use super::GRAIN;

#[derive(Debug)]
pub(super) struct Indexed {
    file: Arc<dyn Storage>,
    index: Index,
    /// The parts that were unpacked last, by their place among all bytes.
    unpacked: DecodedUnits,
    memory: Memory,
    control: Arc<JobControl>,
}

impl Indexed {
    /// For a file with its index.
    pub(super) fn new(
        file: Arc<dyn Storage>,
        index: Index,
        policy: &OpenPolicy,
        control: &Arc<JobControl>,
    ) -> Self {
        // What is kept, and what is worked on.
        let kept = policy.max_decoder_bytes / 8 * 3;
        Self {
            file,
            index,
            unpacked: DecodedUnits::of_bytes(usize::try_from(kept).unwrap_or(usize::MAX)),
            memory: Memory::of(policy.max_decoder_bytes - kept),
            control: control.clone(),
        }
    }

    /// The bytes of a part. Where the one before it was wanted too, those behind it are unpacked beside it: as
    /// many as there are processors and memory for.
    fn part(&self, part: usize) -> Result<Arc<IoBuf>> {
        if let Some(bytes) = self.kept(part) {
            return Ok(bytes);
        }
        let follows = part.checked_sub(1).and_then(|before| self.kept(before));
        let ahead = match follows {
            Some(_) => self.beside(part),
            None => 1,
        };
        if ahead < 2 {
            return self.unpack(part);
        }
        let working = JobControl::of_this_thread();
        let working = working.as_ref();
        thread::scope(|scope| {
            for next in (part + 1..self.index.parts()).take(ahead - 1) {
                let work = move || {
                    let _working = working.map(JobControl::work_here);
                    // A failure is met again by the read that wants the part.
                    drop(self.unpack(next));
                };
                let _ = without_signals(|| crew::thread("unpack").spawn_scoped(scope, work));
            }
            self.unpack(part)
        })
    }

    /// How many parts from this one on are unpacked at once.
    fn beside(&self, part: usize) -> usize {
        let each = self.index.memory_of(part).max(1);
        let affordable = usize::try_from(self.memory.all / each).unwrap_or(usize::MAX);
        crew::processors().min(affordable)
    }

    fn kept(&self, part: usize) -> Option<Arc<IoBuf>> {
        let (at, len) = self.index.range_of(part)?;
        self.unpacked.get(at, len)
    }

    fn unpack(&self, part: usize) -> Result<Arc<IoBuf>> {
        let (at, len) = self.index.range_of(part).unwrap_or_default();
        self.unpacked.get_or_decode(at, len, |out| {
            let _share = self.memory.take(self.index.memory_of(part));
            self.control.checkpoint()?;
            let read_at = |buf: &mut [u8], at| self.file.read_at(buf, at);
            let done = self.index.unpack(part, &read_at, out);
            done.context(|| format!("'{}'", self.file.name()))
        })
    }

    /// The part that holds the byte at `offset`, and where in it that byte is.
    fn at(&self, offset: u64) -> Result<Option<(Arc<IoBuf>, usize)>> {
        let Some(part) = self.index.part_at(offset) else {
            return Ok(None);
        };
        let (start, _) = self.index.range_of(part).unwrap_or_default();
        Ok(Some((self.part(part)?, (offset - start) as usize)))
    }
}

impl Indexed {
    fn refused(&self) -> Error {
        super::refused(self.name())
    }
}

impl Storage for Indexed {
    forward!(file: name, identity, allocated_size, lock);
    read_only!(refused, made);

    fn driver(&self) -> &'static str {
        DRIVER.name
    }

    fn read_at(&self, mut buf: &mut [u8], mut offset: u64) -> Result<()> {
        while !buf.is_empty() {
            let Some((bytes, from)) = self.at(offset)? else {
                buf.fill(0);
                return Ok(());
            };
            let bytes = bytes.get(from..).unwrap_or_default();
            let len = bytes.len().min(buf.len());
            let (now, later) = buf.split_at_mut(len);
            now.copy_from_slice(bytes.get(..len).unwrap_or_default());
            buf = later;
            offset += len as u64;
        }
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.index.plain_len())
    }

    /// Zeroes are holes, as in the temporary file.
    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        let Some((bytes, from)) = self.at(offset)? else {
            return Ok(StorageExtent {
                len,
                zero: true,
                allocated: false,
            });
        };
        let bytes = bytes.get(from..).unwrap_or_default();
        let end = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = bytes.get(..end).unwrap_or_default();
        // Up to the border of the next grain, and from there on by whole ones.
        let first = GRAIN - (offset % GRAIN as u64) as usize;
        let (head, rest) = bytes.split_at(first.min(bytes.len()));
        let zero = is_zero(head);
        let same = rest
            .chunks(GRAIN)
            .take_while(|grain| is_zero(grain) == zero);
        let found = head.len() + same.map(<[u8]>::len).sum::<usize>();
        Ok(StorageExtent {
            len: found as u64,
            zero,
            allocated: !zero,
        })
    }

    fn limits(&self) -> Limits {
        Limits {
            fixed_len: true,
            ..Limits::default()
        }
    }
}

/// Memory that threads share; a thread that wants more than is left waits.
#[derive(Debug)]
struct Memory {
    all: u64,
    taken: Mutex<u64>,
    given_back: Condvar,
}

impl Memory {
    fn of(all: u64) -> Self {
        Self {
            all,
            taken: Mutex::new(0),
            given_back: Condvar::new(),
        }
    }

    /// A share of that size; a thread that is alone gets any size.
    fn take(&self, bytes: u64) -> Share<'_> {
        let mut taken = self.taken.lock();
        while *taken > 0 && taken.saturating_add(bytes) > self.all {
            self.given_back.wait(&mut taken);
        }
        *taken = taken.saturating_add(bytes);
        Share {
            memory: self,
            bytes,
        }
    }
}

struct Share<'a> {
    memory: &'a Memory,
    bytes: u64,
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut taken = self.memory.taken.lock();
        *taken = taken.saturating_sub(self.bytes);
        self.memory.given_back.notify_all();
    }
}
