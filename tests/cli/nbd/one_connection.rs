//! Servers that are there for one connection alone: those that end with their last client, and sockets that are open
//! already.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use crate::common::Dir;
use crate::pair::{ours_command, words};

use super::server::{Server, nbdkit_is_missing};
use super::{bytes, disk, ran};

#[test]
fn a_server_that_ends_with_its_last_client_is_there_to_the_end_of_every_command() {
    if nbdkit_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    for (file, line) in [
        ("raw", "info -f raw U"),
        ("raw", "map -f raw U"),
        ("raw", "measure -f raw -O qcow2 U"),
        ("raw", "compare -f raw -F raw U U"),
        ("raw", "convert -f raw -O qcow2 U out.qcow2"),
        (
            "raw",
            "dd -f raw -O raw bs=64k count=3 skip=2 if=U of=d.raw",
        ),
        ("raw", "bench -f raw -c 100 U"),
        ("raw", "bench -f raw -w -c 100 U"),
        ("raw", "create -f qcow2 U 4M"),
        ("raw", "convert -f raw -O qcow2 a.raw U"),
        ("raw", "convert -n -f raw -O raw a.raw U"),
        ("qcow2", "convert -n -f raw -O qcow2 a.raw U"),
        ("qcow2", "convert -n -c -f raw -O qcow2 a.raw U"),
        ("qcow2", "check U"),
        ("qcow2", "snapshot -c s U"),
        ("qcow2", "snapshot -l U"),
        ("qcow2", "bitmap --add U b"),
        ("qcow2", "amend -f qcow2 -o lazy_refcounts=on U"),
        ("qcow2", "resize U 9M"),
        ("qcow2", "rebase -u -b a.raw -F raw U"),
        ("qcow2", "rebase -b a.raw -F raw U"),
    ] {
        match file {
            "raw" => std::fs::write(dir.path("t"), vec![0xaa; 16 << 20]).expect("a disk"),
            _ => {
                dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "t", "8M"]);
                let file = std::fs::File::options().write(true).open(dir.path("t"));
                file.and_then(|file| file.set_len(16 << 20)).expect("room");
            }
        }
        let args = ["--filter=exitlast", "file", &dir.str("t")].map(str::to_owned);
        let server = Server::nbdkit(&dir, "n", &args);
        ran(&line.replace('U', &server.url("")), &dir);
    }
}

#[test]
fn a_socket_that_is_open_already_is_the_only_connection() {
    let dir = Dir::new();
    disk(&dir, "a.raw");
    std::fs::copy(dir.path("a.raw"), dir.path("t.raw")).expect("a copy");
    // It takes several clients, and says so.
    let server = Server::qemu_nbd(&dir, "n", &["-e", "8", "-f", "raw", &dir.str("t.raw")]);
    let over = |line: &str| {
        let line = line.replace(
            "SOCKET",
            "driver=raw,file.driver=nbd,file.server.type=fd,file.server.str=0",
        );
        let socket = UnixStream::connect(server.socket()).expect("a connection");
        let output = ours_command(&words(&line), dir.root())
            .stdin(Stdio::from(OwnedFd::from(socket)))
            .output()
            .expect("our tool");
        assert_eq!(output.status.code(), Some(0), "{line}: {output:?}");
    };
    for _ in 0..8 {
        over("compare --image-opts SOCKET driver=raw,file.filename=a.raw");
        over("convert --image-opts SOCKET -O raw out.raw");
        assert!(bytes(&dir, "out.raw") == bytes(&dir, "a.raw"));
    }
    std::fs::write(dir.path("b.raw"), vec![0x55; 8 << 20]).expect("a disk");
    for source in ["b.raw", "a.raw"] {
        over(&format!(
            "convert -n --image-opts --target-image-opts driver=raw,file.filename={source} SOCKET"
        ));
        assert!(bytes(&dir, "t.raw") == bytes(&dir, source), "{source}");
    }
}
