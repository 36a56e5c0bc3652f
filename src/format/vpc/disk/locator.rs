//! Parent locators: names under which the parent may be found, for various kinds of system. "Dynamic Disk Header
//! Format" of the specification, and the notes of libvhdi.

use bstr::{BString, ByteSlice, ByteVec};

use crate::bytes::{be32, be64};
use crate::format::{NameStyle, ParentName};

/// Offset of the entries in the header.
pub(crate) const LOCATORS_AT: usize = 0x240;
/// Length of an entry in bytes, and the number of entries.
pub(crate) const LOCATOR_LEN: usize = 24;
pub(crate) const LOCATORS: usize = 8;

/// Maximum length of a name that is read, in bytes.
const MAX_NAME: u32 = 64 << 10;

/// The kind of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Platform {
    /// A file URL.
    MacUrl,
    /// Relative to the child, in UTF-16.
    WindowsRelative,
    /// Relative to the child, in a code page.
    WindowsRelativeOld,
    /// With a drive letter, in UTF-16.
    WindowsAbsolute,
    /// With a drive letter, in a code page.
    WindowsAbsoluteOld,
}

impl Platform {
    fn from_code(code: &[u8; 4]) -> Option<Self> {
        Some(match code {
            b"MacX" => Self::MacUrl,
            b"W2ru" => Self::WindowsRelative,
            b"Wi2r" => Self::WindowsRelativeOld,
            b"W2ku" => Self::WindowsAbsolute,
            b"Wi2k" => Self::WindowsAbsoluteOld,
            // An alias of classic Mac OS is not a name, and others are unknown.
            _ => return None,
        })
    }

    pub(crate) fn code(self) -> &'static [u8; 4] {
        match self {
            Self::MacUrl => b"MacX",
            Self::WindowsRelative => b"W2ru",
            Self::WindowsRelativeOld => b"Wi2r",
            Self::WindowsAbsolute => b"W2ku",
            Self::WindowsAbsoluteOld => b"Wi2k",
        }
    }

    /// The name encoded in the bytes.
    pub(crate) fn name(self, bytes: &[u8]) -> Option<ParentName> {
        let (name, style) = match self {
            Self::MacUrl => (from_url(bytes)?, NameStyle::Posix),
            Self::WindowsRelative | Self::WindowsAbsolute => {
                (from_utf16(bytes, byte_order(bytes)), NameStyle::Windows)
            }
            Self::WindowsRelativeOld | Self::WindowsAbsoluteOld => {
                (until_zero(bytes).into(), NameStyle::Windows)
            }
        };
        (!name.is_empty()).then_some(ParentName { name, style })
    }
}

/// The location of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Locator {
    /// None if its kind is unknown.
    pub(crate) platform: Option<Platform>,
    pub(crate) offset: u64,
    /// Length of the name in bytes.
    pub(crate) len: u32,
}

