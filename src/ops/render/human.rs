//! QEMU's human forms: the tree of "Format specific information" and the table of snapshots.

use std::io::Write;

use bstr::{BStr, BString, ByteSlice};

use crate::format::SnapshotInfo;
use crate::printable::printable_name;
use crate::size::human_size;
use crate::sys::time::local_time;
use crate::value::Value;

/// The members of an object, one line per scalar, nested by four blanks from `depth` on. Dashes of
/// keys become blanks.
pub fn tree(value: &Value, depth: usize) -> BString {
    let mut out = BString::default();
    write_members(&mut out, value, depth);
    out
}

fn write_members(out: &mut BString, value: &Value, depth: usize) {
    match value {
        Value::Object(map) => {
            for (key, item) in map {
                write_item(out, &key.replace('-', " "), item, depth);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                write_item(out, &format!("[{i}]"), item, depth);
            }
        }
        _ => {}
    }
}

fn write_item(out: &mut BString, key: &str, item: &Value, depth: usize) {
    for _ in 0..depth {
        out.extend_from_slice(b"    ");
    }
    out.extend_from_slice(key.as_bytes());
    out.push(b':');
    match item {
        Value::Object(_) | Value::Array(_) => {
            out.push(b'\n');
            write_members(out, item, depth + 1);
        }
        Value::String(text) => {
            out.push(b' ');
            out.extend_from_slice(&printable_name(text));
            out.push(b'\n');
        }
        scalar => {
            // Writing to memory cannot fail.
            let _ = writeln!(&mut **out, " {scalar}");
        }
    }
}

/// The table of internal snapshots with its heading, as `snapshot -l` and `info` print it.
pub fn snapshots(list: &[SnapshotInfo]) -> BString {
    let mut out = BString::default();
    write_snapshots(&mut out, "", list);
    out
}

/// Appends [`snapshots`], each line behind `indent`.
pub fn write_snapshots(out: &mut BString, indent: &str, list: &[SnapshotInfo]) {
    let heading = format!("{indent}Snapshot list:\n{indent}");
    out.extend_from_slice(heading.as_bytes());
    row(
        out,
        [BStr::new("ID"), BStr::new("TAG")],
        ["VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT"],
    );
    for snapshot in list {
        let icount = snapshot
            .icount
            .map_or_else(|| "--".to_owned(), |n| n.to_string());
        out.extend_from_slice(indent.as_bytes());
        row(
            out,
            [
                printable_name(&snapshot.id).as_bstr(),
                printable_name(&snapshot.name).as_bstr(),
            ],
            [
                &human_size(snapshot.vm_state_size),
                &date(snapshot.date_sec),
                &clock(snapshot.vm_clock_nsec),
                &icount,
            ],
        );
    }
}

fn row(out: &mut BString, [id, tag]: [&BStr; 2], [vm_size, date, clock, icount]: [&str; 4]) {
    // Columns count bytes, not characters, as printf does.
    for (name, width) in [(id, 7usize), (tag, 16)] {
        out.extend_from_slice(name);
        let pad = width.saturating_sub(name.len()) + 1;
        out.extend(std::iter::repeat_n(b' ', pad));
    }
    let _ = writeln!(
        &mut **out,
        "{vm_size:>8} {date:>19} {clock:>15} {icount:>10}"
    );
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
            tree(&value.into(), 1),
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
        let text = snapshots(&list);
        assert!(text.starts_with(
            b"Snapshot list:\nID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT\n\
             1       a name beyond its column      0 B "
        ));
        assert!(text.ends_with(b"  0003:25:07.089         42\n"), "{text}");
    }
}
