//! Sizes as users type and read them: suffixes, rounding, three significant digits.

use crate::error::{Error, Result};

/// Image sizes are multiples of this many bytes.
pub const SECTOR: u64 = 512;

/// Maximum size of an image or offset into one, in bytes.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// Why a text is not a number or size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeError {
    /// Does not have the syntax of a number.
    Syntax,
    /// A number, but negative or too large.
    Range,
}

/// A whole number in base 10, 8 (`0…`) or 16 (`0x…`), with leading blanks and a sign allowed. A negative number wraps,
/// as with `strtoull`: the user of the number checks its range.
pub fn parse_number(text: &str) -> Option<u64> {
    parse_number_checked(text).ok()
}

/// As [`parse_number`], but distinguishes bad syntax from numbers that are too large.
///
/// # Errors
/// [`SizeError`].
pub fn parse_number_checked(text: &str) -> Result<u64, SizeError> {
    let (negative, digits) = split_sign(text);
    let (radix, digits) = match strip_hex(digits) {
        Some(hex) => (16, hex),
        None => match digits.strip_prefix('0') {
            Some(octal) if !octal.is_empty() => (8, octal),
            _ => (10, digits),
        },
    };
    let n = parse_digits(digits, radix)?;
    Ok(if negative { n.wrapping_neg() } else { n })
}

/// A size in bytes: digits with an optional fraction and an optional suffix `b k M G T P E` (powers of 1024, either
/// case), or a plain hexadecimal number. Any fraction of a byte that remains is truncated.
pub fn parse_size(text: &str) -> Option<u64> {
    parse_size_checked(text).ok()
}

/// As [`parse_size`], but distinguishes bad syntax from sizes that are negative or too large.
///
/// # Errors
/// [`SizeError`].
pub fn parse_size_checked(text: &str) -> Result<u64, SizeError> {
    let (negative, rest) = split_sign(text);
    if negative {
        // A negative whole number is out of range; with a fraction or suffix it is not a size at all.
        let digits = strip_hex(rest);
        let (radix, digits) = digits.map_or((10, rest), |hex| (16, hex));
        return match parse_digits(digits, radix) {
            Err(SizeError::Syntax) => Err(SizeError::Syntax),
            _ => Err(SizeError::Range),
        };
    }
    if let Some(hex) = strip_hex(rest) {
        return parse_digits(hex, 16);
    }
    let end = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = rest.split_at(end);
    let (fraction, suffix) = match rest.strip_prefix('.') {
        None => ("", rest),
        Some(rest) => rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count()),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(SizeError::Syntax);
    }
    let shift = match suffix {
        "" | "b" | "B" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        "p" | "P" => 50,
        "e" | "E" => 60,
        _ => return Err(SizeError::Syntax),
    };
    let whole = match whole {
        "" => 0,
        digits => match digits.parse::<u64>() {
            Ok(n) => n,
            Err(_) if rest.is_empty() => return Err(SizeError::Range),
            Err(_) => return Err(SizeError::Syntax),
        },
    };
    let fraction: f64 = format!("0.{fraction}0").parse().unwrap_or(0.0);
    if fraction != 0.0 && shift == 0 {
        return Err(SizeError::Syntax);
    }
    let unit = 1u64 << shift;
    // The cast saturates and truncates, which is the rounding that users know.
    let part = (fraction * unit as f64) as u64;
    whole
        .checked_mul(unit)
        .and_then(|bytes| bytes.checked_add(part))
        .ok_or(SizeError::Range)
}

/// The size of an image as typed on a command line.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`]: not a size, or not between 0 and [`MAX_SIZE`].
pub fn parse_image_size(text: &str) -> Result<u64> {
    match parse_size_checked(text) {
        Ok(size) if size <= MAX_SIZE => Ok(size),
        Ok(_) | Err(SizeError::Range) => Err(no_image_size(text)),
        Err(SizeError::Syntax) => Err(Error::invalid(format!("'{text}' is no size of an image"))),
    }
}

/// Returns the size if an image can have it.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`]: more than [`MAX_SIZE`].
pub fn check_image_size(bytes: u64) -> Result<u64> {
    match bytes <= MAX_SIZE {
        true => Ok(bytes),
        false => Err(no_image_size(&bytes.to_string())),
    }
}

fn no_image_size(size: &str) -> Error {
    Error::invalid(format!(
        "The size {size} of an image is not between 0 and {MAX_SIZE}"
    ))
}

/// The value of a size option: a size with a suffix.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`], naming the parameter, with hints on suffixes.
pub fn parse_option_size(name: &str, text: &str) -> Result<u64> {
    parse_size_checked(text).map_err(|error| match error {
        SizeError::Range => Error::invalid(format!(
            "Value '{text}' is out of range for parameter '{name}'"
        )),
        SizeError::Syntax => size_expected(name),
    })
}

/// The error for a size option whose value is not a size.
pub fn size_expected(name: &str) -> Error {
    Error::invalid(format!(
        "Parameter '{name}' expects a non-negative number below 2^64"
    ))
    .with_hint("Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-")
    .with_hint("and exabytes, respectively.")
}

/// Rounds up to whole sectors of 512 bytes; None past the maximum size.
pub fn round_up_sector(bytes: u64) -> Option<u64> {
    bytes
        .checked_next_multiple_of(SECTOR)
        .filter(|rounded| *rounded <= MAX_SIZE)
}

