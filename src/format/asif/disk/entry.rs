//! The entries of directories and tables, and the states of sectors.

/// The bits with the number of a chunk.
const NUMBER: u64 = (1 << 55) - 1;

/// Bits without a known use.
const RESERVED: u64 = 0x7f << 55;

/// What an entry says about a chunk of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Entry {
    /// It was never written.
    Hole,
    /// All of it is in that chunk of the file.
    Whole(u64),
    /// Those of its sectors that were written are in that chunk of the file; a bitmap says which.
    Partly(u64),
}

impl Entry {
    /// Decodes an entry of a table, or returns what is wrong with it.
    pub(in super::super) fn of(word: u64) -> Result<Self, &'static str> {
        let number = word & NUMBER;
        match (word >> 62, number) {
            _ if word & RESERVED != 0 => Err("has bits that are not known"),
            (0, 0) => Ok(Self::Hole),
            (1, 1..) => Ok(Self::Whole(number)),
            (3, 1..) => Ok(Self::Partly(number)),
            (1 | 3, 0) => Err("names the chunk of the header"),
            _ => Err("has a status that is not known"),
        }
    }

    /// The chunk of the file.
    pub(in super::super) fn chunk(self) -> Option<u64> {
        match self {
            Self::Hole => None,
            Self::Whole(number) | Self::Partly(number) => Some(number),
        }
    }
}

/// The chunk that an entry of a directory names.
pub(in super::super) fn chunk_of_table(word: u64) -> Result<Option<u64>, &'static str> {
    match word & !NUMBER {
        0 => Ok(Some(word).filter(|number| *number != 0)),
        _ => Err("has bits that are not known"),
    }
}

/// The chunk of the bitmap for a group of entries.
pub(in super::super) fn chunk_of_bitmap(word: u64) -> Result<Option<u64>, &'static str> {
    match word >> 62 {
        0 | 1 => chunk_of_table(word & !(1 << 62)),
        _ => Err("has a status that is not known"),
    }
}

/// What a bitmap says about a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum State {
    /// It was never written.
    Hole,
    Written,
    Unknown,
}

impl State {
    /// Decodes the state of a sector of the chunk from a word of the bitmap, which is little-endian.
    pub(in super::super) fn of(word: u64, sector: u64) -> Self {
        match word >> (sector % 32 * 2) & 3 {
            0 => Self::Hole,
            1 => Self::Written,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_is_taken() {
        assert_eq!(Entry::of(0), Ok(Entry::Hole));
        assert_eq!(Entry::of(1 << 62 | 7), Ok(Entry::Whole(7)));
        assert_eq!(Entry::of(3 << 62 | 7), Ok(Entry::Partly(7)));
        for word in [
            7,
            2 << 62,
            2 << 62 | 7,
            1 << 62,
            3 << 62,
            1 << 62 | 1 << 55 | 7,
        ] {
            assert!(Entry::of(word).is_err(), "{word:#x}");
        }
        assert_eq!(chunk_of_table(0), Ok(None));
        assert_eq!(chunk_of_table(9), Ok(Some(9)));
        assert!(chunk_of_table(1 << 62 | 9).is_err() && chunk_of_table(1 << 55).is_err());
        assert_eq!(chunk_of_bitmap(1 << 62 | 9), Ok(Some(9)));
        assert!(chunk_of_bitmap(2 << 62 | 9).is_err() && chunk_of_bitmap(1 << 60).is_err());
    }

    #[test]
    fn four_sectors_share_a_byte_the_first_in_its_lowest_bits() {
        let word = u64::from_le_bytes([0b1001_0001, 0, 0, 0, 0, 0, 0, 0x40]);
        let states = |sectors: std::ops::Range<u64>| -> Vec<_> {
            sectors.map(|sector| State::of(word, sector)).collect()
        };
        let first = [State::Written, State::Hole, State::Written, State::Unknown];
        assert_eq!(states(0..4), first);
        assert_eq!(states(30..32), [State::Hole, State::Written]);
        assert_eq!(states(64..68), first);
    }
}
