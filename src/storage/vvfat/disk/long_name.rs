//! Long names (section "FAT Long Directory Entries"): pieces of UTF-16 in entries that stand in front of that
//! with the short name, the last piece first.

use super::entry::{LEN, ShortName};

/// The attributes of an entry that holds a piece of a long name.
pub(in super::super) const ATTRIBUTES: u8 = 0x0f;

/// Characters of an entry.
pub(in super::super) const PIECE: usize = 13;

/// The longest name, in UTF-16.
pub(in super::super) const MAX: usize = 255;

/// Marks the last piece.
const LAST: u8 = 0x40;

/// Where the characters of a piece stand.
const PLACES: [usize; PIECE] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// What ties the pieces of a long name to the short one.
pub(in super::super) fn checksum(name: &ShortName) -> u8 {
    name.iter()
        .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// The entry of piece `number`, from 1, of a name.
pub(in super::super) fn piece(units: &[u16], number: usize, sum: u8) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    let start = number.saturating_sub(1) * PIECE;
    let last = start + PIECE >= units.len();
    bytes[0] = number as u8 | if last { LAST } else { 0 };
    bytes[11] = ATTRIBUTES;
    bytes[13] = sum;
    for (at, place) in (start..).zip(PLACES) {
        // A zero ends a name that does not fill its piece.
        let unit = match units.get(at) {
            Some(unit) => *unit,
            None if at == units.len() => 0,
            None => 0xffff,
        };
        bytes[place..place + 2].copy_from_slice(&unit.to_le_bytes());
    }
    bytes
}
