//! qcow2 headers that are refused, with the message.

use crate::pair::Pair;

#[test]
fn refused_headers() {
    let pair = Pair::with(&["create -q -f qcow2 clean.qcow2 4M"]);
    let header = std::fs::read(pair.ours().path("clean.qcow2")).expect("the image");
    let fields: &[(&str, usize, &[u8])] = &[
        ("version 4", 4, &[0, 0, 0, 4]),
        ("version 5", 4, &[0, 0, 0, 5]),
        ("cluster bits 8", 20, &[0, 0, 0, 8]),
        ("cluster bits 22", 20, &[0, 0, 0, 22]),
        ("cluster bits 0", 20, &[0, 0, 0, 0]),
        ("an unknown feature", 72, &[0, 0, 0, 0, 0, 0x10, 0, 0]),
        ("two unknown features", 72, &[0x80, 0, 0, 0, 0, 0x10, 0, 0]),
        ("an unknown compression", 104, &[5]),
        ("no L1 table", 36, &[0, 0, 0, 0]),
        ("a huge L1 table", 36, &[0xff, 0xff, 0xff, 0xff]),
        ("a large L1 table", 36, &[0, 0x80, 0, 0]),
        ("an odd L1 offset", 40, &[0, 0, 0, 0, 0, 0, 0, 1]),
        ("an odd refcount table", 48, &[0, 0, 0, 0, 0, 0, 0, 1]),
        ("no refcount table", 56, &[0, 0, 0, 0]),
        ("a huge refcount table", 56, &[0xff, 0xff, 0xff, 0xff]),
        ("many snapshots", 60, &[0xff, 0xff, 0xff, 0xff]),
        ("a wide refcount", 96, &[0, 0, 0, 7]),
        ("a short header", 100, &[0, 0, 0, 72]),
        ("a long header", 100, &[0, 0xff, 0xff, 0xff]),
        ("an odd header", 100, &[0, 0, 0, 113]),
        (
            "a backing name in no place",
            8,
            &[0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0, 0, 0, 8],
        ),
        (
            "a long backing name",
            8,
            &[0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 4, 0],
        ),
        ("a cipher that is not known", 32, &[0, 0, 0, 9]),
        ("1 EiB", 24, &[0x10, 0, 0, 0, 0, 0, 0, 0]),
    ];
    let mut wrong = String::new();
    for (what, offset, bytes) in fields {
        pair.file("bad.qcow2", &header);
        pair.patch("bad.qcow2", *offset as u64, bytes);
        for line in [
            "info -f qcow2 bad.qcow2",
            "map -f qcow2 bad.qcow2",
            "check -f qcow2 bad.qcow2",
        ] {
            // A table that large is one finding to ours, and no reason to give up.
            if *what == "many snapshots" && line.starts_with("check") {
                continue;
            }
            if let Err(text) = pair.differ(&crate::pair::words(line), crate::pair::Loose::DiskSize)
            {
                wrong += &format!("{what}: {text}\n\n");
            }
        }
    }
    for length in [0, 3, 24, 71, 72, 103] {
        pair.file("bad.qcow2", &header[..length]);
        if let Err(text) = pair.differ(
            &["info", "-f", "qcow2", "bad.qcow2"],
            crate::pair::Loose::DiskSize,
        ) {
            wrong += &format!("cut to {length}: {text}\n\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
