//! A bzip2 stream, whose blocks are unpacked several at once. They begin at any bit, with a marker of 48 bits, and
//! their lengths are not recorded: the next marker is searched for. Those bits may also occur within a block by chance;
//! then what precedes them does not decode, and is joined with what follows.

use std::io::{BufRead, Cursor, Read};
use std::ops::Range;

use bzip2::bufread::BzDecoder;
use bzip2::{Decompress, Status};

use super::input::Input;
use super::ready::Ready;
use super::{Container, fault};
use crate::codec::parallel;
use crate::crew;
use crate::error::{Error, Result};
use crate::memory::{self, IoBuf};

/// Maximum number of bytes in a block of that level before runs are expanded.
fn symbols(level: u8) -> usize {
    usize::from(level.saturating_sub(b'0')) * 100_000
}

/// Maximum decompressed length of a block: every five symbols stand for a run of at most 255.
fn longest(level: u8) -> usize {
    (symbols(level).div_ceil(5) * 255 + 1024).max(MAX_KEPT)
}

/// The markers: of a block, and of the end of a stream.
const BLOCK: u64 = 0x3141_5926_5359;
const END: u64 = 0x1772_4538_5090;

/// Lengths in bits of a marker, and of the checksum that follows it.
const MARK: usize = 48;
const SUM: usize = 32;

/// No block is as long as this in the file: 900000 symbols of 20 bits, and tables.
const MAX_PACKED: usize = 3 << 20;

/// Decompressed blocks up to this length are kept in memory. Runs of one byte make them longer: those are kept too for
/// as many blocks as there is memory for; others are decoded as they are read, by one thread.
const MAX_KEPT: usize = 4 << 20;

/// Approximate memory used by a block: compressed, decompressed, and the decoder's own.
const EACH: u64 = (9 << 20) as u64;

/// A stream whose header has been consumed.
pub(super) struct Bzip2Blocks {
    level: u8,
    /// Bit offset of the next block within the first byte of the input.
    bit: usize,
    /// The combined checksum of all blocks so far.
    sum: u32,
    ready: Ready,
    /// A block that is too long to be kept in memory.
    long: Option<BzDecoder<Cursor<IoBuf>>>,
    max_jobs: usize,
    /// How many blocks of a batch may have the maximum length.
    max_long: usize,
}

/// From one marker to another, in bits of the input.
#[derive(Clone, Copy)]
struct Job {
    from: usize,
    to: usize,
    /// Maximum number of decompressed bytes to keep.
    room: usize,
}

/// The outcome of a job.
enum Done {
    Bytes(IoBuf),
    /// The block is too long to be kept.
    Long,
    /// The block does not decode.
    Bad,
}

impl Bzip2Blocks {
    /// Starts on the stream that begins here, consuming its header. None if there is none; then nothing is consumed.
    ///
    /// # Errors
    /// If reading fails.
    pub(super) fn begin(input: &mut Input, max_memory: u64) -> Result<Option<Self>> {
        let head = input.peek(10)?;
        let mark = bits(head, 32, MARK);
        let level = head.get(3).copied().unwrap_or(0);
        if !head.starts_with(super::BZIP2)
            || !level.is_ascii_digit()
            || level == b'0'
            || !matches!(mark, Some(BLOCK | END))
        {
            return Ok(None);
        }
        input.consume(4);
        let affordable = usize::try_from(max_memory / 2 / EACH).unwrap_or(usize::MAX);
        Ok(Some(Self {
            level,
            bit: 0,
            sum: 0,
            ready: Ready::default(),
            long: None,
            max_jobs: (2 * crew::processors()).min(affordable).max(1),
            max_long: usize::try_from(max_memory / 2).unwrap_or(usize::MAX) / longest(level),
        }))
    }

