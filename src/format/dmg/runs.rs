//! Which chunk holds which guest bytes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::error::Result;
use crate::memory;

use super::disk::Chunk;

/// A run of guest bytes held by one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u64,
    pub(super) end: u64,
    /// The number of the chunk.
    chunk: u32,
}

/// The chunks and the resulting runs, in guest order.
#[derive(Debug)]
pub(super) struct Runs {
    chunks: Vec<Chunk>,
    runs: Vec<Run>,
}

impl Runs {
    /// From chunks in table order; where some overlap, the first one counts.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(super) fn new(chunks: Vec<Chunk>) -> Result<Self> {
        let count = chunks.len();
        let mut by_start: Vec<u32> = Vec::new();
        memory::reserve(&mut by_start, count)?;
        by_start.extend(0..u32::try_from(count).map_err(|_| memory::lack())?);
        by_start.sort_by_key(|n| chunks[*n as usize].guest);
        let mut runs = Vec::new();
        memory::reserve(&mut runs, count)?;
        // Chunks that may extend past `at`, the first in table order on top.
        let mut open = BinaryHeap::new();
        open.try_reserve(count).map_err(|_| memory::lack())?;
        let mut coming = by_start.into_iter().peekable();
        let mut at = 0;
        loop {
            while let Some(n) = coming.next_if(|n| chunks[*n as usize].guest <= at) {
                open.push(Reverse(n));
            }
            let Some(&Reverse(n)) = open.peek() else {
                match coming.peek() {
                    Some(next) => at = chunks[*next as usize].guest,
                    None => break,
                }
                continue;
            };
            let mut end = chunks[n as usize].end();
            if end <= at {
                open.pop();
                continue;
            }
            while let Some(next) = coming.next_if(|next| chunks[*next as usize].guest < end) {
                open.push(Reverse(next));
                if next < n {
                    end = chunks[next as usize].guest;
                    break;
                }
            }
            memory::push(
                &mut runs,
                Run {
                    start: at,
                    end,
                    chunk: n,
                },
            )?;
            at = end;
        }
        Ok(Self { chunks, runs })
    }

    /// The run at a guest offset and its chunk; if there is none, where the next one begins.
    pub(super) fn at(&self, offset: u64) -> Result<(Run, &Chunk), u64> {
        let next = self.runs.partition_point(|run| run.end <= offset);
        let Some(run) = self.runs.get(next) else {
            return Err(u64::MAX);
        };
        match self.chunks.get(run.chunk as usize) {
            Some(chunk) if run.start <= offset => Ok((*run, chunk)),
            _ => Err(run.start),
        }
    }

    /// The chunks, in table order.
    pub(super) fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Whether every byte before `len` is covered.
    pub(super) fn cover(&self, len: u64) -> bool {
        let mut at = 0;
        for run in &self.runs {
            if run.start > at {
                break;
            }
            at = run.end;
        }
        at >= len
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::Coding;
    use super::*;

    fn runs(chunks: &[(u64, u64)]) -> Vec<(u64, u64, u32)> {
        let chunk = |(guest, len): &(u64, u64)| Chunk {
            guest: *guest,
            len: *len,
            host: 0,
            held: 0,
            coding: Coding::Raw,
        };
        let runs = Runs::new(chunks.iter().map(chunk).collect()).unwrap();
        let all = runs.runs.iter();
        all.map(|run| (run.start, run.end, run.chunk)).collect()
    }

    #[test]
    fn of_chunks_that_overlap_the_first_in_the_tables_counts() {
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[(0, 4), (4, 4)]), [(0, 4, 0), (4, 8, 1)]);
        assert_eq!(runs(&[(8, 4), (0, 4)]), [(0, 4, 1), (8, 12, 0)]);
        assert_eq!(runs(&[(0, 8), (4, 8)]), [(0, 8, 0), (8, 12, 1)]);
        assert_eq!(runs(&[(4, 8), (0, 8)]), [(0, 4, 1), (4, 12, 0)]);
        assert_eq!(
            runs(&[(4, 2), (0, 10), (4, 4)]),
            [(0, 4, 1), (4, 6, 0), (6, 10, 1)]
        );
    }

    #[test]
    fn every_byte_belongs_to_the_first_chunk_that_has_it() {
        let mut state = 7_u64;
        for _ in 0..200 {
            let mut chunks = Vec::new();
            for _ in 0..12 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                chunks.push((state >> 40 & 63, (state >> 50 & 15) + 1));
            }
            let found = runs(&chunks);
            for at in 0..90 {
                let mut all = chunks.iter();
                let first = all.position(|(from, len)| (*from..from + len).contains(&at));
                let mut here = found.iter().filter(|run| (run.0..run.1).contains(&at));
                assert_eq!(here.next().map(|run| run.2 as usize), first);
                assert!(here.next().is_none());
            }
        }
    }
}
