//! Trees of options: flat `a.b.c` keys and nested objects become one nested form.

use bstr::BString;

use crate::error::{Error, Result};
use crate::location::json;
use crate::options::Options;
use crate::value::{Map, Value};

/// Nests dotted keys and turns lists into objects with the keys `0`, `1`…; a nested value takes precedence over the
/// same key written with dots.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] if a key has both a value and subkeys.
pub(super) fn nest(flat: Map<String, Value>) -> Result<Map<String, Value>> {
    let mut tree = Map::new();
    let (nested, plain): (Vec<_>, Vec<_>) = flat
        .into_iter()
        .partition(|(_, value)| value.is_object() || value.is_array());
    for (key, value) in plain.into_iter().chain(nested) {
        let mut path: Vec<String> = key.split('.').map(str::to_owned).collect();
        insert(&mut tree, &mut path, value)?;
    }
    Ok(tree)
}

/// The tree for options with dotted keys.
///
/// # Errors
/// As [`nest`].
pub(crate) fn of_options(options: &Options) -> Result<Map<String, Value>> {
    let values = options.iter();
    nest(
        values
            .map(|(key, value)| (key.to_owned(), Value::String(value.to_owned())))
            .collect(),
    )
}

/// Inserts `value` below `path`, merging objects.
fn insert(tree: &mut Map<String, Value>, path: &mut Vec<String>, value: Value) -> Result<()> {
    if path.len() > json::MAX_DEPTH {
        return Err(json::too_deep());
    }
    let children: Vec<(String, Value)> = match value {
        Value::Object(map) if !map.is_empty() => map.into_iter().collect(),
        Value::Array(list) if !list.is_empty() => list
            .into_iter()
            .enumerate()
            .map(|(i, value)| (i.to_string(), value))
            .collect(),
        Value::Array(_) => return insert_leaf(tree, path, Value::Object(Map::new())),
        leaf => return insert_leaf(tree, path, leaf),
    };
    for (key, value) in children {
        let depth = path.len();
        path.extend(key.split('.').map(str::to_owned));
        insert(tree, path, value)?;
        path.truncate(depth);
    }
    Ok(())
}

fn insert_leaf(mut tree: &mut Map<String, Value>, path: &[String], leaf: Value) -> Result<()> {
    let Some((last, parents)) = path.split_last() else {
        return Ok(());
    };
    for key in parents {
        let child = tree
            .entry(key.clone())
            .or_insert_with(|| Value::Object(Map::new()));
        tree = child.as_object_mut().ok_or_else(mixed)?;
    }
    if leaf.as_object().is_some_and(Map::is_empty) {
        tree.entry(last.clone()).or_insert(leaf);
        return Ok(());
    }
    match tree.get(last) {
        Some(Value::Object(map)) if !map.is_empty() => Err(mixed()),
        _ => {
            tree.insert(last.clone(), leaf);
            Ok(())
        }
    }
}

fn mixed() -> Error {
    Error::invalid(
        "Cannot reference an existing block device with additional options or a new filename",
    )
}

/// The first option of a tree, its keys joined by dots: used to name one that was not consumed.
pub(crate) fn first_key(tree: &Map<String, Value>) -> Option<String> {
    let (key, value) = tree.iter().next()?;
    match value.as_object().and_then(first_key) {
        Some(rest) => Some(format!("{key}.{rest}")),
        None => Some(key.clone()),
    }
}

/// A leaf as the text that an option parser accepts; None for null.
pub(crate) fn leaf_text(value: &Value) -> Option<BString> {
    match value {
        Value::Null | Value::Object(_) | Value::Array(_) => None,
        Value::Bool(true) => Some("on".into()),
        Value::Bool(false) => Some("off".into()),
        Value::String(text) => Some(text.clone()),
        Value::Number(n) => Some(match n.as_f64() {
            // 1e3 is a whole number too.
            Some(f) if n.is_f64() && f.fract() == 0.0 && f.abs() < 9e15 => format!("{f:.0}").into(),
            _ => n.to_string().into(),
        }),
    }
}

/// A tree as options with dotted keys. Null means that the option is not given.
pub(crate) fn flatten(tree: &Map<String, Value>) -> Options {
    let mut options = Options::new();
    for (key, value) in flatten_values(tree) {
        if value != Value::Null {
            options.set(key, leaf_text(&value).unwrap_or_default());
        }
    }
    options
}

/// A tree with dotted keys in place of nested objects.
pub(crate) fn flatten_values(tree: &Map<String, Value>) -> Map<String, Value> {
    fn walk(prefix: &str, tree: &Map<String, Value>, flat: &mut Map<String, Value>) {
        for (key, value) in tree {
            let name = format!("{prefix}{key}");
            match value {
                Value::Object(inner) if first_key(inner).is_some() => {
                    walk(&format!("{name}."), inner, flat);
                }
                leaf => {
                    flat.insert(name, leaf.clone());
                }
            }
        }
    }
    let mut flat = Map::new();
    walk("", tree, &mut flat);
    flat
}
