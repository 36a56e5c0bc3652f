//! A window of another storage: raw's `offset` and `size`, a member of an archive.

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::extent::StorageExtent;
use crate::storage::forward::forward;
use crate::storage::{HostFile, Limits, Preallocation, Prefetch, ReadRange, Storage, ZeroFlags};

/// The bytes of another storage from an offset on.
#[derive(Debug)]
pub struct SliceStorage {
    inner: Arc<dyn Storage>,
    start: u64,
    size: Option<u64>,
}

impl SliceStorage {
    /// The window from `start`, `size` bytes long; without a size up to the end, wherever that
    /// moves.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] where the window passes the end, or the storage's.
    pub fn new(inner: Arc<dyn Storage>, start: u64, size: Option<u64>) -> Result<Self> {
        let len = inner.len()?;
        let fits = match size {
            Some(size) => start.checked_add(size).is_some_and(|end| end <= len),
            None => start <= len,
        };
        if !fits {
            return Err(Error::invalid(format!(
                "The window at {start} passes the end of '{}' at {len}",
                inner.name()
            )));
        }
        Ok(Self { inner, start, size })
    }

    /// The offset below of a range that lies inside a fixed window; None where it passes its end.
    fn below(&self, offset: u64, len: u64) -> Option<u64> {
        let end = offset.checked_add(len)?;
        if self.size.is_some_and(|size| end > size) {
            return None;
        }
        self.start.checked_add(end)?;
        Some(self.start + offset)
    }

    fn writable(&self, offset: u64, len: u64) -> Result<u64> {
        self.below(offset, len)
            .ok_or_else(|| Error::os(libc::ENOSPC))
    }
}

impl Storage for SliceStorage {
    forward!(
        inner: name, driver, identity, read_only, sync, allocated_size, step_watcher, lock,
    );

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let left = self
            .size
            .map_or(u64::MAX, |size| size.saturating_sub(offset));
        let there = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let (inside, outside) = buf.split_at_mut(there);
        outside.fill(0);
        if inside.is_empty() {
            return Ok(());
        }
        self.inner
            .read_at(inside, self.start.saturating_add(offset))
    }

    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        let len = bufs.iter().map(|buf| buf.len() as u64).sum();
        if let Some(at) = self.below(offset, len) {
            return self.inner.read_vectored_at(bufs, at);
        }
        let mut at = offset;
        for buf in bufs {
            self.read_at(buf, at)?;
            at = at.saturating_add(buf.len() as u64);
        }
        Ok(())
    }

    fn read_many_at(&self, ranges: &mut [ReadRange<'_>]) -> Result<()> {
        let inside = |range: &ReadRange<'_>| self.below(range.0, range.1.len() as u64).is_some();
        if ranges.iter().all(inside) {
            let mut below: Vec<ReadRange<'_>> = ranges
                .iter_mut()
                .map(|(offset, buf)| (self.start + *offset, &mut **buf))
                .collect();
            return self.inner.read_many_at(&mut below);
        }
        for (offset, buf) in ranges {
            self.read_at(buf, *offset)?;
        }
        Ok(())
    }

    fn try_read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<bool> {
        let len = bufs.iter().map(|buf| buf.len() as u64).sum();
        match self.below(offset, len) {
            Some(at) => self.inner.try_read(bufs, at),
            None => Ok(false),
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let at = self.writable(offset, buf.len() as u64)?;
        self.inner.write_at(buf, at)
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        let len = bufs.iter().map(|buf| buf.len() as u64).sum();
        let at = self.writable(offset, len)?;
        self.inner.write_vectored_at(bufs, at)
    }

    fn len(&self) -> Result<u64> {
        match self.size {
            Some(size) => Ok(size),
            None => Ok(self.inner.len()?.saturating_sub(self.start)),
        }
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        match self.size {
            Some(size) if len == size && preallocation == Preallocation::Off => Ok(()),
            Some(_) => Err(Error::unsupported("Cannot resize fixed-size raw disks")),
            None => {
                let end = self
                    .start
                    .checked_add(len)
                    .ok_or_else(|| Error::os(libc::EFBIG))?;
                self.inner.set_len(end, preallocation)
            }
        }
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        let at = self.writable(offset, len)?;
        self.inner.write_zeroes(at, len, flags)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let at = self.writable(offset, len)?;
        self.inner.discard(at, len)
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        let left = self
            .size
            .map_or(u64::MAX, |size| size.saturating_sub(offset));
        let Some(at) = self.below(offset, len.min(left)).filter(|_| left > 0) else {
            return Ok(StorageExtent {
                len,
                zero: true,
                allocated: false,
            });
        };
        self.inner.extent(at, len.min(left))
    }

    fn limits(&self) -> Limits {
        let limits = self.inner.limits();
        Limits {
            fixed_len: limits.fixed_len || self.size.is_some(),
            write_unit: match self.start % limits.write_unit {
                0 => limits.write_unit,
                _ => 1,
            },
            ..limits
        }
    }

    fn prefetcher(&self) -> Option<&dyn Prefetch> {
        self.inner.prefetcher().map(|_| self as _)
    }

    fn host(&self) -> Option<&dyn HostFile> {
        // Offsets in the descriptor are not those of the window.
        None
    }
}

impl Prefetch for SliceStorage {
    fn prefetch(&self, offset: u64, len: u64) -> Result<()> {
        let left = self
            .size
            .map_or(u64::MAX, |size| size.saturating_sub(offset));
        let near = self.below(offset, len.min(left));
        match near.zip(self.inner.prefetcher()) {
            Some((at, inner)) if left > 0 => inner.prefetch(at, len.min(left)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    #[test]
    fn a_window_shows_nothing_beside_it() {
        let memory = Arc::new(MemoryStorage::with_bytes("m", (0..100).collect()));
        let window = SliceStorage::new(memory.clone(), 10, Some(20)).unwrap();
        let mut buf = [9; 8];
        window.read_at(&mut buf, 16).unwrap();
        assert_eq!(buf, [26, 27, 28, 29, 0, 0, 0, 0]);
        window.read_at(&mut buf, u64::MAX).unwrap();
        assert_eq!(buf, [0; 8]);
        assert!(window.write_at(&[1; 5], 16).is_err());
        window.write_at(&[1; 4], 16).unwrap();
        assert_eq!(memory.to_vec()[25..31], [25, 1, 1, 1, 1, 30]);
        assert_eq!(window.extent(5, 100).unwrap().len, 15);
        assert!(window.extent(20, 7).unwrap().zero);
        assert!(SliceStorage::new(memory.clone(), 90, Some(11)).is_err());
        assert!(SliceStorage::new(memory.clone(), u64::MAX, Some(2)).is_err());

        let tail = SliceStorage::new(memory.clone(), 90, None).unwrap();
        assert_eq!(tail.len().unwrap(), 10);
        tail.write_at(&[7; 4], 12).unwrap();
        assert_eq!(tail.len().unwrap(), 16);
        tail.set_len(3, Preallocation::Off).unwrap();
        assert_eq!(memory.len().unwrap(), 93);
    }
}
