//! Locks against those of the QEMU tools, in both directions.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::Dir;
use platter::object::Objects;
use platter::ops::create::{CreatePlan, CreateRequest};
use platter::storage::file::{self, FileOpen, FileStorage, Locking};
use platter::storage::{LockRequest, Permissions, Storage};
use platter::{Job, Location, OpenPolicy, Options};

/// Creates an image of 1 MiB.
fn create(path: &Path, format: &str) -> platter::Result<()> {
    let request = CreateRequest {
        location: Location::from_path(path),
        format: format.to_owned(),
        size: Some(1 << 20),
        options: Options::new(),
        backing_file: None,
        backing_format: None,
        backing_unsafe: false,
        exclusive: false,
        objects: Objects::default(),
        policy: OpenPolicy::permissive(),
        storages: None,
    };
    let mut job = Job::default();
    CreatePlan::new(request, &mut job)?.run(&mut job)
}

/// `qemu-io` with an image open, until dropped.
struct Holder(Child);

impl Holder {
    fn open(directory: &Path, args: &[&str], image: &str) -> Self {
        let mut child = Command::new("qemu-io")
            .args(args)
            .arg(image)
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("qemu-io must be installed for this test");
        // Its answer shows that the image is open.
        let stdin = child.stdin.as_mut().expect("a pipe");
        stdin.write_all(b"length\n").expect("qemu-io listens");
        let mut answer = Vec::new();
        let mut byte = [0];
        let stdout = child.stdout.as_mut().expect("a pipe");
        while !answer.ends_with(b"iB") {
            assert_eq!(stdout.read(&mut byte).expect("qemu-io answers"), 1);
            answer.push(byte[0]);
        }
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The bytes of the file on which an open-file-description lock is held, ascending.
fn locked_bytes(path: &Path) -> Vec<u64> {
    let inode = format!(":{}", path.metadata().expect("the file").ino());
    let table = std::fs::read_to_string("/proc/locks").expect("/proc");
    let mut bytes = Vec::new();
    for line in table.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields[1] == "OFDLCK" && fields[5].ends_with(&inode) {
            let (first, last): (u64, u64) =
                (fields[6].parse().unwrap(), fields[7].parse().unwrap());
            bytes.extend(first..=last);
        }
    }
    bytes.sort_unstable();
    bytes
}

fn open(path: &Path, writable: bool) -> FileStorage {
    let options = FileOpen {
        writable,
        ..FileOpen::default()
    };
    file::open(path, &options).unwrap()
}

fn guarded() -> Permissions {
    Permissions::WRITE | Permissions::RESIZE
}

fn writer() -> LockRequest {
    LockRequest {
        uses: Permissions::all(),
        denies: guarded(),
    }
}

fn reader() -> LockRequest {
    LockRequest {
        uses: Permissions::CONSISTENT_READ,
        denies: guarded(),
    }
}

#[test]
fn the_same_bytes_as_qemu() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "a", "1M"]);
    let path = dir.path("a");
    for (args, writable, request) in [
        (&["-f", "qcow2"][..], true, writer()),
        (&["-r", "-f", "qcow2"], false, reader()),
        (
            &["-f", "raw"],
            true,
            LockRequest {
                uses: Permissions::CONSISTENT_READ | Permissions::WRITE,
                denies: Permissions::empty(),
            },
        ),
    ] {
        let theirs = {
            let _holder = Holder::open(dir.root(), args, "a");
            locked_bytes(&path)
        };
        let storage = open(&path, writable);
        storage.lock(request).unwrap();
        assert_eq!(locked_bytes(&path), theirs, "{args:?}");
        storage.lock(LockRequest::default()).unwrap();
        assert!(locked_bytes(&path).is_empty());
    }
}

#[test]
fn qemu_keeps_us_out() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "a", "1M"]);
    let before = std::fs::read(dir.path("a")).unwrap();
    let _holder = Holder::open(dir.root(), &["-f", "qcow2"], "a");
    let storage = open(&dir.path("a"), true);
    assert_eq!(
        storage.lock(writer()).unwrap_err().to_string(),
        "Failed to get \"write\" lock"
    );
    let error = storage.lock(reader()).unwrap_err();
    assert_eq!(error.to_string(), "Failed to get shared \"write\" lock");
    assert_eq!(
        error.hints(),
        [format!(
            "Is another process using the image [{}]?",
            dir.str("a")
        )]
    );
    let error = create(&dir.path("a"), "qcow2").unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with(": Failed to get \"write\" lock"),
        "{error}"
    );
    assert!(std::fs::read(dir.path("a")).unwrap() == before);
    let unlocked = FileOpen {
        locking: Locking::Off,
        ..FileOpen::default()
    };
    let unlocked = file::open(&dir.path("a"), &unlocked).unwrap();
    unlocked.lock(reader()).unwrap();
}

#[test]
fn we_keep_qemu_out() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "a", "1M"]);
    let question = "\nIs another process using the image [a]?\n";
    let storage = open(&dir.path("a"), true);
    storage.lock(writer()).unwrap();
    assert_eq!(
        dir.qemu_img(&["info", "a"]).err,
        format!("qemu-img: Could not open 'a': Failed to get shared \"write\" lock{question}")
    );
    assert_eq!(
        dir.qemu_img(&["create", "-q", "-f", "qcow2", "a", "1M"])
            .err,
        format!("qemu-img: a: Failed to get \"write\" lock{question}")
    );
    storage.lock(reader()).unwrap();
    assert_eq!(dir.qemu_img(&["info", "a"]).code, 0);
    assert_eq!(
        dir.qemu_img(&["resize", "a", "2M"]).err,
        format!("qemu-img: Could not open 'a': Failed to get \"write\" lock{question}")
    );
    drop(storage);
    assert_eq!(dir.qemu_img(&["resize", "-q", "a", "2M"]).code, 0);
    create(&dir.path("a"), "qcow2").unwrap();
    assert!(locked_bytes(&dir.path("a")).is_empty());
}
