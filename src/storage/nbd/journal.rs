//! Changes that the server has acknowledged but no flush has covered: after a reconnect the server may have lost them,
//! so they are replayed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::Result;
use crate::job::JobControl;
use crate::memory;

use super::connection::{Connection, MAX_OPS};
use super::op::Op;
use super::pieces::{Change, Piece, Pieces, Room};

/// Maximum number of bytes kept; a flush is due when it is reached.
pub(super) const MAX_BYTES: u64 = 64 << 20;
/// Maximum number of pieces of changes kept.
const MAX_PIECES: usize = 16 << 10;
/// Maximum time to wait between two checks of the control.
const LOOK: Duration = Duration::from_millis(50);

/// The changes that no flush has covered.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Held shared by requests in flight, and exclusively during a replay, so that no request sees an older state.
    gate: RwLock<()>,
    state: Mutex<State>,
    /// Bytes of the changes kept, including those in flight.
    bytes: Arc<AtomicU64>,
    /// A replay is incomplete: if the server refused a change, the contents of its range are unknown. Modified only
    /// while the gate is held exclusively.
    behind: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    pieces: Pieces,
    /// How many pieces the changes in flight may add.
    expected: usize,
    /// How many changes in flight are to be kept.
    under_way: usize,
}

/// Space reserved for changes in flight, with copies of them.
#[derive(Debug)]
pub(super) struct Kept<'a> {
    journal: &'a Journal,
    /// None for a change that is durable once acknowledged: it supersedes older ones all the same.
    changes: Vec<Option<Change>>,
    expected: usize,
    under_way: usize,
}

/// Marks the changes that a flush covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(u64);

impl Journal {
    /// Copies changes that are about to be sent, unless they are `durable` once acknowledged; None if a flush must free
    /// space first.
    ///
    /// # Errors
    /// If memory cannot be allocated for them.
    pub(super) fn keep(&self, ops: &[Op<'_, '_>], durable: bool) -> Result<Option<Kept<'_>>> {
        let lens = ops.iter().map(|op| match durable {
            true => 0,
            false => op.payload.len() as u64,
        });
        // Each may split an existing piece in two.
        let expected = if durable { ops.len() } else { 2 * ops.len() };
        let under_way = if durable { 0 } else { ops.len() };
        let rooms: Vec<Room> = {
            let mut state = self.state.lock();
            let pieces = state.pieces.len() + state.expected;
            let bytes = self.bytes.load(Ordering::Acquire);
            let full = bytes.saturating_add(lens.clone().sum()) > MAX_BYTES
                || pieces + expected > MAX_PIECES;
            if full && pieces > 0 {
                return Ok(None);
            }
            state.expected += expected;
            state.under_way += under_way;
            lens.map(|len| Room::take(&self.bytes, len)).collect()
        };
        let mut kept = Kept {
            journal: self,
            changes: Vec::with_capacity(ops.len()),
            expected,
            under_way,
        };
        for (op, room) in ops.iter().zip(rooms) {
            let change = match durable {
                true => None,
                false => Some(Change::of(op, memory::zeroed(op.payload.len())?, room)),
            };
            kept.changes.push(change);
        }
        Ok(Some(kept))
    }

    /// Requests may be sent on `connection` while this is held: its server has all acknowledged changes.
    ///
    /// # Errors
    /// If a replay that is needed first fails, or `control` ends the wait.
    pub(super) fn enter(
        &self,
        connection: &Connection,
        control: &JobControl,
    ) -> Result<RwLockReadGuard<'_, ()>> {
        loop {
            if let Some(held) = self.gate.try_read_for(LOOK) {
                if !self.behind.load(Ordering::Acquire) {
                    return Ok(held);
                }
                drop(held);
                self.catch_up(connection, control)?;
            }
            control.check()?;
        }
    }

    fn alone(&self, control: &JobControl) -> Result<RwLockWriteGuard<'_, ()>> {
        loop {
            if let Some(held) = self.gate.try_write_for(LOOK) {
                return Ok(held);
            }
            control.check()?;
        }
    }

    /// Must be taken before a flush is sent.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.state.lock().pieces.added())
    }

    /// Drops the changes that a flush has covered.
    pub(super) fn flushed(&self, mark: Mark) {
        self.state.lock().pieces.drop_first(mark.0);
    }

    /// Replays all changes on a new connection. No other request is in flight meanwhile.
    ///
    /// # Errors
    /// If the server or the connection fails, or `control` ends the wait.
    pub(super) fn make_again(&self, connection: &Connection, control: &JobControl) -> Result<()> {
        {
            let state = self.state.lock();
            // Nothing is kept, and nothing in flight is to be kept.
            if state.pieces.is_empty() && state.under_way == 0 {
                return Ok(());
            }
        }
        let _alone = self.alone(control)?;
        self.send_all(connection, control)
    }

    /// Replays all changes if a replay on another connection was left incomplete.
    fn catch_up(&self, connection: &Connection, control: &JobControl) -> Result<()> {
        let _alone = self.alone(control)?;
        match self.behind.load(Ordering::Acquire) {
            true => self.send_all(connection, control),
            // Another thread was faster.
            false => Ok(()),
        }
    }

    /// Sends all changes; the gate must be held exclusively.
    fn send_all(&self, connection: &Connection, control: &JobControl) -> Result<()> {
        let pieces = self.state.lock().pieces.to_vec();
        self.behind.store(true, Ordering::Release);
        for batch in pieces.chunks(MAX_OPS) {
            let mut ops: Vec<_> = batch.iter().map(Piece::op).collect();
            connection.exchange(&mut ops, control)?;
            if let Some(error) = ops.iter_mut().find_map(|op| op.error.take()) {
                return Err(error);
            }
        }
        self.behind.store(false, Ordering::Release);
        Ok(())
    }
}

