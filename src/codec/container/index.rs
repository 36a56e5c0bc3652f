//! Which part of a compressed file holds which of its decompressed bytes, for files that record this.

use super::Container;
use super::fault;
use super::member::{self, Member, Plain, Wanted};
use super::part;
use super::read_at::ReadAt;
use super::xz_index::{self, Block};
use super::zstd_table;
use crate::error::Result;
use crate::memory::{self, IoBuf};
use crate::policy::OpenPolicy;

/// Members are combined up to this size: a table of all of them would be long, and each lookup expensive.
const WHOLE: u64 = 1 << 20;

/// Length of the empty block at the end of a bgzf file: so few bytes of gzip contain no data, whatever the header.
const EMPTY: u64 = 28;

/// The parts of the file that can be unpacked separately; together they make up all of it.
#[derive(Debug)]
pub struct Index {
    kind: Container,
    parts: Vec<Part>,
    len: u64,
    max_part: u64,
    max_memory: u64,
}

/// One part.
#[derive(Clone, Copy, Debug)]
struct Part {
    at: u64,
    /// Offset of its bytes in the decompressed file.
    plain_at: u64,
    packed: u32,
    plain: u32,
    flags: [u8; 2],
}

impl Index {
    /// Reads the index of a file of `len` bytes. None if the file has none, or if one of its parts or the table of them
    /// is too large for memory.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Limit`] if the file expands by more than the policy allows; if reading fails.
    pub fn of(
        kind: Container,
        read_at: &ReadAt<'_>,
        len: u64,
        policy: &OpenPolicy,
    ) -> Result<Option<Self>> {
        let mut index = Self {
            kind,
            parts: Vec::new(),
            len: 0,
            max_part: super::max_part(policy.max_decoder_bytes),
            max_memory: policy.max_decoder_bytes,
        };
        let max_parts = policy.max_table_bytes / size_of::<Part>() as u64;
        let is_whole = match kind {
            Container::Xz => index.take_xz(read_at, len, policy.max_table_bytes, max_parts)?,
            Container::Zstd => match zstd_table::read(read_at, len, policy.max_table_bytes)? {
                Some(frames) => index.take_frames(&frames, max_parts)?,
                None => index.take_members(read_at, len, max_parts)?,
            },
            Container::Gzip | Container::Lz4 => index.take_members(read_at, len, max_parts)?,
            Container::Bzip2 => false,
        };
        if !is_whole {
            return Ok(None);
        }
        let allowed = len.saturating_mul(policy.max_expansion);
        match index.len > super::FREE && index.len > allowed {
            true => Err(fault::too_long(kind, len, policy.max_expansion)),
            false => Ok(Some(index)),
        }
    }

    fn take_xz(
        &mut self,
        read_at: &ReadAt<'_>,
        len: u64,
        max_table: u64,
        max_parts: u64,
    ) -> Result<bool> {
        let mut fits = true;
        let (parts, max_part) = (&mut self.parts, self.max_part);
        let is_whole = xz_index::for_each_block(read_at, len, max_table, &mut |block| {
            let is_small = block.packed() <= max_part && block.plain <= max_part;
            fits &= is_small && (parts.len() as u64) < max_parts;
            if fits && block.plain > 0 {
                let part = Part {
                    at: block.at,
                    plain_at: 0,
                    // With the padding removed again, it is what the index says.
                    packed: block.unpadded as u32,
                    plain: block.plain as u32,
                    flags: block.flags,
                };
                memory::push(parts, part)?;
            }
            Ok(())
        })?;
        self.parts.reverse();
        for part in &mut self.parts {
            part.plain_at = self.len;
            self.len += u64::from(part.plain);
        }
        Ok(is_whole && fits)
    }

    fn take_frames(&mut self, frames: &[zstd_table::Frame], max_parts: u64) -> Result<bool> {
        let mut at = 0;
        for frame in frames {
            if frame.plain == 0 && frame.packed > 0 {
                // Nothing would notice if it did contain data.
                return Ok(false);
            }
            let member = Member {
                packed: frame.packed.into(),
                plain: Plain::Exactly(frame.plain.into()),
            };
            if !self.take(at, member, max_parts)? {
                return Ok(false);
            }
            at += member.packed;
        }
        Ok(true)
    }

