//! Space that a file had before it was emptied, kept for what is written next: where freed blocks are discarded,
//! freeing the space and allocating as much again takes longer than writing.
//!
//! The kernel keeps the old length until the final length is set; up to it, anything unwritten reads as zeroes.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{FileStorage, Kind};
use crate::error::{Error, Result, ResultExt};
use crate::storage::{Ending, Storage};
use crate::sys::falloc::{self, Falloc};
use crate::sys::{attr, page_cache, seek};

/// Emptying shorter files takes no time.
const WORTHWHILE: u64 = 16 << 20;
/// Up to this fraction of a file, given as a divisor, counts as little.
const FEW: u64 = 64;
/// Means that the kernel's length is that of the contents.
const NONE: u64 = u64::MAX;

/// What remains of the space of a file's earlier contents.
#[derive(Debug)]
pub(super) struct Spare {
    /// The length of the new contents while the kernel's is longer, otherwise [`NONE`].
    len: AtomicU64,
    /// All blocks before this offset are reserved, whether they have been written or not.
    reserved: AtomicU64,
}

impl Default for Spare {
    fn default() -> Self {
        Self {
            len: AtomicU64::new(NONE),
            reserved: AtomicU64::new(0),
        }
    }
}

impl Spare {
    /// The length of the contents, if the kernel's differs.
    pub(super) fn len(&self) -> Option<u64> {
        match self.len.load(Ordering::Acquire) {
            NONE => None,
            len => Some(len),
        }
    }

    /// Whether every block of the range is reserved.
    pub(super) fn covers(&self, offset: u64, len: u64) -> bool {
        offset.saturating_add(len) <= self.reserved.load(Ordering::Relaxed)
    }

    /// Records that the kernel's length is set to that of the contents.
    pub(super) fn has_length(&self) {
        self.len.store(NONE, Ordering::Release);
    }

    /// Records that what is reserved now was requested, so that it is not freed.
    pub(super) fn is_wanted(&self) {
        self.reserved.store(0, Ordering::Relaxed);
    }

    /// Records that the contents are about to reach `end`.
    pub(super) fn reach(&self, end: u64) {
        let longer = |len: u64| match len {
            NONE => None,
            // From here on the kernel has the right length.
            _ if end >= self.reserved.load(Ordering::Relaxed) => Some(NONE),
            _ => Some(len.max(end)),
        };
        let _ = (self.len).fetch_update(Ordering::AcqRel, Ordering::Acquire, longer);
    }
}

impl FileStorage {
    /// Empties the file but keeps its space; false, with nothing else changed, if it must be truncated instead.
    ///
    /// Only if few blocks are missing, because all of them get allocated; if little has to be written out first, as
    /// some kernels do; and if the file system marks blocks as unwritten instead of freeing and reallocating them.
    pub(super) fn empty_but_keep_space(&self) -> bool {
        let _alone = self.growth.write();
        let Ok(stat) = attr::stat(self.fd()) else {
            return false;
        };
        let few = stat.len / FEW;
        let suits = self.kind == Kind::Regular
            && self.direct.is_none()
            && stat.len >= WORTHWHILE
            && stat.allocated >= stat.len - few
            && attr::is_ext4(self.fd())
            && page_cache::unwritten_bytes(self.fd()).is_ok_and(|bytes| bytes <= few);
        if !suits || falloc::fallocate(self.fd(), Falloc::ZeroKeepSize, 0, stat.len).is_err() {
            return false;
        }
        self.spare.reserved.store(stat.len, Ordering::Relaxed);
        self.spare.len.store(0, Ordering::Release);
        true
    }

    /// Sets the kernel's length to that of the contents.
    pub(super) fn settle_len(&self) -> io::Result<()> {
        if self.spare.len().is_none() {
            return Ok(());
        }
        let _alone = self.growth.write();
        let Some(len) = self.spare.len() else {
            return Ok(());
        };
        self.truncate(len)?;
        self.extents.invalidate();
        Ok(())
    }

    /// Frees what was reserved but not written. There must be no writes in the meantime.
    fn free_spare(&self) -> io::Result<()> {
        let _alone = self.growth.write();
        let end = self.spare.reserved.swap(0, Ordering::Relaxed);
        let end = end.min(self.raw_len()?);
        let mut at = 0;
        while at < end
            && let Some(hole) = seek::next_hole(self.fd(), at)?
            && hole < end
        {
            at = seek::next_data(self.fd(), hole)?.map_or(end, |data| data.min(end));
            if at <= hole {
                break;
            }
            falloc::fallocate(self.fd(), Falloc::PunchHole, hole, at - hole)?;
        }
        self.extents.invalidate();
        Ok(())
    }

    pub(super) fn has_spare(&self) -> bool {
        self.spare.len().is_some() || self.spare.reserved.load(Ordering::Relaxed) != 0
    }
}