impl Kept<'_> {
    /// Records the changes that the server has carried out: they supersede older ones, and are kept until a flush. Must
    /// be called while the gate is still held, so that no replay of older changes comes in between.
    pub(super) fn record(mut self, ops: &[Op<'_, '_>]) {
        let changes = std::mem::take(&mut self.changes);
        let mut state = self.journal.state.lock();
        for (change, op) in changes.into_iter().zip(ops) {
            match change {
                _ if op.error.is_some() => {}
                Some(change) => state.pieces.add(op.offset, op.len, change),
                None => state.pieces.cut(op.offset, op.len),
            }
        }
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        let mut state = self.journal.state.lock();
        state.expected -= self.expected;
        state.under_way -= self.under_way;
    }
}

#[cfg(test)]
mod tests {
    use super::super::op::Payload;
    use super::*;
    use crate::nbd::request::Command;

    fn bytes(journal: &Journal) -> u64 {
        journal.bytes.load(Ordering::Acquire)
    }

    fn write(offset: u64, data: &[u8]) -> Op<'_, '_> {
        Op::new(Command::WRITE, offset, data.len() as u64).payload(Payload::One(data))
    }

    #[test]
    fn what_a_flush_covers_is_dropped_and_makes_room() {
        let journal = Journal::default();
        let data = vec![1; 20 << 20];
        let keep = |offset| journal.keep(&[write(offset, &data)], false).unwrap();
        for offset in [0, 1 << 30] {
            let kept = keep(offset).unwrap();
            kept.record(&[write(offset, &data)]);
        }
        let mark = journal.mark();
        let third = keep(2 << 30).unwrap();
        assert!(keep(3 << 30).is_none());
        third.record(&[write(2 << 30, &data)]);
        journal.flushed(mark);
        // The third was not covered.
        assert_eq!(journal.state.lock().pieces.len(), 1);
        assert_eq!(bytes(&journal), 20 << 20);
        drop(keep(4 << 30).unwrap());
        assert_eq!(bytes(&journal), 20 << 20);
        journal.flushed(journal.mark());
        let state = journal.state.lock();
        assert_eq!((bytes(&journal), state.pieces.len()), (0, 0));
        assert_eq!((state.expected, state.under_way), (0, 0));
    }

    #[test]
    fn what_the_server_refused_is_not_kept() {
        let journal = Journal::default();
        let mut ops = [write(0, &[1; 512]), write(512, &[2; 512])];
        let kept = journal.keep(&ops, false).unwrap().unwrap();
        ops[0].refuse(28, b"");
        kept.record(&ops);
        let pieces = journal.state.lock().pieces.to_vec();
        assert_eq!(pieces.len(), 1);
        assert_eq!((pieces[0].op().offset, bytes(&journal)), (512, 512));
    }

    #[test]
    fn pieces_are_bounded_also_where_what_is_durable_makes_them() {
        let journal = Journal::default();
        let zeroes = [Op::new(Command::WRITE_ZEROES, 0, 1 << 30)];
        journal
            .keep(&zeroes, false)
            .unwrap()
            .unwrap()
            .record(&zeroes);
        let mut offset = 0;
        let durable = loop {
            offset += 1024;
            let ops = [write(offset, &[1; 512])];
            match journal.keep(&ops, true).unwrap() {
                Some(kept) => kept.record(&ops),
                None => break offset / 1024 - 1,
            }
        };
        assert_eq!(durable as usize, MAX_PIECES - 1);
        assert_eq!(journal.state.lock().pieces.len(), MAX_PIECES);
        assert_eq!(bytes(&journal), 0);
    }
}