    /// Reads decompressed bytes; 0 at the end of the stream.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`]; if reading fails.
    pub(super) fn read(&mut self, input: &mut Input, buf: &mut [u8]) -> Result<usize> {
        loop {
            let len = self.ready.read(buf);
            if len > 0 {
                return Ok(len);
            }
            if let Some(decoder) = &mut self.long {
                let len = decoder.read(buf);
                let len = len.map_err(|_| damaged(input, "a block does not decode"))?;
                if len > 0 || buf.is_empty() {
                    return Ok(len);
                }
                self.long = None;
            }
            if !self.unpack(input)? {
                return Ok(0);
            }
        }
    }

    /// Unpacks the next blocks; false at the end.
    fn unpack(&mut self, input: &mut Input) -> Result<bool> {
        match bits(input.peek(16)?, self.bit, MARK) {
            Some(BLOCK) => {}
            Some(END) => return self.end(input).map(|()| false),
            Some(_) => return Err(damaged(input, "no block is where one should be")),
            None => return Err(fault::ends_early(Container::Bzip2, input.told().used())),
        }
        let jobs = self.find(input)?;
        let Some(last) = jobs.last() else {
            return Err(match input.peek(MAX_PACKED)?.len() < MAX_PACKED {
                true => fault::ends_early(Container::Bzip2, input.told().used()),
                false => damaged(input, "a block does not end"),
            });
        };
        let packed = input.peek(last.to.div_ceil(8))?;
        let level = self.level;
        let results = parallel::each(&jobs, |job| unpack_block(level, packed, *job))?;
        let mut end = None;
        for (job, result) in jobs.iter().zip(results) {
            match result {
                Some(Ok(Done::Bytes(out))) => self.ready.push(out)?,
                Some(Ok(Done::Long)) if end.is_none() => {
                    let stream = stream_of(level, packed, *job)?;
                    self.long = Some(BzDecoder::new(Cursor::new(stream)));
                }
                Some(Err(error)) if end.is_none() => return Err(error),
                _ => break,
            }
            self.sum = self.sum.rotate_left(1) ^ sum_of(packed, job.from);
            end = Some(job.to);
            if self.long.is_some() {
                break;
            }
        }
        let end = match end {
            Some(end) => end,
            None => self.unpack_joined(input, &jobs)?,
        };
        input.consume(end / 8);
        self.bit = end % 8;
        Ok(true)
    }

    /// Unpacks the first block when the marker after it turned out to be none; returns its end.
    fn unpack_joined(&mut self, input: &mut Input, jobs: &[Job]) -> Result<usize> {
        let first = jobs.first().map_or(0, |job| job.from);
        let packed = input.peek(first / 8 + MAX_PACKED)?;
        let mut at = jobs.first().map_or(0, |job| job.to);
        while let Some(to) = find_mark(packed, at + 1) {
            at = to;
            let job = Job {
                from: first,
                to,
                room: self.room(0),
            };
            match unpack_block(self.level, packed, job)? {
                Done::Bytes(out) => self.ready.push(out)?,
                Done::Long => {
                    let stream = stream_of(self.level, packed, job)?;
                    self.long = Some(BzDecoder::new(Cursor::new(stream)));
                }
                Done::Bad => continue,
            }
            self.sum = self.sum.rotate_left(1) ^ sum_of(packed, first);
            return Ok(to);
        }
        Err(damaged(input, "a block does not decode"))
    }

    /// How much of a block's contents to keep, given its index in the batch.
    fn room(&self, n: usize) -> usize {
        match n < self.max_long {
            true => longest(self.level),
            false => MAX_KEPT,
        }
    }

    /// The next blocks whose ends are in the input.
    fn find(&self, input: &mut Input) -> Result<Vec<Job>> {
        let mut jobs = Vec::new();
        let mut from = self.bit;
        while jobs.len() < self.max_jobs {
            let Some(to) = next_mark(input, from)? else {
                break;
            };
            let room = self.room(jobs.len());
            memory::push(&mut jobs, Job { from, to, room })?;
            from = to;
            if bits(input.peek(to / 8 + 8)?, to, MARK) == Some(END) {
                break;
            }
        }
        Ok(jobs)
    }

