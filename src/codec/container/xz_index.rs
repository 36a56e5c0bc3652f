//! The index at the end of an xz stream, which records the position and decompressed length of each block.

use libdeflater::crc32;

use super::XZ;
use super::read_at::ReadAt;
use crate::bytes::le32;
use crate::error::Result;
use crate::memory::{self, IoBuf};

/// Maximum number of zeroes searched between the streams.
const MAX_PADDING: u64 = 1 << 20;

/// Length of a stream's header, and of its footer.
const EDGE: usize = 12;

/// A block of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Offset in the file.
    pub(super) at: u64,
    /// Its length without the padding that follows it.
    pub(super) unpadded: u64,
    /// Its decompressed length.
    pub(super) plain: u64,
    /// The flags of its stream, which select the checksum.
    pub(super) flags: [u8; 2],
}

impl Block {
    /// Its length in the file.
    pub(super) fn packed(&self) -> u64 {
        self.unpadded.next_multiple_of(4)
    }
}

/// Calls `show` with all blocks of a file of `len` bytes, the last one first. False if the indexes do not add up to the
/// file, or are longer than `max_table` bytes.
///
/// # Errors
/// If reading or `show` fails.
pub(super) fn for_each_block(
    read_at: &ReadAt<'_>,
    len: u64,
    max_table: u64,
    show: &mut dyn FnMut(Block) -> Result<()>,
) -> Result<bool> {
    let mut end = len;
    let mut padding = 0;
    while end > 0 {
        let mut footer = [0; EDGE];
        let Some(at) = end.checked_sub(EDGE as u64) else {
            return Ok(false);
        };
        read_at(&mut footer, at)?;
        if footer[8..] == [0; 4] {
            padding += 4;
            if padding > MAX_PADDING || !end.is_multiple_of(4) || end == 4 {
                return Ok(false);
            }
            end -= 4;
            continue;
        }
        let Some((backward, flags)) = read_footer(&footer).filter(|(size, _)| *size <= max_table)
        else {
            return Ok(false);
        };
        let Some(index_at) = at.checked_sub(backward) else {
            return Ok(false);
        };
        let mut index = memory::zeroed(backward as usize)?;
        read_at(&mut index, index_at)?;
        let Some((records, packed)) = read_index(&index) else {
            return Ok(false);
        };
        let Some(start) = index_at
            .checked_sub(packed)
            .and_then(|first| first.checked_sub(EDGE as u64))
        else {
            return Ok(false);
        };
        let mut header = [0; EDGE];
        read_at(&mut header, start)?;
        if header != stream_header(flags) {
            return Ok(false);
        }
        // From the last one on: their offsets are known relative to the end.
        let mut before = index_at;
        for &(unpadded, plain) in records.iter().rev() {
            let mut block = Block {
                at: 0,
                unpadded,
                plain,
                flags,
            };
            before -= block.packed();
            block.at = before;
            show(block)?;
        }
        end = start;
    }
    Ok(len > 0)
}

/// The length of the index, and the flags of the stream.
fn read_footer(footer: &[u8; EDGE]) -> Option<(u64, [u8; 2])> {
    let sum = le32(footer, 0)?;
    let size = (u64::from(le32(footer, 4)?) + 1) * 4;
    let is_one = footer[10..] == *b"YZ" && sum == crc32(&footer[4..10]);
    is_one.then_some((size, [footer[8], footer[9]]))
}

/// The compressed and decompressed length of each block, and the total compressed length.
fn read_index(index: &[u8]) -> Option<(Vec<(u64, u64)>, u64)> {
    let end = index.len().checked_sub(4)?;
    let (body, sum) = index.split_at(end);
    if le32(sum, 0)? != crc32(body) {
        return None;
    }
    let (mark, mut rest) = body.split_first()?;
    let count = read_number(&mut rest).filter(|_| *mark == 0)?;
    // A record has at least two bytes.
    let count = usize::try_from(count)
        .ok()
        .filter(|n| *n <= rest.len() / 2)?;
    let mut records = Vec::new();
    memory::reserve(&mut records, count).ok()?;
    let mut packed = 0u64;
    for _ in 0..count {
        let unpadded = read_number(&mut rest)?;
        let plain = read_number(&mut rest)?;
        packed = packed.checked_add(unpadded.checked_next_multiple_of(4)?)?;
        records.push((unpadded, plain));
    }
    let is_padding = rest.len() < 4 && rest.iter().all(|byte| *byte == 0);
    is_padding.then_some((records, packed))
}

/// Makes a separate stream of one block, whose bytes are read by `read`: decoders accept only streams. Its index
/// contains what the index of the file says about the block, so that the decoder verifies it.
///
/// # Errors
/// If reading fails.
pub(super) fn stream_of(
    block: &Block,
    read: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Result<IoBuf> {
    let mut index = [0; 32];
    let mut len = 1;
    for number in [1, block.unpadded, block.plain] {
        len += write_number(number, index.get_mut(len..).unwrap_or_default());
    }
    len = len.next_multiple_of(4);
    let index = index.get(..len).unwrap_or_default();
    let mut footer = [0; EDGE];
    // The length of the index and its checksum in 4-byte words, minus one.
    footer[4..8].copy_from_slice(&((len / 4) as u32).to_le_bytes());
    footer[8..10].copy_from_slice(&block.flags);
    let sum = crc32(&footer[4..10]);
    footer[..4].copy_from_slice(&sum.to_le_bytes());
    footer[10..].copy_from_slice(b"YZ");
    let packed = block.packed() as usize;
    let mut stream = memory::zeroed(EDGE + packed + len + 4 + EDGE)?;
    stream.clear();
    stream.extend_from_slice(&stream_header(block.flags))?;
    let with_block = stream.room(EDGE + packed)?;
    read(with_block.get_mut(EDGE..).unwrap_or_default())?;
    stream.extend_from_slice(index)?;
    stream.extend_from_slice(&crc32(index).to_le_bytes())?;
    stream.extend_from_slice(&footer)?;
    Ok(stream)
}

fn stream_header(flags: [u8; 2]) -> [u8; EDGE] {
    let mut header = [0; EDGE];
    header[..6].copy_from_slice(XZ);
    header[6..8].copy_from_slice(&flags);
    header[8..].copy_from_slice(&crc32(&flags).to_le_bytes());
    header
}

/// A number in groups of seven bits, the lowest first.
fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Returns how many bytes were written: at most nine.
fn write_number(mut number: u64, out: &mut [u8]) -> usize {
    let mut len = 0;
    for byte in out {
        *byte = (number & 0x7f) as u8;
        number >>= 7;
        len += 1;
        if number == 0 {
            break;
        }
        *byte |= 0x80;
    }
    len
}
