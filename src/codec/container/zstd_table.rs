//! The table of a seekable zstd file: a frame at its end that decoders skip, with the lengths of all frames before it.

use super::read_at::ReadAt;
use crate::bytes::le32;
use crate::error::Result;
use crate::memory;

/// The magic number at the very end.
const MAGIC: u32 = 0x8f92_eab1;

/// The magic number of the frame that holds the table.
const FRAME: u32 = 0x184d_2a5e;

/// Length of the footer: the number of frames, flags, and the magic number.
const FOOTER: u64 = 9;

/// An entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) packed: u32,
    pub(super) plain: u32,
}

/// The frames of a file of `len` bytes. None if there is no table, or one that is inconsistent with the file or larger
/// than `max_table`.
///
/// # Errors
/// If reading fails.
pub(super) fn read(read_at: &ReadAt<'_>, len: u64, max_table: u64) -> Result<Option<Vec<Frame>>> {
    let mut footer = [0; FOOTER as usize];
    let Some(footer_at) = len.checked_sub(FOOTER) else {
        return Ok(None);
    };
    read_at(&mut footer, footer_at)?;
    let count = le32(&footer, 0).unwrap_or(0);
    let flags = footer[4];
    // The other flags are unknown.
    if le32(&footer, 5) != Some(MAGIC) || flags & 0x7c != 0 {
        return Ok(None);
    }
    let line: u64 = if flags & 0x80 != 0 { 12 } else { 8 };
    let lines = u64::from(count) * line;
    let Some(at) = footer_at
        .checked_sub(lines + 8)
        .filter(|_| lines <= max_table)
    else {
        return Ok(None);
    };
    let mut table = memory::zeroed(lines as usize + 8)?;
    read_at(&mut table, at)?;
    if le32(&table, 0) != Some(FRAME) || le32(&table, 4).map(u64::from) != Some(lines + FOOTER) {
        return Ok(None);
    }
    let mut frames = Vec::new();
    memory::reserve(&mut frames, count as usize)?;
    let mut end = 0u64;
    for bytes in table
        .get(8..)
        .unwrap_or_default()
        .chunks_exact(line as usize)
    {
        let (Some(packed), Some(plain)) = (le32(bytes, 0), le32(bytes, 4)) else {
            return Ok(None);
        };
        end += u64::from(packed);
        frames.push(Frame { packed, plain });
    }
    Ok((end == at && count > 0).then_some(frames))
}
