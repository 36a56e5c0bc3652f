//! The storage of the filter.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::log::{Data, Log};
use crate::error::{Error, ErrorKind, Result};
use crate::filter::units::{whole_units, write_zero_bytes};
use crate::format::inflight::{InFlight, Reservation};
use crate::memory::{self, IoBuf};
use crate::storage::forward::forward;
use crate::storage::{
    Durability, HostFile, Limits, LockRequest, Preallocation, Storage, ZeroFlags,
};

/// A storage whose changes are recorded.
#[derive(Debug)]
pub(super) struct Logged {
    file: Arc<dyn Storage>,
    log: Log,
    /// Changes of one range stand in the log in the order in which they were made.
    busy: InFlight,
    /// Something has changed since the last flush.
    changed: AtomicBool,
    /// Held while one flushes.
    flushing: Mutex<()>,
}

impl Logged {
    pub(super) fn new(file: Arc<dyn Storage>, log: Log) -> Self {
        Self {
            file,
            log,
            busy: InFlight::default(),
            changed: AtomicBool::new(false),
            flushing: Mutex::default(),
        }
    }

    /// The range in whole sectors, which the caller alone may change now.
    fn alone(&self, offset: u64, len: u64) -> Result<(Reservation<'_>, u64, u64)> {
        let sector = self.log.sector();
        let start = offset - offset % sector;
        let end = offset
            .checked_add(len)
            .and_then(|end| end.checked_next_multiple_of(sector))
            .ok_or_else(|| Error::os(libc::EFBIG))?;
        Ok((self.busy.reserve(start..end), start, end))
    }

    /// Records a change that had this outcome. A failure may have changed something, except where the
    /// storage cannot do such a thing.
    fn record(&self, done: Result<()>, offset: u64, len: u64, data: Data<'_>) -> Result<()> {
        let refused = done.as_ref().err().map(Error::kind) == Some(ErrorKind::Unsupported);
        if refused {
            return done;
        }
        self.changed.store(true, Ordering::Release);
        let recorded = self.log.record(offset, len, data);
        done.and(recorded)
    }

    /// The bytes of a sector that a change does not touch.
    fn rest(&self, start: u64, end: u64) -> Result<IoBuf> {
        let len = usize::try_from(end - start).map_err(|_| Error::os(libc::EFBIG))?;
        let mut rest = IoBuf::new();
        if len > 0 {
            self.file.read_at(rest.room(len)?, start)?;
        }
        Ok(rest)
    }
}

impl Storage for Logged {
    forward!(
        file: name, identity, read_only, read_at, read_vectored_at, try_read, len, extent, allocated_size
    );

