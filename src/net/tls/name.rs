//! Distinguished names: RFC 5280, 4.1.2.4, converted to text by RFC 4514.

use std::fmt::Write;

/// One element of DER: its tag, its contents, and the bytes that follow it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // Elements of 64 KiB and more are not names.
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => {
            let len = rest.first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*len)), rest.get(2..)?)
        }
        _ => return None,
    };
    Some((tag, rest.get(..len)?, rest.get(len..)?))
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// The contents of the OID of the common name, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];

/// Short names of attributes: RFC 4514, 3, and those common in certificates of other tools.
const SHORT: [(&[u8], &str); 13] = [
    (COMMON_NAME, "CN"),
    (&[0x55, 4, 4], "SN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 12], "title"),
    (&[0x55, 4, 42], "givenName"),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1],
        "UID",
    ),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25],
        "DC",
    ),
];

/// 1.2.840.113549.1.9.1
const EMAIL: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1];

/// An attribute: the contents of its OID, and the tag and contents of its value.
type Attribute<'a> = (&'a [u8], u8, &'a [u8]);

/// The attributes of a name, grouped by relative distinguished name; None if it is damaged.
fn parts(mut name: &[u8]) -> Option<Vec<Vec<Attribute<'_>>>> {
    let mut parts = Vec::new();
    while !name.is_empty() {
        let (SET, mut set, rest) = element(name)? else {
            return None;
        };
        name = rest;
        let mut attributes = Vec::new();
        while !set.is_empty() {
            let (SEQUENCE, pair, rest) = element(set)? else {
                return None;
            };
            set = rest;
            let (OBJECT_IDENTIFIER, oid, value) = element(pair)? else {
                return None;
            };
            let (tag, value, rest) = element(value)?;
            if !rest.is_empty() {
                return None;
            }
            attributes.push((oid, tag, value));
        }
        parts.push(attributes);
    }
    Some(parts)
}

/// A name as text, in the order of the certificate; `name` is the contents of its sequence. None if it is damaged.
pub(super) fn text(name: &[u8]) -> Option<String> {
    let mut text = String::new();
    for part in parts(name)? {
        let before = if text.is_empty() { "" } else { "," };
        text.push_str(before);
        for (index, (oid, tag, value)) in part.into_iter().enumerate() {
            let before = if index == 0 { "" } else { "+" };
            text.push_str(before);
            let short = SHORT.iter().find(|(known, _)| *known == oid);
            match (short, string(tag, value)) {
                (Some((_, short)), Some(value)) => {
                    let _ = write!(text, "{short}={}", escaped(&value));
                }
                (None, Some(value)) if oid == EMAIL => {
                    let _ = write!(text, "EMAIL={}", escaped(&value));
                }
                // RFC 4514, 2.4: the dotted OID, with the encoded value.
                _ => {
                    let _ = write!(text, "{}=#", dotted(oid));
                    encode(&mut text, tag, value);
                }
            }
        }
    }
    Some(text)
}

/// The last common name in it.
pub(super) fn common_name(name: &[u8]) -> Option<String> {
    let parts = parts(name)?;
    let names = parts.iter().flatten().rev();
    let mut names = names.filter(|(oid, ..)| *oid == COMMON_NAME);
    names.next().and_then(|(_, tag, value)| string(*tag, value))
}

fn string(tag: u8, value: &[u8]) -> Option<String> {
    match tag {
        // UTF8String, and the types that are subsets of ASCII.
        0x0c | 0x12 | 0x13 | 0x16 => String::from_utf8(value.to_vec()).ok(),
        // TeletexString, which everyone writes as Latin-1.
        0x14 => Some(value.iter().map(|byte| char::from(*byte)).collect()),
        // BMPString
        0x1e if value.len().is_multiple_of(2) => {
            let units: Vec<u16> = value
                .chunks_exact(2)
                .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
                .collect();
            String::from_utf16(&units).ok()
        }
        _ => None,
    }
}

fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (index, c) in value.chars().enumerate() {
        match c {
            '\0' => text.push_str("\\00"),
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => text.extend(['\\', c]),
            ' ' if index == 0 || index == last => text.extend(['\\', c]),
            '#' if index == 0 => text.extend(['\\', c]),
            _ => text.push(c),
        }
    }
    text
}

fn dotted(oid: &[u8]) -> String {
    let mut text = String::new();
    let mut number = 0u64;
    for byte in oid {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if text.is_empty() {
            let first = (number / 40).min(2);
            let _ = write!(text, "{first}.{}", number - first * 40);
        } else {
            let _ = write!(text, ".{number}");
        }
        number = 0;
    }
    text
}

fn encode(text: &mut String, tag: u8, value: &[u8]) {
    let _ = write!(text, "{tag:02X}");
    let len = value.len();
    let _ = match len {
        0..=0x7f => write!(text, "{len:02X}"),
        0x80..=0xff => write!(text, "81{len:02X}"),
        _ => write!(text, "82{len:04X}"),
    };
    for byte in value {
        let _ = write!(text, "{byte:02X}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag, contents.len() as u8];
        bytes.extend_from_slice(contents);
        bytes
    }

    fn one(oid: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
        der(
            SEQUENCE,
            &[der(OBJECT_IDENTIFIER, oid), der(tag, value)].concat(),
        )
    }

    #[test]
    fn names_are_text_in_their_own_order() {
        let country = der(SET, &one(&[0x55, 4, 6], 0x13, b"DE"));
        let company = der(SET, &one(&[0x55, 4, 10], 0x0c, b"Example, Inc. "));
        let both = [
            one(COMMON_NAME, 0x0c, "Jürgen".as_bytes()),
            one(&[0x2a, 3, 0x81, 0], 0x04, &[1, 2]),
        ];
        let name = [country, company, der(SET, &both.concat())].concat();
        assert_eq!(
            text(&name).unwrap(),
            "C=DE,O=Example\\, Inc.\\ ,CN=Jürgen+1.2.3.128=#04020102"
        );
        assert_eq!(common_name(&name).unwrap(), "Jürgen");
    }

    #[test]
    fn zeros_and_other_alphabets() {
        let name = der(SET, &one(COMMON_NAME, 0x1e, &[0, b'a', 0, 0, 0, b'b']));
        assert_eq!(text(&name).unwrap(), "CN=a\\00b");
        assert_eq!(text(&[]).unwrap(), "");
        assert_eq!(common_name(&[]), None);
    }

    #[test]
    fn damaged_names_are_none_at_every_cut() {
        let name = der(SET, &one(COMMON_NAME, 0x0c, b"abc"));
        for end in 1..name.len() {
            assert_eq!(text(&name[..end]), None, "{end}");
        }
        for at in 0..name.len() {
            for bit in 0..8 {
                let mut bad = name.clone();
                bad[at] ^= 1 << bit;
                // Any result will do, as long as there is no panic.
                let _ = (text(&bad), common_name(&bad));
            }
        }
    }
}
