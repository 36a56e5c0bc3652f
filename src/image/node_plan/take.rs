//! Taking options out of a tree, and merging trees.

use bstr::{BString, ByteSlice};

use crate::error::{Error, Result};
use crate::location::tree::leaf_text;
use crate::options::{OptionKind, OptionSpec, OptionValue, parse_value};
use crate::value::{Map, Value};

/// Takes the value at a dotted name.
pub(super) fn take_at(tree: &mut Map<String, Value>, name: &str) -> Option<Value> {
    let Some((list, rest)) = name.split_once('.') else {
        return tree.shift_remove(name);
    };
    let inner = tree.get_mut(list)?.as_object_mut()?;
    let value = take_at(inner, rest);
    if inner.is_empty() {
        tree.shift_remove(list);
    }
    value
}

/// Merges the options of one tree into another, which must not have any of them yet.
pub(super) fn merge(tree: &mut Map<String, Value>, more: Map<String, Value>) -> Result<()> {
    for (key, value) in more {
        match (tree.get_mut(&key), value) {
            (None, value) => drop(tree.insert(key, value)),
            (Some(Value::Object(inner)), Value::Object(more)) => merge(inner, more)?,
            _ => return Err(given_twice(&key)),
        }
    }
    Ok(())
}

pub(super) fn given_twice(key: &str) -> Error {
    Error::invalid(format!(
        "The option '{key}' is given by the location and beside it"
    ))
}

pub(super) fn take_text(tree: &mut Map<String, Value>, key: &str) -> Option<BString> {
    let text = tree.get(key).and_then(leaf_text)?;
    tree.shift_remove(key);
    Some(text)
}

/// As [`take_text`], for options whose values are words: invalid UTF-8 cannot match any of them.
pub(super) fn take_word(tree: &mut Map<String, Value>, key: &str) -> Option<String> {
    Some(take_text(tree, key)?.to_str_lossy().into_owned())
}

pub(super) fn take_bool(
    tree: &mut Map<String, Value>,
    key: &str,
    name: &'static str,
) -> Result<Option<bool>> {
    let Some(text) = take_text(tree, key) else {
        return Ok(None);
    };
    let spec = OptionSpec {
        name,
        kind: OptionKind::Bool,
        help: "",
        default: None,
        allowed: &[],
    };
    match parse_value(&spec, text.as_bstr())? {
        OptionValue::Bool(b) => Ok(Some(b)),
        _ => Ok(None),
    }
}
