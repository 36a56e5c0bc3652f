//! Members that record their length: frames of zstd and lz4, blocks of bgzf. They are found by their headers, without
//! decompressing, and can be unpacked separately.

use super::read_at::ReadAt;
use super::{Container, is_skipped};
use crate::bytes::{array, le16, le32, le64};
use crate::error::Result;

/// Fills the buffer from that offset within the member; returns how many bytes there are before the end of the file.
pub(super) type Look<'a> = dyn FnMut(u64, &mut [u8]) -> Result<usize> + 'a;

/// A member, as described by its headers; unpacking shows whether they are true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Length in the file.
    pub(super) packed: u64,
    pub(super) plain: Plain,
}

/// The decompressed length of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    Exactly(u64),
    AtMost(u64),
    /// It is skipped, whatever its contents.
    Nothing,
}

impl Plain {
    /// The maximum length.
    pub(super) fn most(self) -> u64 {
        match self {
            Self::Exactly(len) | Self::AtMost(len) => len,
            Self::Nothing => 0,
        }
    }

    /// The exact length, if it is known.
    pub(super) fn exactly(self) -> Option<u64> {
        match self {
            Self::Exactly(len) => Some(len),
            Self::AtMost(_) => None,
            Self::Nothing => Some(0),
        }
    }
}

/// Which members to look for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Maximum length, both compressed and decompressed.
    pub(super) limit: u64,
    /// Whether the decompressed length must be recorded.
    pub(super) exact: bool,
}

/// Finds the member that begins here. None if it does not record where it ends, is truncated or damaged, or is not
/// wanted.
///
/// # Errors
/// If `look` fails.
pub(super) fn find(kind: Container, look: &mut Look<'_>, wanted: Wanted) -> Result<Option<Member>> {
    let found = match kind {
        Container::Zstd => zstd(look, wanted)?,
        Container::Gzip => bgzf(look)?,
        Container::Lz4 => lz4(look, wanted)?,
        Container::Xz | Container::Bzip2 => None,
    };
    let limit = wanted.limit;
    Ok(found.filter(|member| member.packed <= limit && member.plain.most() <= limit))
}

/// Calls `show` with every member of a file of `len` bytes, and its offset; false if the file does not consist of such
/// members only, or if `show` returns false.
///
/// # Errors
/// If reading or `show` fails.
pub(super) fn for_each(
    kind: Container,
    read_at: &ReadAt<'_>,
    len: u64,
    wanted: Wanted,
    show: &mut dyn FnMut(u64, Member) -> Result<bool>,
) -> Result<bool> {
    let mut at = 0u64;
    while at < len {
        let mut look = |from: u64, buf: &mut [u8]| {
            let from = at.saturating_add(from);
            let got = len.saturating_sub(from).min(buf.len() as u64) as usize;
            read_at(buf.get_mut(..got).unwrap_or_default(), from)?;
            Ok(got)
        };
        let found = find(kind, &mut look, wanted)?;
        let Some(member) = found.filter(|member| member.packed <= len - at) else {
            // Data after the last gzip member is ignored, as by the gzip tool.
            let mut head = [0; super::GZIP.len()];
            return Ok(kind == Container::Gzip
                && at > 0
                && (look(0, &mut head)? < head.len() || head != super::GZIP));
        };
        if !show(at, member)? {
            return Ok(false);
        }
        at += member.packed;
    }
    Ok(len > 0)
}

/// Maximum size of a zstd block.
const ZSTD_BLOCK: u64 = 128 << 10;

fn zstd(look: &mut Look<'_>, wanted: Wanted) -> Result<Option<Member>> {
    let mut head = [0; 18];
    let got = look(0, &mut head)?;
    let head = head.get(..got).unwrap_or_default();
    if let Some(member) = skipped(head) {
        return Ok(Some(member));
    }
    let Some((header, plain, checksum)) = zstd_header(head) else {
        return Ok(None);
    };
    let Wanted { limit, exact } = wanted;
    if plain.map_or(exact, |plain| plain > limit) {
        return Ok(None);
    }
    let (mut packed, mut most) = (header, 0u64);
    loop {
        let mut word = [0; 4];
        if look(packed, &mut word[..3])? < 3 {
            return Ok(None);
        }
        let word = u32::from_le_bytes(word);
        let size = u64::from(word >> 3);
        let (size, held) = match (word >> 1) & 3 {
            0 => (size, size),
            1 => (1, size),
            2 => (size, ZSTD_BLOCK),
            _ => return Ok(None),
        };
        packed += 3 + size;
        most += held;
        if packed > limit || (plain.is_none() && most > limit) {
            return Ok(None);
        }
        if word & 1 == 1 {
            break;
        }
    }
    Ok(Some(Member {
        packed: packed + checksum,
        plain: plain.map_or(Plain::AtMost(most), Plain::Exactly),
    }))
}

