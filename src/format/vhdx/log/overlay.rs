//! A file as it will be once its log is replayed: the changes in the log are held in memory.

use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageExtent;
use crate::memory::{self, IoBuf};
use crate::storage::forward::forward;
use crate::storage::{Durability, HostFile, Preallocation, Storage, ZeroFlags};

use super::super::disk::DATA_SECTOR;
use super::scan::Change;

/// Memory that the patches of one more change may take, besides their data.
const PATCHES: u64 = 2 << 10;

/// A range that differs from the file.
#[derive(Debug)]
struct Patch {
    end: u64,
    /// `None`: zeroes.
    page: Option<IoBuf>,
}

/// The file with its log replayed, read-only.
#[derive(Debug)]
pub(in super::super) struct LogOverlay {
    inner: Arc<dyn Storage>,
    len: u64,
    /// By their start; no two overlap.
    patches: BTreeMap<u64, Patch>,
    /// Bytes of pages that may still be added.
    left: u64,
}

impl LogOverlay {
    /// For a file that will have this length.
    pub(super) fn new(inner: Arc<dyn Storage>, len: u64, max_memory: u64) -> Self {
        Self {
            inner,
            len,
            patches: BTreeMap::new(),
            left: max_memory,
        }
    }

    /// Adds a change on top of the previous ones.
    pub(super) fn add(&mut self, change: Change<'_>) -> Result<()> {
        let (start, end, page) = match change {
            Change::Page(offset, page) => {
                let len = DATA_SECTOR as u64;
                self.left = self.left.checked_sub(len).ok_or_else(|| {
                    Error::new(
                        ErrorKind::Limit,
                        "The VHDX log is too large for the open policy",
                    )
                })?;
                (
                    offset,
                    offset.saturating_add(len),
                    Some(memory::copied(page)?),
                )
            }
            Change::Zero(offset, len) => (offset, offset.saturating_add(len), None),
        };
        if start == end {
            return Ok(());
        }
        memory::headroom(PATCHES)?;
        self.clear(start, end);
        self.len = self.len.max(end);
        self.patches.insert(start, Patch { end, page });
        Ok(())
    }

    /// Removes what is known about a range. Pages are never split, because all ranges consist of whole pages.
    fn clear(&mut self, start: u64, end: u64) {
        if let Some((_, before)) = self.patches.range_mut(..start).next_back()
            && before.end > start
        {
            let old = std::mem::replace(&mut before.end, start);
            if old > end {
                self.patches.insert(
                    end,
                    Patch {
                        end: old,
                        page: None,
                    },
                );
            }
        }
        while let Some((&at, _)) = self.patches.range(start..end).next() {
            if let Some(patch) = self.patches.remove(&at)
                && patch.end > end
            {
                let rest = Patch {
                    end: patch.end,
                    page: None,
                };
                self.patches.insert(end, rest);
            }
        }
    }

    /// The patches that overlap a range.
    fn within(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, &Patch)> {
        let before = self.patches.range(..start).next_back();
        let inside = self.patches.range(start..end.max(start));
        let all = before.into_iter().chain(inside);
        all.map(|(at, patch)| (*at, patch))
            .filter(move |(_, patch)| patch.end > start)
    }

    fn refused(&self) -> Error {
        Error::open_read_only(self.inner.name())
    }
}

impl Storage for LogOverlay {
    forward!(
        inner: name, driver, identity, limits, allocated_size, step_watcher, lock,
    );

    fn read_only(&self) -> bool {
        true
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_at(buf, offset)?;
        let end = offset.saturating_add(buf.len() as u64);
        for (at, patch) in self.within(offset, end) {
            let (from, to) = (at.max(offset), patch.end.min(end));
            let Some(target) = buf.get_mut((from - offset) as usize..(to - offset) as usize) else {
                continue;
            };
            match &patch.page {
                None => target.fill(0),
                Some(page) => {
                    let bytes = page.get((from - at) as usize..).unwrap_or_default();
                    for (to, from) in target.iter_mut().zip(bytes) {
                        *to = *from;
                    }
                }
            }
        }
        Ok(())
    }

    fn try_read(&self, _bufs: &mut [IoSliceMut<'_>], _offset: u64) -> Result<bool> {
        Ok(false)
    }

    fn write_at(&self, _buf: &[u8], _offset: u64) -> Result<()> {
        Err(self.refused())
    }

    fn write_vectored_at(&self, _bufs: &[IoSlice<'_>], _offset: u64) -> Result<()> {
        Err(self.refused())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn set_len(&self, _len: u64, _preallocation: Preallocation) -> Result<()> {
        Err(self.refused())
    }

    fn write_zeroes(&self, _offset: u64, _len: u64, _flags: ZeroFlags) -> Result<()> {
        Err(self.refused())
    }

    fn discard(&self, _offset: u64, _len: u64) -> Result<()> {
        Err(self.refused())
    }

    fn sync(&self, _durability: Durability) -> Result<()> {
        // Nothing was written.
        Ok(())
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        let end = offset.saturating_add(len);
        let Some((at, patch)) = self.within(offset, end).next() else {
            return self.inner.extent(offset, len);
        };
        if at > offset {
            return self.inner.extent(offset, at - offset);
        }
        Ok(StorageExtent {
            len: patch.end.min(end) - offset,
            zero: patch.page.is_none(),
            allocated: true,
        })
    }

    fn host(&self) -> Option<&dyn HostFile> {
        // The file descriptor does not include the changes in memory.
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    #[test]
    fn later_changes_lie_over_earlier_ones_and_the_file_shows_between_them() {
        let file = Arc::new(MemoryStorage::with_bytes("m", vec![9; 40_000]));
        let mut overlay = LogOverlay::new(file, 50_000, 1 << 20);
        overlay.add(Change::Zero(4096, 5 * 4096)).unwrap();
        overlay.add(Change::Page(8192, &[1; DATA_SECTOR])).unwrap();
        overlay.add(Change::Page(8192, &[2; DATA_SECTOR])).unwrap();
        overlay
            .add(Change::Page(40_960, &[3; DATA_SECTOR]))
            .unwrap();
        let mut bytes = vec![0; 50_000];
        overlay.read_at(&mut bytes, 0).unwrap();
        let mut model = vec![9; 40_000];
        model.resize(50_000, 0);
        model[4096..6 * 4096].fill(0);
        model[8192..12_288].fill(2);
        model[40_960..45_056].fill(3);
        assert_eq!(bytes, model);
        let mut part = vec![7; 5000];
        overlay.read_at(&mut part, 10_000).unwrap();
        assert_eq!(part, model[10_000..15_000]);
        let extent = |at| {
            let run = overlay.extent(at, 100_000).unwrap();
            (run.len, run.zero)
        };
        assert_eq!(extent(0).0, 4096);
        assert_eq!(extent(5000), (3192, true));
        assert_eq!(extent(9000), (3288, false));
        assert_eq!(extent(12_288), (3 * 4096, true));
        assert_eq!(overlay.len().unwrap(), 50_000);
        overlay.write_at(&[1], 0).unwrap_err();
        overlay.add(Change::Zero(0, 1 << 20)).unwrap();
        overlay.read_at(&mut bytes, 0).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn memory_is_bounded() {
        let file = Arc::new(MemoryStorage::with_bytes("m", vec![9; 10]));
        let mut overlay = LogOverlay::new(file, 10, 8192);
        for n in 0..2 {
            overlay
                .add(Change::Page(n * 4096, &[1; DATA_SECTOR]))
                .unwrap();
        }
        let error = overlay.add(Change::Page(0, &[1; DATA_SECTOR])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
    }
}
