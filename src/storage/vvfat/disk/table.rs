//! Table entries (section "FAT Data Structure").

use super::FatType;

/// Fills `buf` with the bytes of a table from `offset` on; `entry` returns the value of each entry.
pub(in super::super) fn fill(
    fat: FatType,
    buf: &mut [u8],
    offset: u64,
    mut entry: impl FnMut(u32) -> u32,
) {
    let mut known = None;
    let mut value = |number: u64| {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        match known {
            Some((of, value)) if of == number => value,
            _ => {
                let value = entry(number);
                known = Some((number, value));
                value
            }
        }
    };
    for (at, byte) in (offset..).zip(buf) {
        *byte = match fat {
            // Two entries share three bytes.
            FatType::Fat12 => {
                let first = at / 3 * 2;
                match at % 3 {
                    0 => value(first) as u8,
                    1 => (value(first) >> 8 & 0xf) as u8 | (value(first + 1) << 4) as u8,
                    _ => (value(first + 1) >> 4) as u8,
                }
            }
            FatType::Fat16 => value(at / 2).to_le_bytes()[(at % 2) as usize],
            FatType::Fat32 => value(at / 4).to_le_bytes()[(at % 4) as usize],
        };
    }
}

/// The offset of an entry in the table, and the number of bytes to read for it.
pub(in super::super) fn place(fat: FatType, cluster: u32) -> (u64, usize) {
    let cluster = u64::from(cluster);
    match fat {
        FatType::Fat12 => (cluster + cluster / 2, 2),
        FatType::Fat16 => (cluster * 2, 2),
        FatType::Fat32 => (cluster * 4, 4),
    }
}

/// Extracts an entry from its bytes.
pub(in super::super) fn from_bytes(fat: FatType, cluster: u32, bytes: [u8; 4]) -> u32 {
    let [a, b, c, d] = bytes;
    let pair = u32::from(u16::from_le_bytes([a, b]));
    match fat {
        FatType::Fat12 if cluster % 2 == 1 => pair >> 4,
        FatType::Fat12 => pair & 0xfff,
        FatType::Fat16 => pair,
        // The highest four bits are not part of the value.
        FatType::Fat32 => u32::from_le_bytes([a, b, c, d]) & 0x0fff_ffff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_are_written_in_pieces_of_any_length() {
        for fat in [FatType::Fat12, FatType::Fat16, FatType::Fat32] {
            let mask = fat.end_of_chain();
            let entry = |number: u32| number.wrapping_mul(0x9e37_79b9) & mask;
            let mut whole = vec![0; 3000];
            fill(fat, &mut whole, 0, entry);
            for cluster in 0..700 {
                let (at, len) = place(fat, cluster);
                let mut bytes = [0; 4];
                bytes[..len].copy_from_slice(&whole[at as usize..at as usize + len]);
                assert_eq!(from_bytes(fat, cluster, bytes), entry(cluster), "{fat:?}");
            }
            let mut pieces = vec![0; 3000];
            for (number, piece) in pieces.chunks_mut(7).enumerate() {
                fill(fat, piece, number as u64 * 7, entry);
            }
            assert_eq!(pieces, whole);
        }
    }
}
