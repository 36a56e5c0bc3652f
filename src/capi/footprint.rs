//! The memory that the whole text of a report takes: asked for before it is made, so that a lack of it is an
//! error and not the end of the process.

use crate::capi::content::Content;
use crate::format::SnapshotInfo;
use crate::ops::info::LayerInfo;
use crate::storage::exports::ExportInfo;
use crate::value::Value;

/// Bytes that one byte of a name takes in a buffer that grows: as it is, and at most where it is escaped.
const PLAIN: u64 = 2;
const ESCAPED: u64 = 12;
/// The same for an entry of a list, its names apart.
const ENTRY: u64 = 2 << 10;
/// For an entry of numbers.
const NUMBERS: u64 = 512;
/// For a value within an entry.
const SCALAR: u64 = 96;

/// Bytes that the text or the JSON of a report takes, beside the report; at most, as far as it follows an
/// image.
pub(super) fn shown(content: &Content) -> u64 {
    match content {
        Content::Info(report) => report.layers.iter().map(of_layer).sum(),
        Content::Snapshots(report) => of_snapshots(&report.snapshots),
        Content::Bitmaps(report) => {
            let one = |name: &[u8]| ENTRY + of_bytes(name);
            report.bitmaps.iter().map(|bitmap| one(&bitmap.name)).sum()
        }
        Content::Inspect(report) => {
            let one = |name: &[u8]| ENTRY + of_bytes(name);
            report.references.iter().map(|file| one(&file.name)).sum()
        }
        Content::Exports(report) => report.exports.iter().map(of_export).sum(),
        Content::Map(report) => NUMBERS * report.entries.len() as u64,
        Content::Dirty(report) => NUMBERS * report.ranges.len() as u64,
        Content::Check(_)
        | Content::Compare(_)
        | Content::Convert(_)
        | Content::Measure(_)
        | Content::Bench(_)
        | Content::Create { .. }
        | Content::Done { .. } => 0,
    }
}

fn of_export(export: &ExportInfo) -> u64 {
    let contexts = export.contexts.iter().map(|name| SCALAR + of_bytes(name));
    ENTRY + of_bytes(&export.name) + of_bytes(&export.description) + contexts.sum::<u64>()
}

fn of_bytes(bytes: &[u8]) -> u64 {
    let one = |byte: &u8| match byte {
        b' '..=b'~' => PLAIN,
        _ => ESCAPED,
    };
    bytes.iter().map(one).sum()
}

fn of_layer(layer: &LayerInfo) -> u64 {
    let children = layer.children.iter().map(|(_, child)| of_layer(child));
    let contents = layer.contents.iter();
    let contents = contents.map(|one| ENTRY + of_bytes(&one.name) + of_bytes(&one.filename));
    of_snapshots(&layer.snapshots)
        + layer.specific.as_ref().map_or(0, of_value)
        + children.sum::<u64>()
        + contents.sum::<u64>()
}

fn of_snapshots(snapshots: &[SnapshotInfo]) -> u64 {
    let one = |one: &SnapshotInfo| ENTRY + of_bytes(&one.id) + of_bytes(&one.name);
    snapshots.iter().map(one).sum()
}

fn of_value(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => SCALAR,
        Value::String(text) => SCALAR + of_bytes(text),
        Value::Array(items) => SCALAR + items.iter().map(of_value).sum::<u64>(),
        Value::Object(map) => NUMBERS + map.values().map(of_value).sum::<u64>(),
    }
}
