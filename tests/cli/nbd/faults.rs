//! Something happens to the server in the middle of every command: the command fails and says why, or goes on with a
//! server that has come back; what it has called done is there, and no image is damaged.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::scripted::{Fault, Scripted};
use super::{bytes, disk};
use crate::common::Dir;
use crate::pair::{ours_command, words};

const MIB: u64 = 1 << 20;

/// A command over the export, which holds the image `t.qcow2` at first.
struct Case {
    /// `Q` stands for that image, `N` for the server.
    line: &'static str,
    /// What the disk of the image holds when the command has succeeded; None where there is none on the server.
    after: Option<&'static str>,
    /// Whether it writes to the server.
    writes: bool,
    /// Whether it changes the disk, so that it may have changed a part of it when it has failed.
    changes: bool,
}

const fn reads(line: &'static str) -> Case {
    Case {
        writes: false,
        ..keeps(line)
    }
}

/// A command that writes, and leaves the disk as it is.
const fn keeps(line: &'static str) -> Case {
    Case {
        line,
        after: Some("old.raw"),
        writes: true,
        changes: false,
    }
}

const CASES: [Case; 17] = [
    reads("info --image-opts Q"),
    reads("map --image-opts Q"),
    reads("check --image-opts Q"),
    reads("compare --image-opts Q driver=raw,file.filename=old.raw"),
    reads("convert --image-opts -O raw Q out.raw"),
    reads("dd --image-opts bs=64k if=Q of=out.raw"),
    reads("measure --image-opts -O qcow2 Q"),
    reads(
        "rebase -b base.qcow2 -F qcow2 --image-opts driver=qcow2,file.filename=o.qcow2,backing.B",
    ),
    keeps("resize -q --image-opts Q 3M"),
    keeps("snapshot -c s --image-opts Q"),
    keeps("snapshot -d first --image-opts Q"),
    keeps("bitmap --add --image-opts Q b"),
    keeps("bitmap --remove --image-opts Q before"),
    keeps("amend --image-opts -o lazy_refcounts=on Q"),
    Case {
        line: "convert -t writeback -n -f raw --target-image-opts new.raw Q",
        after: Some("new.raw"),
        writes: true,
        changes: true,
    },
    Case {
        line: "commit --image-opts driver=qcow2,file.filename=o.qcow2,backing.B",
        after: Some("committed.raw"),
        writes: true,
        changes: true,
    },
    Case {
        line: "create -q -f qcow2 nbd+unix:///?socket=N 1M",
        after: None,
        writes: true,
        changes: true,
    },
];

/// The files that the cases are about.
fn prepare(dir: &Dir) {
    disk(dir, "large.raw");
    let old = &bytes(dir, "large.raw")[..2 * MIB as usize];
    std::fs::write(dir.path("old.raw"), old).unwrap();
    let mut new = old.to_vec();
    new.rotate_left(300_000);
    std::fs::write(dir.path("new.raw"), &new).unwrap();
    new.copy_from_slice(old);
    new[1_000_000..1_500_000].fill(9);
    std::fs::write(dir.path("committed.raw"), &new).unwrap();
    for line in [
        "convert -f raw -O qcow2 old.raw t.qcow2",
        "snapshot -c first t.qcow2",
        "bitmap --add t.qcow2 before",
        "create -q -f qcow2 base.qcow2 2M",
        "create -q -f qcow2 -b t.qcow2 -F qcow2 overlay.qcow2",
    ] {
        dir.qemu_img_ok(&words(line));
    }
    dir.qemu_io("qcow2", "overlay.qcow2", &["write -P 9 1000000 500000"]);
}

/// Waits for the end of the command, which gets a signal when the fault has come, if one is given.
fn end(server: &Scripted, child: &mut Child, signal: bool, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut told = false;
    while child.try_wait().unwrap().is_none() {
        let struck = server.has_struck();
        if struck && signal && !told {
            told = true;
            let id = child.id().to_string();
            assert!(Command::new("kill").arg(id).status().unwrap().success());
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{what} does not end");
        }
    }
}

