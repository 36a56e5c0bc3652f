//! Clients that come, wait, go and die; servers that die.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Served, done, images, libnbd};
use crate::common::Dir;

/// A client that has its export, under the empty name.
fn client(served: &Served) -> UnixStream {
    let mut stream = UnixStream::connect(&served.socket).expect("a connection");
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting).expect("a greeting");
    stream
        .write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\0")
        .expect("an option");
    let mut export = [0; 10];
    stream.read_exact(&mut export).expect("an export");
    stream
}

fn send(stream: &mut UnixStream, command: u8, offset: u64, data: &[u8], len: u32) {
    let mut request = vec![0x25, 0x60, 0x95, 0x13, 0, 0, 0, command];
    request.extend([9; 8]);
    request.extend(offset.to_be_bytes());
    request.extend(len.to_be_bytes());
    request.extend(data);
    stream.write_all(&request).expect("a request");
}

fn reply(stream: &mut UnixStream, data: usize) -> Vec<u8> {
    let mut bytes = vec![0; 16 + data];
    stream.read_exact(&mut bytes).expect("a reply");
    assert_eq!(bytes[..8], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0]);
    bytes.split_off(16)
}

#[test]
fn what_one_client_flushed_outlives_the_server_and_shows_to_others() {
    let dir = Dir::new();
    for format in ["raw", "qcow2"] {
        dir.qemu_img_ok(&["create", "-q", "-f", format, "k.img", "16M"]);
        let served = Served::ours(&dir, &["-f", format, "k.img"]);
        let (mut one, mut other) = (client(&served), client(&served));
        for round in 0..16u64 {
            let data = [round as u8 + 1; 5000];
            send(&mut one, 1, round << 20, &data, 5000);
            reply(&mut one, 0);
            // A write on one connection, a flush on the other.
            send(&mut other, 3, 0, &[], 0);
            reply(&mut other, 0);
            send(&mut other, 0, round << 20, &[], 5000);
            assert!(reply(&mut other, 5000) == data);
        }
        served.signal("-KILL");
        served.wait();
        let reads: Vec<String> = (0..16)
            .map(|round| format!("read -P {} {round}M 5000", round + 1))
            .collect();
        let reads: Vec<&str> = reads.iter().map(String::as_str).collect();
        let out = dir.qemu_io(format, "k.img", &reads);
        assert!(!out.contains("failed"), "{out}");
        if format == "qcow2" {
            let check = dir.qemu_img(&["check", "-f", "qcow2", "k.img"]);
            // What was reserved may be lost, but nothing is wrong.
            assert!(check.code == 0 || check.code == 3, "{check:?}");
        }
    }
}

#[test]
fn no_more_clients_come_in_than_may_be_there() {
    let dir = Dir::new();
    images(&dir);
    let served = Served::ours(&dir, &["-e", "1", "-r", "-f", "raw", "a.raw"]);
    let first = client(&served);
    let mut second = UnixStream::connect(&served.socket).expect("a connection");
    second
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a timeout");
    second.read(&mut [0; 18]).expect_err("it waits");
    drop(first);
    second.set_read_timeout(None).expect("no timeout");
    let mut greeting = [0; 18];
    second.read_exact(&mut greeting).expect("a greeting");
    assert_eq!(&greeting[..8], b"NBDMAGIC");
}

/// Kibibytes of memory that a server takes.
fn memory(served: &Served) -> u64 {
    let path = format!("/proc/{}/status", served.child.id());
    let status = std::fs::read_to_string(path).expect("the state of the server");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("its memory");
    let kib = line.split_whitespace().nth(1).expect("a number");
    kib.parse::<u64>().expect("a number")
}

/// Entries of a directory of a server in `/proc`: its descriptors or its threads.
fn count(served: &Served, what: &str) -> usize {
    let path = format!("/proc/{}/{what}", served.child.id());
    std::fs::read_dir(path)
        .expect("the state of the server")
        .count()
}

#[test]
fn clients_that_stall_or_die_do_not_harm_others() {
    let dir = Dir::new();
    images(&dir);
    let served = Served::ours(
        &dir,
        &["-e", "0", "--handshake-limit=1", "-f", "raw", "a.raw"],
    );
    drop(client(&served));
    let before = memory(&served);
    let stalled: Vec<_> = (0..300)
        .map(|_| UnixStream::connect(&served.socket).expect("a connection"))
        .collect();
    // In the middle of a write, and of a read that nobody takes.
    let mut dying = client(&served);
    send(&mut dying, 1, 0, &[1; 100], 1 << 20);
    let mut deaf = client(&served);
    for _ in 0..100 {
        send(&mut deaf, 0, 0, &[], 4 << 20);
    }
    drop(dying);
    let mut good = client(&served);
    send(&mut good, 0, 20 << 20, &[], 4096);
    assert!(reply(&mut good, 4096) == [4; 4096]);
    let after = memory(&served);
    assert!(
        after < before + (64 << 10),
        "{before} KiB became {after} KiB"
    );
    drop(stalled);
    served.end();
}

/// Lets this process, and those that it starts, have so many descriptors.
fn allow_descriptors(count: u64) {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("the limits");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let now = line.and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    if now.is_none_or(|now| now >= count) {
        return;
    }
    let own = std::process::id().to_string();
    let limit = format!("--nofile={count}:");
    let raised = Command::new("prlimit")
        .args(["--pid", &own, &limit])
        .status();
    assert!(raised.expect("prlimit").success());
}

