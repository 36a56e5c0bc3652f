//! Changes that the server has replied to and no flush has covered: a server that comes back may have lost them, and
//! gets them again.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::Result;
use crate::job::JobControl;
use crate::memory::{self, IoBuf};
use crate::nbd::flags::CommandFlags;
use crate::nbd::request::Command;

use super::connection::{Connection, MAX_OPS};
use super::op::{Op, Payload};

/// The most bytes that are kept; when they are reached, a flush is due.
pub(super) const MAX_BYTES: u64 = 64 << 20;
/// The most changes that are kept.
const MAX_CHANGES: usize = 16 << 10;
/// The longest time that a wait goes without a look at the control.
const LOOK: Duration = Duration::from_millis(50);

/// The changes, oldest first.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Shared by requests under way; alone while changes are made again, so that no request sees an older state.
    gate: RwLock<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    changes: VecDeque<Change>,
    /// How many changes have been added, and how many of them dropped.
    added: u64,
    dropped: u64,
    /// Bytes and number of the changes that are kept, with those under way.
    bytes: u64,
    count: usize,
}

#[derive(Debug)]
struct Change {
    command: Command,
    flags: CommandFlags,
    offset: u64,
    len: u64,
    data: IoBuf,
}

impl Change {
    /// A copy of what goes out.
    fn of(op: &Op<'_, '_>) -> Result<Self> {
        let mut data = memory::zeroed(op.payload.len())?;
        op.payload.copy_to(&mut data);
        Ok(Self {
            command: op.command,
            flags: op.flags,
            offset: op.offset,
            len: op.len,
            data,
        })
    }

    fn op(&self) -> Op<'_, '_> {
        let op = Op::new(self.command, self.offset, self.len).flags(self.flags);
        match self.command {
            Command::WRITE => op.payload(Payload::One(&self.data)),
            _ => op,
        }
    }

    fn touches(&self, other: &Self) -> bool {
        let end = |change: &Self| change.offset.saturating_add(change.len);
        self.offset < end(other) && other.offset < end(self)
    }
}

/// Room for changes under way, with copies of them.
#[derive(Debug)]
pub(super) struct Kept<'a> {
    journal: &'a Journal,
    changes: Vec<Change>,
}

/// How far a flush reaches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(u64);

impl Journal {
    /// Copies changes that are about to be sent; None where a flush must make room first.
    ///
    /// # Errors
    /// Where there is no memory for them.
    pub(super) fn keep(&self, ops: &[Op<'_, '_>]) -> Result<Option<Kept<'_>>> {
        let bytes: u64 = ops.iter().map(|op| op.payload.len() as u64).sum();
        {
            let mut state = self.state.lock();
            let full = state.bytes.saturating_add(bytes) > MAX_BYTES
                || state.count + ops.len() > MAX_CHANGES;
            if full && state.count > 0 {
                return Ok(None);
            }
            state.bytes += bytes;
            state.count += ops.len();
        }
        let mut kept = Kept {
            journal: self,
            changes: Vec::with_capacity(ops.len()),
        };
        for (at, op) in ops.iter().enumerate() {
            match Change::of(op) {
                Ok(change) => kept.changes.push(change),
                Err(error) => {
                    self.free(ops[at..].iter().map(|op| op.payload.len()));
                    return Err(error);
                }
            }
        }
        Ok(Some(kept))
    }

    fn free(&self, lens: impl Iterator<Item = usize>) {
        let mut state = self.state.lock();
        for len in lens {
            state.bytes -= len as u64;
            state.count -= 1;
        }
    }

    /// A request may go out while this is held.
    ///
    /// # Errors
    /// Where `control` ends the wait.
    pub(super) fn enter(&self, control: &JobControl) -> Result<RwLockReadGuard<'_, ()>> {
        loop {
            if let Some(held) = self.gate.try_read_for(LOOK) {
                return Ok(held);
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
        Mark(self.state.lock().added)
    }

    /// Drops what a flush has covered.
    pub(super) fn flushed(&self, mark: Mark) {
        let mut state = self.state.lock();
        while state.dropped < mark.0
            && let Some(change) = state.changes.pop_front()
        {
            state.dropped += 1;
            state.bytes -= change.data.len() as u64;
            state.count -= 1;
        }
    }

    /// Makes all changes again on a new connection, in their order where they touch each other. No other request
    /// is under way meanwhile.
    ///
    /// # Errors
    /// Of the server, of the connection, or where `control` ends it.
    pub(super) fn make_again(&self, connection: &Connection, control: &JobControl) -> Result<()> {
        // Nothing is kept, and nothing that will be is under way.
        if self.state.lock().count == 0 {
            return Ok(());
        }
        let _alone = self.alone(control)?;
        // A flush that ends meanwhile leaves what it has covered to the next one.
        let changes = std::mem::take(&mut self.state.lock().changes);
        let done = send(&changes, connection, control);
        self.state.lock().changes = changes;
        done
    }
}

/// Sends changes; those that touch each other one after the other.
fn send(changes: &VecDeque<Change>, connection: &Connection, control: &JobControl) -> Result<()> {
    let mut left = changes.iter().peekable();
    while left.peek().is_some() {
        let mut batch: Vec<&Change> = Vec::with_capacity(MAX_OPS);
        while batch.len() < MAX_OPS
            && let Some(next) = left.next_if(|next| !batch.iter().any(|other| other.touches(next)))
        {
            batch.push(next);
        }
        let mut ops: Vec<_> = batch.into_iter().map(Change::op).collect();
        connection.exchange(&mut ops, control)?;
        if let Some(error) = ops.iter_mut().find_map(|op| op.error.take()) {
            return Err(error);
        }
    }
    Ok(())
}

impl Kept<'_> {
    /// The server has replied: what it has carried out stays until a flush.
    pub(super) fn record(mut self, ops: &[Op<'_, '_>]) {
        let mut refused = Vec::new();
        {
            let mut state = self.journal.state.lock();
            for (change, op) in self.changes.drain(..).zip(ops) {
                match &op.error {
                    None => {
                        state.changes.push_back(change);
                        state.added += 1;
                    }
                    Some(_) => refused.push(change.data.len()),
                }
            }
        }
        self.journal.free(refused.into_iter());
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        self.journal
            .free(changes.iter().map(|change| change.data.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, data: &[u8]) -> Op<'_, '_> {
        Op::new(Command::WRITE, offset, data.len() as u64).payload(Payload::One(data))
    }

    #[test]
    fn what_a_flush_covers_is_dropped_and_makes_room() {
        let journal = Journal::default();
        let data = vec![1; 20 << 20];
        let keep = |offset| journal.keep(&[write(offset, &data)]).unwrap();
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
        assert_eq!(journal.state.lock().changes.len(), 1);
        assert_eq!(journal.state.lock().bytes, 20 << 20);
        drop(keep(4 << 30).unwrap());
        assert_eq!(journal.state.lock().bytes, 20 << 20);
        journal.flushed(journal.mark());
        let state = journal.state.lock();
        assert_eq!((state.bytes, state.count), (0, 0));
    }

    #[test]
    fn what_the_server_refused_is_not_kept() {
        let journal = Journal::default();
        let mut ops = [write(0, &[1; 512]), write(512, &[2; 512])];
        let kept = journal.keep(&ops).unwrap().unwrap();
        ops[0].refuse(28, b"");
        kept.record(&ops);
        let state = journal.state.lock();
        assert_eq!(state.changes.len(), 1);
        assert_eq!(
            (state.changes[0].offset, state.bytes, state.count),
            (512, 512, 1)
        );
    }
}
