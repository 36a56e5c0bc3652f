//! Servers of others that want TLS.

use super::server::{Server, nbdkit_is_missing};
use super::{disk, same};
use crate::common::Dir;
use crate::pair::{ours, words};
use crate::tls::certificates;

/// The exit code of both tools, which must be the same.
fn code(line: &str, dir: &Dir) -> i32 {
    let theirs = dir.qemu_img(&words(line));
    let ours = ours(&words(line), dir.root());
    assert_eq!(ours.code, theirs.code, "{line}: {ours:?} {theirs:?}");
    ours.code
}

#[test]
fn servers_by_certificate_are_who_they_must_be() {
    let Some(made) = certificates() else {
        return;
    };
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let files = made.path();
    std::fs::copy(files.join("ca.pem"), files.join("ca-cert.pem")).expect("a copy");
    let other = dir.path("other");
    std::fs::create_dir(&other).expect("a directory");
    std::fs::copy(files.join("other.pem"), other.join("ca-cert.pem")).expect("a copy");
    let own = format!("tls-creds-x509,dir={}", files.display());
    let object = format!("{own},id=t,endpoint=server");
    let args = [
        "-f",
        "raw",
        "-e",
        "8",
        "--object",
        &object,
        "--tls-creds",
        "t",
        "a.raw",
    ];
    let server = Server::qemu_nbd(&dir, "s", &args);
    let image = format!("driver=raw,file.driver=nbd,file.path={}", server.socket());
    let named = format!("--object {own},id=c {image},file.tls-creds=c,file.tls-hostname=localhost");
    for command in [
        "info --image-opts",
        "map --output=json --image-opts",
        "compare --image-opts",
    ] {
        let more = match command.starts_with("compare") {
            true => " driver=raw,file.filename=a.raw",
            false => "",
        };
        let line = format!("{command} {named}{more}");
        assert_eq!(same(&line, &dir).code, 0, "{line}");
    }
    let plain = format!("info {}", server.url(""));
    assert_eq!(same(&plain, &dir).code, 1);
    let foreign = format!("tls-creds-x509,dir={}", other.display());
    for line in [
        format!("info --image-opts {image}"),
        format!("info --object {own},id=c --image-opts {image},file.tls-creds=c"),
        format!(
            "info --object {own},id=c --image-opts {image},file.tls-creds=c,file.tls-hostname=b"
        ),
        format!(
            "info --object {foreign},id=c --image-opts {image},file.tls-creds=c,file.tls-hostname=localhost"
        ),
        format!("info --object {own},id=c,endpoint=server --image-opts {image},file.tls-creds=c"),
        format!("info --image-opts {image},file.tls-creds=nobody"),
    ] {
        assert_eq!(code(&line, &dir), 1, "{line}");
    }
}

#[test]
fn keys_that_both_ends_know_open_exports_of_other_servers() {
    if nbdkit_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let keys = dir.path("keys");
    std::fs::create_dir(&keys).expect("a directory");
    let key = "0123456789abcdef".repeat(4);
    std::fs::write(keys.join("keys.psk"), format!("alice:{key}\n")).expect("a file");
    let psk = format!("--tls-psk={}", keys.join("keys.psk").display());
    let args = ["--tls=require", &psk, "file", "a.raw"].map(str::to_owned);
    let server = Server::nbdkit(&dir, "s", &args);
    let image = format!(
        "driver=raw,file.driver=nbd,file.path={},file.tls-creds=c",
        server.socket()
    );
    // What cannot be opened is not different: 2.
    for (name, expected) in [("alice", 0), ("bob", 2)] {
        let object = format!("tls-creds-psk,id=c,dir={},username={name}", keys.display());
        let line = format!(
            "compare --object {object} --image-opts {image} driver=raw,file.filename=a.raw"
        );
        assert_eq!(code(&line, &dir), expected, "{line}");
    }
    // A server that knows no TLS.
    let plain = Server::qemu_nbd(&dir, "p", &["-f", "raw", "-e", "8", "a.raw"]);
    let object = format!("tls-creds-psk,id=c,dir={},username=alice", keys.display());
    let line = format!(
        "info --object {object} --image-opts driver=raw,file.driver=nbd,file.path={},file.tls-creds=c",
        plain.socket()
    );
    assert_eq!(code(&line, &dir), 1);
}
