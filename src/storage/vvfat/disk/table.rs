//! Entries of the table (section "FAT Data Structure").

use super::FatType;

/// Fills `buf` with the bytes of a table from `offset` on; `entry` says what each of its entries holds.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_length_are_those_of_the_whole() {
        for fat in [FatType::Fat12, FatType::Fat16, FatType::Fat32] {
            let mask = fat.end_of_chain();
            let entry = |number: u32| number.wrapping_mul(0x9e37_79b9) & mask;
            let mut whole = vec![0; 3000];
            fill(fat, &mut whole, 0, entry);
            let mut pieces = vec![0; 3000];
            for (number, piece) in pieces.chunks_mut(7).enumerate() {
                fill(fat, piece, number as u64 * 7, entry);
            }
            assert_eq!(pieces, whole, "{fat:?}");
        }
        // The example of the specification: 0x345 and 0x678 in three bytes.
        let mut bytes = [0; 3];
        fill(FatType::Fat12, &mut bytes, 0, |number| {
            [0x345, 0x678][number as usize]
        });
        assert_eq!(bytes, [0x45, 0x83, 0x67]);
    }
}
