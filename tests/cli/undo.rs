//! Each protocol takes back what it made for an operation that did not succeed: no name is left behind, and what was
//! there before under its own name is not removed.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use platter::storage::registry;

use crate::common::{Dir, Ran};
use crate::pair::{ours_command, words};
use crate::remote_faults::end_of;
use crate::site::disk;
use crate::{gluster, iscsi, nbd, nfs, rbd, ssh};

/// How it is known that a protocol undoes what it did.
enum Proof {
    /// A test here.
    Test(fn()),
    /// It makes nothing, and why no test here has it.
    MakesNothing(&'static str),
}

const PROTOCOLS: &[(&str, Proof)] = &[
    ("file", Proof::Test(file)),
    ("gluster", Proof::Test(gluster)),
    (
        "host_cdrom",
        Proof::MakesNothing("a disc is there or not; tests/storage_device.rs"),
    ),
    (
        "host_device",
        Proof::MakesNothing("a device is there or not; tests/storage_device.rs"),
    ),
    ("iscsi", Proof::Test(iscsi)),
    (
        "iser",
        Proof::MakesNothing("the same as iscsi but for the network"),
    ),
    ("nbd", Proof::Test(nbd)),
    ("nfs", Proof::Test(nfs)),
    (
        "nvme",
        Proof::MakesNothing("a namespace is there or not; tests/cli/machine_devices.rs"),
    ),
    ("rbd", Proof::Test(rbd)),
    ("ssh", Proof::Test(ssh)),
];

#[test]
fn every_protocol_that_can_create_has_a_row() {
    for driver in registry::drivers() {
        let row = PROTOCOLS.iter().find(|(name, _)| *name == driver.name);
        assert_eq!(row.is_some(), driver.create.is_some(), "{}", driver.name);
    }
    let mut tests = BTreeSet::new();
    for (name, proof) in PROTOCOLS {
        match proof {
            Proof::Test(test) => assert!(tests.insert(*test as usize), "{name}"),
            Proof::MakesNothing(reason) => assert!(!reason.is_empty(), "{name}"),
        }
    }
}

/// The length of the source.
const LEN: u64 = 8 << 20;

/// Where images are made.
struct Place<'a> {
    /// The name of an image.
    name: &'a dyn Fn(&str) -> String,
    /// The names of those that there are.
    list: &'a dyn Fn() -> BTreeSet<String>,
    tool: &'a dyn Fn(&str) -> Command,
}

/// A directory with the source.
fn with_source() -> Dir {
    let dir = Dir::new();
    disk(&dir, "a.raw");
    assert_eq!(dir.path("a.raw").metadata().expect("the source").len(), LEN);
    dir
}

/// The source, whose reads of that sector fail.
fn failing_at(sector: u64) -> String {
    format!(
        r#"json:{{"driver":"raw","file":{{"driver":"blkdebug","image":{{"driver":"file","filename":"a.raw"}},"inject-error":[{{"event":"none","iotype":"read","sector":{sector}}}]}}}}"#
    )
}

/// The files of a directory.
fn files_of(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("UTF-8"));
    // What a server has beside the files of others.
    names.filter(|name| !name.starts_with('.')).collect()
}

