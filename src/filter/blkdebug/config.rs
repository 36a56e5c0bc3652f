//! Files of rules, in the form of QEMU's configuration files: `[group]` lines and `key = "value"` lines.

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
    for line in text.lines() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if let Some(name) = group_name(line) {
            finish(&mut rules, group.take())?;
            let injects = match name.as_bytes() {
                b"inject-error" => true,
                b"set-state" => false,
                _ => {
                    return Err(Error::invalid(format!("There is no option group '{name}'")));
                }
            };
            group = Some((injects, Options::new()));
            continue;
        }
        let (key, value) = line
            .split_once_str("=")
            .ok_or_else(|| Error::invalid(format!("'{}' is no rule", BStr::new(line))))?;
        let (_, options) = group
            .as_mut()
            .ok_or_else(|| Error::invalid("no group defined"))?;
        // What does not stand in quotes is nothing.
        let value = value.trim_ascii().strip_prefix(b"\"");
        let value = value.and_then(|value| value.strip_suffix(b"\""));
        options.set(key.trim_ascii().to_str_lossy(), value.unwrap_or_default());
    }
    finish(&mut rules, group)?;
    Ok(rules)
}

/// The name of the group that a line begins: `[name]` or `[name "id"]`.
fn group_name(line: &[u8]) -> Option<&BStr> {
    let inner = line.strip_prefix(b"[")?.strip_suffix(b"]")?;
    let name = inner.split_once_str(" ").map_or(inner, |(name, _)| name);
    Some(name.as_bstr())
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
              [inject-error]\nevent=\"none\"\nerrno = \"28\"",
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
            ("[inject-error]\nhello", "'hello' is no rule"),
            (
                "[inject-error]\nevent = \"none\"\nerrno = \"x\"",
                "Parameter 'errno' expects a number",
            ),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), refusal);
        }
    }
}
