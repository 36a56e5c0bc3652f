//! CRC-32C over a structure, in which the checksum field itself counts as zeroes.

/// Offset of the field in every structure that has one.
const AT: usize = 4;

/// The correct checksum of the structure.
pub(super) fn of(bytes: &[u8]) -> u32 {
    let (head, rest) = bytes.split_at(bytes.len().min(AT));
    let rest = rest.get(4..).unwrap_or_default();
    let crc = crc32c::crc32c(head);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, rest)
}

/// Whether the structure has the correct checksum.
pub(super) fn holds(bytes: &[u8]) -> bool {
    crate::bytes::le32(bytes, AT) == Some(of(bytes))
}

/// Stores the correct checksum in the structure.
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
