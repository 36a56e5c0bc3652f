//! Names that a FAT volume can hold, and the short names assigned to long ones.

use std::collections::{HashMap, HashSet};

use bstr::ByteSlice;

use super::disk::entry::ShortName;
use super::disk::long_name::MAX;
use crate::error::Result;
use crate::memory;

/// Characters that no name may contain, besides control characters.
const IN_NO_NAME: &[char] = &['"', '*', '/', ':', '<', '>', '?', '\\', '|'];

/// Characters allowed in a short name, besides capital letters and digits.
const IN_SHORT_NAMES: &[u8] = b"$%'-_@~`!(){}^#&";

/// Maximum number of digits in the numeric tail of an alias.
const MAX_DIGITS: u32 = 6;

/// Returns the name as text if a FAT volume can hold it, or else the reason why not.
pub(super) fn storable(name: &[u8]) -> Result<&str, &'static str> {
    let Ok(text) = name.to_str() else {
        return Err("its name is not UTF-8");
    };
    if text
        .chars()
        .any(|c| c.is_control() || IN_NO_NAME.contains(&c))
    {
        return Err("its name has characters that no FAT volume can hold");
    }
    if text.ends_with(['.', ' ']) {
        return Err("its name ends in a dot or a blank, which no FAT volume can hold");
    }
    if text.encode_utf16().count() > MAX {
        return Err("its name is longer than a FAT volume can hold");
    }
    Ok(text)
}

/// Folds a name for comparison, which is case-insensitive on the volume.
pub(super) fn folded(name: &str) -> String {
    name.to_uppercase()
}

/// The short name that matches a name completely, except for case, if there is one.
pub(super) fn exact(name: &str) -> Option<ShortName> {
    let name = name.as_bytes();
    let (base, extension) = match name.rsplit_once_str(".") {
        Some((_, [])) => return None,
        Some(parts) => parts,
        None => (name, &b""[..]),
    };
    let all = base.iter().chain(extension);
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || IN_SHORT_NAMES.contains(byte);
    let lengths = (1..=8).contains(&base.len()) && extension.len() <= 3;
    (lengths && all.clone().all(fits)).then(|| joined(base, extension))
}

/// Whether the short name alone represents the name exactly.
pub(super) fn is_short(name: &str) -> bool {
    exact(name).is_some() && !name.bytes().any(|byte| byte.is_ascii_lowercase())
}

fn joined(base: &[u8], extension: &[u8]) -> ShortName {
    let mut short = [b' '; 11];
    for (to, from) in short.iter_mut().zip(base.iter().take(8)) {
        *to = from.to_ascii_uppercase();
    }
    for (to, from) in short.iter_mut().skip(8).zip(extension.iter().take(3)) {
        *to = from.to_ascii_uppercase();
    }
    short
}

/// The base and extension that an alias is built from (section "The Basis-Name Generation Algorithm").
fn basis(name: &str) -> (Vec<u8>, Vec<u8>) {
    let name = name.trim_start_matches(['.', ' ']);
    let (base, extension) = match name.rsplit_once('.') {
        Some(parts) => parts,
        None => (name, ""),
    };
    let kept = |part: &str, most: usize| {
        let chars = part.chars().filter(|c| !matches!(c, ' ' | '.'));
        let short = chars.map(|c| match u8::try_from(c) {
            Ok(byte) if byte.is_ascii_alphanumeric() || IN_SHORT_NAMES.contains(&byte) => byte,
            _ => b'_',
        });
        short.take(most).collect::<Vec<u8>>()
    };
    (kept(base, 8), kept(extension, 3))
}

/// The short names of one directory.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    taken: HashSet<ShortName>,
    /// The next number to try after each prefix, by number of digits.
    next: HashMap<(ShortName, u32), u32>,
}

impl Aliases {
    /// Reserves the short name of a file whose own name is short.
    ///
    /// # Errors
    /// Lack of memory.
    pub(super) fn take(&mut self, name: ShortName) -> Result<()> {
        self.taken.try_reserve(1).map_err(|_| memory::lack())?;
        self.taken.insert(name);
        Ok(())
    }

    /// A short name for a long one, unique in the directory; `None` if there are too many.
    ///
    /// # Errors
    /// Lack of memory.
    pub(super) fn alias(&mut self, name: &str) -> Result<Option<ShortName>> {
        self.taken.try_reserve(1).map_err(|_| memory::lack())?;
        let (base, extension) = basis(name);
        for digits in 1..=MAX_DIGITS {
            let front = base.get(..7 - digits as usize).unwrap_or(&base);
            self.next.try_reserve(1).map_err(|_| memory::lack())?;
            let first = 10u32.pow(digits - 1);
            let next = self.next.entry((joined(front, &extension), digits));
            let next = next.or_insert(first);
            while *next < first * 10 {
                let numbered = [front, format!("~{next}").as_bytes()].concat();
                *next += 1;
                let short = joined(&numbered, &extension);
                if self.taken.insert(short) {
                    return Ok(Some(short));
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fit_are_their_own_short_names() {
        assert_eq!(exact("hello.txt"), Some(*b"HELLO   TXT"));
        assert_eq!(exact("A"), Some(*b"A          "));
        assert_eq!(exact("12345678.123"), Some(*b"12345678123"));
        for long in [
            "a.",
            ".a",
            "123456789",
            "a.1234",
            "a b",
            "a+b",
            "a.b.c",
            "ä",
            "",
        ] {
            assert_eq!(exact(long), None, "{long}");
        }
        assert!(is_short("READ.ME") && !is_short("Read.me") && !is_short("READ.ME.TOO"));
    }

    #[test]
    fn aliases_are_those_of_the_specification_and_differ() {
        let mut aliases = Aliases::default();
        aliases.take(*b"LONGNA~2TXT").unwrap();
        let mut alias = |name: &str| aliases.alias(name).unwrap().unwrap();
        assert_eq!(alias("longname1.text"), *b"LONGNA~1TEX");
        assert_eq!(alias("longname1.txt"), *b"LONGNA~1TXT");
        assert_eq!(alias("longname2.txt"), *b"LONGNA~3TXT");
        assert_eq!(alias(".bashrc"), *b"BASHRC~1   ");
        assert_eq!(alias("a b.c.d"), *b"ABC~1   D  ");
        assert_eq!(alias("日本"), *b"__~1       ");
        assert_eq!(alias("a+b,c.x"), *b"A_B_C~1 X  ");
    }

    #[test]
    fn as_many_files_as_a_directory_lists_get_aliases_soon() {
        let mut aliases = Aliases::default();
        let mut all = HashSet::new();
        for number in 0..65_536 {
            let name = format!("{:>6}name {number}", number % 1000);
            assert!(all.insert(aliases.alias(&name).unwrap().unwrap()));
        }
    }

    #[test]
    fn what_a_volume_cannot_hold_is_told() {
        for bad in [&b"a\xff"[..], b"a:b", b"a\n", b"a.", b"a ", b"q?", b"b\\c"] {
            assert!(storable(bad).is_err(), "{bad:?}");
        }
        let long = "ä".repeat(255);
        assert_eq!(storable(long.as_bytes()), Ok(&*long));
        assert!(storable(format!("{long}x").as_bytes()).is_err());
        // A character outside the Basic Multilingual Plane takes two code units.
        assert!(storable("😀".repeat(128).as_bytes()).is_err());
    }
}
