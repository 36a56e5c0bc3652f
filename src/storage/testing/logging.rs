//! A storage that records every change, so that any crash can be replayed.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::storage::forward::forward;
use crate::storage::memory::MemoryStorage;
use crate::storage::{Durability, Preallocation, Storage, ZeroFlags};

/// What discarded bytes read as: not zeroes, so that nothing comes to rely on that.
const JUNK: u8 = 0xd5;

/// One change, or a barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes were written.
    Write {
        /// Its offset.
        offset: u64,
        /// The data.
        bytes: Vec<u8>,
    },
    /// A range was zeroed.
    Zero {
        /// Its offset.
        offset: u64,
        /// Its length.
        len: u64,
    },
    /// A range was discarded.
    Discard {
        /// Its offset.
        offset: u64,
        /// Its length.
        len: u64,
    },
    /// The length was set.
    SetLen(u64),
    /// All earlier changes became durable.
    Sync,
    /// A sync failed: earlier changes that were not yet durable may be lost, and no later sync makes up for that.
    SyncFailed,
}

/// One change of one of the files of a [`Log`].
#[derive(Clone, Debug)]
pub struct Record {
    /// The file's index, in order of the [`Log::file`] calls.
    pub file: usize,
    /// What happened to it.
    pub event: Event,
}

/// The shared log of several files: everything that happened to them, in a single order.
#[derive(Debug, Default)]
pub struct Log {
    /// Held across each change, so that the log has the same order as the changes.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The contents of each file at the start of the log.
    initial: Vec<Vec<u8>>,
    records: Vec<Record>,
    /// Number of syncs that succeed before one fails; `None` if none is to fail.
    syncs_left: Option<usize>,
    /// The file for which a sync has failed.
    failed: Option<usize>,
}

impl Log {
    /// An empty log without files.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds a file that initially holds `bytes`, which count as durable.
    pub fn file(self: &Arc<Self>, name: impl Into<String>, bytes: Vec<u8>) -> Arc<LoggingStorage> {
        Arc::new(LoggingStorage::of(self.clone(), name.into(), bytes))
    }

    /// Makes a sync fail after `nth` more have succeeded, counted across all files. As with real files, later syncs of
    /// the same file fail too.
    pub fn fail_sync(&self, nth: usize) {
        self.state.lock().syncs_left = Some(nth);
    }

    /// Whether a sync has failed.
    pub fn has_failed(&self) -> bool {
        self.state.lock().failed.is_some()
    }

    /// The number of changes so far, of all files.
    pub fn count(&self) -> usize {
        self.state.lock().records.len()
    }

    /// The changes so far, of all files.
    pub fn records(&self) -> Vec<Record> {
        self.state.lock().records.clone()
    }

    /// The contents of each file at the start of the log.
    pub fn initial(&self) -> Vec<Vec<u8>> {
        self.state.lock().initial.clone()
    }
}

/// A storage in memory that logs its changes from its creation on.
#[derive(Debug)]
pub struct LoggingStorage {
    memory: MemoryStorage,
    log: Arc<Log>,
    /// Its index in the log.
    file: usize,
}

impl LoggingStorage {
    /// A storage that initially holds `bytes`, with a log of its own.
    pub fn new(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self::of(Log::new(), name.into(), bytes)
    }

    fn of(log: Arc<Log>, name: String, bytes: Vec<u8>) -> Self {
        let mut state = log.state.lock();
        state.initial.push(bytes.clone());
        let file = state.initial.len() - 1;
        drop(state);
        Self {
            memory: MemoryStorage::with_bytes(name, bytes),
            log,
            file,
        }
    }

    /// The log that it writes to.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Its own events so far.
    pub fn events(&self) -> Vec<Event> {
        let state = self.log.state.lock();
        let own = state.records.iter().filter(|r| r.file == self.file);
        own.map(|record| record.event.clone()).collect()
    }

