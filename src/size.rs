//! Sizes as users type and read them: suffixes, rounding, three significant digits.

use crate::error::{Error, Result};

/// A whole number in base 10, 8 (`0…`) or 16 (`0x…`).
pub fn parse_number(text: &str) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x") {
        u64::from_str_radix(hex, 16).ok()
    } else if text.len() > 1 && text.starts_with('0') {
        u64::from_str_radix(&text[1..], 8).ok()
    } else {
        text.parse().ok()
    }
}

/// The value of a size option: a size with a suffix.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] that names the parameter, with qemu's lines on suffixes.
pub fn parse_option_size(name: &str, text: &str) -> Result<u64> {
    parse_size(text).ok_or_else(|| {
        Error::invalid(format!(
            "Parameter '{name}' expects a non-negative number below 2^64"
        ))
        .with_hint("Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-")
        .with_hint("and exabytes, respectively.")
    })
}

/// A size: digits and an optional suffix, in bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    text.parse().ok()
}
