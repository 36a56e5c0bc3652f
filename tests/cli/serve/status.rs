//! What clients hear of runs.

use super::{Served, done, images, libnbd};
use crate::common::Dir;
use crate::pair::ours;

#[test]
fn maps_over_the_network_are_those_of_qemus_server() {
    let dir = Dir::new();
    for (format, file) in images(&dir) {
        let maps = [true, false].map(|ours| {
            let args = ["-r", "-f", format, file];
            let served = match ours {
                true => Served::ours(&dir, &args),
                false => Served::theirs(&dir, &args),
            };
            let map = dir.qemu_img_ok(&["map", "-f", "raw", "--output=json", &served.uri("")]);
            served.end();
            map
        });
        assert_eq!(maps[0], maps[1], "{file}");
    }
}

#[test]
fn a_map_over_the_network_has_the_zeroes_of_the_image() {
    let dir = Dir::new();
    for (format, file) in images(&dir) {
        let served = Served::ours(&dir, &["-r", "-f", format, file]);
        let far = dir.qemu_img_ok(&["map", "-f", "raw", "--output=json", &served.uri("")]);
        served.end();
        let near = ours(&["map", "-f", format, "--output=json", file], dir.root());
        assert_eq!(near.code, 0, "{near:?}");
        let zeroes = |map: &str| {
            let runs: Vec<serde_json::Value> = serde_json::from_str(map).expect("JSON");
            let mut merged: Vec<(u64, u64, bool)> = Vec::new();
            for run in runs {
                let number = |key: &str| run[key].as_u64().expect("a number");
                let zero = run["zero"].as_bool().expect("a flag");
                match merged.last_mut().filter(|last| last.2 == zero) {
                    Some(last) => last.1 += number("length"),
                    None => merged.push((number("start"), number("length"), zero)),
                }
            }
            merged
        };
        assert_eq!(zeroes(&far), zeroes(&near.out), "{file}");
    }
}

#[test]
fn contexts_and_their_runs_are_those_of_qemus_server() {
    if !libnbd() {
        return;
    }
    let dir = Dir::new();
    images(&dir);
    for bitmap in ["b0", "b1"] {
        dir.qemu_img_ok(&["bitmap", "--add", "-f", "qcow2", "f.qcow2", bitmap]);
        dir.qemu_io("qcow2", "f.qcow2", &["write 1M 4k", "write 23M 1M"]);
    }
    dir.qemu_img_ok(&["bitmap", "--disable", "-f", "qcow2", "f.qcow2", "b1"]);
    let over = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        "f.qcow2",
        "top.qcow2",
        "30M",
    ];
    dir.qemu_img_ok(&over);
    dir.qemu_io("qcow2", "top.qcow2", &["write 2M 64k"]);
    for file in ["f.qcow2", "top.qcow2"] {
        let answers = [true, false].map(|ours| {
            let args = [
                "-r",
                "-A",
                "-B",
                "b0",
                "-B",
                "b1",
                "-x",
                "disk",
                "-D",
                "some words",
                "-f",
                "qcow2",
                file,
            ];
            let served = match ours {
                true => Served::ours(&dir, &args),
                false => Served::theirs(&dir, &args),
            };
            let uri = served.uri("disk");
            let mut answers = Vec::new();
            for context in [
                "base:allocation",
                "qemu:allocation-depth",
                "qemu:dirty-bitmap:b0",
                "qemu:dirty-bitmap:b1",
            ] {
                let map = format!("--map={context}");
                answers.push(done(&dir, "nbdinfo", &[&map, &uri]));
            }
            let info = done(&dir, "nbdinfo", &["--json", &uri]);
            let info = info.replace("theirs.sock", "ours.sock");
            // The contexts come in any order.
            let mut lines: Vec<_> = info.lines().map(|line| line.trim_matches(',')).collect();
            lines.sort_unstable();
            answers.push(lines.join("\n"));
            served.end();
            answers
        });
        assert_eq!(answers[0], answers[1], "{file}");
    }
}