    /// The number of its own events so far.
    pub fn event_count(&self) -> usize {
        let state = self.log.state.lock();
        state.records.iter().filter(|r| r.file == self.file).count()
    }

    /// The current contents.
    pub fn to_vec(&self) -> Vec<u8> {
        self.memory.to_vec()
    }

    /// The contents after the first `count` events: what a killed process leaves behind.
    pub fn state_after(&self, count: usize) -> Vec<u8> {
        self.crash_state(count, |_| true)
    }

    /// Those of its first `count` events that no sync has made durable.
    pub fn pending(&self, count: usize) -> Range<usize> {
        let events = self.events();
        pending(&events[..count.min(events.len())])
    }

    /// The contents after a power cut following the first `count` events: everything that a sync made durable, plus the
    /// pending events whose index `keep` accepts, in order.
    pub fn crash_state(&self, count: usize, keep: impl Fn(usize) -> bool) -> Vec<u8> {
        let events = self.events();
        let events = &events[..count.min(events.len())];
        let pending = pending(events);
        let mut bytes = self.log.state.lock().initial[self.file].clone();
        for (index, event) in events.iter().enumerate() {
            if !pending.contains(&index) || keep(index) {
                event.apply(&mut bytes);
            }
        }
        bytes
    }

    fn record(
        &self,
        event: Event,
        change: impl FnOnce(&MemoryStorage) -> Result<()>,
    ) -> Result<()> {
        let mut state = self.log.state.lock();
        change(&self.memory)?;
        let file = self.file;
        state.records.push(Record { file, event });
        Ok(())
    }
}

/// The events that no sync has made durable.
fn pending(events: &[Event]) -> Range<usize> {
    let synced = events.iter().rposition(|event| *event == Event::Sync);
    synced.map_or(0, |at| at + 1)..events.len()
}

impl Event {
    /// Applies the change in part: of the blocks of `unit` bytes that a write covers, only those that `keep` accepts,
    /// as a device might have stored them before a power cut. Any other event is applied if `keep` accepts it.
    pub fn apply_torn(&self, bytes: &mut Vec<u8>, unit: u64, mut keep: impl FnMut() -> bool) {
        let Event::Write { offset, bytes: new } = self else {
            if keep() {
                self.apply(bytes);
            }
            return;
        };
        let mut rest = &new[..];
        let mut at = *offset;
        while !rest.is_empty() {
            let len = (unit - at % unit).min(rest.len() as u64) as usize;
            let (block, others) = rest.split_at(len);
            if keep() {
                let part = Event::Write {
                    offset: at,
                    bytes: block.to_vec(),
                };
                part.apply(bytes);
            }
            (rest, at) = (others, at + len as u64);
        }
    }

    /// Applies the change to the contents of a file.
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        let mut fill = |offset: u64, len: u64, value: u8, grow: bool| {
            let end = (offset + len) as usize;
            if grow && end > bytes.len() {
                bytes.resize(end, 0);
            }
            let end = end.min(bytes.len());
            if let Some(range) = bytes.get_mut(offset as usize..end) {
                range.fill(value);
            }
        };
        match self {
            Event::Write { offset, bytes: new } => {
                fill(*offset, new.len() as u64, 0, true);
                bytes[*offset as usize..][..new.len()].copy_from_slice(new);
            }
            Event::Zero { offset, len } => fill(*offset, *len, 0, true),
            Event::Discard { offset, len } => fill(*offset, *len, JUNK, false),
            Event::SetLen(len) => bytes.resize(*len as usize, 0),
            Event::Sync | Event::SyncFailed => {}
        }
    }
}

impl Storage for LoggingStorage {
    forward!(
        memory: name, identity, read_only, read_at, read_vectored_at, try_read, len, extent, limits,
        allocated_size, lock, host,
    );

