//! The JSON of `json:{…}` names: strings may be in single quotes, and a duplicate key is an error.

use serde_json::Number;

use crate::error::{Error, Result};
use crate::value::{Map, Value};

/// Maximum nesting depth of objects and lists: more than the longest chain has images, but little stack.
pub(super) const MAX_DEPTH: usize = 256;

/// Parses one value that fills the whole text.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`], saying what is wrong.
pub(super) fn parse(text: &str) -> Result<Value> {
    let mut parser = Parser { rest: text };
    parser.skip_blanks();
    if parser.rest.is_empty() {
        return Err(Error::invalid("Expecting a JSON value"));
    }
    let value = parser.value(0)?;
    parser.skip_blanks();
    if parser.rest.is_empty() {
        Ok(value)
    } else {
        Err(Error::invalid("Expecting at most one JSON value"))
    }
}

/// The error of nesting beyond [`MAX_DEPTH`].
pub(super) fn too_deep() -> Error {
    Error::invalid("JSON nesting depth limit exceeded")
}

fn bad(reason: impl std::fmt::Display) -> Error {
    Error::invalid(format!("JSON parse error, {reason}"))
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Takes the next character after blanks if it is `c`.
    fn take(&mut self, c: char) -> bool {
        self.skip_blanks();
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn need_more(&mut self) -> Result<char> {
        self.skip_blanks();
        self.rest.chars().next().ok_or_else(|| bad("premature EOI"))
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        match self.need_more()? {
            '{' | '[' if depth >= MAX_DEPTH => Err(too_deep()),
            '{' => self.object(depth),
            '[' => self.list(depth),
            '"' | '\'' => self.string().map(Value::from),
            '-' | '0'..='9' => self.number(),
            'a'..='z' => self.keyword(),
            '}' | ']' | ',' | ':' => Err(bad("expecting value")),
            c => Err(bad(format!("stray '{c}'"))),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value> {
        self.take('{');
        let mut map = Map::new();
        self.need_more()?;
        if self.take('}') {
            return Ok(Value::Object(map));
        }
        loop {
            self.need_more()?;
            if !self.rest.starts_with(['"', '\'']) {
                // The value in its place may itself be malformed.
                self.value(depth + 1)?;
                return Err(bad("key is not a string in object"));
            }
            let key = self.string()?;
            self.need_more()?;
            if !self.take(':') {
                return Err(bad("missing : in object pair"));
            }
            let value = self.value(depth + 1)?;
            if map.insert(key, value).is_some() {
                return Err(bad("duplicate key"));
            }
            self.need_more()?;
            if self.take('}') {
                return Ok(Value::Object(map));
            }
            if !self.take(',') {
                return Err(bad("expected separator in dict"));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value> {
        self.take('[');
        let mut list = Vec::new();
        self.need_more()?;
        if self.take(']') {
            return Ok(Value::Array(list));
        }
        loop {
            list.push(self.value(depth + 1)?);
            self.need_more()?;
            if self.take(']') {
                return Ok(Value::Array(list));
            }
            if !self.take(',') {
                return Err(bad("expected separator in list"));
            }
        }
    }

    fn string(&mut self) -> Result<String> {
        let whole = self.rest;
        let mut chars = whole.char_indices();
        let quote = chars.next().map_or('"', |(_, c)| c);
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                _ if c == quote => {
                    self.rest = whole.get(at + 1..).unwrap_or_default();
                    return Ok(text);
                }
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some(c @ ('"' | '\'' | '\\' | '/')) => text.push(c),
                    Some('b') => text.push('\u{8}'),
                    Some('f') => text.push('\u{c}'),
                    Some('n') => text.push('\n'),
                    Some('r') => text.push('\r'),
                    Some('t') => text.push('\t'),
                    Some('u') => {
                        let escape = whole.get(at..).unwrap_or_default();
                        let (c, units) = unicode(escape)?;
                        text.push(c);
                        // One unit has four digits after "\u"; a second one has its own "\u".
                        for _ in 0..4 + (units - 1) * 6 {
                            chars.next();
                        }
                    }
                    Some(_) => return Err(bad("invalid escape sequence in string")),
                    None => break,
                },
                c if c < ' ' => {
                    return Err(bad(format!(
                        "stray '{}'",
                        whole.get(..=at).unwrap_or_default()
                    )));
                }
                c => text.push(c),
            }
        }
        Err(bad(format!("stray '{whole}'")))
    }

    fn number(&mut self) -> Result<Value> {
        let whole = self.rest;
        let mut rest = whole.strip_prefix('-').unwrap_or(whole);
        let digits = |rest: &mut &str| {
            let end = rest.bytes().take_while(u8::is_ascii_digit).count();
            let zero_led = end > 1 && rest.starts_with('0');
            *rest = rest.get(end..).unwrap_or_default();
            (end, zero_led)
        };
        // A malformed number is shown up to the character at which that becomes clear.
        let stray = |rest: &str| {
            let upto = whole.len() - rest.len() + rest.chars().next().map_or(0, char::len_utf8);
            bad(format!("stray '{}'", whole.get(..upto).unwrap_or_default()))
        };
        match digits(&mut rest) {
            (0, _) => return Err(stray(rest)),
            (_, true) => {
                let sign = usize::from(whole.starts_with('-'));
                return Err(stray(whole.get(sign + 1..).unwrap_or_default()));
            }
            _ => {}
        }
        let mut float = false;
        if let Some(fraction) = rest.strip_prefix('.') {
            rest = fraction;
            float = true;
            if digits(&mut rest).0 == 0 {
                return Err(stray(rest));
            }
        }
        if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
            rest = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            float = true;
            if digits(&mut rest).0 == 0 {
                return Err(stray(rest));
            }
        }
        let text = whole.get(..whole.len() - rest.len()).unwrap_or_default();
        self.rest = rest;
        let whole_number = (!float)
            .then(|| {
                let unsigned = text.parse::<u64>().ok().map(Number::from);
                unsigned.or_else(|| text.parse::<i64>().ok().map(Number::from))
            })
            .flatten();
        whole_number
            .or_else(|| text.parse().ok().and_then(Number::from_f64))
            .map(Value::Number)
            .ok_or_else(|| bad(format!("stray '{text}'")))
    }

    fn keyword(&mut self) -> Result<Value> {
        let end = self
            .rest
            .bytes()
            .take_while(|b| b.is_ascii_lowercase())
            .count();
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            "null" => Ok(Value::Null),
            _ => Err(bad(format!("invalid keyword '{word}'"))),
        }
    }
}

/// The character of a `\uXXXX` escape or surrogate pair, and the number of units consumed.
fn unicode(escape: &str) -> Result<(char, usize)> {
    let unit = |text: &str| -> Option<u16> {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
    };
    let first = unit(escape);
    let second = || escape.get(6..).and_then(unit);
    let units = match first {
        Some(high @ 0xd800..=0xdbff) => second().map(|low| vec![high, low]),
        Some(one) => Some(vec![one]),
        None => None,
    };
    units
        .and_then(|units| {
            let c = char::decode_utf16(units.iter().copied()).next()?.ok()?;
            Some((c, units.len()))
        })
        .ok_or_else(|| {
            let shown: String = escape.chars().take(6).collect();
            bad(format!("{shown} is not a valid Unicode character"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_quotes_and_all_values() {
        let text = r#" {'a': "x\"'y", "b": [1, -2, 1.5, true, null, 1e3], 'c': {}, "d": "\u00e9\ud83d\ude00"} "#;
        assert_eq!(
            parse(text).unwrap(),
            json!({"a": "x\"'y", "b": [1, -2, 1.5, true, null, 1000.0], "c": {}, "d": "é😀"})
                .into()
        );
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, message) in [
            (" ", "Expecting a JSON value"),
            ("{\"a\"", "JSON parse error, premature EOI"),
            ("{\"a\" 1}", "JSON parse error, missing : in object pair"),
            ("{\"a\":}", "JSON parse error, expecting value"),
            ("{a:1}", "JSON parse error, invalid keyword 'a'"),
            ("{1:1}", "JSON parse error, key is not a string in object"),
            ("{\"a\":1,}", "JSON parse error, expecting value"),
            (
                "{\"a\":1 \"b\":2}",
                "JSON parse error, expected separator in dict",
            ),
            ("[1 2]", "JSON parse error, expected separator in list"),
            ("{\"a\":\"x", "JSON parse error, stray '\"x'"),
            (
                "{\"a\":\"\\q\"}",
                "JSON parse error, invalid escape sequence in string",
            ),
            (
                "{\"a\":\"\\ud800\"}",
                "JSON parse error, \\ud800 is not a valid Unicode character",
            ),
            ("{\"a\":01}", "JSON parse error, stray '01'"),
            ("{\"a\":-}", "JSON parse error, stray '-}'"),
            ("{\"a\":1.}", "JSON parse error, stray '1.}'"),
            ("{\"a\":+1}", "JSON parse error, stray '+'"),
            ("{\"a\":\"\t\"}", "JSON parse error, stray '\"\\u{9}'"),
            ("{}{}", "Expecting at most one JSON value"),
            ("{'a':1,'a':2}", "JSON parse error, duplicate key"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message, "{text}");
        }
        assert!(parse(&("[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH))).is_ok());
        assert_eq!(
            parse(&"[".repeat(MAX_DEPTH + 1)).unwrap_err().to_string(),
            "JSON nesting depth limit exceeded"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[\\[\\]{}:,'\"\\\\ud8005é0-9.eE+-]{0,60}", any in ".*") {
            let _ = (parse(&text), parse(&any));
        }

        #[test]
        fn strings_survive(text in ".*") {
            let quoted = serde_json::to_string(&text).unwrap();
            proptest::prop_assert_eq!(parse(&quoted).unwrap(), Value::from(text));
        }
    }
}
