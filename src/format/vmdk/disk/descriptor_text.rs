//! The text of a descriptor: its lines and keys, and how names are encoded.

use std::borrow::Cow;

use bstr::{BStr, BString, ByteSlice};
use encoding_rs::Encoding;

use crate::error::{Error, Result};
use crate::size::SECTOR;

pub(super) fn missing(key: &str) -> Error {
    Error::corrupt(format!("invalid VMDK image descriptor: there is no {key}"))
}

pub(super) fn decode<'a>(name: &'a [u8], encoding: Option<&'static Encoding>) -> Cow<'a, [u8]> {
    match encoding {
        Some(encoding) if encoding != encoding_rs::UTF_8 => {
            match encoding.decode_without_bom_handling_and_without_replacement(name) {
                Some(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
                _ => Cow::Borrowed(name),
            }
        }
        _ => Cow::Borrowed(name),
    }
}

/// A name in the encoding of a descriptor, unless that cannot represent it.
pub(super) fn encode<'a>(name: &'a BStr, encoding: Option<&'static Encoding>) -> Cow<'a, [u8]> {
    match (encoding, name.to_str()) {
        (Some(encoding), Ok(text)) => match encoding.encode(text) {
            (bytes, _, false) => bytes,
            _ => Cow::Borrowed(name),
        },
        _ => Cow::Borrowed(name),
    }
}

/// The lines with their offsets, without line ends.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    text.split_inclusive(|byte| *byte == b'\n')
        .map(move |line| {
            let start = at;
            at += line.len();
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            (start, line.strip_suffix(b"\r").unwrap_or(line))
        })
}

/// The line of a key: its offset, its length including the line end, and the range of the value within it.
pub(super) fn find(text: &[u8], key: &str) -> Option<(usize, usize, std::ops::Range<usize>)> {
    lines(text).find_map(|(at, line)| {
        let (name, _) = line.split_once_str("=")?;
        if !name.trim_ascii().eq_ignore_ascii_case(key.as_bytes()) {
            return None;
        }
        let rest = line.get(name.len() + 1..)?;
        let word = rest.trim_ascii();
        let start = name.len() + 1 + (rest.len() - rest.trim_ascii_start().len());
        let mut range = start..start + word.len();
        if word.len() >= 2 && word.starts_with(b"\"") && word.ends_with(b"\"") {
            range = range.start + 1..range.end - 1;
        }
        let whole = text.get(at..)?;
        let len = whole.find_byte(b'\n').map_or(whole.len(), |end| end + 1);
        Some((at, len, range))
    })
}

/// Offset of a key's value in the text.
pub(super) fn place(text: &[u8], key: &str) -> Option<usize> {
    let (at, _, value) = find(text, key)?;
    Some(at + value.start)
}

pub(super) fn value(text: &[u8], key: &str) -> Option<BString> {
    let (at, _, range) = find(text, key)?;
    text.get(at + range.start..at + range.end)
        .map(BString::from)
}

/// The text with another value for a key.
pub(super) fn set(text: &[u8], key: &str, value: &str) -> Result<BString> {
    let (at, _, range) = find(text, key).ok_or_else(|| missing(key))?;
    let mut text = BString::from(text);
    text.splice(at + range.start..at + range.end, value.bytes());
    Ok(text)
}

/// The text with an additional line after that of a key.
pub(super) fn insert_after(text: &[u8], key: &str, line: &[u8]) -> Result<BString> {
    let (at, len, _) = find(text, key).ok_or_else(|| missing(key))?;
    let mut text = BString::from(text);
    let before = text.get(at..at + len).unwrap_or_default();
    let end: &[u8] = if before.ends_with(b"\r\n") {
        b"\r\n"
    } else {
        b"\n"
    };
    let mut new = Vec::new();
    if !before.ends_with(b"\n") {
        new.extend_from_slice(end);
    }
    new.extend_from_slice(line);
    new.extend_from_slice(end);
    text.splice(at + len..at + len, new);
    Ok(text)
}

/// A content ID: up to eight hexadecimal digits; further ones are ignored.
pub(super) fn hex(word: &[u8]) -> Option<u32> {
    let digits = word
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let digits = word
        .get(..digits.min(8))
        .filter(|digits| !digits.is_empty())?;
    u32::from_str_radix(digits.to_str().ok()?, 16).ok()
}

pub(super) fn next_word(line: &[u8]) -> (&[u8], &[u8]) {
    let line = line.trim_ascii_start();
    let end = line.find_byteset(b" \t").unwrap_or(line.len());
    line.split_at(end)
}

/// A number of sectors whose length in bytes can be represented.
pub(super) fn number(word: &[u8]) -> Option<u64> {
    let number: u64 = word.to_str().ok()?.parse().ok()?;
    (number <= i64::MAX as u64 / SECTOR).then_some(number)
}
