//! QEMU's JSON style: four blanks per level, `"key": value`, everything beyond ASCII escaped.

use std::fmt::Write;

use serde_json::Value;

/// `value` over several lines, with a final newline. Keys keep their order.
pub fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value, 0);
    out.push('\n');
    out
}

/// `value` on one line, as QEMU prints a `json:{…}` file name: `{"key": value, "key": value}`.
pub fn compact(value: &Value) -> String {
    let mut out = String::new();
    write_compact(&mut out, value);
    out
}

fn write_value(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                separate(out, i, depth + 1);
                write_value(out, item, depth + 1);
            }
            new_line(out, depth);
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                separate(out, i, depth + 1);
                write_string(out, key);
                out.push_str(": ");
                write_value(out, item, depth + 1);
            }
            new_line(out, depth);
            out.push('}');
        }
        scalar => write_scalar(out, scalar),
    }
}

fn write_compact(out: &mut String, value: &Value) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_compact(out, item);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_string(out, key);
                out.push_str(": ");
                write_compact(out, item);
            }
            out.push('}');
        }
        scalar => write_scalar(out, scalar),
    }
}

fn separate(out: &mut String, index: usize, depth: usize) {
    if index > 0 {
        out.push(',');
    }
    new_line(out, depth);
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    for _ in 0..depth {
        out.push_str("    ");
    }
}

fn write_scalar(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => write_string(out, text),
        other => {
            // Writing to a String cannot fail.
            let _ = write!(out, "{other}");
        }
    }
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            _ => {
                let c = if is_noncharacter(c) { '\u{fffd}' } else { c };
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04X}");
                }
            }
        }
    }
    out.push('"');
}

/// Code points that Unicode sets aside for internal use; QEMU takes them for invalid.
fn is_noncharacter(c: char) -> bool {
    let c = u32::from(c);
    (0xfdd0..=0xfdef).contains(&c) || c & 0xfffe == 0xfffe
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
        assert_eq!(pretty(&value), expected);
    }

    #[test]
    fn escapes_as_qemu_does() {
        let text = "a\u{1}\t\n\u{7f}\"\\/<é\u{1f600}\u{fffd}\u{ffff}\u{fdd0}";
        assert_eq!(
            pretty(&json!(text)),
            "\"a\\u0001\\t\\n\\u007F\\\"\\\\/<\\u00E9\\uD83D\\uDE00\\uFFFD\\uFFFD\\uFFFD\"\n"
        );
    }

    #[test]
    fn a_compact_tree_has_blanks_after_colon_and_comma() {
        let value = json!({"driver": "raw", "file": {"filename": "a"}, "l": [1, 2]});
        assert_eq!(
            compact(&value),
            "{\"driver\": \"raw\", \"file\": {\"filename\": \"a\"}, \"l\": [1, 2]}"
        );
    }
}
