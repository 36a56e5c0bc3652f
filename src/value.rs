//! Trees of values: the options of nodes, and the contents of reports. Text is bytes, because names on a host and in an
//! image need not be UTF-8; only JSON replaces what is not.

use std::fmt::{self, Write};

use bstr::{BStr, BString, ByteSlice};
use serde_json::Number;

/// The members of an object, in the order in which they were set.
pub type Map<K = String, V = Value> = indexmap::IndexMap<K, V>;

/// A value as in JSON, except that its strings are bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// A Boolean.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string or a name.
    String(BString),
    /// A list.
    Array(Vec<Value>),
    /// An object.
    Object(Map),
}

impl Value {
    /// The string, if it is valid UTF-8: for words, not for names.
    pub fn as_str(&self) -> Option<&str> {
        self.as_name().and_then(|name| name.to_str().ok())
    }

    /// The string as bytes.
    pub fn as_name(&self) -> Option<&BStr> {
        match self {
            Self::String(name) => Some(name.as_bstr()),
            _ => None,
        }
    }

    /// The members of an object.
    pub fn as_object(&self) -> Option<&Map> {
        match self {
            Self::Object(map) => Some(map),
            _ => None,
        }
    }

    /// The members of an object, for changing them.
    pub fn as_object_mut(&mut self) -> Option<&mut Map> {
        match self {
            Self::Object(map) => Some(map),
            _ => None,
        }
    }

    /// The items of a list.
    pub fn as_array(&self) -> Option<&Vec<Value>> {
        match self {
            Self::Array(list) => Some(list),
            _ => None,
        }
    }

    /// The number, if it is a whole number that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(number) => number.as_u64(),
            _ => None,
        }
    }

    /// The number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => number.as_f64(),
            _ => None,
        }
    }

    /// The Boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// Whether it is a string.
    pub fn is_string(&self) -> bool {
        matches!(self, Self::String(_))
    }

    /// Whether it is an object.
    pub fn is_object(&self) -> bool {
        matches!(self, Self::Object(_))
    }

    /// Whether it is a list.
    pub fn is_array(&self) -> bool {
        matches!(self, Self::Array(_))
    }

    /// A member of an object.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_object()?.get(key)
    }
}

/// JSON on one line as QEMU writes it, `{"key": value, "key": value}`; see [`json_string`].
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(truth) => truth.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::String(text) => json_string(f, text),
            Self::Array(list) => {
                f.write_char('[')?;
                for (i, item) in list.iter().enumerate() {
                    f.write_str(if i > 0 { ", " } else { "" })?;
                    item.fmt(f)?;
                }
                f.write_char(']')
            }
            Self::Object(map) => {
                f.write_char('{')?;
                for (i, (key, item)) in map.iter().enumerate() {
                    f.write_str(if i > 0 { ", " } else { "" })?;
                    json_string(f, key.as_bytes())?;
                    write!(f, ": {item}")?;
                }
                f.write_char('}')
            }
        }
    }
}

/// A string in quotes as QEMU writes it: everything that is not ASCII escaped, what is not UTF-8 replaced.
///
/// # Errors
/// If the writer fails.
pub fn json_string(out: &mut (impl Write + ?Sized), text: &[u8]) -> fmt::Result {
    out.write_char('"')?;
    let mut rest = text;
    while !rest.is_empty() {
        let (c, len) = decode(rest);
        rest = rest.get(len..).unwrap_or_default();
        match c {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\u{8}' => out.write_str("\\b")?,
            '\u{c}' => out.write_str("\\f")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            ' '..='~' => out.write_char(c)?,
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04X}")?;
                }
            }
        }
    }
    out.write_char('"')
}

