//! What a name inside an image refers to.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::location::protocol_of;
use crate::printable::printable;

/// What kind of name it is.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NameTraits {
    /// The name is empty.
    pub empty: bool,
    /// It begins with a slash.
    pub absolute: bool,
    /// One of its parts is `..`.
    pub parent: bool,
    /// It is a `json:{…}` description.
    pub json: bool,
    /// The protocol before the first colon.
    pub protocol: Option<String>,
    /// It is not UTF-8, or contains control characters.
    pub unprintable: bool,
}

impl NameTraits {
    /// Classifies a name.
    pub fn of(name: &[u8]) -> Self {
        let json = name.starts_with(b"json:");
        let protocol = protocol_of(OsStr::from_bytes(name)).filter(|_| !json);
        Self {
            empty: name.is_empty(),
            absolute: name.starts_with(b"/"),
            parent: name.split(|b| *b == b'/').any(|part| part == b".."),
            json,
            protocol: protocol.map(|name| name.to_string_lossy().into_owned()),
            unprintable: match std::str::from_utf8(name) {
                Ok(text) => text.chars().any(char::is_control),
                Err(_) => true,
            },
        }
    }

    /// Whether it is a plain name of a file in the image's directory or below.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Describes it in words.
    pub fn words(&self) -> String {
        let mut words = Vec::new();
        if self.empty {
            words.push("empty".to_owned());
        }
        if self.json {
            words.push("a json: description".to_owned());
        }
        if let Some(protocol) = &self.protocol {
            words.push(format!("of the protocol '{}'", printable(protocol)));
        }
        if self.absolute {
            words.push("an absolute path".to_owned());
        }
        if self.parent {
            words.push("leads to a parent directory".to_owned());
        }
        if self.unprintable {
            words.push("not printable".to_owned());
        }
        if words.is_empty() {
            words.push("a plain file name".to_owned());
        }
        words.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_names() {
        for (name, words) in [
            (&b"base.qcow2"[..], "a plain file name"),
            (b"sub/base", "a plain file name"),
            (b"./a:b", "a plain file name"),
            (b"", "empty"),
            (b"/etc/passwd", "an absolute path"),
            (b"a/../b", "leads to a parent directory"),
            (b"..", "leads to a parent directory"),
            (b"a..b", "a plain file name"),
            (b"json:{\"driver\":\"nbd\"}", "a json: description"),
            (b"nbd://host/x", "of the protocol 'nbd'"),
            (b"file:/etc", "of the protocol 'file'"),
            (b"a\x1b[2J", "not printable"),
            (b"\xff", "not printable"),
            (
                b"/../\n",
                "an absolute path, leads to a parent directory, not printable",
            ),
        ] {
            let traits = NameTraits::of(name);
            assert_eq!(traits.words(), words);
            assert_eq!(traits.is_plain(), words == "a plain file name");
        }
    }

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        assert_eq!(
            printable("a\x1b[0m\n\u{202e}é"),
            "a\\u{1b}[0m\\u{a}\\u{202e}é"
        );
    }
}
