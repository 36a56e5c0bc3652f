//! An lz4 frame whose blocks do not refer to each other: they are unpacked several at once.

use std::hash::Hasher;
use std::io::BufRead;

use twox_hash::XxHash32;

use super::fault;
use super::input::Input;
use super::member::{LZ4_PLAIN, Lz4Frame};
use super::ready::Ready;
use super::{Container, sum32};
use crate::bytes::le32;
use crate::codec::parallel;
use crate::crew;
use crate::error::{Error, Result};
use crate::memory::{self, IoBuf};

/// Number of decompressed bytes per processor in a batch, if blocks are small.
const SHARE: usize = 4 << 20;

/// A frame whose header has been consumed.
pub(super) struct Lz4Blocks {
    frame: Lz4Frame,
    sum: XxHash32,
    /// Number of decompressed bytes so far.
    held: u64,
    ready: Ready,
    max_jobs: usize,
}

#[derive(Clone, Copy)]
struct Job {
    at: usize,
    len: usize,
    is_plain: bool,
}

impl Lz4Blocks {
    /// Starts on the frame that begins here, consuming its header. None if its blocks are not independent; then nothing
    /// is consumed.
    ///
    /// # Errors
    /// If reading fails.
    pub(super) fn begin(input: &mut Input, max_memory: u64) -> Result<Option<Self>> {
        let frame = Lz4Frame::of(input.peek(super::HEAD)?);
        let Some(frame) = frame.filter(|frame| frame.independent) else {
            return Ok(None);
        };
        input.consume(frame.header);
        let processors = crew::processors();
        let wanted = (processors * SHARE / frame.block).max(2 * processors);
        // Compressed and decompressed.
        let affordable = max_memory / 2 / (2 * frame.block as u64);
        let affordable = usize::try_from(affordable).unwrap_or(usize::MAX);
        Ok(Some(Self {
            frame,
            sum: XxHash32::with_seed(0),
            held: 0,
            ready: Ready::default(),
            max_jobs: wanted.min(affordable).max(1),
        }))
    }

    /// Reads decompressed bytes; 0 at the end of the frame.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`]; if reading fails.
    pub(super) fn read(&mut self, input: &mut Input, buf: &mut [u8]) -> Result<usize> {
        loop {
            let len = self.ready.read(buf);
            if len > 0 || !self.unpack(input)? {
                return Ok(len);
            }
        }
    }

    /// Unpacks the next blocks; false at the end.
    fn unpack(&mut self, input: &mut Input) -> Result<bool> {
        let jobs = self.find(input)?;
        let Some(last) = jobs.last() else {
            return self.end(input).map(|()| false);
        };
        let sum_len = if self.frame.sums_blocks { 4 } else { 0 };
        let packed = input.peek(last.at + last.len + sum_len)?;
        let frame = &self.frame;
        let results = parallel::each(&jobs, |job| unpack_block(frame, packed, job))?;
        let mut taken = 0;
        for (job, result) in jobs.iter().zip(results) {
            let Some(out) = result.flatten() else {
                break;
            };
            if self.frame.sums_content {
                self.sum.write(&out);
            }
            self.held += out.len() as u64;
            self.ready.push(out)?;
            taken = job.at + job.len + sum_len;
        }
        if taken == 0 {
            return Err(damaged(input, "a block does not decode"));
        }
        input.consume(taken);
        Ok(true)
    }

    /// The next blocks, none at the end.
    fn find(&self, input: &mut Input) -> Result<Vec<Job>> {
        let sum_len = if self.frame.sums_blocks { 4 } else { 0 };
        let mut jobs = Vec::new();
        let mut at = 0;
        while jobs.len() < self.max_jobs {
            let word = le32(input.peek(at + 4)?, at);
            let len = (word.unwrap_or(0) & !LZ4_PLAIN) as usize;
            let end = at + 4 + len + sum_len;
            let is_there = word.is_some() && (word == Some(0) || input.peek(end)?.len() >= end);
            if word == Some(0) || (!jobs.is_empty() && !is_there) {
                break;
            }
            if !is_there {
                return Err(fault::ends_early(Container::Lz4, input.told().used()));
            }
            if len > self.frame.block {
                return Err(damaged(input, "a block is longer than its frame allows"));
            }
            let job = Job {
                at: at + 4,
                len,
                is_plain: word.unwrap_or(0) & LZ4_PLAIN != 0,
            };
            memory::push(&mut jobs, job)?;
            at = end;
        }
        Ok(jobs)
    }

    /// Consumes the end mark, and verifies the checksum that follows it.
    fn end(&mut self, input: &mut Input) -> Result<()> {
        let len = if self.frame.sums_content { 8 } else { 4 };
        let mark = input.peek(len)?;
        if mark.len() < len {
            return Err(fault::ends_early(Container::Lz4, input.told().used()));
        }
        let sum = le32(mark, 4);
        if self.frame.sums_content && sum != Some(self.sum.finish() as u32) {
            return Err(damaged(input, "the checksum of a frame is another"));
        }
        if self.frame.plain.is_some_and(|plain| plain != self.held) {
            return Err(damaged(input, "a frame does not hold what it says"));
        }
        input.consume(len);
        Ok(())
    }
}

fn unpack_block(frame: &Lz4Frame, packed: &[u8], job: &Job) -> Option<IoBuf> {
    let end = job.at + job.len;
    let block = packed.get(job.at..end)?;
    if frame.sums_blocks && le32(packed, end)? != sum32(block) {
        return None;
    }
    if job.is_plain {
        return memory::copied(block).ok();
    }
    let mut out = memory::zeroed(frame.block).ok()?;
    let len = lz4_flex::block::decompress_into(block, &mut out).ok()?;
    out.truncate(len);
    Some(out)
}

fn damaged(input: &Input, why: &str) -> Error {
    fault::damaged(Container::Lz4, input.told().used(), why)
}
