//! Hands out the guest range in tasks, in guest order; a run of zeroes is one task, however long.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::Result;

use super::offload::Offload;
use super::runs::RunKind;
use super::sizes::{CopySizes, MAX_LONG_TASK, MAX_MOVED_TASK, MIN_STEP};
use super::sources::Sources;
use super::stream_source::{Fetched, Zeroes};

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskKind {
    /// Map, read and test the range.
    Copy,
    /// The whole range reads as zeroes.
    Zero,
    /// The target's backing file holds the whole range.
    Backed,
}

/// A range to be processed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    /// Its position in guest order.
    pub turn: u64,
    pub start: u64,
    pub len: u64,
    pub kind: TaskKind,
}

/// The cursor over the guest range.
pub(super) struct Planner<'a> {
    sources: &'a Sources,
    offload: &'a Offload,
    sizes: CopySizes,
    end: u64,
    cursor: Mutex<Cursor>,
    /// The number of tasks, once that is known: read while the cursor waits for a stream.
    turns: AtomicU64,
}

/// Further tasks may follow.
const OPEN: u64 = u64::MAX;

struct Cursor {
    offset: u64,
    turn: u64,
    /// Up to here the range is handed out in chunks: a long run is looked up once and not for every chunk.
    chunks_until: u64,
}

impl<'a> Planner<'a> {
    /// Tasks for `range`, whose turns count from 0.
    pub fn new(
        sources: &'a Sources,
        offload: &'a Offload,
        sizes: CopySizes,
        range: std::ops::Range<u64>,
    ) -> Self {
        Self {
            sources,
            offload,
            sizes,
            end: range.end,
            cursor: Mutex::new(Cursor {
                offset: range.start,
                turn: 0,
                chunks_until: range.start,
            }),
            turns: AtomicU64::new(if range.is_empty() { 0 } else { OPEN }),
        }
    }

    /// The number of tasks handed out, once none is left.
    pub fn turns_if_done(&self) -> Option<u64> {
        let turns = self.turns.load(Ordering::Acquire);
        (turns != OPEN).then_some(turns)
    }

    /// The next task, in guest order.
    pub fn next_task(&self) -> Result<Option<Task>> {
        let mut cursor = self.cursor.lock();
        if self.turns_if_done().is_some() {
            return Ok(None);
        }
        let start = cursor.offset;
        let left = self.end - start;
        let chunk = left.min(self.sizes.chunk_at(start));
        let keeps_sparse = self.sizes.keeps_sparse();
        let zeroes = Zeroes {
            least: chunk,
            most: if keeps_sparse {
                left.min(self.sizes.longest_zeroes)
            } else {
                chunk
            },
            step: self.sizes.step,
        };
        let (len, kind) = match self.sources.fetch(start, chunk, zeroes)? {
            Fetched::Positional => self.classify(start, &mut cursor.chunks_until)?,
            Fetched::Data(len) => (len, TaskKind::Copy),
            Fetched::Zeroes(len) if keeps_sparse => (len.unwrap_or(left), TaskKind::Zero),
            Fetched::Zeroes(len) => (len.unwrap_or(chunk), TaskKind::Copy),
            Fetched::End => {
                self.turns.store(cursor.turn, Ordering::Release);
                return Ok(None);
            }
        };
        let task = Task {
            turn: cursor.turn,
            start,
            len,
            kind,
        };
        cursor.offset = start + len;
        cursor.turn += 1;
        if cursor.offset >= self.end {
            self.turns.store(cursor.turn, Ordering::Release);
        }
        Ok(Some(task))
    }

    /// Long runs that need no reading are one task; everything else is handed out in chunks.
    fn classify(&self, start: u64, chunks_until: &mut u64) -> Result<(u64, TaskKind)> {
        let left = self.end - start;
        let chunk = left.min(self.sizes.chunk_at(start));
        if start < *chunks_until {
            return Ok((chunk, TaskKind::Copy));
        }
        let run = self.sources.map(start, left)?;
        let (kind, long) = match run.kind {
            RunKind::Zero => (TaskKind::Zero, self.sizes.keeps_sparse()),
            RunKind::Backed => (TaskKind::Backed, true),
            RunKind::Data { plain } => (
                TaskKind::Copy,
                plain.is_some_and(|(storage, host_offset)| {
                    host_offset % MIN_STEP == 0 && self.offload.covers(storage)
                }),
            ),
        };
        if !long {
            *chunks_until = start + run.len;
            return Ok((chunk, TaskKind::Copy));
        }
        let mut len = run.len;
        // Extents of one kind may come in several parts; a few more lookups keep zero tasks long.
        while kind != TaskKind::Copy && len < left && len < MAX_LONG_TASK {
            let next = self.sources.map(start + len, left - len)?;
            let same = matches!(
                (&next.kind, kind),
                (RunKind::Zero, TaskKind::Zero) | (RunKind::Backed, TaskKind::Backed)
            );
            if !same {
                break;
            }
            len += next.len;
        }
        len = len.min(match kind {
            TaskKind::Copy => MAX_MOVED_TASK,
            TaskKind::Zero => self.sizes.longest_zeroes,
            TaskKind::Backed => MAX_LONG_TASK,
        });
        if len < left {
            len -= len % self.sizes.step;
        }
        Ok(if len == 0 {
            (chunk, TaskKind::Copy)
        } else {
            (len, kind)
        })
    }
}
