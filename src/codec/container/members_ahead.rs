//! Members of a stream that record their length, unpacked several at once.

use std::io::BufRead;

use super::input::Input;
use super::member::{self, Wanted};
use super::ready::Ready;
use super::{Container, max_part, part};
use crate::codec::parallel;
use crate::crew;
use crate::error::Result;
use crate::memory::{self, IoBuf};

/// Members are combined up to this size, so that a thread's work is worth starting it.
const WHOLE: u64 = 1 << 20;

/// Consecutive members, for one thread.
#[derive(Clone, Copy, Debug)]
struct Job {
    at: usize,
    packed: usize,
    /// Maximum decompressed length.
    most: usize,
}

/// Unpacks the next members, as far as they are complete and small enough for memory. None if the first of them is not:
/// then nothing is consumed.
///
/// # Errors
/// If reading fails.
pub(super) fn unpack(kind: Container, input: &mut Input, max_memory: u64) -> Result<Option<Ready>> {
    let jobs = find(kind, input, max_memory)?;
    let end = jobs.last().map_or(0, |job| job.at + job.packed);
    let packed = input.peek(end)?;
    let results = parallel::each(&jobs, |job| -> Option<IoBuf> {
        let packed = packed.get(job.at..job.at + job.packed)?;
        let mut out = memory::zeroed(job.most).ok()?;
        let len = part::unpack_members(kind, packed, &mut out).ok()?;
        out.truncate(len);
        Some(out)
    })?;
    let mut ready = Ready::default();
    let mut taken = 0;
    for (job, result) in jobs.iter().zip(results) {
        let Some(out) = result.flatten() else {
            // Unpacking it separately shows what is wrong.
            break;
        };
        taken += job.packed;
        ready.push(out)?;
    }
    input.consume(taken);
    Ok((taken > 0).then_some(ready))
}

fn find(kind: Container, input: &mut Input, max_memory: u64) -> Result<Vec<Job>> {
    let wanted = Wanted {
        limit: max_part(max_memory),
        exact: false,
    };
    let max_jobs = 2 * crew::processors();
    let mut jobs: Vec<Job> = Vec::new();
    let mut memory = 0;
    let mut at = 0;
    loop {
        let mut look = |from: u64, buf: &mut [u8]| {
            let from = at + from as usize;
            let here = input.peek(from + buf.len())?.get(from..);
            let here = here.unwrap_or_default();
            let len = here.len().min(buf.len());
            let (buf, _) = buf.split_at_mut(len);
            buf.copy_from_slice(here.get(..len).unwrap_or_default());
            Ok(len)
        };
        let Some(member) = member::find(kind, &mut look, wanted)? else {
            break;
        };
        let (packed, most) = (member.packed, member.plain.most());
        memory += packed + most;
        if memory > max_memory / 2 && !jobs.is_empty() {
            break;
        }
        let (packed, most) = (packed as usize, most as usize);
        if input.peek(at + packed)?.len() < at + packed {
            break;
        }
        let is_full = jobs.len() == max_jobs;
        match jobs.last_mut() {
            Some(last) if last.most == 0 || (last.most + most) as u64 <= WHOLE => {
                last.packed += packed;
                last.most += most;
            }
            _ if is_full => break,
            _ => memory::push(&mut jobs, Job { at, packed, most })?,
        }
        at += packed;
    }
    Ok(jobs)
}
