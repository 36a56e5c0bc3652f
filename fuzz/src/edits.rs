//! Edits of files of any structure: numbers at either end and in any sector, bytes, lengths.

use arbitrary::Arbitrary;

use crate::sparse::Pages;

/// Edits of one run.
pub const MOST: usize = 12;
/// Bytes at either end of a file in which most structures stand.
const ENDS: u64 = 8 << 10;

/// Where an edit is.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Place {
    FromStart(u16),
    FromEnd(u16),
    /// Any byte of the first 64 KiB.
    Byte(u16),
    /// A word of any sector.
    Sector {
        sector: u16,
        word: u8,
    },
}

/// One edit.
#[derive(Arbitrary, Debug)]
pub enum Edit {
    Number {
        at: Place,
        big: bool,
        wide: bool,
        value: u64,
    },
    /// A number becomes larger or smaller by a little, in units of a power of two.
    Add {
        at: Place,
        big: bool,
        wide: bool,
        by: i8,
        shift: u8,
    },
    /// A number that stands elsewhere: pointers that meet.
    Copy {
        from: Place,
        to: Place,
        words: u8,
    },
    Bytes {
        at: Place,
        bytes: Vec<u8>,
    },
    /// The file ends here, or goes on.
    End {
        grow: bool,
        sectors: u16,
        bytes: u8,
    },
}

impl Place {
    fn offset(self, len: u64) -> u64 {
        match self {
            Self::FromStart(at) => u64::from(at) * 4 % ENDS,
            Self::FromEnd(at) => len.saturating_sub(4 + u64::from(at) * 4 % ENDS),
            Self::Byte(at) => u64::from(at),
            Self::Sector { sector, word } => {
                let sectors = (len / 512).max(1);
                u64::from(sector) % sectors * 512 + u64::from(word) % 128 * 4
            }
        }
    }
}

fn number(bytes: [u8; 8], big: bool, wide: bool) -> u64 {
    match (big, wide) {
        (true, true) => u64::from_be_bytes(bytes),
        (true, false) => u64::from_be_bytes(bytes) >> 32,
        (false, true) => u64::from_le_bytes(bytes),
        (false, false) => u64::from_le_bytes(bytes) & 0xffff_ffff,
    }
}

fn put(file: &mut Pages, at: u64, value: u64, big: bool, wide: bool) {
    match (big, wide) {
        (true, true) => file.put(&value.to_be_bytes(), at),
        (true, false) => file.put(&(value as u32).to_be_bytes(), at),
        (false, true) => file.put(&value.to_le_bytes(), at),
        (false, false) => file.put(&(value as u32).to_le_bytes(), at),
    }
}

impl Edit {
    /// Makes the edit.
    pub fn apply(&self, file: &mut Pages) {
        let len = file.len();
        match self {
            Edit::Number {
                at,
                big,
                wide,
                value,
            } => put(file, at.offset(len), *value, *big, *wide),
            Edit::Add {
                at,
                big,
                wide,
                by,
                shift,
            } => {
                let at = at.offset(len);
                let by = (i64::from(*by) as u64) << (shift % 64);
                let sum = number(file.get(at), *big, *wide).wrapping_add(by);
                put(file, at, sum, *big, *wide);
            }
            Edit::Copy { from, to, words } => {
                let mut bytes = [0; 64];
                let bytes = &mut bytes[..(usize::from(*words) % 16 + 1) * 4];
                file.read(bytes, from.offset(len));
                file.put(bytes, to.offset(len));
            }
            Edit::Bytes { at, bytes } => file.put(bytes, at.offset(len)),
            Edit::End {
                grow,
                sectors,
                bytes,
            } => {
                let end = u64::from(*sectors) * 512 + u64::from(*bytes);
                match grow {
                    true => file.set_len(len + end),
                    false => file.set_len(end.min(len)),
                }
            }
        }
    }
}
