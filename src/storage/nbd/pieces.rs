//! Changes to an export, reduced to the newest one of each byte: replayed in any order, and even if only in part, they
//! never overwrite newer data with older data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::memory::IoBuf;
use crate::nbd::flags::CommandFlags;
use crate::nbd::request::Command;

use super::op::{Op, Payload};

/// Memory accounted to the copy of a change's data, for as long as any piece refers to it.
#[derive(Debug)]
pub(super) struct Room {
    taken: Arc<AtomicU64>,
    len: u64,
}

impl Room {
    pub(super) fn take(taken: &Arc<AtomicU64>, len: u64) -> Self {
        taken.fetch_add(len, Ordering::AcqRel);
        Self {
            taken: taken.clone(),
            len,
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.len, Ordering::AcqRel);
    }
}

/// What a change does.
#[derive(Clone, Debug)]
pub(super) struct Change {
    command: Command,
    flags: CommandFlags,
    data: Arc<(IoBuf, Room)>,
}

impl Change {
    /// Copies the payload of `op` to `data`, which is accounted for by `room`.
    pub(super) fn of(op: &Op<'_, '_>, mut data: IoBuf, room: Room) -> Self {
        op.payload.copy_to(&mut data);
        Self {
            command: op.command,
            // What was fast need not be fast again, nor for part of the range.
            flags: op.flags - CommandFlags::FAST_ZERO,
            data: Arc::new((data, room)),
        }
    }
}

/// A change, or what remains of one.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    start: u64,
    end: u64,
    change: Change,
    /// Offset of its data within the data of the change.
    skip: u64,
    serial: u64,
}

impl Piece {
    /// The request that replays it.
    pub(super) fn op(&self) -> Op<'_, '_> {
        let change = &self.change;
        let len = self.end - self.start;
        let op = Op::new(change.command, self.start, len).flags(change.flags);
        if change.command != Command::WRITE {
            return op;
        }
        let at = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let bytes = change.data.0.get(at(self.skip)..at(self.skip + len));
        op.payload(Payload::One(bytes.unwrap_or_default()))
    }
}

/// The pieces, which never overlap.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// Keyed by start offset.
    all: BTreeMap<u64, Piece>,
    /// How many changes have been added.
    added: u64,
}

impl Pieces {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn to_vec(&self) -> Vec<Piece> {
        self.all.values().cloned().collect()
    }

    /// How many changes have been added so far.
    pub(super) fn added(&self) -> u64 {
        self.added
    }

    /// Adds a change, which is newer than all existing ones.
    pub(super) fn add(&mut self, offset: u64, len: u64, change: Change) {
        self.cut(offset, len);
        self.added += 1;
        self.put(Piece {
            start: offset,
            end: offset.saturating_add(len),
            change,
            skip: 0,
            serial: self.added,
        });
    }

    /// Removes a range from all pieces, which increases their number by at most one.
    pub(super) fn cut(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let before = self.all.range(..offset).next_back();
        let reaches_in = before.filter(|(_, piece)| piece.end > offset);
        let inside = self.all.range(offset..end);
        let touched: Vec<u64> = reaches_in
            .into_iter()
            .chain(inside)
            .map(|it| *it.0)
            .collect();
        for start in touched {
            let Some(piece) = self.all.remove(&start) else {
                continue;
            };
            self.put(Piece {
                end: piece.end.min(offset),
                ..piece.clone()
            });
            let rest = piece.start.max(end);
            self.put(Piece {
                start: rest,
                skip: piece.skip + (rest - piece.start),
                ..piece
            });
        }
    }

    /// Drops what remains of the first `added` changes.
    pub(super) fn drop_first(&mut self, added: u64) {
        self.all.retain(|_, piece| piece.serial > added);
    }

    fn put(&mut self, piece: Piece) {
        if piece.start < piece.end {
            self.all.insert(piece.start, piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory;

    const LEN: usize = 64;

    /// An operation on a range of the pieces.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Write,
        Zeroes,
        Durable,
        Flush,
    }

    fn steps() -> impl Strategy<Value = Vec<(Step, usize, usize)>> {
        let step = prop_oneof![
            4 => Just(Step::Write),
            2 => Just(Step::Zeroes),
            2 => Just(Step::Durable),
            1 => Just(Step::Flush),
        ];
        prop::collection::vec((step, 0..LEN, 1..LEN / 2), 1..40)
    }

    fn make_again(piece: &Piece, disk: &mut [u8]) {
        let op = piece.op();
        let range = op.offset as usize..(op.offset + op.len) as usize;
        match op.payload {
            Payload::One(data) => disk[range].copy_from_slice(data),
            _ => disk[range].fill(0),
        }
    }

    proptest! {
        #[test]
        fn pieces_make_the_newest_state_in_any_order(steps in steps(), turn in 0..LEN) {
            let taken = Arc::default();
            let mut pieces = Pieces::default();
            // What was acknowledged, and what is certain to be on the server's disk.
            let (mut newest, mut durable) = ([0xee; LEN], [0xee; LEN]);
            for (n, (step, start, len)) in steps.into_iter().enumerate() {
                let range = start..(start + len).min(LEN);
                let (offset, len) = (start as u64, range.len() as u64);
                let data = vec![n as u8 + 1; range.len()];
                let op = match step {
                    Step::Flush => {
                        durable = newest;
                        pieces.drop_first(pieces.added());
                        continue;
                    }
                    Step::Durable => {
                        newest[range.clone()].copy_from_slice(&data);
                        durable[range].copy_from_slice(&data);
                        pieces.cut(offset, len);
                        continue;
                    }
                    Step::Write => Op::new(Command::WRITE, offset, len).payload(Payload::One(&data)),
                    Step::Zeroes => Op::new(Command::WRITE_ZEROES, offset, len),
                };
                let bytes = op.payload.len();
                match bytes {
                    0 => newest[range].fill(0),
                    _ => newest[range].copy_from_slice(&data),
                }
                let room = Room::take(&taken, bytes as u64);
                let change = Change::of(&op, memory::zeroed(bytes).unwrap(), room);
                pieces.add(offset, len, change);
            }
            let mut all = pieces.to_vec();
            let count = all.len().max(1);
            all.rotate_left(turn % count);
            let (mut lost, mut had) = (durable, newest);
            for piece in &all {
                make_again(piece, &mut lost);
                // At every step of the replay, a server that has lost nothing keeps the same contents.
                make_again(piece, &mut had);
                prop_assert_eq!(had, newest);
            }
            prop_assert_eq!(lost, newest);
            drop(all);
            pieces.cut(0, LEN as u64);
            prop_assert!(pieces.is_empty());
            prop_assert_eq!(taken.load(Ordering::Acquire), 0);
        }
    }
}
