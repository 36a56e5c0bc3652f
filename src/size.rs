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

/// A number of bytes with three significant digits and its unit: `1.5 KiB`, `0.977 GiB`, `512 B`.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // From 1000 of a unit on, the next one is used.
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    let mut text = format!("{value:.decimals$}");
    if text == "1000" {
        // What C's %.3g makes of 999.5 and more.
        text = "1e+03".to_owned();
    } else if text.contains('.') {
        let kept = text.trim_end_matches('0').trim_end_matches('.').len();
        text.truncate(kept);
    }
    format!("{text} {}", UNITS[unit])
}

#[cfg(test)]
mod human_tests {
    use super::human;

    #[test]
    fn three_significant_digits_as_qemu_prints_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (1536, "1.5 KiB"),
            (200_704, "196 KiB"),
            (1_022_976, "999 KiB"),
            (1_023_488, "1e+03 KiB"),
            (1_024_000, "0.977 MiB"),
            (1 << 60, "1 EiB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