/// The length of a frame's header, of its contents, and of its checksum. None if it is not a frame, or needs a
/// dictionary.
fn zstd_header(head: &[u8]) -> Option<(u64, Option<u64>, u64)> {
    if le32(head, 0)? != super::ZSTD {
        return None;
    }
    let flags = *head.get(4)?;
    let single = flags & 0x20 != 0;
    if flags & 3 != 0 {
        return None;
    }
    let at = 5 + usize::from(!single);
    let (size, plain) = match flags >> 6 {
        0 if !single => (0, None),
        0 => (1, Some(u64::from(*head.get(at)?))),
        1 => (2, Some(u64::from(le16(head, at)?) + 256)),
        2 => (4, Some(u64::from(le32(head, at)?))),
        _ => (8, Some(le64(head, at)?)),
    };
    let checksum = if flags & 4 != 0 { 4 } else { 0 };
    Some(((at + size) as u64, plain, checksum))
}

/// A skippable frame.
fn skipped(head: &[u8]) -> Option<Member> {
    let mark = le32(head, 0).filter(|mark| is_skipped(*mark));
    mark.and_then(|_| le32(head, 4)).map(|len| Member {
        packed: 8 + u64::from(len),
        plain: Plain::Nothing,
    })
}

/// Maximum length of the extra field that is searched: usually it has six bytes.
const BGZF_EXTRA: usize = 256;

/// A gzip member whose extra field records its length.
fn bgzf(look: &mut Look<'_>) -> Result<Option<Member>> {
    let mut head = [0; 12 + BGZF_EXTRA];
    let got = look(0, &mut head[..18])?;
    let first = head.get(..got).unwrap_or_default();
    let Some(packed) = (match le16(first, 10) {
        // By far the most common.
        Some(0..=6) | None => bgzf_len(first),
        Some(extra) => {
            let len = (12 + usize::from(extra)).min(head.len());
            let got = look(0, &mut head[..len])?;
            bgzf_len(head.get(..got).unwrap_or_default())
        }
    }) else {
        return Ok(None);
    };
    let mut size = [0; 4];
    if look(packed - 4, &mut size)? < 4 {
        return Ok(None);
    }
    Ok(Some(Member {
        packed,
        plain: Plain::Exactly(u64::from(u32::from_le_bytes(size))),
    }))
}

/// The length according to a block's header.
fn bgzf_len(head: &[u8]) -> Option<u64> {
    if !head.starts_with(super::GZIP) || head.get(3)? & 4 == 0 {
        return None;
    }
    let extra = usize::from(le16(head, 10)?);
    let mut fields = head.get(12..12 + extra)?;
    while let Some([first, second]) = array::<2>(fields, 0) {
        let len = usize::from(le16(fields, 2)?);
        if [first, second] == *b"BC" && len == 2 {
            let size = u64::from(le16(fields, 4)?) + 1;
            // At least a header and a trailer.
            return (size >= 12 + extra as u64 + 8).then_some(size);
        }
        fields = fields.get(4 + len..)?;
    }
    None
}

/// A frame whose header records its decompressed length.
fn lz4(look: &mut Look<'_>, wanted: Wanted) -> Result<Option<Member>> {
    let mut head = [0; 19];
    let got = look(0, &mut head)?;
    let head = head.get(..got).unwrap_or_default();
    if let Some(member) = skipped(head) {
        return Ok(Some(member));
    }
    let Some(frame) = Lz4Frame::of(head) else {
        return Ok(None);
    };
    let limit = wanted.limit;
    let Some(plain) = frame.plain.filter(|plain| *plain <= limit) else {
        return Ok(None);
    };
    let mut packed = frame.header as u64;
    loop {
        let mut word = [0; 4];
        if look(packed, &mut word)? < 4 {
            return Ok(None);
        }
        packed += 4;
        let size = u32::from_le_bytes(word);
        if size == 0 {
            break;
        }
        packed += u64::from(size & !LZ4_PLAIN) + if frame.sums_blocks { 4 } else { 0 };
        if packed > limit {
            return Ok(None);
        }
    }
    Ok(Some(Member {
        packed: packed + if frame.sums_content { 4 } else { 0 },
        plain: Plain::Exactly(plain),
    }))
}

/// The bit in the length of an lz4 block that marks it as stored uncompressed.
pub(super) const LZ4_PLAIN: u32 = 1 << 31;

/// The header of an lz4 frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lz4Frame {
    /// Length of the header.
    pub(super) header: usize,
    /// Blocks do not refer to earlier ones.
    pub(super) independent: bool,
    pub(super) sums_blocks: bool,
    pub(super) sums_content: bool,
    /// Decompressed length of the frame.
    pub(super) plain: Option<u64>,
    /// Maximum decompressed length of a block.
    pub(super) block: usize,
}

impl Lz4Frame {
    /// None if it is not a frame, or needs a dictionary.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        let flags = *head.get(4)?;
        let block = match *head.get(5)? {
            size @ (0x40 | 0x50 | 0x60 | 0x70) => 1usize << (8 + 2 * (size >> 4)),
            _ => return None,
        };
        if le32(head, 0)? != super::LZ4 || flags & 0b1100_0011 != 0b0100_0000 {
            return None;
        }
        let has_size = flags & 8 != 0;
        let header = if has_size { 15 } else { 7 };
        let described = head.get(4..header - 1)?;
        if super::sum32(described).to_le_bytes()[1] != *head.get(header - 1)? {
            return None;
        }
        Some(Self {
            header,
            independent: flags & 0x20 != 0,
            block,
            sums_blocks: flags & 0x10 != 0,
            sums_content: flags & 4 != 0,
            plain: if has_size { le64(head, 6) } else { None },
        })
    }
}
