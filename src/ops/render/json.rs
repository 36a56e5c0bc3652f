//! QEMU's JSON style: four blanks per level, `"key": value`, everything beyond ASCII escaped.

use std::fmt::Write;

use crate::value::{Value, json_string};

/// `value` over several lines, with a final newline. Keys keep their order.
pub fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value, 0);
    out.push('\n');
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
                // Writing to a String cannot fail.
                let _ = json_string(out, key.as_bytes());
                out.push_str(": ");
                write_value(out, item, depth + 1);
            }
            new_line(out, depth);
            out.push('}');
        }
        scalar => {
            let _ = write!(out, "{scalar}");
        }
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