/// The first character, and its length in bytes. A malformed one of any kind, however long, is replaced once; the only
/// overlong form accepted is the two-byte one of modified UTF-8 for 0.
fn decode(bytes: &[u8]) -> (char, usize) {
    const SMALLEST: [u32; 7] = [0, 0, 0x80, 0x800, 0x1_0000, 0x20_0000, 0x400_0000];
    let lead = bytes.first().copied().unwrap_or_default();
    let (len, bits) = match lead {
        0..=0x7f => return (char::from(lead), 1),
        0xc0..=0xdf => (2, lead & 0x1f),
        0xe0..=0xef => (3, lead & 0x0f),
        0xf0..=0xf7 => (4, lead & 0x07),
        0xf8..=0xfb => (5, lead & 0x03),
        0xfc..=0xfd => (6, lead & 0x01),
        _ => return (char::REPLACEMENT_CHARACTER, 1),
    };
    let mut code = u32::from(bits);
    let mut taken = 1;
    for byte in bytes.iter().skip(1).take(len - 1) {
        if byte & 0xc0 != 0x80 {
            break;
        }
        code = code << 6 | u32::from(byte & 0x3f);
        taken += 1;
    }
    let right = taken == len && (code >= SMALLEST[len] || bytes.starts_with(b"\xc0\x80"));
    let c = char::from_u32(code).filter(|c| right && !is_noncharacter(*c));
    (c.unwrap_or(char::REPLACEMENT_CHARACTER), taken)
}

/// Code points that Unicode reserves for internal use; QEMU treats them as invalid.
fn is_noncharacter(c: char) -> bool {
    let c = u32::from(c);
    (0xfdd0..=0xfdef).contains(&c) || c & 0xfffe == 0xfffe
}

impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(truth) => Self::Bool(truth),
            serde_json::Value::Number(number) => Self::Number(number),
            serde_json::Value::String(text) => Self::String(text.into()),
            serde_json::Value::Array(list) => list.into_iter().collect(),
            serde_json::Value::Object(map) => {
                Self::Object(map.into_iter().map(|(k, v)| (k, v.into())).collect())
            }
        }
    }
}

impl<T: Into<Value>> FromIterator<T> for Value {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self::Array(items.into_iter().map(Into::into).collect())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Number::from_f64(number).map_or(Self::Null, Self::Number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Self::Object(map)
    }
}

macro_rules! from_number {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Value {
            fn from(number: $kind) -> Self {
                Self::Number(number.into())
            }
        }
    )*};
}

macro_rules! from_text {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Value {
            fn from(text: $kind) -> Self {
                Self::String(text.into())
            }
        }
    )*};
}

from_number!(u8, u16, u32, u64, usize, i32, i64);
from_text!(&str, String, &BStr, BString);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_bytes_and_only_json_replaces_them() {
        let value = Value::from(BStr::new(b"b\xe9d"));
        assert_eq!(value.as_name(), Some(BStr::new(b"b\xe9d")));
        assert_eq!(value.as_str(), None);
        assert_eq!(value.to_string(), "\"b\\uFFFDd\"");
    }

    #[test]
    fn what_is_no_utf8_is_replaced_as_qemu_does() {
        for (bytes, shown) in [
            (&b"\xff\xfe"[..], "\\uFFFD\\uFFFD"),
            (b"a\xc0\x80", "a\\u0000"),
            (b"\xed\xa0\x80x", "\\uFFFDx"),
            (b"\xf0\x9f\x98", "\\uFFFD"),
            (b"\xe2\x82x", "\\uFFFDx"),
            (b"\xf8\x88\x80\x80\x80A", "\\uFFFDA"),
            (b"\xf4\x90\x80\x80", "\\uFFFD"),
            (b"\x80\x80", "\\uFFFD\\uFFFD"),
            (b"\xef\xbf\xbf", "\\uFFFD"),
            (b"\xe0\x80\xaf", "\\uFFFD"),
        ] {
            assert_eq!(
                Value::from(BStr::new(bytes)).to_string(),
                format!("\"{shown}\"")
            );
        }
    }

    #[test]
    fn json_keeps_its_order_and_escapes_as_qemu_does() {
        let json = json!({"b": [1, -2, 1.5, null, true], "a": {"x": "é\u{1f600}\""}});
        assert_eq!(
            Value::from(json).to_string(),
            r#"{"b": [1, -2, 1.5, null, true], "a": {"x": "\u00E9\uD83D\uDE00\""}}"#
        );
    }
}
