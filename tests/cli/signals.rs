//! Signals during a conversion: it ends cleanly, reports, or leaves nothing that looks complete.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::Dir;
use crate::pair::{ours, words};

/// A source whose conversion takes a while at the rate that the tests ask for.
fn source() -> Dir {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "a.raw", "64M"]);
    dir.qemu_io("raw", "a.raw", &["write -P 1 0 64M"]);
    dir
}

/// The tool, which dies by signals even where the test itself was started with some ignored.
fn ours_command(args: &[&str], directory: &Path) -> Command {
    let mut command = Command::new("env");
    command
        .args(words(
            "--default-signal=INT,TERM,HUP,USR1 -u POSIXLY_CORRECT LC_ALL=C",
        ))
        .arg(crate::build::tool())
        .args(args)
        .current_dir(directory)
        .stdin(Stdio::null());
    command
}

/// Waits until `path` exists and holds something, or the child ended.
fn wait_for(path: &Path, child: &mut Child) {
    loop {
        if path.metadata().is_ok_and(|m| m.len() > 0) {
            return;
        }
        let ended = child.try_wait().expect("to look at the child");
        assert!(ended.is_none(), "it ended too early: {ended:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn kill(child: &Child, signal: &str) {
    let ran = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status()
        .expect("kill");
    assert!(ran.success());
}

const SLOW: [&str; 5] = ["convert", "-r", "4M", "-f", "raw"];

#[test]
fn a_signal_removes_the_target_and_ends_the_process() {
    for (signal, number) in [("-INT", 2), ("-TERM", 15), ("-HUP", 1)] {
        for (format, target) in [("raw", "out.raw"), ("qcow2", "out.qcow2")] {
            let dir = source();
            let args = [&SLOW[..], &["-O", format, "a.raw", target]].concat();
            let mut child = ours_command(&args, dir.root()).spawn().expect("the tool");
            wait_for(&dir.path(target), &mut child);
            kill(&child, signal);
            let status = child.wait().expect("its end");
            assert_eq!(status.signal(), Some(number), "{signal}");
            assert!(!dir.path(target).exists(), "{signal} leaves {target}");
        }
    }
}

#[test]
fn sigkill_leaves_nothing_that_opens_as_a_complete_image() {
    let dir = source();
    for options in [
        &["-O", "qcow2"][..],
        &["-c", "-O", "qcow2"],
        &["-O", "qcow2", "-o", "preallocation=metadata"],
    ] {
        let args = [&SLOW[..], options, &["a.raw", "out.qcow2"]].concat();
        let mut child = ours_command(&args, dir.root()).spawn().expect("the tool");
        wait_for(&dir.path("out.qcow2"), &mut child);
        kill(&child, "-KILL");
        child.wait().expect("its end");
        for args in [
            &["check", "-f", "qcow2", "out.qcow2"][..],
            &["info", "-f", "qcow2", "out.qcow2"],
            &["map", "-f", "qcow2", "out.qcow2"],
        ] {
            let theirs = dir.qemu_img(args);
            assert_ne!(theirs.code, 0, "{options:?}: {theirs:?}");
            let ran = ours(args, dir.root());
            assert_ne!(ran.code, 0, "{options:?}: {ran:?}");
        }
        std::fs::remove_file(dir.path("out.qcow2")).expect("to remove the rest");
    }
}

#[test]
fn an_existing_target_is_kept() {
    let dir = source();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "out.qcow2", "64M"]);
    let args = [&SLOW[..], &["-n", "-O", "qcow2", "a.raw", "out.qcow2"]].concat();
    let mut child = ours_command(&args, dir.root()).spawn().expect("the tool");
    wait_for(&dir.path("out.qcow2"), &mut child);
    // Not before the copy has begun.
    while dir.path("out.qcow2").metadata().expect("the target").len() < 1 << 20 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    kill(&child, "-INT");
    assert_eq!(child.wait().expect("its end").signal(), Some(2));
    // It holds a part of the data, and is consistent.
    let check = dir.qemu_img(&["check", "out.qcow2"]);
    assert_eq!(check.code, 0, "{check:?}");
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let dir = source();
    let line = "trap '' HUP; exec \"$0\" convert -r 32M a.raw out.raw";
    let mut child = Command::new("sh")
        .args(["-c", line])
        .arg(crate::build::tool())
        .current_dir(dir.root())
        .spawn()
        .expect("a shell");
    wait_for(&dir.path("out.raw"), &mut child);
    kill(&child, "-HUP");
    assert!(child.wait().expect("its end").success());
    assert_eq!(dir.qemu_img(&["compare", "a.raw", "out.raw"]).code, 0);
}