/// A size for people: three significant digits and a binary unit, `1.5 KiB`. Each unit is used up to 999; from 1000 on,
/// the next one is.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut power = 0;
    while power + 1 < UNITS.len() && (bytes >> (10 * power)) >= 1000 {
        power += 1;
    }
    let value = bytes as f64 / (1u64 << (10 * power)) as f64;
    format!("{} {}", three_digits(value), UNITS[power])
}

/// A number with three significant digits and no trailing zeroes, as C's `%.3g` prints it.
pub fn three_digits(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return "0".to_owned();
    }
    let scientific = format!("{value:.2e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..3).contains(&exponent) {
        let places = usize::try_from(2 - exponent).unwrap_or(0);
        trim_zeroes(&format!("{value:.places$}"))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trim_zeroes(mantissa), exponent.abs())
    }
}

fn trim_zeroes(text: &str) -> String {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text.to_owned()
    }
}

/// Drops leading blanks and removes one sign.
fn split_sign(text: &str) -> (bool, &str) {
    let text = text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

fn strip_hex(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}

fn parse_digits(digits: &str, radix: u32) -> Result<u64, SizeError> {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(SizeError::Syntax);
    }
    u64::from_str_radix(digits, radix).map_err(|_| SizeError::Range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use SizeError::{Range, Syntax};

    #[test]
    fn sizes_as_users_type_them() {
        for (text, bytes) in [
            ("1k", 1024),
            ("1.5k", 1536),
            ("0.1k", 102),
            ("1.1k", 1126),
            (".5k", 512),
            ("1.k", 1024),
            ("1.", 1),
            ("1.0", 1),
            ("1.0B", 1),
            ("0x1000", 4096),
            ("0X10", 16),
            ("0x1b", 27),
            ("010", 10),
            (" 5k", 5120),
            ("\t5", 5),
            ("+5k", 5120),
            ("1b", 1),
            ("1e", 1 << 60),
            ("1.1E", 1_268_213_655_067_531_680),
            ("1.99999999999999999999k", 2048),
            ("0.0000000001k", 0),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size_checked(text), Ok(bytes), "{text}");
        }
        for text in [
            "1.5",
            "1.5b",
            "0x1k",
            "1e3",
            "1.5e3",
            "1kb",
            "1KiB",
            "1Z",
            "1 k",
            "nan",
            "inf",
            "",
            "+ 5k",
            "5k ",
            "0x",
            "0xg",
            ".",
            ".b",
            "k",
            "00x10",
            "0x1.8k",
            "++5",
            "-1k",
            "-1.5",
            "-",
            "1..5k",
            "99999999999999999999k",
            "1,5k",
            "é",
        ] {
            assert_eq!(parse_size_checked(text), Err(Syntax), "{text}");
        }
        for text in [
            "-1",
            " -0",
            "16E",
            "99999999999999999999",
            "0x10000000000000000",
        ] {
            assert_eq!(parse_size_checked(text), Err(Range), "{text}");
        }
    }

    #[test]
    fn numbers_take_their_base_from_the_prefix() {
        for (text, n) in [
            ("16", 16),
            ("0x10", 16),
            ("020", 16),
            (" +16", 16),
            ("0", 0),
        ] {
            assert_eq!(parse_number(text), Some(n), "{text}");
        }
        assert_eq!(parse_number("-16"), Some(16u64.wrapping_neg()));
        for text in ["16k", "abc", "", "1.0", "0x", "08", "16 ", "+-1"] {
            assert_eq!(parse_number_checked(text), Err(Syntax), "{text}");
        }
        assert_eq!(parse_number_checked("18446744073709551616"), Err(Range));
    }

    #[test]
    fn image_sizes_have_their_own_words() {
        assert_eq!(
            parse_image_size("1kb").unwrap_err().to_string(),
            "'1kb' is no size of an image"
        );
        for text in ["8E", "-1"] {
            assert_eq!(
                parse_image_size(text).unwrap_err().to_string(),
                format!("The size {text} of an image is not between 0 and 9223372036854775807")
            );
        }
        let error = parse_option_size("size", "x").unwrap_err();
        assert_eq!(error.hints().len(), 2);
        assert_eq!(
            parse_option_size("size", "-1").unwrap_err().to_string(),
            "Value '-1' is out of range for parameter 'size'"
        );
    }

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (1000, "0.977 KiB"),
            (1536, "1.5 KiB"),
            (1_022_976, "999 KiB"),
            (1_023_488, "1e+03 KiB"),
            (1_024_000, "0.977 MiB"),
            (1023 << 10, "0.999 MiB"),
            (10 << 20, "10 MiB"),
            (100 << 20, "100 MiB"),
            (10_000_000_000_000, "9.09 TiB"),
            (123_457_024, "118 MiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn rounding_stays_in_range() {
        assert_eq!(round_up_sector(0), Some(0));
        assert_eq!(round_up_sector(513), Some(1024));
        assert_eq!(round_up_sector(MAX_SIZE), None);
        assert_eq!(round_up_sector(u64::MAX), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[ \t+-]?[0-9a-fxX]{0,24}[.]?[0-9]{0,24}[a-zA-Z]{0,2}", any in ".*") {
            for text in [&text, &any] {
                let _ = (parse_size(text), parse_number(text), parse_image_size(text));
            }
        }

        #[test]
        fn plain_numbers_mean_themselves(n: u64) {
            proptest::prop_assert_eq!(parse_size(&n.to_string()), Some(n));
            proptest::prop_assert_eq!(parse_size(&format!("{n:#x}")), Some(n));
            let _ = human_size(n);
        }
    }
}