    fn driver(&self) -> &'static str {
        "logging"
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let event = Event::Write {
            offset,
            bytes: buf.to_vec(),
        };
        self.record(event, |memory| memory.write_at(buf, offset))
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.record(Event::SetLen(len), |memory| {
            memory.set_len(len, preallocation)
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.record(Event::Zero { offset, len }, |memory| {
            memory.write_zeroes(offset, len, flags)
        })
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.record(Event::Discard { offset, len }, |memory| {
            let there = memory.len()?.saturating_sub(offset).min(len);
            memory.write_at(&vec![JUNK; there as usize], offset)
        })
    }

    fn sync(&self, durability: Durability) -> Result<()> {
        if durability != Durability::Synced {
            return Ok(());
        }
        let mut state = self.log.state.lock();
        let file = self.file;
        if state.failed == Some(file) {
            return Err(Error::os(libc::EIO));
        }
        let fails = state.syncs_left == Some(0);
        state.syncs_left = state.syncs_left.map(|left| left.saturating_sub(1));
        if !fails {
            let event = Event::Sync;
            state.records.push(Record { file, event });
            return Ok(());
        }
        (state.syncs_left, state.failed) = (None, Some(file));
        let event = Event::SyncFailed;
        state.records.push(Record { file, event });
        Err(Error::os(libc::EIO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crashes_keep_what_was_synced_and_choose_from_the_rest() {
        let storage = LoggingStorage::new("l", vec![9; 4]);
        storage.write_at(&[1], 0).unwrap();
        storage.sync(Durability::Synced).unwrap();
        storage.write_at(&[2, 2], 1).unwrap();
        storage.sync(Durability::Ordered).unwrap();
        storage.write_zeroes(3, 3, ZeroFlags::empty()).unwrap();
        storage.discard(0, 1).unwrap();
        storage.set_len(5, Preallocation::Off).unwrap();
        assert_eq!(storage.event_count(), 6);
        assert_eq!(storage.pending(6), 2..6);
        assert_eq!(storage.state_after(6), storage.to_vec());
        assert_eq!(storage.state_after(3), [1, 2, 2, 9]);
        assert_eq!(storage.crash_state(6, |_| false), [1, 9, 9, 9]);
        assert_eq!(storage.crash_state(6, |n| n == 3), [1, 9, 9, 0, 0, 0]);
    }

    #[test]
    fn files_of_one_log_share_its_order() {
        let log = Log::new();
        let (a, b) = (log.file("a", vec![1]), log.file("b", vec![2]));
        a.write_at(&[3], 0).unwrap();
        b.write_at(&[4], 0).unwrap();
        a.sync(Durability::Synced).unwrap();
        let files: Vec<usize> = log.records().iter().map(|record| record.file).collect();
        assert_eq!(files, [0, 1, 0]);
        assert_eq!((a.event_count(), b.event_count(), log.count()), (2, 1, 3));
        assert_eq!(a.crash_state(2, |_| false), [3]);
        assert_eq!(b.crash_state(1, |_| false), [2]);
    }

    #[test]
    fn the_chosen_sync_fails_and_all_later_ones_of_its_file() {
        let log = Log::new();
        let (a, b) = (log.file("a", vec![1]), log.file("b", vec![2]));
        log.fail_sync(1);
        b.sync(Durability::Synced).unwrap();
        a.sync(Durability::Ordered).unwrap();
        assert!(!log.has_failed());
        for _ in 0..2 {
            let error = a.sync(Durability::Synced).unwrap_err();
            assert_eq!(error.os_errno(), Some(libc::EIO));
        }
        assert!(log.has_failed());
        b.sync(Durability::Synced).unwrap();
        assert_eq!(a.events(), [Event::SyncFailed]);
        assert_eq!(b.events(), [Event::Sync, Event::Sync]);
    }

    #[test]
    fn a_torn_write_keeps_some_of_its_blocks() {
        let event = Event::Write {
            offset: 1,
            bytes: vec![7; 5],
        };
        let mut bytes = vec![0; 6];
        let mut n = 0;
        event.apply_torn(&mut bytes, 2, || {
            n += 1;
            n != 2
        });
        assert_eq!(bytes, [0, 7, 0, 0, 7, 7]);
    }
}
