//! The storage of the filter.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bstr::{BStr, BString};

use super::vote::{Poll, most_common};
use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageExtent;
use crate::filter::differ::difference;
use crate::format::inflight::InFlight;
use crate::memory::IoBuf;
use crate::storage::Ending;
use crate::storage::{
    Durability, HostFile, Identity, Limits, LockRequest, Preallocation, Storage, ZeroFlags,
};

/// Longer reads are voted on in pieces of this size.
const PIECE: usize = 1 << 20;

/// What a read takes its bytes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reading {
    /// The first child that can be read.
    First,
    /// All children.
    Vote {
        /// A difference is an error that says where, whatever the votes.
        must_agree: bool,
        /// Children that lose get what has won.
        rewrites: bool,
    },
}

/// A storage whose bytes are those that enough children have.
#[derive(Debug)]
pub(super) struct Quorum {
    name: BString,
    children: Vec<Child>,
    /// How many children must agree.
    threshold: usize,
    reading: Reading,
    /// Two writes to one range reach every child in the same order, and no vote is taken between the first
    /// child that gets a write and the last.
    busy: InFlight,
}

#[derive(Debug)]
struct Child {
    storage: Arc<dyn Storage>,
    /// A write that succeeded as a whole failed here: this child no longer holds what a read should find.
    missed_a_write: AtomicBool,
}

impl Quorum {
    pub(super) fn new(children: Vec<Arc<dyn Storage>>, threshold: usize, reading: Reading) -> Self {
        let names: Vec<_> = children.iter().map(|child| child.name()).collect();
        let children = children.iter().map(|storage| Child {
            storage: storage.clone(),
            missed_a_write: AtomicBool::new(false),
        });
        Self {
            name: format!("quorum of {}", BStr::new(&bstr::join(", ", names))).into(),
            children: children.collect(),
            threshold,
            reading,
            busy: InFlight::default(),
        }
    }

    fn storages(&self) -> impl Iterator<Item = &Arc<dyn Storage>> {
        self.children.iter().map(|child| &child.storage)
    }

    /// Does something with every child; enough of them must succeed.
    fn on_all(&self, act: impl Fn(&dyn Storage) -> Result<()>) -> Result<()> {
        let mut errors = Vec::new();
        let mut failed = Vec::new();
        for child in &self.children {
            if let Err(error) = act(&*child.storage) {
                errors.push(error);
                failed.push(child);
            }
        }
        if self.children.len() - failed.len() >= self.threshold {
            for child in failed {
                child.missed_a_write.store(true, Ordering::Release);
            }
            return Ok(());
        }
        most_common(errors).map_or(Ok(()), Err)
    }

