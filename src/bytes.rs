//! Numbers in on-disk structures: checked readers and writers for both byte orders.

/// The `N` bytes at an offset; None if they pass the end.
pub fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

macro_rules! readers {
    ($($be:ident $le:ident $number:ty)*) => {$(
        #[doc = concat!("The big-endian ", stringify!($number), " at an offset; None past the end.")]
        pub fn $be(bytes: &[u8], offset: usize) -> Option<$number> {
            array(bytes, offset).map(<$number>::from_be_bytes)
        }

        #[doc = concat!("The little-endian ", stringify!($number), " at an offset; None past the end.")]
        pub fn $le(bytes: &[u8], offset: usize) -> Option<$number> {
            array(bytes, offset).map(<$number>::from_le_bytes)
        }
    )*};
}

readers! {
    be16 le16 u16
    be32 le32 u32
    be64 le64 u64
}

/// As [`be32`]; bytes past the end count as zeroes.
pub fn be32_padded(bytes: &[u8], offset: usize) -> u32 {
    let mut field = [0; 4];
    for (to, from) in field.iter_mut().zip(bytes.iter().skip(offset)) {
        *to = *from;
    }
    u32::from_be_bytes(field)
}

/// Writes bytes at an offset; false, with nothing changed, if they pass the end.
#[must_use]
pub fn put(bytes: &mut [u8], offset: usize, value: &[u8]) -> bool {
    let end = offset.checked_add(value.len());
    match end.and_then(|end| bytes.get_mut(offset..end)) {
        Some(field) => {
            field.copy_from_slice(value);
            true
        }
        None => false,
    }
}

/// A text in a zero-padded field of `len` bytes; None past the end.
pub fn text(bytes: &[u8], offset: usize, len: usize) -> Option<&[u8]> {
    let field = bytes.get(offset..offset.checked_add(len)?)?;
    let end = field.iter().position(|byte| *byte == 0);
    field.get(..end.unwrap_or(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_both_orders_and_never_past_the_end() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!(be16(&bytes, 1), Some(0x0203));
        assert_eq!(le16(&bytes, 7), Some(0x0908));
        assert_eq!(be32(&bytes, 5), Some(0x0607_0809));
        assert_eq!(le32(&bytes, 6), None);
        assert_eq!(be64(&bytes, 1), Some(0x0203_0405_0607_0809));
        assert_eq!(le64(&bytes, usize::MAX), None);
    }

    #[test]
    fn fields_are_written_whole_or_not_at_all() {
        let mut bytes = [0; 4];
        assert!(put(&mut bytes, 2, &7u16.to_be_bytes()));
        assert!(!put(&mut bytes, 3, &[1, 1]));
        assert!(!put(&mut bytes, usize::MAX, &[1, 1]));
        assert_eq!(bytes, [0, 0, 0, 7]);
    }

    #[test]
    fn a_text_ends_with_its_field_or_a_zero() {
        assert_eq!(text(b"abc\0x", 0, 5), Some(&b"abc"[..]));
        assert_eq!(text(b"abc", 1, 2), Some(&b"bc"[..]));
        assert_eq!(text(b"abc", 2, 2), None);
    }
}
