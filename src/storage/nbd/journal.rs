//! Changes that the server has replied to and no flush has covered: a server that comes back may have lost them, and
//! gets them again.

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

/// The most bytes that are kept; when they are reached, a flush is due.
pub(super) const MAX_BYTES: u64 = 64 << 20;
/// The most pieces of changes that are kept.
const MAX_PIECES: usize = 16 << 10;
/// The longest time that a wait goes without a look at the control.
const LOOK: Duration = Duration::from_millis(50);

/// The changes.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Shared by requests under way; alone while changes are made again, so that no request sees an older state.
    gate: RwLock<()>,
    state: Mutex<State>,
    /// Bytes of the changes that are kept, with those under way.
    bytes: Arc<AtomicU64>,
    /// Changes have been made again in part: where the server refused one, nobody knows what it left there. Changes
    /// while the gate is held alone.
    behind: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    pieces: Pieces,
    /// How many pieces the changes under way may make.
    expected: usize,
    /// How many changes that will be kept are under way.
    under_way: usize,
}

/// Room for changes under way, with copies of them.
#[derive(Debug)]
pub(super) struct Kept<'a> {
    journal: &'a Journal,
    /// None of one that is durable with its reply: it takes the place of older ones all the same.
    changes: Vec<Option<Change>>,
    expected: usize,
    under_way: usize,
}

/// How far a flush reaches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(u64);

impl Journal {
    /// Copies changes that are about to be sent, unless they are `durable` with their replies; None where a flush must
    /// make room first.
    ///
    /// # Errors
    /// Where there is no memory for them.
    pub(super) fn keep(&self, ops: &[Op<'_, '_>], durable: bool) -> Result<Option<Kept<'_>>> {
        let lens = ops.iter().map(|op| match durable {
            true => 0,
            false => op.payload.len() as u64,
        });
        // Each may cut another one in two.
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

    /// A request may go out on `connection` while this is held: its server has what it had.
    ///
    /// # Errors
    /// Of changes that had to be made again before; where `control` ends the wait.
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

    /// To be taken before a flush is sent.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.state.lock().pieces.added())
    }

    /// Drops what a flush has covered.
    pub(super) fn flushed(&self, mark: Mark) {
        self.state.lock().pieces.drop_first(mark.0);
    }

    /// Makes all changes again on a new connection. No other request is under way meanwhile.
    ///
    /// # Errors
    /// Of the server, of the connection, or where `control` ends it.
    pub(super) fn make_again(&self, connection: &Connection, control: &JobControl) -> Result<()> {
        {
            let state = self.state.lock();
            // Nothing is kept, and nothing that will be is under way.
            if state.pieces.is_empty() && state.under_way == 0 {
                return Ok(());
            }
        }
        let _alone = self.alone(control)?;
        self.send_all(connection, control)
    }

    /// The same where that was begun on another connection and did not come to its end.
    fn catch_up(&self, connection: &Connection, control: &JobControl) -> Result<()> {
        let _alone = self.alone(control)?;
        match self.behind.load(Ordering::Acquire) {
            true => self.send_all(connection, control),
            // Another was faster.
            false => Ok(()),
        }
    }

    /// Sends all changes; the gate is held alone.
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
    /// The server has replied: what it has carried out takes the place of what was there, and stays until a flush.
    /// Called while the requests may still be under way, so that nothing older is made again in between.
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