    /// Consumes the end of the stream, and verifies its checksum.
    fn end(&mut self, input: &mut Input) -> Result<()> {
        let len = (self.bit + MARK + SUM).div_ceil(8);
        let sum = bits(input.peek(len)?, self.bit + MARK, SUM);
        let Some(sum) = sum else {
            return Err(fault::ends_early(Container::Bzip2, input.told().used()));
        };
        if sum != u64::from(self.sum) {
            return Err(damaged(input, "the checksum of a stream is another"));
        }
        input.consume(len);
        Ok(())
    }
}

/// The first marker after the one at this bit; None if there is none within the length of a block.
fn next_mark(input: &mut Input, from: usize) -> Result<Option<usize>> {
    let limit = from / 8 + MAX_PACKED;
    let mut at = from + MARK;
    loop {
        let wanted = (at / 8 + STEP).min(limit);
        let here = input.peek(wanted)?;
        let here = here.get(..wanted).unwrap_or(here);
        if let Some(found) = find_mark(here, at) {
            return Ok(Some(found));
        }
        if here.len() < wanted || wanted == limit {
            return Ok(None);
        }
        // A marker may cross the boundary.
        at = (here.len() * 8).saturating_sub(MARK - 1).max(at);
    }
}

/// Number of bytes searched at once.
const STEP: usize = 256 << 10;

/// Bit set of the byte pairs that occur within a marker, at any position and any shift. A marker covers at least five
/// whole bytes, so if every fourth byte is examined, one of its pairs begins there.
static PAIRS: [u64; 1 << 10] = pairs();

const fn pairs() -> [u64; 1 << 10] {
    let mut table = [0; 1 << 10];
    let marks = [BLOCK, END];
    let mut n = 0;
    while n < 2 * (MARK - 15) {
        let pair = (marks[n % 2] >> (n / 2)) as u16;
        table[pair as usize / 64] |= 1 << (pair % 64);
        n += 1;
    }
    table
}