#[test]
fn a_thousand_clients_that_stall_and_drop_leave_nothing_behind() {
    const CLIENTS: usize = 1000;
    allow_descriptors(4096);
    let dir = Dir::new();
    images(&dir);
    let args = ["-e", "0", "--handshake-limit=0", "-f", "qcow2", "b.qcow2"];
    let served = Served::ours(&dir, &args);
    let (open, tasks) = (count(&served, "fd"), count(&served, "task"));
    let round = || {
        let all: Vec<_> = (0..CLIENTS)
            .map(|number| match number % 4 {
                // In the handshake, before its first byte and after it.
                0 => UnixStream::connect(&served.socket).expect("a connection"),
                1 => {
                    let mut stream = UnixStream::connect(&served.socket).expect("a connection");
                    stream.read_exact(&mut [0; 18]).expect("a greeting");
                    stream.write_all(b"\0\0\0\x03IHAVE").expect("a part");
                    stream
                }
                // In transmission: with nothing to do, and in the middle of a request.
                2 => {
                    let mut stream = client(&served);
                    send(&mut stream, 0, 0, &[], 4096);
                    reply(&mut stream, 4096);
                    stream
                }
                _ => {
                    let mut stream = client(&served);
                    send(&mut stream, 1, 1 << 20, &[1; 100], 1000);
                    stream
                }
            })
            .collect();
        let there = (
            memory(&served),
            count(&served, "fd"),
            count(&served, "task"),
        );
        drop(all);
        there
    };
    let rest = || {
        // Workers stay.
        super::until("the clients to be gone", || {
            count(&served, "task") < tasks + 32
        });
        super::until("their sockets to be closed", || {
            count(&served, "fd") <= open
        });
        memory(&served)
    };
    drop(client(&served));
    let before = memory(&served);
    let (most, descriptors, threads) = round();
    // All of them were there, and none took more than its stack and its buffers.
    assert!(descriptors > CLIENTS && threads > CLIENTS * 3 / 4);
    assert!(most < before + (64 << 10), "{before} KiB became {most} KiB");
    let first = rest();
    for _ in 0..2 {
        round();
    }
    let last = rest();
    assert!(last < first + (8 << 10), "{first} KiB became {last} KiB");
    let mut good = client(&served);
    send(&mut good, 0, 20 << 20, &[], 4096);
    assert!(reply(&mut good, 4096) == [4; 4096]);
    drop(good);
    served.end();
    dir.qemu_img_ok(&["check", "-q", "-f", "qcow2", "b.qcow2"]);
}

#[test]
fn an_interrupted_server_answers_what_it_has_and_leaves_no_socket() {
    if !libnbd() {
        return;
    }
    let dir = Dir::new();
    images(&dir);
    let served = Served::ours(&dir, &["-f", "qcow2", "b.qcow2"]);
    let mut copying = Command::new("nbdcopy")
        .args([dir.str("a.raw"), served.uri("")])
        .stderr(Stdio::null())
        .spawn()
        .expect("nbdcopy");
    served.end();
    // It may have been faster.
    copying.wait().expect("its end");
    dir.qemu_img_ok(&["check", "-f", "qcow2", "b.qcow2"]);
}

#[test]
fn one_client_on_the_standard_streams() {
    let dir = Dir::new();
    images(&dir);
    let mut child = Command::new(crate::build::tool())
        .args(["serve", "--stdio", "-r", "-f", "raw", "a.raw"])
        .current_dir(dir.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the tool");
    let mut to = child.stdin.take().expect("a pipe");
    let mut from = child.stdout.take().expect("a pipe");
    let mut greeting = [0; 18];
    from.read_exact(&mut greeting).expect("a greeting");
    to.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\0")
        .expect("an option");
    let mut export = [0; 10];
    from.read_exact(&mut export).expect("an export");
    assert_eq!(export[..8], (24u64 << 20).to_be_bytes());
    drop(to);
    assert!(child.wait().expect("its end").success());
}

#[test]
fn ports_of_both_versions_are_taken() {
    if !libnbd() {
        return;
    }
    let dir = Dir::new();
    images(&dir);
    for host in ["127.0.0.1", "::1"] {
        // Free a moment ago.
        let free = std::net::TcpListener::bind((host, 0)).expect("a port");
        let port = free.local_addr().expect("its number").port().to_string();
        drop(free);
        let mut child = Command::new(crate::build::tool())
            .args([
                "serve",
                "--once",
                "-r",
                "-b",
                host,
                "-p",
                &port,
                "--pid-file",
                "t.pid",
            ])
            .args(["-f", "raw", "a.raw"])
            .current_dir(dir.root())
            .spawn()
            .expect("the tool");
        super::until("the server to begin", || {
            assert!(child.try_wait().expect("the server").is_none());
            dir.path("t.pid")
                .metadata()
                .is_ok_and(|found| found.len() > 0)
        });
        let host = if host == "::1" { "[::1]" } else { host };
        let uri = format!("nbd://{host}:{port}/");
        assert_eq!(done(&dir, "nbdinfo", &["--size", &uri]).trim(), "25165824");
        assert!(child.wait().expect("its end").success());
        std::fs::remove_file(dir.path("t.pid")).expect("to remove a file");
    }
}