impl Locator {
    /// Decodes an entry; None if it is empty.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let code = bytes.first_chunk::<4>().filter(|code| **code != [0; 4])?;
        Some(Self {
            platform: Platform::from_code(code),
            len: be32(bytes, 8)?.min(MAX_NAME),
            offset: be64(bytes, 16)?,
        })
    }

    /// The entry for a name that occupies `space` bytes of the file.
    pub(crate) fn to_bytes(self, space: u32) -> Vec<u8> {
        let code = self.platform.map_or([0; 4], |platform| *platform.code());
        [
            &code[..],
            &space.to_be_bytes(),
            &self.len.to_be_bytes(),
            &[0; 4],
            &self.offset.to_be_bytes(),
        ]
        .concat()
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Decodes a unit of UTF-16.
type ReadUnit = fn([u8; 2]) -> u16;

/// What some writers put in front of text to indicate the byte order.
const BYTE_ORDER_MARK: u16 = 0xfeff;

/// The byte order of a name, indicated by a mark, or else by the ASCII characters in it.
fn byte_order(bytes: &[u8]) -> ReadUnit {
    let (pairs, _) = bytes.as_chunks::<2>();
    let ascii = |unit: ReadUnit| {
        let units = pairs.iter().map(|pair| unit(*pair));
        units.filter(|unit| (1..0x80).contains(unit)).count()
    };
    match pairs.first().map(|pair| u16::from_be_bytes(*pair)) {
        Some(BYTE_ORDER_MARK) => u16::from_be_bytes,
        // Windows writes the least significant byte first.
        Some(unit) if unit.swap_bytes() == BYTE_ORDER_MARK => u16::from_le_bytes,
        _ if ascii(u16::from_be_bytes) > ascii(u16::from_le_bytes) => u16::from_be_bytes,
        _ => u16::from_le_bytes,
    }
}

/// The text in 16-bit units; invalid units become replacement characters.
pub(crate) fn from_utf16(bytes: &[u8], unit: ReadUnit) -> BString {
    let (pairs, _) = bytes.as_chunks::<2>();
    let units = pairs
        .iter()
        .map(|pair| unit(*pair))
        .take_while(|unit| *unit != 0)
        .filter(|unit| *unit != BYTE_ORDER_MARK);
    let text: String = char::decode_utf16(units)
        .map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    text.into()
}

/// The path in a file URL.
fn from_url(bytes: &[u8]) -> Option<BString> {
    let rest = until_zero(bytes).strip_prefix(b"file://")?;
    let rest = match rest.strip_prefix(b"localhost/") {
        Some(_) => rest.get(b"localhost".len()..)?,
        None => rest,
    };
    let mut name = BString::default();
    let mut rest = rest.iter().copied();
    while let Some(byte) = rest.next() {
        let digits = (byte == b'%').then(|| rest.clone().take(2).collect::<Vec<_>>());
        let code = digits.and_then(|digits| {
            let text = std::str::from_utf8(&digits).ok()?.to_owned();
            (text.len() == 2).then(|| u8::from_str_radix(&text, 16).ok())?
        });
        match code {
            Some(code) => {
                rest.nth(1);
                name.push_byte(code);
            }
            None => name.push_byte(byte),
        }
    }
    Some(without_dot(&name).into())
}

/// The file URL for a path.
pub(crate) fn to_url(name: &[u8]) -> Vec<u8> {
    let mut url = b"file://".to_vec();
    if !name.starts_with(b"/") {
        url.extend(b"./");
    }
    for byte in name {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(byte) {
            url.push(*byte);
        } else {
            url.extend(format!("%{byte:02X}").into_bytes());
        }
    }
    url
}

/// A relative path in Windows form, in UTF-16; None if it is not text or contains a backslash.
pub(crate) fn to_windows(name: &[u8]) -> Option<Vec<u8>> {
    let text = name.to_str().ok().filter(|text| !text.contains('\\'))?;
    if text.starts_with('/') {
        return None;
    }
    let path = format!(".\\{}", text.replace('/', "\\"));
    Some(path.encode_utf16().flat_map(u16::to_le_bytes).collect())
}

/// The name without leading dots and slashes.
pub(crate) fn without_dot(name: &[u8]) -> &[u8] {
    let mut name = name;
    while let Some(rest) = name.strip_prefix(b"./") {
        name = rest;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were() {
        for name in [
            &b"base.vhd"[..],
            b"/images/a b%20.vhd",
            b"dir/\xff\xfe.vhd",
            "d\u{e9}p\u{f4}t/\u{1f4be}.vhd".as_bytes(),
            b"..\\x",
        ] {
            assert_eq!(from_url(&to_url(name)).unwrap(), name);
            if let Some(windows) = to_windows(name) {
                let name_here = Platform::WindowsRelative.name(&windows).unwrap().here();
                assert_eq!(without_dot(&name_here.unwrap()), name);
            }
        }
        assert_eq!(from_url(b"file://localhost/a.vhd").unwrap(), "/a.vhd");
        assert_eq!(from_url(b"http://x/a.vhd"), None);
        assert_eq!(to_windows(b"\xff"), None);
    }

    #[test]
    fn a_half_of_a_pair_is_replaced() {
        let units = [0x41, 0xd800, 0x42, 0, 0x43];
        let bytes: Vec<u8> = units.into_iter().flat_map(u16::to_le_bytes).collect();
        assert_eq!(from_utf16(&bytes, u16::from_le_bytes), "A\u{fffd}B");
    }

    #[test]
    fn a_name_is_read_in_either_order_of_its_bytes() {
        for name in [
            "..\\base.vhd",
            "\u{30c7}\u{30a3}\u{30b9}\u{30af}.vhd",
            "\u{1f4be}\\b",
        ] {
            for mark in [&[][..], &[BYTE_ORDER_MARK]] {
                for write in [u16::to_le_bytes, u16::to_be_bytes] {
                    let units = mark
                        .iter()
                        .copied()
                        .chain(name.encode_utf16())
                        .chain([0, 0]);
                    let bytes: Vec<u8> = units.flat_map(write).collect();
                    for platform in [Platform::WindowsRelative, Platform::WindowsAbsolute] {
                        assert_eq!(platform.name(&bytes).unwrap().name, name);
                    }
                }
            }
        }
        // No indication: assume what Windows writes.
        let bytes: Vec<u8> = "\u{30c7}"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(
            Platform::WindowsRelative.name(&bytes).unwrap().name,
            "\u{30c7}"
        );
    }

    #[test]
    fn entries_say_where_a_name_stands() {
        let locator = Locator {
            platform: Some(Platform::WindowsRelative),
            offset: 4096,
            len: 20,
        };
        let bytes = locator.to_bytes(512);
        assert_eq!(bytes.len(), LOCATOR_LEN);
        assert_eq!(Locator::from_bytes(&bytes), Some(locator));
        assert_eq!(Locator::from_bytes(&[0; LOCATOR_LEN]), None);
    }
}