fn is_pair(four: &[u8]) -> bool {
    let pair = match four {
        [high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => return false,
    };
    let word = PAIRS.get(usize::from(pair / 64)).copied().unwrap_or(0);
    word >> (pair % 64) & 1 != 0
}

/// The first marker of either kind at or after this bit.
fn find_mark(bytes: &[u8], from: usize) -> Option<usize> {
    /// How many bytes before and after a pair its marker may extend to.
    const REACH: usize = MARK / 8 + 1;
    let first = from / 8;
    let rest = bytes.get(first..)?;
    for (n, four) in rest.chunks(4).enumerate() {
        if !is_pair(four) {
            continue;
        }
        let at = first + n * 4;
        let around = at.saturating_sub(REACH).max(first)..bytes.len().min(at + REACH);
        if let Some(found) = find_mark_in(bytes, around, from) {
            return Some(found);
        }
    }
    None
}

/// The same for a few bytes.
fn find_mark_in(bytes: &[u8], range: Range<usize>, from: usize) -> Option<usize> {
    const MASK: u64 = (1 << MARK) - 1;
    let start = range.start * 8;
    let mut window = 0u64;
    for (n, byte) in bytes.get(range)?.iter().enumerate() {
        window = window << 8 | u64::from(*byte);
        for shift in (0..8).rev() {
            let here = (window >> shift) & MASK;
            if here != BLOCK && here != END {
                continue;
            }
            // The window starts out empty.
            let end = start + (n + 1) * 8 - shift;
            let at = end.checked_sub(MARK);
            if let Some(at) = at.filter(|at| *at >= from.max(start)) {
                return Some(at);
            }
        }
    }
    None
}

/// `count` bits, at most 48, starting at bit `from`.
fn bits(bytes: &[u8], from: usize, count: usize) -> Option<u64> {
    let mut number = 0u64;
    let end = from + count;
    for byte in bytes.get(from / 8..end.div_ceil(8))? {
        number = number << 8 | u64::from(*byte);
    }
    let behind = end.next_multiple_of(8) - end;
    Some((number >> behind) & ((1 << count) - 1))
}

/// The checksum of the block whose marker is at this bit.
fn sum_of(bytes: &[u8], from: usize) -> u32 {
    bits(bytes, from + MARK, SUM).unwrap_or(0) as u32
}

/// Makes a separate stream of one block.
fn stream_of(level: u8, bytes: &[u8], job: Job) -> Result<IoBuf> {
    let Job { from, to, .. } = job;
    let len = (to - from).div_ceil(8);
    let mut stream = memory::zeroed(4 + len + 11)?;
    stream.clear();
    stream.extend_from_slice(super::BZIP2)?;
    stream.extend_from_slice(&[level])?;
    let block = stream.room(4 + len)?.get_mut(4..).unwrap_or_default();
    let packed = bytes.get(from / 8..).unwrap_or_default();
    let shift = from % 8;
    for (n, byte) in block.iter_mut().enumerate() {
        let high = packed.get(n).copied().unwrap_or(0);
        let low = packed.get(n + 1).copied().unwrap_or(0);
        *byte = (u16::from_be_bytes([high, low]) << shift >> 8) as u8;
    }
    // After the last bit of the block: the end marker, and the checksum of the only block.
    let end = u128::from(END) << SUM | u128::from(sum_of(bytes, from));
    let used = (to - from) % 8;
    let last = if used == 0 { None } else { block.last_mut() };
    let mut tail = end << (128 - MARK - SUM);
    if let Some(last) = last {
        *last = *last & !(0xff >> used) | (tail >> (120 + used)) as u8;
        tail <<= 8 - used;
    }
    stream.extend_from_slice(&tail.to_be_bytes()[..11])?;
    Ok(stream)
}

/// # Errors
/// If memory cannot be allocated.
fn unpack_block(level: u8, packed: &[u8], job: Job) -> Result<Done> {
    let stream = stream_of(level, packed, job)?;
    let mut decoder = Decompress::new(false);
    let mut out = memory::zeroed(symbols(level) + 1024)?;
    loop {
        let (read, written) = (decoder.total_in(), decoder.total_out());
        let from = stream.get(read as usize..).unwrap_or_default();
        let to = out.get_mut(written as usize..).unwrap_or_default();
        let is_full = to.is_empty();
        match decoder.decompress(from, to) {
            Ok(Status::StreamEnd) => {
                out.truncate(decoder.total_out() as usize);
                return Ok(Done::Bytes(out));
            }
            Ok(_) if (read, written) != (decoder.total_in(), decoder.total_out()) => {}
            Ok(_) if is_full && out.len() < job.room => {
                let more = if out.len() < MAX_KEPT {
                    MAX_KEPT
                } else {
                    job.room
                };
                out.resize(more.min(job.room))?;
            }
            Ok(_) if is_full => return Ok(Done::Long),
            _ => return Ok(Done::Bad),
        }
    }
}

fn damaged(input: &Input, why: &str) -> Error {
    fault::damaged(Container::Bzip2, input.told().used(), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_at_every_bit() {
        for bit in 0..70 {
            let mut bytes = vec![0x55; 30];
            for n in 0..MARK {
                let at = bit + n;
                let one = END >> (MARK - 1 - n) & 1 != 0;
                bytes[at / 8] &= !(0x80 >> (at % 8));
                bytes[at / 8] |= u8::from(one) << (7 - at % 8);
            }
            assert_eq!(bits(&bytes, bit, MARK), Some(END));
            assert_eq!(find_mark(&bytes, 0), Some(bit));
            assert_eq!(find_mark(&bytes, bit), Some(bit));
            assert_eq!(find_mark(&bytes, bit + 1), None);
            assert_eq!(find_mark(&bytes[..(bit + MARK).div_ceil(8) - 1], 0), None);
        }
    }

    /// Bytes with a marker at this bit, surrounded by bytes that look like parts of markers.
    fn with_mark(mark: u64, bit: usize, len: usize) -> Vec<u8> {
        let noise = [0x31, 0x41, 0x59, 0x26, 0x17, 0x72];
        let mut bytes: Vec<u8> = noise.into_iter().cycle().take(len).collect();
        for n in 0..MARK {
            let at = bit + n;
            let one = mark >> (MARK - 1 - n) & 1 != 0;
            bytes[at / 8] &= !(0x80 >> (at % 8));
            bytes[at / 8] |= u8::from(one) << (7 - at % 8);
        }
        bytes
    }

    #[test]
    fn marks_are_found_whatever_stands_around_and_wherever_the_search_begins() {
        for mark in [BLOCK, END] {
            for bit in 0..100 {
                for len in [(bit + MARK).div_ceil(8), 40] {
                    let bytes = with_mark(mark, bit, len);
                    for from in 0..=bit {
                        let found = find_mark(&bytes, from);
                        assert_eq!(found, Some(bit), "{mark:#x} from {from} of {len}");
                    }
                    let found = find_mark(&bytes, bit + 1);
                    assert_eq!(found, None, "{mark:#x} behind {bit} of {len}");
                }
            }
        }
    }

    #[test]
    fn the_longest_block_is_kept_where_there_is_room() {
        let zeroes = vec![0; 200_000 / 5 * 255 + 1000];
        let mut packed = Vec::new();
        let mut encoder = bzip2::bufread::BzEncoder::new(&zeroes[..], bzip2::Compression::new(2));
        encoder.read_to_end(&mut packed).expect("memory");
        let (level, here) = (packed[3], &packed[4..]);
        let to = find_mark(here, MARK).expect("a second block");
        for (room, kept) in [(longest(level), true), (MAX_KEPT, false)] {
            let job = Job { from: 0, to, room };
            match unpack_block(level, here, job).expect("memory") {
                Done::Bytes(out) if kept => assert!(out.len() > 10_000_000),
                Done::Long => assert!(!kept),
                _ => panic!("it is not kept"),
            }
        }
    }

    #[test]
    fn a_mark_within_a_block_is_no_border() {
        let text: Vec<u8> = (0..50_000_u32).map(|n| (n * n / 7) as u8).collect();
        let mut packed = Vec::new();
        let mut encoder = bzip2::bufread::BzEncoder::new(&text[..], bzip2::Compression::fast());
        encoder.read_to_end(&mut packed).expect("memory");
        let mut bytes = packed.clone();
        bytes.drain(..4);
        let source: super::super::Source = Box::new(move |buf| {
            let len = buf.len().min(bytes.len());
            buf[..len].copy_from_slice(&bytes[..len]);
            bytes.drain(..len);
            Ok(len)
        });
        let mut input = Input::new(source).expect("memory");
        let mut blocks = Bzip2Blocks {
            level: packed[3],
            bit: 0,
            sum: 0,
            ready: Ready::default(),
            long: None,
            max_jobs: 4,
            max_long: 0,
        };
        // As if a marker had been found in the middle.
        let jobs = [
            Job {
                from: 0,
                to: 4001,
                room: MAX_KEPT,
            },
            Job {
                from: 4001,
                to: 9000,
                room: MAX_KEPT,
            },
        ];
        let here = input.peek(packed.len()).expect("memory").to_vec();
        assert!(matches!(
            unpack_block(packed[3], &here, jobs[0]),
            Ok(Done::Bad)
        ));
        let end = blocks.unpack_joined(&mut input, &jobs).expect("a block");
        assert_eq!(bits(&here, end, MARK), Some(END));
        let mut out = vec![0; text.len()];
        assert_eq!(blocks.ready.read(&mut out), text.len());
        assert!(out == text);
    }
}