impl Ending for FileStorage {
    fn finish(&self) -> Result<()> {
        let settled = self.settle_len().map_err(|error| Error::io(&error));
        settled.of_file(self.name())?;
        // A failure does no harm: the contents are correct either way.
        let _ = self.free_spare();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::sync::Arc;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::Config;

    use super::*;
    use crate::storage::file::{FileCreate, FileOpen, claim, open};
    use crate::storage::{CacheMode, CopyOutcome, Creation, Durability, Preallocation, ZeroFlags};

    const LEN: usize = 16 << 20;

    /// Whether such a file keeps its space on this file system.
    fn can_keep(path: &Path) -> bool {
        let file = std::fs::File::open(path).unwrap();
        let fd = std::os::fd::AsFd::as_fd(&file);
        attr::is_ext4(fd) && page_cache::unwritten_bytes(fd).is_ok()
    }

    /// A file on disk, claimed and emptied for an operation that fills it.
    fn emptied(path: &Path) -> (Creation, Arc<dyn Storage>) {
        std::fs::write(path, vec![0xee; LEN]).unwrap();
        std::fs::File::open(path).unwrap().sync_all().unwrap();
        let options = FileCreate {
            cache: CacheMode::Unsafe,
            is_filled: true,
            ..FileCreate::default()
        };
        let mut creation = Creation::new(Box::new(claim(path, &options).unwrap()));
        creation.empty().unwrap();
        let storage = creation.storage().clone();
        assert_eq!(storage.ending().is_some(), can_keep(path));
        (creation, storage)
    }

    fn check(storage: &dyn Storage, model: &[u8]) {
        assert_eq!(storage.len().unwrap(), model.len() as u64);
        let mut bytes = vec![1; model.len() + 5000];
        storage.read_at(&mut bytes, 0).unwrap();
        assert!(bytes[..model.len()] == *model, "other bytes");
        assert!(bytes[model.len()..].iter().all(|byte| *byte == 0));
    }

    /// One operation on a storage: which call, its offset, its length and the byte to write.
    type Step = (u8, usize, usize, u8);

    fn apply(storage: &dyn Storage, model: &mut Vec<u8>, (call, at, len, byte): Step) {
        let end = at + len;
        let (offset, length) = (at as u64, len as u64);
        match call {
            0 => {
                storage.set_len(offset, Preallocation::Off).unwrap();
                model.resize(at, 0);
            }
            1 => {
                storage.discard(offset, length).unwrap();
                let (at, end) = (at.min(model.len()), end.min(model.len()));
                model[at..end].fill(0);
            }
            _ => {
                match call {
                    2 => storage.write_zeroes(offset, length, ZeroFlags::empty()),
                    3 => storage.write_zeroes(offset, length, ZeroFlags::MAY_UNMAP),
                    _ => storage.write_at(&vec![byte; len], offset),
                }
                .unwrap();
                if model.len() < end {
                    model.resize(end, 0);
                }
                model[at..end].fill(if call < 4 { 0 } else { byte });
            }
        }
    }

    proptest! {
        #![proptest_config(Config::with_cases(8))]

        // Also past the end of the earlier contents.
        #[test]
        fn a_file_that_keeps_its_space_is_empty_and_becomes_what_is_written(
            steps in vec((0..8_u8, 0..LEN * 5 / 4, 1..300_000_usize, 1..=u8::MAX), 1..60),
            syncs: bool,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("f");
            let (creation, storage) = emptied(&path);
            let mut model = Vec::new();
            check(&*storage, &model);
            for step in steps {
                apply(&*storage, &mut model, step);
                assert_eq!(storage.len().unwrap(), model.len() as u64);
            }
            check(&*storage, &model);
            if syncs {
                storage.sync(Durability::Ordered).unwrap();
                assert_eq!(path.metadata().unwrap().len(), model.len() as u64);
            }
            creation.finish().unwrap();
            creation.keep();
            drop(storage);
            assert!(std::fs::read(&path).unwrap() == model, "other bytes");
        }
    }

    #[test]
    fn a_trial_to_share_blocks_leaves_the_space() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let (creation, storage) = emptied(&path);
        let source = dir.path().join("source");
        std::fs::write(&source, [1; 65536]).unwrap();
        let source = open(&source, &FileOpen::default()).unwrap();
        let (from, to) = (source.host().unwrap(), storage.host().unwrap());
        let shared = from.reflink_range(0, to, 4 << 20, 65536).unwrap();
        if shared != CopyOutcome::Done {
            assert_eq!(storage.len().unwrap(), 0);
        }
        assert_eq!(storage.ending().is_some(), can_keep(&path));
        drop(creation);
    }

    #[test]
    fn space_that_nothing_is_written_to_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let (creation, storage) = emptied(&path);
        storage.set_len(LEN as u64, Preallocation::Off).unwrap();
        storage.write_at(&[1; 65536], 1 << 20).unwrap();
        storage.write_at(&[1; 65536], 9 << 20).unwrap();
        creation.finish().unwrap();
        creation.keep();
        drop(storage);
        let there = path.metadata().unwrap();
        assert_eq!(there.len(), LEN as u64);
        assert!(there.blocks() * 512 <= 512 << 10, "{}", there.blocks());
    }

    #[test]
    fn space_that_was_asked_for_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let (creation, storage) = emptied(&path);
        storage
            .set_len(LEN as u64 / 2, Preallocation::Falloc)
            .unwrap();
        creation.finish().unwrap();
        creation.keep();
        drop(storage);
        let there = path.metadata().unwrap();
        assert_eq!(there.len(), LEN as u64 / 2);
        assert!(there.blocks() * 512 >= LEN as u64 / 2);
    }

    #[test]
    fn an_operation_that_fails_leaves_the_file_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let (creation, storage) = emptied(&path);
        storage.write_at(&[1; 65536], 1 << 20).unwrap();
        drop(creation);
        assert_eq!(path.metadata().unwrap().len(), 0);
        drop(storage);
        assert_eq!(path.metadata().unwrap().len(), 0);
    }

    #[test]
    fn a_file_that_is_dropped_has_the_length_of_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let (creation, storage) = emptied(&path);
        storage.write_at(&[1; 65536], 0).unwrap();
        creation.keep();
        drop(storage);
        assert_eq!(path.metadata().unwrap().len(), 65536);
    }
}
