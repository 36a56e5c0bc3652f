//! Names of drivers that QEMU's tool knows, whether ours has them or not.

use std::process::Command;

use crate::common::Dir;
use crate::pair::{Pair, ours, words};

/// The names that the help of QEMU's tool lists.
fn names() -> Vec<String> {
    let output = Command::new("qemu-img").arg("--help").output();
    let help = String::from_utf8(output.expect("qemu-img must run").stdout).expect("UTF-8");
    let (_, list) = help
        .split_once("Supported image formats:")
        .expect("a list of formats");
    let list = list.trim_start().split("\n\n").next().unwrap_or_default();
    list.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn every_name_of_a_driver_is_recorded_and_printed() {
    let names = names();
    assert!(names.len() > 35, "{names:?}");
    let pair = Pair::with(&["create -f qcow2 r.qcow2 1M"]);
    for name in names.iter().map(String::as_str).chain(["bogus", "fat"]) {
        if name == "copy-before-write" {
            // Theirs records a part of the name, and rebase none at all.
            for line in [
                "create -f qcow2 -u -b base -F copy-before-write c.qcow2 1M",
                "rebase -u -b base -F copy-before-write r.qcow2",
            ] {
                let ran = ours(&words(line), pair.ours().root());
                assert_eq!(ran.code, 1, "{ran:?}");
                assert!(ran.err.ends_with(
                    "The name of the backing file's format, 'copy-before-write', is too long: an image can record 15 bytes\n"
                ), "{ran:?}");
            }
            continue;
        }
        let created = pair.same(&format!(
            "create -f qcow2 -u -b base -F {name} {name}.qcow2 1M"
        ));
        // The name of a transport alone, which no image may record.
        assert_eq!(created.code == 0, !["iser", "bogus", "fat"].contains(&name));
        if created.code == 0 {
            let info = ours(&["info", &format!("{name}.qcow2")], pair.ours().root());
            let line = format!("\nbacking file format: {name}\n");
            assert!(info.out.contains(&line), "{info:?}");
        }
        let line = format!("rebase -u -b base -F {name} r.qcow2");
        match pair.differ(&words(&line), crate::pair::Loose::Exact) {
            Ok(_) => {}
            // QEMU's tool loads some of its drivers, and looks for them even here.
            Err(text) if text.contains("Unable to load module") => {
                let ran = ours(&words(&line), pair.ours().root());
                assert_eq!(ran.code, 0, "{line}: {ran:?}");
            }
            Err(text) => panic!("{text}"),
        }
    }
}

#[test]
fn what_names_no_nvme_controller_is_refused_alike() {
    let pair = Pair::with(&["create -f raw a.raw 1M"]);
    for line in [
        "info -f nvme a.raw",
        "info json:{'driver':'nvme'}",
        "info --image-opts driver=raw,file.driver=nvme",
        "create -f nvme -o help",
        "amend -f nvme -o help",
        "convert -O nvme a.raw x",
        "dd -O nvme if=a.raw of=x",
        "measure -O nvme a.raw",
    ] {
        pair.same(line);
    }
}

#[test]
fn a_controller_that_is_not_there_is_told_in_one_line() {
    let dir = Dir::new();
    let ran = ours(&words("info -f raw nvme://ffff:ff:1f.7/1"), dir.root());
    assert_eq!((ran.code, ran.err.lines().count()), (1, 1), "{ran:?}");
    assert!(ran.err.contains("bound to vfio-pci"), "{ran:?}");
}

/// Files of libraries, an image that needs it, and the package that brings it.
const LIBRARIES: [(&str, &str, &str); 6] = [
    ("libssh.so.4", "ssh://joe@127.0.0.1:9/x", "libssh-4"),
    ("libiscsi.so.7", "iscsi://127.0.0.1:9/iqn.a/1", "libiscsi7"),
    ("libnfs.so.", "nfs://127.0.0.1/x", "libnfs13"),
    ("librbd.so.1", "rbd:pool/x", "librbd1"),
    ("librados.so.2", "rbd:pool/x", "librbd1"),
    ("libgfapi.so.0", "gluster://127.0.0.1/v/x", "libgfapi0"),
];

#[test]
fn a_library_that_is_not_there_is_named_with_its_package_in_one_line() {
    let id = Command::new("id").arg("-u").output().expect("id");
    if id.stdout != b"0\n" {
        eprintln!("LEFT OUT: hiding the libraries of protocols needs root");
        return;
    }
    let list = Command::new("/sbin/ldconfig").arg("-p").output();
    let list = String::from_utf8(list.expect("ldconfig").stdout).expect("names");
    let dir = Dir::new();
    let tool = crate::build::tool();
    for (library, image, package) in LIBRARIES {
        let places = list.lines().filter(|line| line.trim().starts_with(library));
        let places = places.filter_map(|line| line.split(" => ").nth(1));
        for line in [
            format!("info -f raw {image}"),
            format!("create -f raw {image} 1M"),
        ] {
            let mut command = Command::new("unshare");
            command.args(["-m", "sh", "-euc"]).arg(
                "tool=$1; line=$2; shift 2; for place; do mount --bind /dev/null \"$place\"; done; exec \"$tool\" $line",
            );
            command.arg("sh").arg(tool).arg(&line).args(places.clone());
            let done = command.current_dir(dir.root()).output().expect("unshare");
            let told = String::from_utf8_lossy(&done.stderr);
            assert_eq!(done.status.code(), Some(1), "{line}: {told}");
            assert_eq!(told.lines().count(), 1, "{line}: {told}");
            assert!(
                told.contains(library) && told.contains(package),
                "{line}: {told}"
            );
        }
    }
}
