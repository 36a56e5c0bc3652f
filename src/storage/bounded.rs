//! A read-only view that returns a limited number of bytes: what a hostile file claims cannot make
//! its reader work for longer.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::forward::{forward, read_only};
use crate::storage::{Durability, HostFile, Storage};

/// Another storage, to be read up to a number of bytes and never written.
#[derive(Debug)]
pub struct BoundedStorage {
    inner: Arc<dyn Storage>,
    left: AtomicU64,
}

impl BoundedStorage {
    /// A view through which `bytes` can be read in all.
    pub fn new(inner: Arc<dyn Storage>, bytes: u64) -> Self {
        Self {
            inner,
            left: AtomicU64::new(bytes),
        }
    }

    fn charge(&self, bytes: usize) -> Result<()> {
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes as u64)
            });
        taken.map(drop).map_err(|_| {
            Error::new(
                ErrorKind::Limit,
                format!(
                    "'{}' asks for more work than the open policy allows",
                    self.inner.name()
                ),
            )
        })
    }

    fn refused(&self) -> Error {
        Error::open_read_only(self.inner.name())
    }
}

impl Storage for BoundedStorage {
    forward!(
        inner: name, driver, identity, len, extent, limits, allocated_size, step_watcher, lock,
    );
    read_only!(refused);

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.charge(buf.len())?;
        self.inner.read_at(buf, offset)
    }

    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        self.charge(bufs.iter().map(|buf| buf.len()).sum())?;
        self.inner.read_vectored_at(bufs, offset)
    }

    fn try_read(&self, _bufs: &mut [IoSliceMut<'_>], _offset: u64) -> Result<bool> {
        // The read that follows is the one that is charged.
        Ok(false)
    }

    fn sync(&self, _durability: Durability) -> Result<()> {
        // Nothing was written.
        Ok(())
    }

    fn host(&self) -> Option<&dyn HostFile> {
        // Reads of the descriptor would not be charged.
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{MemoryStorage, Preallocation};

    #[test]
    fn the_budget_is_shared_by_all_reads_and_nothing_is_written() {
        let memory = MemoryStorage::new("m");
        memory.write_at(&[7; 16], 0).unwrap();
        let view = BoundedStorage::new(Arc::new(memory), 12);
        let mut buf = [0; 8];
        view.read_at(&mut buf, 0).unwrap();
        assert_eq!(buf, [7; 8]);
        assert_eq!(
            view.read_at(&mut buf, 8).unwrap_err().kind(),
            ErrorKind::Limit
        );
        view.read_at(&mut buf[..4], 12).unwrap();
        assert_eq!(
            view.write_at(&[1], 0).unwrap_err().kind(),
            ErrorKind::ReadOnly
        );
        assert!(view.set_len(0, Preallocation::Off).is_err());
        assert_eq!(view.len().unwrap(), 16);
    }
}
