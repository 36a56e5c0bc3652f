//! CRC-32C over a structure whose own field counts as zeroes.

/// Where the field stands in every structure that has one.
const AT: usize = 4;

/// The checksum that belongs into the structure.
pub(super) fn of(bytes: &[u8]) -> u32 {
    let (head, rest) = bytes.split_at(bytes.len().min(AT));
    let rest = rest.get(4..).unwrap_or_default();
    let crc = crc32c::crc32c(head);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, rest)
}

/// Whether the structure has the right one.
pub(super) fn holds(bytes: &[u8]) -> bool {
    crate::bytes::le32(bytes, AT) == Some(of(bytes))
}

/// Puts the right one into the structure.
pub(in super::super) fn seal(bytes: &mut [u8]) {
    let crc = of(bytes);
    if let Some(field) = bytes.get_mut(AT..AT + 4) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_structure_holds_until_a_bit_changes() {
        let mut bytes = [7; 64];
        assert!(!holds(&bytes));
        seal(&mut bytes);
        assert!(holds(&bytes));
        bytes[63] ^= 1;
        assert!(!holds(&bytes));
        assert!(!holds(&[]));
    }
}