impl Place<'_> {
    fn run(&self, line: &str) -> Ran {
        let output = (self.tool)(line).output().expect("the tool");
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The line fails, and there is what there was.
    #[track_caller]
    fn fails(&self, line: &str) {
        let before = (self.list)();
        let ran = self.run(line);
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        assert_eq!((self.list)(), before, "{line}: {ran:?}");
    }

    /// The source fails, and there is what there was.
    #[track_caller]
    fn fails_by_the_source(&self, sector: u64, format: &str, target: &str) {
        let before = (self.list)();
        let source = failing_at(sector);
        let line = format!("convert -f raw -O {format} {source} {target}");
        let ran = self.run(&line);
        let is_fault = ran.err.contains("error while reading at byte");
        assert!(ran.code == 1 && is_fault, "{line}: {ran:?}");
        assert_eq!((self.list)(), before, "{line}: {ran:?}");
    }

    /// A source that fails at its beginning, in its middle and at its end, into a name that is free.
    fn undoes_what_a_fault_ends(&self) {
        for sector in [0, LEN / 1024, LEN / 512 - 1] {
            for format in ["raw", "qcow2", "vmdk", "vpc"] {
                self.fails_by_the_source(sector, format, &(self.name)("new"));
            }
        }
    }

    /// The target itself fails while it is made: few file systems have files of that size.
    fn undoes_what_the_target_refuses(&self) {
        let before = (self.list)();
        let line = format!("create -q -f raw {} 7E", (self.name)("huge"));
        let ran = self.run(&line);
        if ran.code == 0 {
            eprintln!("LEFT OUT: a target that is refused: the file system has files of 7 EiB");
            return;
        }
        assert_eq!((self.list)(), before, "{line}: {ran:?}");
    }

    /// The target fails in the middle of the copy.
    fn undoes_what_a_full_target_ends(&self) {
        for format in ["raw", "qcow2", "vmdk", "vpc"] {
            let new = (self.name)("new");
            self.fails(&format!("convert -f raw -O {format} a.raw {new}"));
        }
    }

    /// A signal while the copy is under way.
    fn undoes_what_a_signal_ends(&self) {
        let before = (self.list)();
        let line = format!("convert -r 1M -f raw -O raw a.raw {}", (self.name)("new"));
        let mut command = (self.tool)(&line);
        let mut child = command.stdout(Stdio::null()).spawn().expect("the tool");
        while (self.list)() == before {
            let ended = child.try_wait().expect("its state");
            assert!(ended.is_none(), "{line}: it ended too early: {ended:?}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let pid = child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.expect("kill").success());
        let status = end_of(&mut child, &line);
        assert_eq!(status.signal(), Some(15), "{line}: {status:?}");
        assert_eq!((self.list)(), before, "{line}");
    }

    /// What was there keeps its name, and what it is when the failure comes before its first change.
    fn removes_nothing_that_was_there(&self) {
        let old = (self.name)("old");
        let ran = self.run(&format!("convert -f raw -O raw a.raw {old}"));
        assert_eq!(ran.code, 0, "{ran:?}");
        let compare = format!("compare -f raw -F raw a.raw {old}");
        for early in [
            format!("create -q -f qcow2 -o cluster_size=3 {old} 1M"),
            format!("convert -f qcow2 -O raw a.raw {old}"),
        ] {
            self.fails(&early);
            let ran = self.run(&compare);
            assert_eq!(ran.code, 0, "{early}: {ran:?}");
        }
        // An image of Ceph is refused because it is there.
        let source = failing_at(LEN / 1024);
        self.fails(&format!("convert -f raw -O raw {source} {old}"));
    }

    fn undoes(&self) {
        self.undoes_what_a_fault_ends();
        self.undoes_what_a_signal_ends();
        self.removes_nothing_that_was_there();
    }
}

/// The tool, which dies by signals even where the test itself was started with some ignored.
fn tool(dir: &Dir, line: &str) -> Command {
    let ours = ours_command(&words(line), dir.root());
    let mut command = Command::new("env");
    command
        .arg("--default-signal=TERM")
        .arg(ours.get_program())
        .args(ours.get_args())
        .env("LC_ALL", "C")
        .current_dir(dir.root())
        .stdin(Stdio::null());
    command
}

#[test]
fn file() {
    let dir = with_source();
    std::fs::create_dir(dir.path("far")).expect("a directory");
    let place = Place {
        name: &|name| format!("far/{name}"),
        list: &|| files_of(&dir.path("far")),
        tool: &|line| tool(&dir, line),
    };
    place.undoes();
    place.undoes_what_the_target_refuses();
    // No file may become longer than that, in blocks of 512 bytes.
    let formats = platter::format::registry::drivers().iter();
    for format in formats.filter(|driver| driver.create.is_some()) {
        let mut ended = 0;
        for blocks in [0, 1, 2, 3, 8, 64, 128, 1024, 4096] {
            let before = files_of(&dir.path("far"));
            let line = match format.name {
                "luks" => "convert --object secret,id=s,data=x -o key-secret=s,iter-time=10 -f raw -O luks a.raw far/new".to_owned(),
                name => format!("convert -f raw -O {name} a.raw far/new"),
            };
            let ours = ours_command(&words(&line), dir.root());
            let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
            let output = Command::new("bash")
                .args(["-c", &script])
                .arg(ours.get_program())
                .args(ours.get_args())
                .current_dir(dir.root())
                .output()
                .expect("the tool");
            let after = files_of(&dir.path("far"));
            if output.status.success() {
                for made in after.difference(&before) {
                    std::fs::remove_file(dir.path("far").join(made)).expect("a file");
                }
                continue;
            }
            ended += 1;
            assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
            assert_eq!(after, before, "{line} within {blocks} blocks: {output:?}");
        }
        assert!(ended > 0, "{}: nothing has failed", format.name);
    }
}

#[test]
fn ssh() {
    if ssh::server::sshd_is_missing() {
        return;
    }
    let dir = with_source();
    std::fs::create_dir(dir.path("far")).expect("a directory");
    let server = ssh::server::Server::new(&dir);
    let place = Place {
        name: &|name| server.url(&format!("far/{name}")),
        list: &|| files_of(&dir.path("far")),
        tool: &|line| tool(&dir, line),
    };
    place.undoes();
    place.undoes_what_the_target_refuses();
    drop(server);
    // Files of this one end at 64 KiB.
    let script = "#!/bin/bash\ntrap '' XFSZ\nulimit -f 64\nexec /usr/lib/openssh/sftp-server\n";
    std::fs::write(dir.path("limited"), script).expect("a script");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path("limited"), mode).expect("its mode");
    let server = ssh::server::Server::with(&dir, &dir.str("limited"));
    Place {
        name: &|name| server.url(&format!("far/{name}")),
        list: &|| files_of(&dir.path("far")),
        tool: &|line| tool(&dir, line),
    }
    .undoes_what_a_full_target_ends();
}

#[test]
fn nfs() {
    if nfs::server::ganesha_is_missing() {
        return;
    }
    let dir = with_source();
    let server = nfs::server::Server::new(&dir);
    let place = Place {
        name: &|name| format!("nfs://127.0.0.1{}/exp/{name}", dir.root().display()),
        list: &|| files_of(&dir.path("exp")),
        tool: &|line| server.tool(&dir, line),
    };
    place.undoes();
    place.undoes_what_the_target_refuses();
}

#[test]
fn gluster() {
    if gluster::server::gluster_is_missing() {
        return;
    }
    let dir = with_source();
    let server = gluster::server::Server::new(&dir);
    let place = Place {
        name: &|name| format!("gluster://{}/v/{name}", gluster::server::HOST),
        list: &|| files_of(&dir.path("brick")),
        tool: &|line| server.tool(&dir, line),
    };
    place.undoes();
    place.undoes_what_the_target_refuses();
}

#[test]
fn rbd() {
    if rbd::cluster::ceph_is_missing() {
        return;
    }
    let (dir, cluster) = (with_source(), rbd::cluster::shared());
    let suffix = rbd::cluster::fresh();
    let place = Place {
        name: &|name| cluster.name(&format!("{name}-{suffix}")),
        // Others use the cluster at the same time.
        list: &|| {
            let names = cluster.rbd("ls rbd");
            let own = names.lines().filter(|name| name.ends_with(&suffix));
            own.map(str::to_owned).collect()
        },
        tool: &|line| tool(&dir, line),
    };
    place.undoes();
    // The cluster makes no object of that size.
    let new = (place.name)("new");
    place.fails(&format!("create -q -f raw -o cluster_size=1E {new} 1M"));
    cluster.rbd(&format!("rm --no-progress rbd/old-{suffix}"));
}

/// What makes nothing removes nothing: a unit or an export that is written to is there before and after, with the
/// length that it had, and as it was where the failure comes first.
#[track_caller]
fn keeps(place: &Place<'_>, behind: &Path) {
    let before = std::fs::read(behind).expect("a file");
    let there = (place.name)("old");
    for early in [
        format!("create -q -f qcow2 -o cluster_size=3 {there} 1M"),
        format!("convert -f qcow2 -O raw a.raw {there}"),
        // It is too small.
        format!("create -q -f raw {there} 1T"),
    ] {
        place.fails(&early);
        let after = std::fs::read(behind).expect("a file");
        assert!(after == before, "{early}");
    }
    for format in ["raw", "qcow2"] {
        place.fails_by_the_source(LEN / 1024, format, &there);
    }
    let len = behind.metadata().expect("a file").len();
    assert_eq!(len, before.len() as u64);
}

#[test]
fn iscsi() {
    if iscsi::server::tgtd_is_missing() {
        return;
    }
    let dir = with_source();
    std::fs::write(dir.path("unit"), vec![0xa5; 16 << 20]).expect("a unit");
    let server = iscsi::server::Server::new(&dir);
    server.unit(1, "unit", None, "");
    let place = Place {
        name: &|_| server.url(1),
        list: &|| files_of(dir.root()),
        tool: &|line| tool(&dir, line),
    };
    keeps(&place, &dir.path("unit"));
}

#[test]
fn nbd() {
    let dir = with_source();
    std::fs::write(dir.path("export"), vec![0xa5; 16 << 20]).expect("an export");
    let args = ["-f", "raw", "-e", "8", &dir.str("export")];
    let server = nbd::server::Server::qemu_nbd(&dir, "n", &args);
    let place = Place {
        name: &|_| server.url(""),
        list: &|| files_of(dir.root()),
        tool: &|line| tool(&dir, line),
    };
    keeps(&place, &dir.path("export"));
}
