//! Big-endian fields in byte slices, without panics.

/// The 16-bit number at `at`; None past the end.
pub(super) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(field.try_into().ok()?))
}

/// The 32-bit number at `at`; None past the end.
pub(in crate::format::qcow2) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(field.try_into().ok()?))
}

/// The 64-bit number at `at`; None past the end.
pub(in crate::format::qcow2) fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_be_bytes(field.try_into().ok()?))
}

/// As [`be32`]; what lies past the end counts as zeroes.
pub(super) fn be32_padded(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    for (to, from) in field.iter_mut().zip(bytes.iter().skip(at)) {
        *to = *from;
    }
    u32::from_be_bytes(field)
}
