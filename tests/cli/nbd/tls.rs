//! Servers of others that want TLS.

use std::process::Stdio;

use super::server::{Server, nbdkit_is_missing};
use super::{disk, ran, same};
use crate::common::{Dir, run_in};
use crate::pair::{ours, ours_command, words};
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
    let object = format!("{own},id=c");
    let listed = qemu_list(&dir, &server, &object, &["--tls-hostname", "localhost"]);
    let url = format!(
        "nbds+unix://?socket={}&tls-creds=c&tls-hostname=localhost",
        server.socket()
    );
    let named = format!(
        "driver=nbd,path={},tls-creds=c,tls-hostname=localhost",
        server.socket()
    );
    for how in [url.clone(), format!("--image-opts {named}")] {
        let ran = ran(&format!("info --list --object {object} {how}"), &dir);
        assert_eq!(ran.out, listed, "{how}");
    }
    let info = ran(&format!("info --object {object} {url}"), &dir);
    assert!(info.out.contains("image: nbds+unix://?socket="), "{info:?}");
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

/// What QEMU's tool lists over TLS.
fn qemu_list(dir: &Dir, server: &Server, object: &str, more: &[&str]) -> String {
    let socket = server.socket();
    let args = ["-L", "-k", &socket, "--object", object, "--tls-creds", "c"];
    let ran = run_in(dir.root(), "qemu-nbd", &[&args, more].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.out
}

#[test]
fn servers_whom_the_machine_trusts_need_no_credentials() {
    let Some(made) = certificates() else {
        return;
    };
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let files = made.path();
    std::fs::copy(files.join("ca.pem"), files.join("ca-cert.pem")).expect("a copy");
    let object = format!(
        "tls-creds-x509,dir={},id=t,endpoint=server,verify-peer=no",
        files.display()
    );
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
    let url = format!(
        "nbds+unix://?socket={}&tls-hostname=localhost",
        server.socket()
    );
    for (trusted, expected) in [("ca.pem", 0), ("other.pem", 1)] {
        let status = ours_command(&["info", "-f", "raw", &url], dir.root())
            .env("SSL_CERT_FILE", files.join(trusted))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("the tool");
        assert_eq!(status.code(), Some(expected), "{trusted}");
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
    let object = format!("tls-creds-psk,id=c,dir={},username=alice", keys.display());
    let listed = qemu_list(&dir, &server, &object, &[]);
    let url = format!("nbds+unix://?socket={}&tls-creds=c", server.socket());
    let list = ran(&format!("info --list --object {object} {url}"), &dir);
    assert_eq!(list.out, listed);
    // A server that knows no TLS.
    let plain = Server::qemu_nbd(&dir, "p", &["-f", "raw", "-e", "8", "a.raw"]);
    let object = format!("tls-creds-psk,id=c,dir={},username=alice", keys.display());
    let line = format!(
        "info --object {object} --image-opts driver=raw,file.driver=nbd,file.path={},file.tls-creds=c",
        plain.socket()
    );
    assert_eq!(code(&line, &dir), 1);
}