/// Whether the export holds a whole image; with a disk as in the file, where one is named.
#[track_caller]
fn check_image(dir: &Dir, image: &[u8], disk: Option<&str>, what: &str) {
    std::fs::write(dir.path("seen.qcow2"), image).unwrap();
    let check = dir.qemu_img(&words("check seen.qcow2"));
    assert!(matches!(check.code, 0 | 3), "{what}: {check:?}");
    if let Some(disk) = disk {
        let line = format!("compare -f raw -F qcow2 {disk} seen.qcow2");
        let compared = dir.qemu_img(&words(&line));
        assert_eq!(compared.code, 0, "{what}: {compared:?}");
    }
}

/// Runs a case with a fault; how many requests there were.
fn run(
    dir: &Dir,
    server: &Scripted,
    case: &Case,
    fault: Option<(usize, Fault)>,
    delay: u32,
) -> usize {
    let what = format!("{}: {fault:?}, {delay}", case.line);
    let mut image = bytes(dir, "t.qcow2");
    image.resize(5 * MIB as usize, 0);
    server.begin(&image, fault);
    std::fs::copy(dir.path("overlay.qcow2"), dir.path("o.qcow2")).unwrap();
    let _ = std::fs::remove_file(dir.path("out.raw"));
    let file = format!(
        "file.driver=nbd,file.path={},file.reconnect-delay={delay}",
        server.socket()
    );
    let q = format!("driver=qcow2,{file}");
    let below = format!("backing.{}", q.replace(',', ",backing."));
    // In one step for each word: the socket has a random name, in which there may be any letter.
    let line: Vec<_> = case
        .line
        .split(' ')
        .map(|word| match word {
            _ if word.ends_with("backing.B") => word.replace("backing.B", &below),
            _ if word.contains('N') => word.replace('N', server.socket()),
            _ => word.replace('Q', &q),
        })
        .collect();
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let mut child = ours_command(&line, dir.root())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stalls = fault.is_some_and(|(_, fault)| fault == Fault::Stall);
    end(server, &mut child, stalls, &what);
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    let done = output.status.success();
    match output.status.signal() {
        Some(signal) => assert!(stalls && signal == 15, "{what}: {signal}, {err}"),
        None => assert!(done || err.contains("-img: "), "{what}: {err}"),
    }
    assert!(!err.contains("panic"), "{what}: {err}");
    let requests = server.requests();
    // The name of a new image has no place for a delay.
    let waits = delay > 0 && case.after.is_some();
    let slow = fault.is_some_and(|(_, fault)| fault == Fault::Slow);
    assert!(done || fault.is_some() && !waits && !slow, "{what}: {err}");
    if case.line.contains("out.raw") {
        match done {
            true => assert!(bytes(dir, "out.raw") == bytes(dir, "old.raw"), "{what}"),
            false => assert!(
                !case.line.starts_with("convert") || !dir.path("out.raw").exists(),
                "{what}"
            ),
        }
    }
    let durable = server.durable();
    if durable == image && !(done && case.writes) {
        return requests;
    }
    assert!(case.writes, "{what}");
    match case.after {
        Some(disk) if done || !case.changes => check_image(dir, &durable, Some(disk), &what),
        Some(_) => check_image(dir, &durable, None, &what),
        None if done => check_image(dir, &durable, None, &what),
        None => {}
    }
    requests
}

#[test]
fn a_server_may_fail_in_the_middle_of_every_command() {
    let dir = Dir::new();
    prepare(&dir);
    let server = Scripted::new(&dir);
    for case in &CASES {
        let requests = run(&dir, &server, case, None, 0);
        for (fault, delay) in [
            (Fault::Slow, 0),
            (Fault::Stall, 0),
            (Fault::Gone, 0),
            (Fault::Restart, 0),
            (Fault::Restart, 60),
            (Fault::Garbage, 0),
            (Fault::Error, 0),
        ] {
            let places = match case.writes {
                true => [requests / 2 + 1, requests].to_vec(),
                false => vec![requests / 2 + 1],
            };
            for at in places {
                run(&dir, &server, case, Some((at, fault)), delay);
            }
        }
    }
}
