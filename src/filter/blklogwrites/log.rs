//! The log as it is written.

use std::io::IoSlice;
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Entry, Flags, Superblock};
use crate::error::{Error, Result};
use crate::job::JobControl;
use crate::memory;
use crate::storage::{Durability, LockRequest, Permissions, Storage, ZeroFlags};

/// What follows an entry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Data<'a> {
    /// These bytes, which are whole sectors together.
    Bytes(&'a [IoSlice<'a>]),
    /// This many zeroes.
    Zeroes(u64),
    /// Nothing.
    None,
}

/// A log that entries are appended to.
#[derive(Debug)]
pub(super) struct Log {
    storage: Arc<dyn Storage>,
    sector: u64,
    /// The superblock is written after this many entries, unless a flush comes first.
    interval: u64,
    /// Held while an entry is written, so that none follows one that failed.
    end: Mutex<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    /// Where the next entry goes.
    offset: u64,
    /// How many there are before it.
    entries: u64,
}

impl Log {
    /// A log that starts over.
    pub(super) fn new(storage: Arc<dyn Storage>, sector: u64, interval: u64) -> Self {
        Self {
            storage,
            sector,
            interval,
            end: Mutex::new(End {
                offset: sector,
                entries: 0,
            }),
        }
    }

    /// A log that goes on behind the entries that it has.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] where it is not a log, [`crate::ErrorKind::Corrupt`] where it ends
    /// before its last entry, [`crate::ErrorKind::Cancelled`], or of reading.
    pub(super) fn append(
        storage: Arc<dyn Storage>,
        interval: u64,
        control: &JobControl,
    ) -> Result<Self> {
        let mut bytes = [0; Superblock::LEN];
        storage.read_at(&mut bytes, 0)?;
        let superblock = Superblock::from_bytes(&bytes)?;
        let sector = superblock.sector;
        let len = storage.len()?;
        let mut offset = sector;
        for entry in 0..superblock.entries {
            control.checkpoint()?;
            let mut bytes = [0; Entry::LEN];
            storage.read_at(&mut bytes, offset)?;
            let next = Entry::from_bytes(&bytes)
                .data_len(sector)
                .and_then(|data| offset.checked_add(sector)?.checked_add(data))
                .filter(|next| *next <= len);
            offset = next.ok_or_else(|| {
                Error::corrupt(format!(
                    "'{}' ends before its entry {entry} of {}",
                    storage.name(),
                    superblock.entries
                ))
                .with_offset(offset)
            })?;
        }
        let log = Self::new(storage, sector, interval);
        *log.end.lock() = End {
            offset,
            entries: superblock.entries,
        };
        Ok(log)
    }

    /// The length of its sectors.
    pub(super) fn sector(&self) -> u64 {
        self.sector
    }

    /// Records a change of a range, which is whole sectors.
    ///
    /// # Errors
    /// Of writing; the log is as if nothing had been recorded then.
    pub(super) fn record(&self, offset: u64, len: u64, data: Data<'_>) -> Result<()> {
        let entry = Entry {
            sector: offset / self.sector,
            sectors: len / self.sector,
            flags: match data {
                Data::None => Flags::DISCARD,
                Data::Bytes(_) | Data::Zeroes(_) => Flags::empty(),
            },
        };
        let mut end = self.end.lock();
        self.write(&mut end, entry, data)?;
        match end.entries.is_multiple_of(self.interval) {
            true => self.write_superblock(end.entries),
            false => Ok(()),
        }
    }

    /// Records a flush, if it was one; the log is as durable when this returns, and its superblock counts all entries.
    ///
    /// # Errors
    /// Of writing or syncing.
    pub(super) fn record_flush(&self, durability: Durability) -> Result<()> {
        let entry = Entry {
            sector: 0,
            sectors: 0,
            flags: Flags::FLUSH,
        };
        let mut end = self.end.lock();
        if durability == Durability::Synced {
            self.write(&mut end, entry, Data::None)?;
        }
        // The entries that the superblock counts are written before it.
        self.storage.sync(durability)?;
        self.write_superblock(end.entries)?;
        self.storage.sync(durability)
    }

