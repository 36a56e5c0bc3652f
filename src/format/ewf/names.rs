//! The names of segments: `.E01` to `.E99`, `.EAA` to `.EZZ`, `.FAA` and so on up to `.ZZZ`, in the letter case of the
//! first one.

use bstr::{BStr, BString};

/// Number of segments with decimal numbers.
const NUMBERED: u32 = 99;

/// Letters of the alphabet.
const LETTERS: u32 = 26;

/// The name of a segment next to the first one, without its directory; None if the first name does not have the
/// expected ending, or the names are exhausted.
pub(super) fn segment(first: &BStr, number: u16) -> Option<BString> {
    let file = first.rsplit(|byte| *byte == b'/').next()?;
    let (stem, extension) = file.split_at_checked(file.len().checked_sub(3)?)?;
    let &[letter, b'0', b'1'] = extension else {
        return None;
    };
    if !letter.is_ascii_alphabetic() || !stem.ends_with(b".") {
        return None;
    }
    let mut name = BString::from(stem);
    let number = u32::from(number);
    if number <= NUMBERED {
        name.push(letter);
        name.extend(format!("{number:02}").bytes());
        return Some(name);
    }
    let rest = number - NUMBERED - 1;
    let first = u32::from(letter) + rest / (LETTERS * LETTERS);
    let (a, last) = match letter.is_ascii_lowercase() {
        true => (u32::from(b'a'), u32::from(b'z')),
        false => (u32::from(b'A'), u32::from(b'Z')),
    };
    if first > last {
        return None;
    }
    for part in [first, a + rest / LETTERS % LETTERS, a + rest % LETTERS] {
        name.push(u8::try_from(part).ok()?);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_before_letters() {
        let name = |first: &str, number| segment(first.into(), number).map(|name| name.to_string());
        for (number, ends) in [
            (2, "E02"),
            (99, "E99"),
            (100, "EAA"),
            (125, "EAZ"),
            (126, "EBA"),
            (775, "EZZ"),
            (776, "FAA"),
            (14_971, "ZZZ"),
        ] {
            assert_eq!(name("/a.b/x.E01", number), Some(format!("x.{ends}")));
        }
        assert_eq!(name("x.E01", 14_972), None);
        assert_eq!(name("x.s01", 776).as_deref(), Some("x.taa"));
        assert_eq!(name("x.e01", 100).as_deref(), Some("x.eaa"));
        for odd in ["x", "E01", "x.E02", "x.001", "x.E01.raw", ""] {
            assert_eq!(name(odd, 2), None);
        }
    }
}
