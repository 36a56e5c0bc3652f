//! Versions of libnfs, each of which takes the arguments of reads and writes in its own order. What stands in for them is
//! of `tests/tools`, so that neither a server nor the library is needed.

use std::path::Path;
use std::process::Command;

use super::{bytes, disk};
use crate::build::fake_nfs;
use crate::common::{Dir, Ran};
use crate::pair::{ours_command, words};

/// The known versions, and whether the buffer comes first in the order of each.
const KNOWN: [(u32, bool); 4] = [(13, false), (14, false), (16, true), (17, true)];

/// Runs a line with the libraries of a directory before those of the system.
fn run(line: &str, dir: &Dir, libraries: &Path) -> Ran {
    ran(&mut command(line, dir, libraries))
}

fn command(line: &str, dir: &Dir, libraries: &Path) -> Command {
    let mut command = ours_command(&words(line), dir.root());
    command
        .env("LD_LIBRARY_PATH", libraries)
        .env("PLATTER_FAKE_DIR", dir.root())
        .env("PLATTER_FAKE_TRACE", dir.path("trace"));
    command
}

fn ran(command: &mut Command) -> Ran {
    let output = command.output().expect("the tool");
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Files by these names that no linker takes: the system's own are not looked for behind them.
fn hide_known(libraries: &Path) {
    for (version, _) in KNOWN {
        let name = libraries.join(format!("libnfs.so.{version}"));
        std::fs::write(name, "no library").expect("a file");
    }
}

#[test]
fn each_known_version_is_given_its_arguments_in_its_own_order() {
    for (version, buffer_first) in KNOWN {
        let (dir, libraries) = (Dir::new(), Dir::new());
        disk(&dir, "a.raw");
        hide_known(libraries.root());
        let name = format!("libnfs.so.{version}");
        let library = fake_nfs(&name, buffer_first);
        std::fs::copy(library, libraries.path(&name)).expect("a copy");
        let url = |file: &str| format!("nfs://127.0.0.1/exp/{file}");
        for line in [
            "convert -f raw -O raw a.raw R",
            "compare -f raw -F raw a.raw R",
            "convert -f raw -O qcow2 R Q",
            "compare -f raw -F qcow2 a.raw Q",
            "check -f qcow2 Q",
            "resize -q -f qcow2 Q 9M",
            "resize -q -f qcow2 --shrink Q 8M",
            "convert -f qcow2 -O raw Q b.raw",
            "create -q -f raw N 1M",
        ] {
            let line = line.split(' ').map(|word| match word {
                "R" => url("r"),
                "Q" => url("q"),
                "N" => url("n"),
                word => word.to_owned(),
            });
            let line = line.collect::<Vec<_>>().join(" ");
            let ran = run(&line, &dir, libraries.root());
            assert_eq!(ran.code, 0, "{name}: {line}: {ran:?}");
        }
        let disk = bytes(&dir, "a.raw");
        assert!(bytes(&dir, "r") == disk, "{name}");
        assert!(bytes(&dir, "b.raw") == disk, "{name}");
        assert_eq!(bytes(&dir, "n"), vec![0; 1 << 20], "{name}");
        dir.qemu_img_ok(&words("compare -f raw -F qcow2 a.raw q"));
        let trace = String::from_utf8(bytes(&dir, "trace")).expect("a text");
        assert!(trace.lines().all(|used| used == name), "{trace}");
    }
}

#[test]
fn the_newest_of_several_versions_is_taken() {
    let (dir, libraries) = (Dir::new(), Dir::new());
    disk(&dir, "a.raw");
    for (version, buffer_first) in KNOWN {
        let name = format!("libnfs.so.{version}");
        std::fs::copy(fake_nfs(&name, buffer_first), libraries.path(&name)).expect("a copy");
    }
    let line = "compare -f raw -F raw a.raw nfs://127.0.0.1/exp/a.raw";
    let ran = run(line, &dir, libraries.root());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(bytes(&dir, "trace"), b"libnfs.so.17\n");
}

#[test]
fn unknown_versions_are_refused_and_not_called() {
    let (dir, libraries) = (Dir::new(), Dir::new());
    disk(&dir, "a.raw");
    hide_known(libraries.root());
    for (name, buffer_first) in [
        ("libnfs.so", true),
        ("libnfs.so.12", false),
        ("libnfs.so.15", true),
        ("libnfs.so.18", true),
    ] {
        std::fs::copy(fake_nfs(name, buffer_first), libraries.path(name)).expect("a copy");
    }
    let name = "nfs://127.0.0.1/exp/a.raw";
    for line in [
        format!("info {name}"),
        format!("convert -f raw -O raw a.raw {name}.new"),
    ] {
        let ran = run(&line, &dir, libraries.root());
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        let told = "NFS needs one of libnfs.so.17, libnfs.so.16, libnfs.so.14, libnfs.so.13, \
                    of which none can be loaded: install the package libnfs13\n";
        assert!(ran.err.ends_with(told), "{line}: {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{line}: {ran:?}");
    }
    assert!(!dir.path("trace").exists());
}

#[test]
fn disks_of_the_server_that_become_full_end_a_conversion_before_it_has_sent_everything() {
    let (dir, libraries) = (Dir::new(), Dir::new());
    let (version, buffer_first) = KNOWN[0];
    hide_known(libraries.root());
    let name = format!("libnfs.so.{version}");
    std::fs::copy(fake_nfs(&name, buffer_first), libraries.path(&name)).expect("a copy");
    std::fs::write(dir.path("long.raw"), vec![7; 200 << 20]).expect("a disk");
    disk(&dir, "short.raw");
    let line =
        |name: &str| format!("convert -f raw -O raw {name}.raw nfs://127.0.0.1/exp/{name}.there");
    let full = |name: &str| {
        let mut command = command(&line(name), &dir, libraries.root());
        ran(command.env("PLATTER_FAKE_FULL", "1"))
    };
    let long = full("long");
    assert_eq!(long.code, 1, "{long:?}");
    assert!(long.err.contains("No space left on device"), "{long:?}");
    assert_eq!(long.err.lines().count(), 1, "{long:?}");
    assert!(!dir.path("long.there").exists());
    // With the default cache mode no flush is wanted, and little is written when it suits the server.
    assert_eq!(full("short").code, 0);
    let long = run(&line("long"), &dir, libraries.root());
    assert_eq!(long.code, 0, "{long:?}");
    assert!(bytes(&dir, "long.there") == bytes(&dir, "long.raw"));
}