    fn driver(&self) -> &'static str {
        super::DRIVER.name
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.write_vectored_at(&[IoSlice::new(buf)], offset)
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        let len = bufs.iter().map(|buf| buf.len() as u64).sum();
        if len == 0 {
            return Ok(());
        }
        let (_alone, start, end) = self.alone(offset, len)?;
        let head = self.rest(start, offset)?;
        let tail = self.rest(offset + len, end)?;
        let mut data = Vec::new();
        memory::reserve(&mut data, bufs.len().saturating_add(2))?;
        data.push(IoSlice::new(&head));
        data.extend_from_slice(bufs);
        data.push(IoSlice::new(&tail));
        let done = match bufs {
            [one] => self.file.write_at(one, offset),
            many => self.file.write_vectored_at(many, offset),
        };
        self.record(done, start, end - start, Data::Bytes(&data))
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        let _all = self.busy.reserve(0..u64::MAX);
        self.changed.store(true, Ordering::Release);
        self.file.set_len(len, preallocation)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        offset
            .checked_add(len)
            .ok_or_else(|| Error::os(libc::EFBIG))?;
        let (head, middle, tail) = whole_units(offset, len, self.log.sector());
        if flags.contains(ZeroFlags::NO_FALLBACK) && head + tail > 0 {
            return Err(Error::unsupported(
                "Zeroing is not supported for parts of a sector of the log",
            ));
        }
        write_zero_bytes(self, offset, head)?;
        if middle > 0 {
            let at = offset + head;
            let (_alone, ..) = self.alone(at, middle)?;
            let done = self.file.write_zeroes(at, middle, flags);
            self.record(done, at, middle, Data::Zeroes(middle))?;
        }
        write_zero_bytes(self, offset + head + middle, tail)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        offset
            .checked_add(len)
            .ok_or_else(|| Error::os(libc::EFBIG))?;
        // What is less than a sector stays.
        let (head, middle, _) = whole_units(offset, len, self.log.sector());
        if middle == 0 {
            return Ok(());
        }
        let at = offset + head;
        let (_alone, ..) = self.alone(at, middle)?;
        let done = self.file.discard(at, middle);
        self.record(done, at, middle, Data::None)
    }

    fn sync(&self, durability: Durability) -> Result<()> {
        // A flush that has taken the mark may not have finished.
        let _one = self.flushing.lock();
        let changed = self.changed.swap(false, Ordering::AcqRel);
        let done = self.file.sync(durability).and_then(|()| match changed {
            true => self.log.record_flush(durability),
            // What has not changed is not flushed again.
            false => Ok(()),
        });
        if done.is_err() && changed {
            self.changed.store(true, Ordering::Release);
        }
        done
    }

    fn limits(&self) -> Limits {
        Limits {
            writes_to_memory: false,
            ..self.file.limits()
        }
    }

    fn lock(&self, request: LockRequest) -> Result<()> {
        self.file.lock(request)?;
        match self.read_only() {
            true => Ok(()),
            false => self.log.lock(),
        }
    }

    fn host(&self) -> Option<&dyn HostFile> {
        // Calls on the descriptor would bypass the log.
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::Entry;
    use super::*;
    use crate::storage::MemoryStorage;
    use crate::storage::testing::{Gate, Gated, GatedStorage};

    struct Pair {
        file: Arc<MemoryStorage>,
        log: Arc<MemoryStorage>,
        logged: Logged,
    }

    fn logged(sector: u64) -> Pair {
        let file = Arc::new(MemoryStorage::with_bytes("file", vec![0xee; 10_000]));
        let log = Arc::new(MemoryStorage::new("log"));
        let logged = Logged::new(file.clone(), Log::new(log.clone(), sector, 4096));
        Pair { file, log, logged }
    }

    /// What comes of the log when it is replayed over what was there before.
    fn replayed(log: &[u8], sector: usize, mut disk: Vec<u8>) -> (Vec<u8>, usize) {
        let mut at = sector;
        let mut entries = 0;
        while at < log.len() {
            let entry = Entry::from_bytes(log[at..at + Entry::LEN].try_into().unwrap());
            let len = entry.data_len(sector as u64).unwrap() as usize;
            let to = entry.sector as usize * sector;
            let data = &log[at + sector..][..len];
            disk.resize(disk.len().max(to + len), 0);
            disk[to..to + len].copy_from_slice(data);
            at += sector + len;
            entries += 1;
        }
        (disk, entries)
    }

    #[test]
    fn a_log_replayed_gives_what_was_written() {
        for sector in [512, 4096] {
            let Pair { file, log, logged } = logged(sector);
            logged.write_at(&[1; 100], 10).unwrap();
            logged.write_at(&[2; 5000], 4096).unwrap();
            let parts = [IoSlice::new(&[3; 700]), IoSlice::new(&[4; 300])];
            logged.write_vectored_at(&parts, 9000).unwrap();
            logged.write_zeroes(300, 6000, ZeroFlags::empty()).unwrap();
            logged.write_at(&[5; 10], 12_000).unwrap();
            let sector = sector as usize;
            let (mut disk, entries) = replayed(&log.to_vec(), sector, vec![0xee; 10_000]);
            let written = file.to_vec();
            assert_eq!(written.len(), 12_010);
            // Whole sectors are recorded.
            assert!(disk[written.len()..].iter().all(|byte| *byte == 0));
            disk.truncate(written.len());
            assert_eq!(disk, written);
            // The ends of what was zeroed were written.
            assert_eq!(entries, if sector == 512 { 7 } else { 6 });
        }
    }

    #[test]
    fn only_a_flush_behind_a_change_is_recorded() {
        let Pair { log, logged, .. } = logged(512);
        logged.sync(Durability::Synced).unwrap();
        assert!(log.to_vec().is_empty());
        logged.write_at(&[1; 512], 0).unwrap();
        logged.sync(Durability::Synced).unwrap();
        let flushed = log.to_vec();
        logged.sync(Durability::Synced).unwrap();
        assert_eq!(log.to_vec(), flushed);
        logged.set_len(20_000, Preallocation::Off).unwrap();
        logged.sync(Durability::Synced).unwrap();
        assert_eq!(log.to_vec().len(), flushed.len() + 512);
    }

    #[test]
    fn a_flush_waits_for_one_that_is_under_way() {
        let gate = Arc::new(Gate::default());
        let log = Arc::new(MemoryStorage::new("log"));
        let gated = GatedStorage::new(log.clone(), gate.clone(), Gated::Writes);
        let file = Arc::new(MemoryStorage::with_bytes("file", vec![0; 4096]));
        let logged = Logged::new(file, Log::new(Arc::new(gated), 512, 4096));
        logged.write_at(&[1; 512], 0).unwrap();
        gate.close();
        let (ended, ends) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let logged = &logged;
            scope.spawn(|| logged.sync(Durability::Synced).unwrap());
            while gate.waiting() == 0 {
                std::thread::yield_now();
            }
            scope.spawn(move || {
                logged.sync(Durability::Synced).unwrap();
                ended.send(()).unwrap();
            });
            let early = ends.recv_timeout(std::time::Duration::from_millis(30));
            gate.open();
            early.unwrap_err();
        });
        // The entry of the flush is in the log, and counted.
        assert_eq!((log.to_vec().len(), log.to_vec()[16]), (512 * 4, 2));
    }

    #[test]
    fn what_the_storage_refuses_is_not_recorded() {
        let Pair { log, logged, .. } = logged(512);
        let error = logged.discard(0, 4096).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        logged.discard(1, 500).unwrap();
        assert!(log.to_vec().is_empty());
    }

    #[test]
    fn overlapping_writes_are_recorded_in_their_order() {
        let Pair { file, log, logged } = logged(512);
        std::thread::scope(|scope| {
            for byte in 1..4 {
                let logged = &logged;
                scope.spawn(move || {
                    for at in 0..100 {
                        logged.write_at(&[byte; 400], at % 5 * 300).unwrap();
                    }
                });
            }
        });
        let (disk, entries) = replayed(&log.to_vec(), 512, vec![0xee; 10_000]);
        assert_eq!(entries, 300);
        assert_eq!(disk[..10_000], file.to_vec()[..]);
    }
}
