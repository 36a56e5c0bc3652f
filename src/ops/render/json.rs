//! QEMU's JSON style: four spaces per level, `"key": value`, everything beyond ASCII escaped.

use std::fmt::{self, Write};

use crate::error::Result;
use crate::memory;
use crate::value::{Value, json_string};

/// `value` over several lines, with a final newline. Keys keep their order. For values with few members only: for what
/// grows with an image, use [`text`].
pub fn pretty(value: &Value) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_value(&mut out, value, 0);
    out.push('\n');
    out
}

/// The text that `write` writes, with a final newline.
///
/// # Errors
/// If there is no memory for it.
pub fn text(write: impl FnOnce(&mut dyn Write) -> fmt::Result) -> Result<String> {
    memory::text(|out| {
        write(out)?;
        out.write_char('\n')
    })
}

/// Writes `value`, its inner lines indented by `depth` levels.
///
/// # Errors
/// If the writer fails, as in all functions here.
pub fn write_value<W: Write + ?Sized>(out: &mut W, value: &Value, depth: usize) -> fmt::Result {
    match value {
        Value::Array(items) => write_list(out, items, depth, write_value),
        Value::Object(map) => {
            let mut members = Members::begin(out, depth)?;
            for (key, item) in map {
                members.value(key, item)?;
            }
            members.end()
        }
        scalar => write!(out, "{scalar}"),
    }
}

/// Writes a list of whatever `each` writes, one item after the other, so that a long one is never held in memory as a
/// whole.
///
/// # Errors
/// As [`write_value`].
pub fn write_list<W: Write + ?Sized, T>(
    out: &mut W,
    items: impl IntoIterator<Item = T>,
    depth: usize,
    mut each: impl FnMut(&mut W, T, usize) -> fmt::Result,
) -> fmt::Result {
    out.write_char('[')?;
    for (index, item) in items.into_iter().enumerate() {
        separate(out, index, depth + 1)?;
        each(out, item, depth + 1)?;
    }
    new_line(out, depth)?;
    out.write_char(']')
}

/// An object that is written member by member.
pub struct Members<'a, W: Write + ?Sized> {
    out: &'a mut W,
    depth: usize,
    count: usize,
}

impl<'a, W: Write + ?Sized> Members<'a, W> {
    /// Begins the object.
    ///
    /// # Errors
    /// As [`write_value`].
    pub fn begin(out: &'a mut W, depth: usize) -> Result<Self, fmt::Error> {
        out.write_char('{')?;
        Ok(Self {
            out,
            depth,
            count: 0,
        })
    }

    /// Writes a member.
    ///
    /// # Errors
    /// As [`write_value`].
    pub fn value(&mut self, key: &str, value: &Value) -> fmt::Result {
        self.with(key, |out, depth| write_value(out, value, depth))
    }

    /// Writes a member whose value `write` writes.
    ///
    /// # Errors
    /// As [`write_value`].
    pub fn with(
        &mut self,
        key: &str,
        write: impl FnOnce(&mut W, usize) -> fmt::Result,
    ) -> fmt::Result {
        separate(self.out, self.count, self.depth + 1)?;
        self.count += 1;
        json_string(self.out, key.as_bytes())?;
        self.out.write_str(": ")?;
        write(self.out, self.depth + 1)
    }

    /// Ends the object.
    ///
    /// # Errors
    /// As [`write_value`].
    pub fn end(self) -> fmt::Result {
        new_line(self.out, self.depth)?;
        self.out.write_char('}')
    }
}

fn separate<W: Write + ?Sized>(out: &mut W, index: usize, depth: usize) -> fmt::Result {
    if index > 0 {
        out.write_char(',')?;
    }
    new_line(out, depth)
}

fn new_line<W: Write + ?Sized>(out: &mut W, depth: usize) -> fmt::Result {
    out.write_char('\n')?;
    (0..depth).try_for_each(|_| out.write_str("    "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nests_with_four_blanks_and_closes_empty_lists_on_their_own_line() {
        let value = json!({"children": [], "n": 1, "list": [true, {"a": "b"}], "o": {}});
        let expected = "{\n    \"children\": [\n    ],\n    \"n\": 1,\n    \"list\": [\n        \
            true,\n        {\n            \"a\": \"b\"\n        }\n    ],\n    \"o\": {\n    }\n}\n";
        assert_eq!(pretty(&value.into()), expected);
    }

    #[test]
    fn escapes_as_qemu_does() {
        let text = "a\u{1}\t\n\u{7f}\"\\/<é\u{1f600}\u{fffd}\u{ffff}\u{fdd0}";
        assert_eq!(
            pretty(&json!(text).into()),
            "\"a\\u0001\\t\\n\\u007F\\\"\\\\/<\\u00E9\\uD83D\\uDE00\\uFFFD\\uFFFD\\uFFFD\"\n"
        );
    }
}
