//! How many bytes a compressed file holds, where it says so: nothing is decompressed for it.

use super::{Container, XZ, ZSTD, is_skipped};
use crate::bytes::{le32, le64};
use crate::error::Result;
use crate::memory;

/// Reads bytes of the file; past its end there are zeroes.
pub type ReadAt<'a> = dyn Fn(&mut [u8], u64) -> Result<()> + 'a;

/// The most zeroes that are looked through between the streams of xz.
const MAX_PADDING: u64 = 1 << 20;

/// The header and the footer of a stream of xz.
const XZ_EDGE: u64 = 12;

/// How many bytes a file of `len` bytes holds. None where it does not say, or contradicts itself; whoever
/// unpacks it finds out whether it is true. Tables larger than `max_table` are not looked at.
///
/// # Errors
/// Of reading.
pub fn known_len(
    kind: Container,
    read_at: &ReadAt<'_>,
    len: u64,
    max_table: u64,
) -> Result<Option<u64>> {
    match kind {
        Container::Xz => of_xz(read_at, len, max_table),
        Container::Zstd => of_zstd(read_at, len),
        Container::Gzip | Container::Bzip2 | Container::Lz4 => Ok(None),
    }
}

/// The sum of what the indexes of all streams say, from the last one on.
fn of_xz(read_at: &ReadAt<'_>, len: u64, max_table: u64) -> Result<Option<u64>> {
    let mut end = len;
    let mut total = 0u64;
    let mut padding = 0;
    let mut streams = 0;
    while end > 0 {
        let mut footer = [0; XZ_EDGE as usize];
        let Some(at) = end.checked_sub(XZ_EDGE) else {
            return Ok(None);
        };
        read_at(&mut footer, at)?;
        if footer[8..] == [0; 4] {
            padding += 4;
            if padding > MAX_PADDING || !end.is_multiple_of(4) {
                return Ok(None);
            }
            end -= 4;
            continue;
        }
        let backward = le32(&footer, 4).map_or(0, |size| (u64::from(size) + 1) * 4);
        let index_at = at.checked_sub(backward);
        let Some(index_at) = index_at.filter(|_| footer[10..] == *b"YZ" && backward <= max_table)
        else {
            return Ok(None);
        };
        let mut index = memory::zeroed(backward as usize)?;
        read_at(&mut index, index_at)?;
        let start = blocks_of_xz(&index).and_then(|(packed, plain)| {
            total = total.checked_add(plain)?;
            index_at.checked_sub(packed)?.checked_sub(XZ_EDGE)
        });
        let Some(start) = start else {
            return Ok(None);
        };
        let mut magic = [0; XZ.len()];
        read_at(&mut magic, start)?;
        if magic != *XZ {
            return Ok(None);
        }
        end = start;
        streams += 1;
    }
    Ok((streams > 0).then_some(total))
}

/// What the blocks of a stream take, and what they hold, by its index.
fn blocks_of_xz(index: &[u8]) -> Option<(u64, u64)> {
    let (mark, mut rest) = index.split_first()?;
    let count = number_of_xz(&mut rest).filter(|_| *mark == 0)?;
    let (mut packed, mut plain) = (0u64, 0u64);
    for _ in 0..count {
        let unpadded = number_of_xz(&mut rest)?;
        packed = packed.checked_add(unpadded.checked_next_multiple_of(4)?)?;
        plain = plain.checked_add(number_of_xz(&mut rest)?)?;
    }
    // Padding and a checksum follow.
    (rest.len() < 8).then_some((packed, plain))
}

/// A number in bytes of seven bits, the lowest first.
fn number_of_xz(bytes: &mut &[u8]) -> Option<u64> {
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

/// The sum of what the headers of all frames say.
fn of_zstd(read_at: &ReadAt<'_>, len: u64) -> Result<Option<u64>> {
    let mut at = 0u64;
    let mut total = 0u64;
    while at < len {
        let mut head = [0; 18];
        read_at(&mut head, at)?;
        let mark = le32(&head, 0).unwrap_or(0);
        if is_skipped(mark) {
            at = at.saturating_add(8 + u64::from(le32(&head, 4).unwrap_or(0)));
            continue;
        }
        let Some((header, plain, checksum)) = frame_of_zstd(&head).filter(|_| mark == ZSTD) else {
            return Ok(None);
        };
        let Some(sum) = total.checked_add(plain) else {
            return Ok(None);
        };
        total = sum;
        at += header;
        loop {
            let mut block = [0; 4];
            read_at(&mut block[..3], at)?;
            let word = u32::from_le_bytes(block);
            let size = match (word >> 1) & 3 {
                0 | 2 => u64::from(word >> 3),
                1 => 1,
                _ => return Ok(None),
            };
            at += 3 + size;
            if at > len {
                return Ok(None);
            }
            if word & 1 == 1 {
                break;
            }
        }
        at += checksum;
    }
    Ok((at == len).then_some(total))
}

/// The length of a frame's header, of what the frame holds, and of its checksum.
fn frame_of_zstd(head: &[u8; 18]) -> Option<(u64, u64, u64)> {
    let flags = head[4];
    let single = flags & 0x20 != 0;
    let window = usize::from(!single);
    let dictionary = [0, 1, 2, 4][usize::from(flags & 3)];
    let at = 5 + window + dictionary;
    let field = |size: usize| head.get(at..at + size);
    let (size, plain) = match flags >> 6 {
        0 if !single => return None,
        0 => (1, u64::from(*head.get(at)?)),
        1 => (
            2,
            u64::from(u16::from_le_bytes(field(2)?.try_into().ok()?)) + 256,
        ),
        2 => (4, u64::from(le32(head, at)?)),
        _ => (8, le64(head, at)?),
    };
    let checksum = if flags & 4 != 0 { 4 } else { 0 };
    Some(((at + size) as u64, plain, checksum))
}