    fn read_first(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut failure = Error::os(libc::EIO);
        for child in &self.children {
            if child.missed_a_write.load(Ordering::Acquire) {
                continue;
            }
            match child.storage.read_at(buf, offset) {
                Ok(()) => return Ok(()),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Fills `piece` with what most children read it as.
    fn vote(&self, piece: &mut [u8], offset: u64, must_agree: bool, rewrites: bool) -> Result<()> {
        let mut poll = Poll::default();
        let mut memory = IoBuf::new();
        for (voter, storage) in self.storages().enumerate() {
            memory.room(piece.len())?;
            match storage.read_at(&mut memory, offset) {
                Ok(()) => memory = poll.count(voter, memory),
                Err(error) => poll.errors.push(error),
            }
        }
        if must_agree && let [one, other, ..] = &poll.versions[..] {
            let [one_name, other_name] = [&one.voters, &other.voters].map(|voters| {
                let storage = voters.first().and_then(|voter| self.children.get(*voter));
                storage.map_or(BStr::new(""), |child| child.storage.name())
            });
            return Err(difference(
                (one_name, &one.bytes),
                (other_name, &other.bytes),
                offset,
            ));
        }
        if self.children.len() - poll.errors.len() < self.threshold {
            return Err(most_common(poll.errors).unwrap_or_else(|| Error::os(libc::EIO)));
        }
        let winner = poll.winner().map(|place| poll.versions.swap_remove(place));
        let winner = winner.ok_or_else(|| Error::os(libc::EIO))?;
        if winner.voters.len() < self.threshold {
            let hint = format!(
                "The children of the {} differ at offset {offset}: {} of them agree, {} must",
                self.name,
                winner.voters.len(),
                self.threshold
            );
            return Err(Error::os(libc::EIO).with_hint(hint));
        }
        piece.copy_from_slice(&winner.bytes);
        if rewrites && !poll.versions.is_empty() {
            let losers = poll.versions.iter().flat_map(|version| &version.voters);
            self.rewrite(losers, piece, offset)?;
        }
        Ok(())
    }

    /// Writes what has won to the children that lost. One that fails stays as it is: it is outvoted.
    fn rewrite<'a>(
        &self,
        losers: impl Iterator<Item = &'a usize>,
        won: &[u8],
        offset: u64,
    ) -> Result<()> {
        // What lies past the end reads as zeroes, and does not become part of it.
        let there = self.len()?.saturating_sub(offset);
        let there = usize::try_from(there).map_or(won.len(), |there| there.min(won.len()));
        for loser in losers.filter_map(|place| self.children.get(*place)) {
            let _ = loser.storage.write_at(&won[..there], offset);
        }
        Ok(())
    }
}

/// A range as the table of ranges takes it.
fn range(offset: u64, len: u64) -> std::ops::Range<u64> {
    offset..offset.saturating_add(len)
}

impl Storage for Quorum {
    fn name(&self) -> &BStr {
        BStr::new(&self.name)
    }

    fn driver(&self) -> &'static str {
        super::DRIVER.name
    }

    fn identity(&self) -> Option<Identity> {
        // Its bytes are not those of one child.
        None
    }

    fn read_only(&self) -> bool {
        self.storages().any(|storage| storage.read_only())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let Reading::Vote {
            must_agree,
            rewrites,
        } = self.reading
        else {
            return self.read_first(buf, offset);
        };
        let _alone = self.busy.reserve(range(offset, buf.len() as u64));
        let mut at = offset;
        for piece in buf.chunks_mut(PIECE) {
            self.vote(piece, at, must_agree, rewrites)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn try_read(&self, _: &mut [IoSliceMut<'_>], _: u64) -> Result<bool> {
        // All children are read.
        Ok(false)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let _alone = self.busy.reserve(range(offset, buf.len() as u64));
        self.on_all(|child| child.write_at(buf, offset))
    }

    fn len(&self) -> Result<u64> {
        let lens = self.storages().map(|storage| storage.len());
        let (lens, errors): (Vec<_>, Vec<_>) = lens.partition(Result::is_ok);
        let mut lens: Vec<u64> = lens.into_iter().flatten().collect();
        // Enough children have what was written; one that failed may have stayed shorter.
        lens.sort_unstable_by(|a, b| b.cmp(a));
        match lens.get(self.threshold - 1) {
            Some(len) => Ok(*len),
            None => {
                let errors = errors.into_iter().filter_map(Result::err).collect();
                Err(most_common(errors).unwrap_or_else(|| Error::os(libc::EIO)))
            }
        }
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        let _all = self.busy.reserve(0..u64::MAX);
        let old = self.len()?;
        if len < old {
            // What one has cut off cannot be put back when another one refuses.
            self.storages()
                .try_for_each(|storage| storage.check_shrink(len))?;
        }
        for (done, storage) in self.storages().enumerate() {
            if let Err(error) = storage.set_len(len, preallocation) {
                // Children of different lengths could not be opened again.
                for storage in self.storages().take(done) {
                    let _ = storage.set_len(old, Preallocation::Off);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        let _alone = self.busy.reserve(range(offset, len));
        if !flags.contains(ZeroFlags::NO_FALLBACK) {
            return self.on_all(|child| child.write_zeroes(offset, len, flags));
        }
        // A child that cannot do it fast would miss it; the caller then writes to all of them.
        let slow = AtomicBool::new(false);
        let done = self.on_all(|child| {
            child.write_zeroes(offset, len, flags).or_else(|error| {
                if error.kind() != ErrorKind::Unsupported {
                    return Err(error);
                }
                slow.store(true, Ordering::Relaxed);
                Ok(())
            })
        });
        match slow.into_inner() {
            true => Err(Error::unsupported("A child cannot zero such a range fast")),
            false => done,
        }
    }

    fn discard(&self, _: u64, _: u64) -> Result<()> {
        // What it reads as afterwards may be something else in each child.
        Err(Error::unsupported(
            "What a quorum holds cannot be given back: its children would differ",
        ))
    }

    fn sync(&self, durability: Durability) -> Result<()> {
        self.on_all(|child| child.sync(durability))
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        let mut all = StorageExtent {
            len,
            zero: true,
            allocated: false,
        };
        for storage in self.storages() {
            // Where a child cannot tell, its bytes do.
            let Ok(extent) = storage.extent(offset, all.len) else {
                return Ok(StorageExtent {
                    len,
                    zero: false,
                    allocated: true,
                });
            };
            all.len = extent.len.min(all.len);
            all.zero &= extent.zero;
            all.allocated |= extent.allocated;
        }
        Ok(all)
    }

    fn limits(&self) -> Limits {
        let limits = self.storages().map(|storage| storage.limits());
        Limits {
            writes_to_memory: false,
            ..limits.reduce(Limits::both).unwrap_or_default()
        }
    }

    fn allocated_size(&self) -> Option<u64> {
        let mut sizes = self.storages().map(|storage| storage.allocated_size());
        sizes.try_fold(0u64, |sum, size| Some(sum.saturating_add(size?)))
    }

    fn lock(&self, request: LockRequest) -> Result<()> {
        self.storages()
            .try_for_each(|storage| storage.lock(request))
    }

    fn host(&self) -> Option<&dyn HostFile> {
        // Calls on one descriptor would bypass the other children.
        None
    }

    fn ending(&self) -> Option<&dyn Ending> {
        Some(self)
    }
}

impl Ending for Quorum {
    fn finish(&self) -> Result<()> {
        // Its children are nodes, each of which is ended by itself.
        Ok(())
    }

    fn does_without(&self, failed: usize) -> bool {
        self.children.len().saturating_sub(failed) >= self.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;
    use crate::storage::testing::{Calls, Fault, FaultyStorage};

    const VOTE: Reading = Reading::Vote {
        must_agree: false,
        rewrites: false,
    };

    fn memories(bytes: &[u8]) -> Vec<Arc<MemoryStorage>> {
        let memory = |byte: &u8| MemoryStorage::with_bytes(format!("m{byte}"), vec![*byte; 8192]);
        bytes.iter().map(|byte| Arc::new(memory(byte))).collect()
    }

    fn over(children: &[Arc<MemoryStorage>], threshold: usize, reading: Reading) -> Quorum {
        let children = children.iter().map(|child| child.clone() as _);
        Quorum::new(children.collect(), threshold, reading)
    }

    /// The first byte of a read in the middle.
    fn read(quorum: &Quorum) -> Result<u8> {
        let mut buf = [0; 100];
        quorum.read_at(&mut buf, 4000)?;
        Ok(buf[0])
    }

    #[test]
    fn enough_votes_decide() {
        let children = memories(&[1, 2, 1]);
        assert_eq!(read(&over(&children, 2, VOTE)).unwrap(), 1);
        let error = read(&over(&children, 3, VOTE)).unwrap_err();
        assert_eq!(error.os_errno(), Some(libc::EIO));
        assert_eq!(error.hints().len(), 1);
        assert_eq!(read(&over(&children[1..], 2, Reading::First)).unwrap(), 2);
    }

    #[test]
    fn losers_are_rewritten_within_their_length() {
        let children = memories(&[1, 2, 1]);
        let rewriting = Reading::Vote {
            must_agree: false,
            rewrites: true,
        };
        let quorum = over(&children, 2, rewriting);
        assert_eq!(read(&quorum).unwrap(), 1);
        let bytes = children[1].to_vec();
        assert_eq!(
            (bytes[3999], bytes[4000], bytes[4099], bytes[4100]),
            (2, 1, 1, 2)
        );
        let mut tail = [9; 1000];
        quorum.read_at(&mut tail, 8000).unwrap();
        assert_eq!((tail[191], tail[192]), (1, 0));
        assert_eq!(children[1].to_vec().len(), 8192);
    }

    #[test]
    fn a_difference_is_an_error_where_all_must_agree() {
        let agreeing = Reading::Vote {
            must_agree: true,
            rewrites: false,
        };
        let error = read(&over(&memories(&[1, 2]), 2, agreeing)).unwrap_err();
        assert_eq!(error.to_string(), "'m1' and 'm2' differ at offset 4000");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn the_first_child_is_passed_over_after_it_missed_a_write() {
        let children = memories(&[1, 1]);
        let faulty = Arc::new(FaultyStorage::new(children[0].clone()));
        faulty.set_fault(Some(Fault {
            calls: Calls::WRITE,
            nth: 0,
            errno: libc::ENOSPC,
            for_good: false,
            torn: false,
        }));
        let quorum = Quorum::new(vec![faulty, children[1].clone()], 1, Reading::First);
        quorum.write_at(&[5; 4096], 4000).unwrap();
        assert_eq!(children[0].to_vec()[4000], 1);
        assert_eq!(read(&quorum).unwrap(), 5);
    }

    #[test]
    fn writes_of_one_range_reach_all_children_in_one_order() {
        let children = memories(&[0, 0, 0]);
        let quorum = over(&children, 3, VOTE);
        std::thread::scope(|scope| {
            for byte in 1..4u8 {
                let quorum = &quorum;
                scope.spawn(move || {
                    for at in 0..200 {
                        quorum.write_at(&[byte; 512], at % 7 * 256).unwrap();
                        quorum.read_at(&mut [0; 700], at % 5 * 300).unwrap();
                    }
                });
            }
        });
        assert_eq!(children[0].to_vec(), children[1].to_vec());
        assert_eq!(children[0].to_vec(), children[2].to_vec());
    }

    #[test]
    fn the_length_is_that_of_enough_children() {
        let children = memories(&[1, 1, 1]);
        let quorum = over(&children, 2, VOTE);
        children[2].set_len(100, Preallocation::Off).unwrap();
        assert_eq!(quorum.len().unwrap(), 8192);
        children[1].set_len(200, Preallocation::Off).unwrap();
        assert_eq!(quorum.len().unwrap(), 200);
        quorum.set_len(512, Preallocation::Off).unwrap();
        assert!(children.iter().all(|child| child.to_vec().len() == 512));
    }

    #[test]
    fn zeroes_are_known_where_all_children_have_them() {
        let children = memories(&[0, 0]);
        let quorum = over(&children, 2, VOTE);
        assert!(!quorum.extent(0, 10_000).unwrap().zero);
        let past = quorum.extent(8192, 10).unwrap();
        assert!(past.zero && !past.allocated);
        quorum.discard(0, 4096).unwrap_err();
    }
}
