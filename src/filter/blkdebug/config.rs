//! Files of rules, in the form of QEMU's configuration files: `[group]` lines and `key = "value"` lines.

use std::collections::BTreeSet;

use bstr::{BStr, ByteSlice};

use super::rules::{Injection, Rules, Transition};
use super::{INJECT_ERROR, SET_STATE};
use crate::error::{Error, Result};
use crate::options::{Options, Values};

/// The rules of a file.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] that says what is wrong.
pub(super) fn parse(text: &[u8]) -> Result<Rules> {
    let mut rules = Rules::default();
    let mut group: Option<(bool, Options)> = None;
    let mut ids = BTreeSet::new();
    for line in text.lines() {
        if line.trim_ascii().is_empty() || line.starts_with(b"#") {
            continue;
        }
        if let Some((name, id)) = group_line(line) {
            finish(&mut rules, group.take())?;
            let injects = match name.as_bytes() {
                b"inject-error" => true,
                b"set-state" => false,
                _ => {
                    return Err(Error::invalid(format!("There is no option group '{name}'")));
                }
            };
            if let Some(id) = id {
                check_id(id)?;
                if !ids.insert((injects, id)) {
                    return Err(Error::invalid(format!("Duplicate ID '{id}' for {name}")));
                }
            }
            group = Some((injects, Options::new()));
            continue;
        }
        let (_, options) = group
            .as_mut()
            .ok_or_else(|| Error::invalid("no group defined"))?;
        let (key, value) = option_line(line);
        options.set(key.to_str_lossy(), value);
    }
    finish(&mut rules, group)?;
    Ok(rules)
}

/// The name of the group that a line begins, and its ID: `[name]` or `[name "id"]`.
fn group_line(line: &[u8]) -> Option<(&BStr, Option<&BStr>)> {
    let inner = line.strip_prefix(b"[")?;
    let (name, rest) = first_word(inner);
    let id = rest.trim_ascii_start().strip_prefix(b"\"").map(up_to_quote);
    if let Some(id) = id.filter(|id| !id.is_empty()) {
        return Some((name.as_bstr(), Some(id.as_bstr())));
    }
    let end = inner.find_byte(b']').unwrap_or(inner.len());
    let name = inner[..end].as_bstr();
    (!name.is_empty()).then_some((name, None))
}

/// The option of a line; what follows it in another form than `= "value"` is nothing.
fn option_line(line: &[u8]) -> (&[u8], &[u8]) {
    let (key, rest) = first_word(line);
    let value = rest.trim_ascii_start().strip_prefix(b"=");
    let value = value.and_then(|value| value.trim_ascii_start().strip_prefix(b"\""));
    (key, value.map_or(&[][..], up_to_quote))
}

fn first_word(text: &[u8]) -> (&[u8], &[u8]) {
    let text = text.trim_ascii_start();
    let end = text.iter().position(u8::is_ascii_whitespace);
    text.split_at(end.unwrap_or(text.len()))
}

fn up_to_quote(text: &[u8]) -> &[u8] {
    &text[..text.find_byte(b'"').unwrap_or(text.len())]
}

fn check_id(id: &BStr) -> Result<()> {
    let may_follow = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    match id.first().is_some_and(u8::is_ascii_alphabetic) && id.iter().all(may_follow) {
        true => Ok(()),
        false => Err(
            Error::invalid("Parameter 'id' expects an identifier").with_hint(
                "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.",
            ),
        ),
    }
}

fn finish(rules: &mut Rules, group: Option<(bool, Options)>) -> Result<()> {
    match group {
        None => {}
        Some((true, options)) => {
            let values = Values::check(&options, INJECT_ERROR)?;
            rules.injections.push(Injection::new(&values)?);
        }
        Some((false, options)) => {
            let values = Values::check(&options, SET_STATE)?;
            rules.transitions.push(Transition::new(&values)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_in_their_order() {
        let rules = parse(
            b"# comment\n\n[inject-error]\n  event = \"read_aio\"\n  once = \"on\"\n\
              [set-state \"x\"]\nevent = \"l2_load\"\nstate = \"1\"\nnew_state = \"2\"\n\
              [inject-error]\nevent = \"none\"\nerrno = \"28\"",
        )
        .unwrap();
        assert_eq!((rules.injections.len(), rules.transitions.len()), (2, 1));
        assert_eq!(parse(b"").unwrap(), Rules::default());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, refusal) in [
            ("event = \"x\"", "no group defined"),
            ("[bogus]", "There is no option group 'bogus'"),
            ("[inject-error]\nbogus = \"1\"", "Invalid parameter 'bogus'"),
            (
                "[inject-error]\nevent = read_aio",
                "invalid parameter value: ",
            ),
            (
                "[inject-error]\nevent = \"nope\"",
                "invalid parameter value: nope",
            ),
            (
                "[inject-error]\nerrno = \"5\"",
                "Missing event name for rule",
            ),
            ("[set-state]\n", "Missing event name for rule"),
            ("[inject-error]\nhello", "Invalid parameter 'hello'"),
            ("[]", "no group defined"),
            (" [inject-error]", "no group defined"),
            (
                "[inject-error \"a\"]\nevent = \"none\"\n[inject-error \"a\"]",
                "Duplicate ID 'a' for inject-error",
            ),
            (
                "[inject-error]\nevent = \"none\"\nerrno = \"x\"",
                "Parameter 'errno' expects a number",
            ),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), refusal);
        }
    }
}