    fn write(&self, end: &mut End, entry: Entry, data: Data<'_>) -> Result<()> {
        let overflow = || Error::os(libc::EFBIG);
        let mut header = memory::zeroed(usize::try_from(self.sector).map_err(|_| overflow())?)?;
        header[..Entry::LEN].copy_from_slice(&entry.to_bytes());
        let behind = end.offset.checked_add(self.sector).ok_or_else(overflow)?;
        let len = match data {
            Data::Bytes(bytes) => {
                let mut bufs = vec![IoSlice::new(&header)];
                bufs.extend_from_slice(bytes);
                self.storage.write_vectored_at(&bufs, end.offset)?;
                bytes.iter().map(|buf| buf.len() as u64).sum()
            }
            Data::Zeroes(len) => {
                self.storage.write_at(&header, end.offset)?;
                // A log of zeroes need not take space.
                self.storage
                    .write_zeroes(behind, len, ZeroFlags::MAY_UNMAP)?;
                len
            }
            Data::None => {
                self.storage.write_at(&header, end.offset)?;
                0
            }
        };
        *end = End {
            offset: behind.checked_add(len).ok_or_else(overflow)?,
            entries: end.entries.saturating_add(1),
        };
        Ok(())
    }

    fn write_superblock(&self, entries: u64) -> Result<()> {
        let superblock = Superblock {
            entries,
            sector: self.sector,
        };
        let sector = usize::try_from(self.sector).map_err(|_| Error::os(libc::EFBIG))?;
        let mut bytes = memory::zeroed(sector)?;
        bytes[..Superblock::LEN].copy_from_slice(&superblock.to_bytes());
        self.storage.write_at(&bytes, 0)
    }

    /// Keeps others from changing it.
    ///
    /// # Errors
    /// As [`Storage::lock`].
    pub(super) fn lock(&self) -> Result<()> {
        let change = Permissions::WRITE | Permissions::RESIZE;
        self.storage.lock(LockRequest {
            uses: Permissions::CONSISTENT_READ | change,
            denies: change,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    fn memory() -> Arc<MemoryStorage> {
        Arc::new(MemoryStorage::new("log"))
    }

    fn append(storage: &Arc<MemoryStorage>) -> Result<Log> {
        Log::append(storage.clone(), 4096, &JobControl::default())
    }

    #[test]
    fn a_log_goes_on_where_it_ended() {
        let storage = memory();
        let log = Log::new(storage.clone(), 512, 4096);
        log.record(4096, 1024, Data::Bytes(&[IoSlice::new(&[7; 1024])]))
            .unwrap();
        log.record(0, 8192, Data::None).unwrap();
        log.record(0, 512, Data::Zeroes(512)).unwrap();
        assert!(append(&storage).is_err(), "nothing was flushed");
        log.record_flush(Durability::Synced).unwrap();
        let bytes = storage.to_vec();
        assert_eq!(bytes.len(), 512 * (1 + 3 + 1 + 2 + 1));
        assert_eq!(bytes[1024..2048], [7; 1024]);
        assert_eq!((bytes[512], bytes[520]), (8, 2));
        let again = append(&storage).unwrap();
        assert_eq!(*again.end.lock(), *log.end.lock());
    }

    #[test]
    fn only_what_made_something_durable_is_a_flush() {
        let storage = memory();
        let log = Log::new(storage.clone(), 512, 4096);
        log.record(0, 512, Data::None).unwrap();
        log.record_flush(Durability::Ordered).unwrap();
        assert_eq!((storage.to_vec().len(), storage.to_vec()[16]), (1024, 1));
        log.record_flush(Durability::Synced).unwrap();
        assert_eq!((storage.to_vec().len(), storage.to_vec()[16]), (1536, 2));
    }

    #[test]
    fn the_superblock_follows_at_intervals() {
        let storage = memory();
        let log = Log::new(storage.clone(), 512, 2);
        for entries in 1..6u8 {
            log.record(0, 0, Data::None).unwrap();
            let counted = storage.to_vec().get(16).copied().unwrap_or(0);
            assert_eq!(counted, entries / 2 * 2);
        }
    }

    #[test]
    fn a_log_that_is_shorter_than_it_says_is_refused() {
        let storage = memory();
        let log = Log::new(storage.clone(), 512, 4096);
        for _ in 0..3 {
            log.record(0, 512, Data::Bytes(&[IoSlice::new(&[1; 512])]))
                .unwrap();
        }
        log.record_flush(Durability::Synced).unwrap();
        let whole = storage.to_vec();
        for (at, byte) in [(16, 200), (23, 255), (512 + 15, 255), (512 + 13, 1)] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            let damaged = Arc::new(MemoryStorage::with_bytes("log", bytes));
            let error = append(&damaged).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Corrupt, "{error}");
        }
    }
}
