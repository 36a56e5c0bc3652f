//! Exports of what is itself an export: what its server said of holes a while ago is no answer to a client.

use super::Served;
use crate::common::Dir;

/// How the export that lies behind is served: arguments with `URI` in its place.
const KINDS: &[&[&str]] = &[
    &["-f", "raw", "URI"],
    &["-f", "qcow2", "over.qcow2"],
    &[
        "--image-opts",
        "driver=raw,file.driver=raw,file.file.driver=nbd,file.file.server.type=unix,file.file.server.path=SOCKET",
    ],
    &[
        "--image-opts",
        "driver=throttle,throttle-group=g,file.driver=nbd,file.server.type=unix,file.server.path=SOCKET",
        "--object",
        "throttle-group,id=g",
    ],
];

/// Whether the peer is told of zeroes at that offset of a raw disk.
pub(super) fn is_hole_at(dir: &Dir, disk: &str, offset: u64) -> bool {
    let map = dir.qemu_img_ok(&["map", "--output=json", "-f", "raw", disk]);
    let map: serde_json::Value = serde_json::from_str(&map).expect("JSON");
    let runs = map.as_array().expect("a list");
    let run = runs
        .iter()
        .rfind(|run| run["start"].as_u64() <= Some(offset));
    run.expect("a run")["zero"].as_bool().expect("a truth")
}

#[test]
fn what_others_write_to_an_export_behind_is_seen_at_once() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "behind.raw", "16M"]);
    let behind = Served::theirs(&dir, &["-f", "raw", "behind.raw"]);
    let uri = behind.uri("");
    let over = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        &uri,
        "-F",
        "raw",
        "over.qcow2",
    ];
    dir.qemu_img_ok(&over);
    let socket = behind.socket.display().to_string();
    for (number, kind) in (1_u64..).zip(KINDS) {
        let args: Vec<String> = kind
            .iter()
            .map(|arg| arg.replace("URI", &uri).replace("SOCKET", &socket))
            .collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let served = Served::ours(&dir, &[&["-w"], &args[..]].concat());
        let offset = number << 20;
        let read = |pattern: u64, len: &str| {
            let line = format!("read -P {pattern} {offset} {len}");
            dir.qemu_io("raw", &served.uri(""), &[&line]);
        };
        // What is asked of holes is an answer for all of the export.
        read(0, "64k");
        let is_hole = || is_hole_at(&dir, &served.uri(""), offset);
        assert!(is_hole(), "{args:?}");
        let write = format!("write -P {number} {offset} 256k");
        dir.qemu_io("raw", &uri, &[&write, "flush"]);
        assert!(!is_hole(), "{args:?}");
        for len in ["64k", "256k", "16k"] {
            read(number, len);
        }
        served.end();
    }
}
