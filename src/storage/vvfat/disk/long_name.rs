//! Long names (section "FAT Long Directory Entries"): pieces of UTF-16 in entries that precede the one with the short
//! name, last piece first.

use super::entry::{LEN, ShortName};

/// Attributes of an entry that holds a piece of a long name.
pub(in super::super) const ATTRIBUTES: u8 = 0x0f;

/// Number of UTF-16 code units per entry.
pub(in super::super) const PIECE: usize = 13;

/// Maximum length of a name in UTF-16 code units.
pub(in super::super) const MAX: usize = 255;

/// Flag of the last piece.
const LAST: u8 = 0x40;

/// Offsets of the characters of a piece.
const PLACES: [usize; PIECE] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// The checksum that ties the pieces of a long name to the short one.
pub(in super::super) fn checksum(name: &ShortName) -> u8 {
    name.iter()
        .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// The entry for piece `number` of a name, counting from 1.
pub(in super::super) fn piece(units: &[u16], number: usize, sum: u8) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    let start = number.saturating_sub(1) * PIECE;
    let last = start + PIECE >= units.len();
    bytes[0] = number as u8 | if last { LAST } else { 0 };
    bytes[11] = ATTRIBUTES;
    bytes[13] = sum;
    for (at, place) in (start..).zip(PLACES) {
        // A zero terminates a name that does not fill its last piece.
        let unit = match units.get(at) {
            Some(unit) => *unit,
            None if at == units.len() => 0,
            None => 0xffff,
        };
        bytes[place..place + 2].copy_from_slice(&unit.to_le_bytes());
    }
    bytes
}

/// Assembles a long name from its pieces as they are encountered.
#[derive(Debug, Default)]
pub(in super::super) struct Pieces {
    units: Vec<u16>,
    /// Number of the previous piece; 0 if there is no name.
    number: u8,
    sum: u8,
}

impl Pieces {
    /// Takes the next entry. A last piece starts a new name; one that is out of sequence discards it.
    pub(in super::super) fn take(&mut self, bytes: &[u8; LEN]) {
        let number = bytes[0] & !LAST;
        let (is_last, sum) = (bytes[0] & LAST != 0, bytes[13]);
        let fits = match is_last {
            true => (1..=MAX.div_ceil(PIECE) as u8).contains(&number),
            false => number != 0 && number + 1 == self.number && sum == self.sum,
        };
        if !fits {
            return self.clear();
        }
        if is_last {
            self.units.clear();
        }
        (self.number, self.sum) = (number, sum);
        let mut piece = PLACES
            .map(|at| u16::from_le_bytes([bytes[at], bytes[at + 1]]))
            .to_vec();
        if is_last && let Some(end) = piece.iter().position(|unit| *unit == 0) {
            piece.truncate(end);
        }
        self.units.splice(0..0, piece);
    }

    pub(in super::super) fn clear(&mut self) {
        self.number = 0;
    }

    /// The name, if it is complete and belongs to the entry with this short name.
    pub(in super::super) fn finish(&mut self, short: &ShortName) -> Option<&[u16]> {
        let whole = self.number == 1 && self.sum == checksum(short);
        self.clear();
        (whole && !self.units.is_empty() && self.units.len() <= MAX).then_some(&self.units)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_length_come_back_from_their_pieces() {
        let short = *b"NAME~1  TXT";
        let sum = checksum(&short);
        for len in 1..=MAX {
            let units: Vec<u16> = (0..len as u16).map(|n| 0x3041 + n).collect();
            let count = len.div_ceil(PIECE);
            let mut pieces = Pieces::default();
            for number in (1..=count).rev() {
                pieces.take(&piece(&units, number, sum));
            }
            assert_eq!(pieces.finish(&short), Some(&units[..]), "{len}");
            assert_eq!(pieces.finish(&short), None);
            // If a piece is missing, or with another short name, there is no long name.
            let without = 1 + len % count;
            for number in (1..=count).rev().filter(|number| *number != without) {
                pieces.take(&piece(&units, number, sum));
            }
            assert_eq!(pieces.finish(&short), None, "{len}");
            for number in (1..=count).rev() {
                pieces.take(&piece(&units, number, sum));
            }
            assert_eq!(pieces.finish(b"OTHER   TXT"), None);
        }
    }
}
