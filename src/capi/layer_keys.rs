//! What an info report says about a layer, by keys with dots: everything that its JSON has.

use bstr::ByteSlice;

use crate::format::SnapshotInfo;
use crate::ops::info::LayerInfo;
use crate::value::Value;

use super::report_fields::{Fields, snapshot_fields};

/// The members of a layer whose keys have one part.
pub(super) fn layer_fields(layer: &LayerInfo) -> Vec<(&'static str, Value)> {
    Fields::new()
        .add("filename", layer.filename.as_bstr())
        .add("format", layer.format.as_str())
        .add("virtual-size", layer.virtual_size)
        .maybe("actual-size", layer.actual_size)
        .maybe("cluster-size", layer.cluster_size)
        .add("encrypted", layer.encrypted)
        .maybe("dirty-flag", layer.dirty)
        .maybe("backing-filename", layer.backing_filename.clone())
        .maybe("full-backing-filename", layer.full_backing_filename.clone())
        .maybe("backing-filename-format", layer.backing_format.clone())
        .add("snapshot-count", layer.snapshots.len() as u64)
        .add("bitmap-count", layer.bitmaps)
        .add("child-count", layer.children.len() as u64)
        .add("content-count", layer.contents.len() as u64)
        .into_inner()
}

/// The value of a key, whose parts are separated by dots.
pub(super) fn find(layer: &LayerInfo, key: &str) -> Option<Value> {
    let mut layer = layer;
    let mut key = key;
    // A child's report has the structure of its parent's.
    while let Some((child, rest)) = numbered(key, "children") {
        let (name, info) = layer.children.get(child)?;
        match rest.strip_prefix("info.") {
            Some(below) => (layer, key) = (info, below),
            None if rest == "name" => return Some(name.as_str().into()),
            None => return None,
        }
    }
    if let Some((at, rest)) = numbered(key, "snapshots") {
        return of_snapshot(layer.snapshots.get(at)?, rest);
    }
    if let Some((at, rest)) = numbered(key, "contents") {
        return walk(&layer.contents.get(at)?.value(), rest).cloned();
    }
    if let Some(rest) = key.strip_prefix("format-specific.") {
        let specific = layer.specific.as_ref()?;
        return match rest.strip_prefix("data.") {
            Some(path) => walk(specific, path).cloned(),
            None if rest == "type" => Some(layer.specific_type?.into()),
            None => None,
        };
    }
    let mut fields = layer_fields(layer).into_iter();
    fields
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value)
}

fn of_snapshot(snapshot: &SnapshotInfo, key: &str) -> Option<Value> {
    let mut fields = snapshot_fields(snapshot).into_iter();
    fields
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value)
}

/// The index and the rest of the key of an item of `list`.
fn numbered<'a>(key: &'a str, list: &str) -> Option<(usize, &'a str)> {
    let (number, rest) = key.strip_prefix(list)?.strip_prefix('.')?.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// The value at a path of keys and indices.
fn walk<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, part| match value {
        Value::Object(map) => map.get(part),
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}