#[test]
fn sigusr1_prints_the_progress_once() {
    let dir = source();
    for options in [&["-q"][..], &[]] {
        let args = [
            &["convert", "-r", "32M"][..],
            options,
            &["a.raw", "out.raw"],
        ]
        .concat();
        let mut child = ours_command(&args, dir.root())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tool");
        wait_for(&dir.path("out.raw"), &mut child);
        kill(&child, "-USR1");
        kill(&child, "-USR1");
        let output = child.wait_with_output().expect("its end");
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{err}");
        assert!(output.stdout.is_empty());
        assert!(matches!(err.lines().count(), 1 | 2), "{err:?}");
        assert!(is_progress(&err), "{err:?}");
        std::fs::remove_file(dir.path("out.raw")).expect("the target");
    }
}

/// Whether the text is nothing but lines of progress.
fn is_progress(err: &str) -> bool {
    err.lines().all(|line| {
        let number = line.strip_prefix("    (");
        let number = number.and_then(|rest| rest.strip_suffix("/100%)"));
        number.is_some_and(|number| number.parse::<f64>().is_ok())
    })
}

#[test]
fn sigusr1_prints_the_progress_of_a_commit() {
    let dir = source();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "base.qcow2", "64M"]);
    let overlay = words("create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2");
    dir.qemu_img_ok(&overlay);
    dir.qemu_io("qcow2", "top.qcow2", &["write -P 3 0 64M"]);
    let empty = dir.path("base.qcow2").metadata().expect("the base").len();
    let mut child = ours_command(&words("commit -d -r 32M top.qcow2"), dir.root())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool");
    while dir.path("base.qcow2").metadata().expect("the base").len() <= empty {
        let ended = child.try_wait().expect("to look at the child");
        assert!(ended.is_none(), "it ended too early: {ended:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    kill(&child, "-USR1");
    let output = child.wait_with_output().expect("its end");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    assert_eq!(output.stdout, b"Image committed.\n");
    assert!(!err.is_empty() && is_progress(&err), "{err:?}");
}

#[test]
fn every_long_command_lives_through_sigusr1() {
    let dir = source();
    for line in [
        "create -q -f qcow2 base.qcow2 64M",
        "create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2",
        "convert -O qcow2 a.raw a.qcow2",
    ] {
        dir.qemu_img_ok(&words(line));
    }
    for line in [
        "amend -o refcount_bits=64 a.qcow2",
        "rebase -b a.raw -F raw top.qcow2",
        "compare a.raw a.qcow2",
        "check a.qcow2",
        "commit top.qcow2",
        "bench -c 20000 -f raw a.raw",
        "dd bs=1M if=a.raw of=b.raw",
        "convert -c -O qcow2 a.raw c.qcow2",
        "measure -O qcow2 a.raw",
        "map a.qcow2",
    ] {
        // The signal must not strike `env`, nor the tool before it has run at all.
        let mut child = Command::new("env")
            .args(["--ignore-signal=USR1", "LC_ALL=C"])
            .arg(crate::build::tool())
            .args(words(line))
            .current_dir(dir.root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tool");
        let running = format!("/proc/{}/exe", child.id());
        while child.try_wait().expect("to look at the child").is_none() {
            if std::fs::read_link(&running).is_ok_and(|exe| exe == crate::build::tool()) {
                kill(&child, "-USR1");
            }
        }
        let output = child.wait_with_output().expect("its end");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {:?} {err}", output.status);
        assert!(is_progress(&err), "{line}: {err:?}");
    }
}

#[test]
fn sigusr1_is_harmless_elsewhere() {
    let dir = source();
    let args = ["convert", "-p", "-r", "32M", "a.raw", "out.raw"];
    let mut child = ours_command(&args, dir.root())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool");
    wait_for(&dir.path("out.raw"), &mut child);
    kill(&child, "-USR1");
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success());
    assert!(output.stderr.is_empty());
}
