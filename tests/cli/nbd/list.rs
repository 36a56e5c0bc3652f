//! Lists of what servers export.

use super::server::{Server, nbdkit_is_missing};
use super::{disk, ran, run};
use crate::common::{Dir, run_in};
use crate::pair::words;

/// What QEMU's tool lists.
fn theirs(dir: &Dir, socket: &str) -> String {
    let ran = run_in(dir.root(), "qemu-nbd", &["-L", "-k", socket]);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.out
}

#[test]
fn lists_of_other_servers_are_those_of_the_peer() {
    let dir = Dir::new();
    dir.qemu_img_ok(&words("create -q -f qcow2 a.qcow2 8M"));
    disk(&dir, "a.raw");
    let mut servers = vec![Server::qemu_nbd(
        &dir,
        "s",
        &[
            "-f", "qcow2", "-x", "e", "-D", "a disk", "-A", "-e", "8", "a.qcow2",
        ],
    )];
    if !nbdkit_is_missing() {
        let several = [
            "-r",
            "eval",
            "list_exports=echo INTERLEAVED; echo one; echo first; echo two; echo second",
            "get_size=echo 1M",
            "pread=exit 1",
            "block_size=echo 512 4096 1M",
        ];
        for (name, args) in [
            ("k", &["memory", "1M"][..]),
            ("o", &["-o", "memory", "1M"]),
            ("v", &several),
        ] {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            servers.push(Server::nbdkit(&dir, name, &args));
        }
    }
    if !super::server::is_missing("nbd-server") {
        servers.push(Server::nbd_server(&dir, "a.raw"));
    }
    for server in &servers {
        let expected = theirs(&dir, &server.socket());
        let line = format!("info --list nbd+unix://?socket={}", server.socket());
        assert_eq!(ran(&line, &dir).out, expected);
        let options = format!("driver=nbd,path={},export=any", server.socket());
        let line = format!("info --list --image-opts {options}");
        assert_eq!(ran(&line, &dir).out, expected);
    }
}

#[test]
fn a_list_as_json_has_an_object_for_each_export() {
    let dir = Dir::new();
    dir.qemu_img_ok(&words("create -q -f qcow2 a.qcow2 8M"));
    let args = [
        "-f", "qcow2", "-x", "e", "-D", "d", "-r", "-e", "8", "a.qcow2",
    ];
    let server = Server::qemu_nbd(&dir, "s", &args);
    let line = format!("info --list --output=json {}", server.url(""));
    let list: serde_json::Value = serde_json::from_str(&ran(&line, &dir).out).expect("JSON");
    let export = &list[0];
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    assert_eq!(export["name"], "e");
    assert_eq!(export["description"], "d");
    assert_eq!(export["size"], 8 << 20);
    assert_eq!(export["read-only"], true);
    assert_eq!(export["features"][0], "readonly");
    assert_eq!(export["min-block"], 1);
    assert_eq!(export["transaction-bits"], 64);
    assert_eq!(export["contexts"], serde_json::json!(["base:allocation"]));
}

#[test]
fn what_has_no_list_is_refused_in_one_line() {
    let dir = Dir::new();
    dir.qemu_img_ok(&words("create -q -f raw a.raw 1M"));
    for (line, says) in [
        (
            "info --list a.raw",
            "Could not list the exports of 'a.raw': Protocol 'file' has no lists of exports",
        ),
        (
            "info --list nbd+unix://?socket=none.sock",
            "Failed to connect to 'none.sock': No such file or directory",
        ),
        (
            "info --list -f raw nbd://127.0.0.1:1",
            "--list and options about an image are mutually exclusive",
        ),
    ] {
        let ran = run(line, &dir);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{line}: {ran:?}");
        assert!(ran.err.contains(says), "{line}: {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{line}: {ran:?}");
    }
}
