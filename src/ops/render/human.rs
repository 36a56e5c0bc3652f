//! QEMU's human forms: the tree of "Format specific information" and the table of snapshots.

use std::io::{self, Write};

use bstr::BString;

use crate::error::Result;
use crate::format::SnapshotInfo;
use crate::memory;
use crate::printable::write_name;
use crate::size::human_size;
use crate::sys::time::local_time;
use crate::value::Value;

/// The members of an object, one line per scalar, nested by four spaces per level from `depth` on. Dashes in keys
/// become spaces.
///
/// # Errors
/// If the writer fails, as in all functions here.
pub fn write_tree<W: Write + ?Sized>(out: &mut W, value: &Value, depth: usize) -> io::Result<()> {
    match value {
        Value::Object(map) => {
            for (key, item) in map {
                write_item(out, &key.replace('-', " "), item, depth)?;
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                write_item(out, &format!("[{i}]"), item, depth)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether [`write_tree`] has anything to write.
pub fn has_members(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

fn write_item<W: Write + ?Sized>(
    out: &mut W,
    key: &str,
    item: &Value,
    depth: usize,
) -> io::Result<()> {
    for _ in 0..depth {
        out.write_all(b"    ")?;
    }
    out.write_all(key.as_bytes())?;
    out.write_all(b":")?;
    match item {
        Value::Object(_) | Value::Array(_) => {
            out.write_all(b"\n")?;
            write_tree(out, item, depth + 1)
        }
        Value::String(text) => {
            out.write_all(b" ")?;
            write_name(out, text)?;
            out.write_all(b"\n")
        }
        scalar => writeln!(out, " {scalar}"),
    }
}

/// The text that `write` writes.
///
/// # Errors
/// If there is no memory for it.
pub fn text(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<BString> {
    memory::bytes(write).map(BString::from)
}

/// The table of internal snapshots with its heading, as `snapshot -l` and `info` print it; each line is prefixed with
/// `indent`.
///
/// # Errors
/// As [`write_tree`].
pub fn write_snapshots<W: Write + ?Sized>(
    out: &mut W,
    indent: &str,
    list: &[SnapshotInfo],
) -> io::Result<()> {
    write!(out, "{indent}Snapshot list:\n{indent}")?;
    row(
        out,
        [b"ID", b"TAG"],
        ["VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT"],
    )?;
    for snapshot in list {
        let icount = snapshot
            .icount
            .map_or_else(|| "--".to_owned(), |n| n.to_string());
        out.write_all(indent.as_bytes())?;
        row(
            out,
            [&snapshot.id, &snapshot.name],
            [
                &human_size(snapshot.vm_state_size),
                &date(snapshot.date_sec),
                &clock(snapshot.vm_clock_nsec),
                &icount,
            ],
        )?;
    }
    Ok(())
}

fn row<W: Write + ?Sized>(
    out: &mut W,
    [id, tag]: [&[u8]; 2],
    [vm_size, date, clock, icount]: [&str; 4],
) -> io::Result<()> {
    // Columns count bytes, not characters, as printf does.
    for (name, width) in [(id, 7usize), (tag, 16)] {
        let pad = width.saturating_sub(write_name(out, name)?) + 1;
        write!(out, "{:pad$}", "")?;
    }
    writeln!(out, "{vm_size:>8} {date:>19} {clock:>15} {icount:>10}")
}

fn date(seconds: u64) -> String {
    local_time(seconds).map_or_else(String::new, |t| {
        format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
            t.year, t.month, t.day, t.hour, t.minute, t.second
        )
    })
}

fn clock(nanoseconds: u64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    format!(
        "{:04}:{:02}:{:02}.{:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        nanoseconds / 1_000_000 % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_tree_has_lists_by_index_and_blanks_for_dashes() {
        let value = json!({
            "compat": "1.1",
            "lazy-refcounts": false,
            "bitmaps": [{"flags": ["auto"], "granularity": 65536}, {"flags": []}],
            "format": "",
        });
        assert_eq!(
            text(|out| write_tree(out, &value.into(), 1)).unwrap(),
            "    compat: 1.1\n    lazy refcounts: false\n    bitmaps:\n        [0]:\n            \
             flags:\n                [0]: auto\n            granularity: 65536\n        [1]:\n            \
             flags:\n    format: \n"
        );
    }

    #[test]
    fn a_long_tag_pushes_the_rest_of_the_row() {
        let list = [SnapshotInfo {
            id: "1".into(),
            name: "a name beyond its column".into(),
            vm_clock_nsec: 12_307_089_000_000,
            icount: Some(42),
            ..SnapshotInfo::default()
        }];
        let text = text(|out| write_snapshots(out, "", &list)).unwrap();
        assert!(text.starts_with(
            b"Snapshot list:\nID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT\n\
             1       a name beyond its column      0 B "
        ));
        assert!(text.ends_with(b"  0003:25:07.089         42\n"), "{text}");
    }
}
