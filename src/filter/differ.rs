//! What filters that compare their children say of a difference.

use bstr::BStr;

use crate::error::{Error, ErrorKind, Stage};

/// The error of two children, each with its name, whose bytes at `offset` are not the same.
pub(super) fn difference(one: (&BStr, &[u8]), other: (&BStr, &[u8]), offset: u64) -> Error {
    let mut pairs = one.1.iter().zip(other.1);
    let first = pairs.position(|(a, b)| a != b).unwrap_or_default();
    let at = offset.saturating_add(first as u64);
    let text = format!("'{}' and '{}' differ at offset {at}", one.0, other.0);
    Error::new(ErrorKind::Corrupt, text)
        .with_offset(at)
        .with_stage(Stage::Verify)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_that_differs_is_named() {
        let error = difference((BStr::new("a"), b"same1"), (BStr::new("b"), b"same2"), 512);
        assert_eq!(error.to_string(), "'a' and 'b' differ at offset 516");
        assert_eq!(error.offset(), Some(516));
    }
}