    fn take_members(&mut self, read_at: &ReadAt<'_>, len: u64, max_parts: u64) -> Result<bool> {
        let wanted = Wanted {
            limit: self.max_part,
            exact: true,
        };
        member::for_each(self.kind, read_at, len, wanted, &mut |at, member| {
            self.take(at, member, max_parts)
        })
    }

    /// Appends the member at that offset; false if it does not fit.
    fn take(&mut self, at: u64, member: Member, max_parts: u64) -> Result<bool> {
        let Some(plain) = member.plain.exactly() else {
            return Ok(false);
        };
        let packed = member.packed;
        if packed > self.max_part || plain > self.max_part {
            return Ok(false);
        }
        if let Some(last) = self.parts.last_mut() {
            let both = (
                u64::from(last.packed) + packed,
                u64::from(last.plain) + plain,
            );
            if last.at + u64::from(last.packed) == at && both.0 <= WHOLE && both.1 <= WHOLE {
                (last.packed, last.plain) = (both.0 as u32, both.1 as u32);
                self.len += plain;
                return Ok(true);
            }
        }
        if plain == 0 {
            // It is never unpacked, so nobody would notice if it did contain data.
            let is_end = self.kind == Container::Gzip && packed <= EMPTY;
            return Ok(is_end || member.plain == Plain::Nothing);
        }
        if self.parts.len() as u64 >= max_parts {
            return Ok(false);
        }
        let part = Part {
            at,
            plain_at: self.len,
            packed: packed as u32,
            plain: plain as u32,
            flags: [0; 2],
        };
        memory::push(&mut self.parts, part)?;
        self.len += plain;
        Ok(true)
    }

    /// Decompressed length of the file.
    pub fn plain_len(&self) -> u64 {
        self.len
    }

    /// Number of parts.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The part that holds the byte at this offset.
    pub fn part_at(&self, offset: u64) -> Option<usize> {
        let after = self.parts.partition_point(|part| part.plain_at <= offset);
        after.checked_sub(1).filter(|_| offset < self.len)
    }

    /// Offset of a part in the decompressed file, and its decompressed length.
    pub fn range_of(&self, part: usize) -> Option<(u64, u64)> {
        let part = self.parts.get(part)?;
        Some((part.plain_at, part.plain.into()))
    }

    /// Approximate memory needed to unpack a part.
    pub fn memory_of(&self, part: usize) -> u64 {
        let part = self.parts.get(part);
        // An xz decoder has a window, usually of a third of the block.
        part.map_or(0, |part| {
            let plain = u64::from(part.plain);
            plain + plain / 2 + u64::from(part.packed)
        })
    }

    /// Unpacks a part; verifies its checksums, and that its length is what the index says.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] with the offset of the part, [`crate::ErrorKind::Limit`] if its decoder needs more
    /// memory than the policy allows; if reading fails.
    pub fn unpack(&self, part: usize, read_at: &ReadAt<'_>, out: &mut IoBuf) -> Result<()> {
        let Some(part) = self.parts.get(part) else {
            out.clear();
            return Ok(());
        };
        let len = part.plain as usize;
        let done = match self.kind {
            Container::Xz => {
                let block = Block {
                    at: part.at,
                    unpadded: part.packed.into(),
                    plain: part.plain.into(),
                    flags: part.flags,
                };
                let stream = xz_index::stream_of(&block, |buf| read_at(buf, part.at))?;
                part::unpack_xz(&stream, out.room(len)?, self.max_memory / 2).map(|()| len)
            }
            kind => {
                let mut packed = memory::zeroed(part.packed as usize)?;
                read_at(&mut packed, part.at)?;
                part::unpack_members(kind, &packed, out.room(len)?)
            }
        };
        match done {
            Ok(got) if got == len => Ok(()),
            Ok(_) => Err(fault::damaged(
                self.kind,
                part.at,
                "it holds less than its index says",
            )),
            Err(error) => Err(fault::of_decoder(
                self.kind,
                part.at,
                self.max_memory,
                &error,
            )),
        }
    }
}
