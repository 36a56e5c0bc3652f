//! An image as a file of this machine: what programs see of it, how it changes, and how it goes away.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::remembered::is_hole_at;
use super::{Served, done, images, same_file, until};
use crate::common::{Dir, run_in};

/// Whether this user can mount; says so where not.
fn fuse() -> bool {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let root = done(&Dir::new(), "id", &["-u"]).trim() == "0";
    let can = root && device.is_ok();
    if !can {
        eprintln!("SKIPPED: mounts by FUSE need root and /dev/fuse");
    }
    can
}

/// A mounted image; it is unmounted with this.
struct Mounted {
    child: Child,
    at: PathBuf,
}

impl Mounted {
    /// Ours, at the file `m`.
    fn ours(dir: &Dir, args: &[&str]) -> Self {
        let mut command = Command::new(crate::build::tool());
        command.args(["serve", "--fuse", "m"]).args(args);
        Self::start(dir, command)
    }

    /// QEMU's.
    fn theirs(dir: &Dir, format: &str, file: &str, options: &str) -> Self {
        let at = dir.path("m");
        let export = format!(
            "fuse,id=e,node-name=n,mountpoint={},{options}",
            at.display()
        );
        let protocol = format!("file,node-name=f,filename={file},discard=unmap");
        let mut command = Command::new("qemu-storage-daemon");
        command
            .args(["--blockdev", &protocol, "--blockdev"])
            .arg(format!("{format},node-name=n,file=f,discard=unmap"))
            .args(["--export", &export]);
        Self::start(dir, command)
    }

    fn start(dir: &Dir, command: Command) -> Self {
        let at = dir.path("m");
        fs::write(&at, "").expect("a mount point");
        Self::start_at(dir, at, command)
    }

    fn start_at(dir: &Dir, at: PathBuf, mut command: Command) -> Self {
        let child = command
            .current_dir(dir.root())
            .stdin(Stdio::null())
            .spawn()
            .expect("a server");
        let mut mounted = Self { child, at };
        until("the mount", || {
            let ended = mounted.child.try_wait().expect("to look at the server");
            assert!(ended.is_none(), "the server ended: {ended:?}");
            is_mounted(&mounted.at)
        });
        mounted
    }

    fn open(&self) -> File {
        let open = OpenOptions::new().read(true).write(true).open(&self.at);
        open.expect("the file")
    }

    fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        until("the end of the server", || {
            ended = self.child.try_wait().expect("to look at the server");
            ended.is_some()
        });
        ended.expect("an end")
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill").success());
    }

    /// Ends it by a signal, as users do; the mount point is what it was.
    fn end(mut self) {
        self.leave();
        assert_eq!(fs::metadata(&self.at).expect("the mount point").len(), 0);
    }
}

impl Mounted {
    fn leave(&mut self) {
        self.signal("-TERM");
        assert!(self.wait().success());
        assert!(!is_mounted(&self.at));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if is_mounted(&self.at) {
            let _ = Command::new("umount").arg("-l").arg(&self.at).status();
        }
    }
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    let path = path.to_str().expect("a plain name");
    mounts
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(path))
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result
        .expect_err("an error")
        .raw_os_error()
        .expect("an errno")
}

#[test]
fn every_format_is_a_file_of_the_same_bytes() {
    if !fuse() {
        return;
    }
    let dir = Dir::new();
    for (format, file) in images(&dir) {
        let mounted = Mounted::ours(&dir, &["-f", format, file]);
        same_file(&dir.path("m"), &dir.path("a.raw"));
        let found = fs::metadata(dir.path("m")).expect("the file");
        assert_eq!((found.len(), found.mode() & 0o7777), (24 << 20, 0o400));
        // Blocks of a compressed image are fewer; those of holes are none.
        assert!(found.blocks() > 0 && found.blocks() * 512 < 24 << 20);
        let compare = ["compare", "-f", "raw", "-F", format, "m", file];
        dir.qemu_img_ok(&compare);
        let map = ["map", "--output=json", "-f", "raw", "m"];
        let theirs = dir.qemu_img_ok(&map);
        let ours = done(&dir, &crate::build::tool().to_string_lossy(), &map);
        assert_eq!(ours, theirs);
        let zeroes = theirs
            .lines()
            .filter(|line| line.contains("\"zero\": true"));
        assert!(zeroes.count() >= 3, "{file}: {theirs}");
        let refused = OpenOptions::new().write(true).open(dir.path("m"));
        assert_eq!(errno(refused), 30, "EROFS");
        mounted.end();
    }
}

#[test]
fn what_programs_do_to_it_is_done_as_through_qemus() {
    if !fuse() {
        return;
    }
    let dir = Dir::new();
    for (format, file) in [("raw", "a.raw"), ("qcow2", "b.qcow2"), ("qcow2", "f.qcow2")] {
        let results = [true, false].map(|ours| {
            images(&dir);
            let mounted = match ours {
                true => Mounted::ours(&dir, &["--writable", "-f", format, file]),
                false => Mounted::theirs(&dir, format, file, "writable=on"),
            };
            let found = fs::metadata(dir.path("m")).expect("the file");
            let stat = (found.len(), found.mode(), found.uid(), found.nlink());
            let notrunc = [
                "if=/dev/zero",
                "of=m",
                "bs=1000",
                "count=70",
                "conv=notrunc",
            ];
            run_in(dir.root(), "dd", &notrunc);
            done(&dir, "fallocate", &["-p", "-o", "5M", "-l", "64K", "m"]);
            done(&dir, "fallocate", &["-z", "-o", "20M", "-l", "1M", "m"]);
            let open = mounted.open();
            open.write_all_at(&[7; 3000], 6 << 20).expect("a write");
            open.write_all_at(&[8; 1], (24 << 20) - 1).expect("a write");
            // The file ends where the image does.
            assert_eq!(
                open.write_at(&[9; 200], (24 << 20) - 100).expect("a part"),
                100
            );
            open.sync_all().expect("a sync");
            let mut byte = [0];
            assert_eq!(open.read_at(&mut byte, 24 << 20).expect("nothing"), 0);
            drop(open);
            mounted.end();
            dir.qemu_img_ok(&["convert", "-f", format, "-O", "raw", file, "after.raw"]);
            (stat, fs::read(dir.path("after.raw")).expect("the bytes"))
        });
        assert_eq!(results[0].0, results[1].0, "{file}");
        assert!(results[0].1 == results[1].1, "{file}");
        if format == "qcow2" {
            dir.qemu_img_ok(&["check", "-f", "qcow2", file]);
        }
    }
}

#[test]
fn its_size_stays_unless_it_may_grow() {
    if !fuse() {
        return;
    }
    let dir = Dir::new();
    for format in ["raw", "qcow2"] {
        let file = format!("g.{format}");
        dir.qemu_img_ok(&["create", "-q", "-f", format, &file, "1M"]);
        let mounted = Mounted::ours(&dir, &["-w", "-f", format, &file]);
        let open = mounted.open();
        assert_eq!(errno(open.set_len(2 << 20)), 1, "EPERM");
        assert_eq!(errno(open.set_len(1000)), 1, "EPERM");
        assert_eq!(errno(open.write_at(b"x", 1 << 20)), 28, "ENOSPC");
        let emptied = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&mounted.at);
        drop(emptied.expect("to open it"));
        assert_eq!(open.metadata().expect("its size").len(), 1 << 20);
        drop(open);
        mounted.end();

        let mounted = Mounted::ours(&dir, &["-w", "--growable", "-f", format, &file]);
        let open = mounted.open();
        assert_eq!(errno(open.set_len(1000)), 1, "EPERM");
        open.set_len(2 << 20).expect("to grow");
        // What is new ends with a whole sector.
        open.write_all_at(&[5; 100], 3 << 20).expect("to grow");
        assert_eq!(open.metadata().expect("its size").len(), (3 << 20) + 512);
        done(&dir, "fallocate", &["-z", "-o", "4M", "-l", "64K", "m"]);
        assert_eq!(
            open.metadata().expect("its size").len(),
            (4 << 20) + (64 << 10)
        );
        // Behind the end there is nothing, and that is no error.
        for at in [4_259_840, 4_259_841, 1 << 40] {
            assert_eq!(open.read_at(&mut [1; 100], at).expect("a read"), 0);
        }
        let mut bytes = vec![1; 1 << 20];
        open.read_exact_at(&mut bytes, (2 << 20) + 100)
            .expect("a read");
        assert!(bytes[..(1 << 20) - 100].iter().all(|byte| *byte == 0));
        assert!(bytes[(1 << 20) - 100..].iter().all(|byte| *byte == 5));
        drop(open);
        mounted.end();
        dir.qemu_io(format, &file, &["read -P 5 3M 100", "read -P 0 1M 2M"]);
        let info = dir.qemu_img_ok(&["info", "-f", format, &file]);
        assert!(info.contains("(4259840 bytes)"), "{info}");
    }
}

#[test]
fn a_file_system_lives_on_it_also_through_a_loop_device() {
    if !fuse() {
        return;
    }
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "fs.qcow2", "64M"]);
    let mounted = Mounted::ours(&dir, &["-w", "-f", "qcow2", "fs.qcow2"]);
    done(&dir, "mkfs.ext4", &["-q", "-F", "m"]);
    done(&dir, "e2fsck", &["-fn", "m"]);
    let attached = run_in(dir.root(), "losetup", &["-f", "--show", "m"]);
    if attached.code == 0 {
        let device = attached.out.trim().to_owned();
        let copied = run_in(
            dir.root(),
            "dd",
            &["if=/dev/urandom", "of=r", "bs=1M", "count=4"],
        );
        assert_eq!(copied.code, 0, "{copied:?}");
        let written = run_in(dir.root(), "debugfs", &["-w", "-R", "write r r", &device]);
        done(&dir, "sync", &[&device]);
        let read = run_in(dir.root(), "debugfs", &["-R", "dump r back", &device]);
        done(&dir, "losetup", &["-d", &device]);
        assert_eq!((written.code, read.code), (0, 0), "{written:?} {read:?}");
        same_file(&dir.path("r"), &dir.path("back"));
        // The device may be let go of a moment later.
        until("the loop device to go", || {
            !run_in(dir.root(), "losetup", &["-a"]).out.contains(&device)
        });
    } else {
        eprintln!("SKIPPED: no loop device: {}", attached.err);
    }
    done(&dir, "e2fsck", &["-fn", "m"]);
    mounted.end();
    dir.qemu_img_ok(&["check", "-f", "qcow2", "fs.qcow2"]);
    dir.qemu_img_ok(&["convert", "-O", "raw", "fs.qcow2", "fs.raw"]);
    done(&dir, "e2fsck", &["-fn", "fs.raw"]);
}

#[test]
fn what_others_write_to_an_export_behind_is_no_hole_any_more() {
    if !fuse() {
        return;
    }
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "behind.raw", "16M"]);
    let behind = Served::theirs(&dir, &["-f", "raw", "behind.raw"]);
    let uri = behind.uri("");
    let mounted = Mounted::ours(&dir, &["-f", "raw", &uri]);
    assert!(is_hole_at(&dir, "m", 1 << 20));
    dir.qemu_io("raw", &uri, &["write -P 1 1M 256k", "flush"]);
    assert!(!is_hole_at(&dir, "m", 1 << 20));
    mounted.end();
}

#[test]
fn it_ends_while_files_are_open_and_with_its_mount() {
    if !fuse() {
        return;
    }
    let dir = Dir::new();
    images(&dir);
    let mut mounted = Mounted::ours(&dir, &["-w", "-f", "qcow2", "b.qcow2"]);
    let mut open = mounted.open();
    open.write_all_at(&[3; 5000], 100).expect("a write");
    mounted.signal("-TERM");
    assert!(mounted.wait().success());
    assert!(!is_mounted(&mounted.at));
    let read = open.read(&mut [0; 100]);
    assert_eq!(read.expect_err("an error").kind(), ErrorKind::NotConnected);
    drop(open);
    dir.qemu_io("qcow2", "b.qcow2", &["read -P 3 100 5000"]);
    dir.qemu_img_ok(&["check", "-f", "qcow2", "b.qcow2"]);

    let mut mounted = Mounted::ours(&dir, &["-f", "qcow2", "b.qcow2"]);
    done(&dir, "umount", &["m"]);
    assert!(mounted.wait().success());
}

#[test]
fn what_was_synced_outlives_a_kill_and_the_stale_mount_has_a_remedy() {
    if !fuse() {
        return;
    }
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "k.qcow2", "16M"]);
    let mut mounted = Mounted::ours(&dir, &["-w", "-f", "qcow2", "k.qcow2"]);
    let open = mounted.open();
    open.write_all_at(&[4; 100_000], 1 << 20).expect("a write");
    open.sync_data().expect("a sync");
    open.write_all_at(&[5; 100_000], 2 << 20).expect("a write");
    mounted.signal("-KILL");
    mounted.wait();
    let failed = open.write_at(b"x", 0);
    assert_eq!(
        failed.expect_err("an error").kind(),
        ErrorKind::NotConnected
    );
    drop(open);
    let tool = crate::build::tool().to_string_lossy().into_owned();
    let again = ["serve", "--fuse", "m", "-f", "qcow2", "k.qcow2"];
    let refused = run_in(dir.root(), &tool, &again);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.err.contains("Could not mount at 'm'")
            && refused.err.contains("fusermount3 -u 'm'"),
        "{refused:?}"
    );
    done(&dir, "umount", &["m"]);
    let out = dir.qemu_io("qcow2", "k.qcow2", &["read -P 4 1M 100000"]);
    assert!(!out.contains("failed"), "{out}");
    let check = dir.qemu_img(&["check", "-f", "qcow2", "k.qcow2"]);
    // What was reserved may be lost, but nothing is wrong.
    assert!(check.code == 0 || check.code == 3, "{check:?}");
    drop(mounted);
}

#[test]
fn errors_of_the_image_reach_the_program_that_asked() {
    if !fuse() {
        return;
    }
    let dir = Dir::new();
    images(&dir);
    let injected = "driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=a.raw,\
        file.inject-error.0.event=read_aio,file.inject-error.0.errno=5,file.inject-error.0.sector=2048,\
        file.inject-error.0.immediately=off";
    let mounted = Mounted::ours(&dir, &["-w", "--image-opts", injected]);
    let open = mounted.open();
    assert_eq!(errno(open.read_at(&mut [0; 512], 1 << 20)), 5, "EIO");
    open.read_exact_at(&mut [0; 512], 512).expect("a read");
    drop(open);
    mounted.end();

    // A host that is full.
    fs::create_dir(dir.path("small")).expect("a directory");
    done(
        &dir,
        "mount",
        &["-t", "tmpfs", "-o", "size=1M", "tmpfs", "small"],
    );
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "small/s.qcow2", "8M"]);
    let mounted = Mounted::ours(&dir, &["-w", "-f", "qcow2", "small/s.qcow2"]);
    let open = mounted.open();
    assert_eq!(errno(open.write_all_at(&vec![1; 4 << 20], 0)), 28, "ENOSPC");
    drop(open);
    let mut mounted = mounted;
    mounted.signal("-TERM");
    mounted.wait();
    drop(mounted);
    done(&dir, "umount", &["small"]);
}

#[test]
fn what_cannot_be_mounted_is_refused_in_one_line() {
    let dir = Dir::new();
    images(&dir);
    fs::write(dir.path("m"), "").expect("a mount point");
    let tool = crate::build::tool().to_string_lossy().into_owned();
    for (args, says) in [
        (
            &["--fuse", "."][..],
            "Could not mount at '.': The mount point is not a regular file",
        ),
        (
            &["--fuse", "x"],
            "Could not mount at 'x': No such file or directory",
        ),
        (&["--fuse", "m", "-k", "s"], "mutually exclusive"),
        (&["--fuse", "m", "-p", "1"], "mutually exclusive"),
        (&["--fuse", "m", "--growable"], "without --writable"),
        (&["--fuse", "m", "-w", "-r"], "mutually exclusive"),
        (&["--growable"], "without --fuse"),
        (
            &["--fuse", "m", "--allow-other", "x"],
            "Invalid mode of --allow-other 'x'",
        ),
        (
            &["--fuse", "m", "-w", "--growable", "-o", "1M"],
            "Only what is offered for writing as a whole can be growable",
        ),
    ] {
        let all = [&["serve", "-f", "qcow2"][..], args, &["b.qcow2"]].concat();
        let refused = run_in(dir.root(), &tool, &all);
        assert_eq!(refused.code, 1, "{args:?}: {refused:?}");
        assert!(refused.err.contains(says), "{args:?}: {refused:?}");
    }
}

#[test]
fn a_window_and_many_readers_and_writers_at_once() {
    if !fuse() {
        return;
    }
    let dir = Dir::new();
    images(&dir);
    let mounted = Mounted::ours(
        &dir,
        &["-w", "-f", "qcow2", "-o", "5M", "--size", "100k", "b.qcow2"],
    );
    assert_eq!(
        fs::read(&mounted.at).expect("the bytes"),
        vec![2; 100 << 10]
    );
    mounted.end();

    let mounted = Mounted::ours(&dir, &["-w", "-f", "qcow2", "b.qcow2"]);
    std::thread::scope(|scope| {
        for number in 0..8u8 {
            let at = &mounted.at;
            scope.spawn(move || {
                let direct = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .custom_flags(if number % 2 == 0 { 0o40000 } else { 0 })
                    .open(at)
                    .expect("the file");
                // Aligned for those without the page cache.
                let mut memory = vec![number + 1; (64 << 10) + 4096];
                let skip = memory.as_ptr().align_offset(4096);
                for round in 0..20u64 {
                    let place = ((u64::from(number) * 3) << 20) + ((round * 96) << 10);
                    let bytes = &mut memory[skip..skip + (64 << 10)];
                    direct.write_all_at(bytes, place).expect("a write");
                    bytes.fill(0);
                    direct.read_exact_at(bytes, place).expect("a read");
                    assert!(bytes.iter().all(|byte| *byte == number + 1));
                }
            });
        }
    });
    mounted.end();
    dir.qemu_img_ok(&["check", "-f", "qcow2", "b.qcow2"]);
}

#[test]
fn an_image_may_be_mounted_over_its_own_file() {
    if !fuse() {
        return;
    }
    let dir = Dir::new();
    images(&dir);
    for (format, file) in [("raw", "a.raw"), ("qcow2", "b.qcow2"), ("vmdk", "e.vmdk")] {
        let before = fs::read(dir.path("a.raw")).expect("the bytes");
        let mut command = Command::new(crate::build::tool());
        let args = ["serve", "--fuse", file, "--writable", "-f", format, file];
        command.args(args);
        let mut mounted = Mounted::start_at(&dir, dir.path(file), command);
        // What the name says now is the disk, and what is written to it goes to the file below.
        assert!(
            fs::read(dir.path(file)).expect("the file") == before,
            "{file}"
        );
        let open = OpenOptions::new().write(true).open(dir.path(file));
        let open = open.expect("the file");
        open.write_all_at(&[7; 70_000], 123_456).expect("a write");
        open.sync_all().expect("a flush");
        drop(open);
        // The name leads to the mount: nobody else reaches the file by it.
        let other = run_in(
            dir.root(),
            &crate::build::tool().to_string_lossy(),
            &["info", "--output=json", "-f", "raw", file],
        );
        assert_eq!(other.code, 0, "{other:?}");
        assert!(
            other.out.contains("\"virtual-size\": 25165824"),
            "{other:?}"
        );
        mounted.leave();
        dir.qemu_io(format, file, &["read -P 7 123456 70000"]);
        let mut after = before.clone();
        after[123_456..193_456].fill(7);
        dir.qemu_img_ok(&["convert", "-f", format, "-O", "raw", file, "after.raw"]);
        assert!(
            fs::read(dir.path("after.raw")).expect("the bytes") == after,
            "{file}"
        );
        if format == "qcow2" {
            dir.qemu_img_ok(&["check", "-q", "-f", "qcow2", file]);
        }
        // The others hold what they held.
        fs::write(dir.path("a.raw"), &before).expect("the bytes");
    }
}

/// What a user who is not root does, in order; the system is as its first argument says.
const USER: &str = r#"
cd "$1"
serve() { exec ./tool serve --fuse "$@" -f qcow2 "$IMAGE"; }
IMAGE=b.qcow2
mounted() { grep -q " $1/m .* - fuse" /proc/self/mountinfo; }
case $2 in
works)
    touch m
    serve m -w &
    server=$!
    trap 'kill -KILL $server 2>/dev/null || :' EXIT
    tries=0
    until mounted "$1"; do
        tries=$((tries + 1))
        [ $tries -lt 3000 ] || exit 9
        sleep 0.02
    done
    cmp m a.raw
    printf changed | dd of=m bs=1M seek=7 conv=notrunc,fsync status=none
    exec 3<m
    kill -TERM $server
    wait $server
    mounted "$1" && exit 8
    # Files that are open fail from now on.
    cat <&3 >&2 && exit 7
    [ ! -s m ]
    ;;
refused) serve m ;;
others) serve m --allow-other on ;;
foreign) serve mine ;;
esac
"#;

/// Runs a part of [`USER`] as nobody where /dev/fuse has this mode; the system outside does not change.
fn as_nobody(dir: &Dir, mode: &str, prepare: &str, part: &str) -> crate::common::Ran {
    let tool = crate::build::tool().to_string_lossy().into_owned();
    let outside = format!(
        "cd \"$1\" && mkdir -p nodes && mount -t tmpfs nodes nodes && mknod nodes/fuse c 10 229 && \
         chmod {mode} nodes/fuse && mount --bind nodes/fuse /dev/fuse && touch tool && \
         mount --bind \"$2\" tool && {prepare} && exec setpriv --reuid=65534 --regid=65534 --clear-groups \
         sh -ec \"$3\" sh \"$1\" \"$4\""
    );
    let root = dir.str(".");
    let root = root.trim_end_matches("/.");
    let args = ["-m", "sh", "-ec", &outside, "sh", root, &tool, USER, part];
    run_in(dir.root(), "unshare", &args)
}

#[test]
fn a_user_without_rights_mounts_by_the_systems_helper() {
    if !fuse() {
        return;
    }
    let dir = Dir::new();
    if run_in(dir.root(), "sh", &["-c", "command -v fusermount3"]).code != 0 {
        eprintln!("SKIPPED: fusermount3 (package fuse3) is not installed");
        return;
    }
    images(&dir);
    done(&dir, "chmod", &["777", "."]);
    done(&dir, "chmod", &["666", "a.raw", "b.qcow2"]);
    fs::write(dir.path("mine"), "").expect("a file of root");

    let works = as_nobody(&dir, "666", "true", "works");
    assert_eq!((works.code, works.out.as_str()), (0, ""), "{works:?}");
    let read = dir.qemu_io("qcow2", "b.qcow2", &["read -v 7M 512"]);
    assert!(read.contains("changed"), "{read}");
    dir.qemu_img_ok(&["check", "-f", "qcow2", "b.qcow2"]);

    for (mode, prepare, part, says) in [
        (
            "600",
            "true",
            "refused",
            "Could not mount at 'm': This user may not use FUSE: /dev/fuse: Permission denied",
        ),
        (
            "666",
            "mount --bind /dev/null \"$(command -v fusermount3)\"",
            "refused",
            "fusermount3, by which users other than root mount, could not be run",
        ),
        ("666", "true", "others", "user_allow_other"),
        (
            "666",
            "true",
            "foreign",
            "Could not mount at 'mine': fusermount3: ",
        ),
        (
            "666",
            "chmod 0 mine",
            "foreign",
            "Could not mount at 'mine': Permission denied",
        ),
    ] {
        let refused = as_nobody(&dir, mode, prepare, part);
        let errors: Vec<&str> = refused.err.lines().collect();
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.err.contains(says), "{says}: {refused:?}");
        let told = errors.iter().filter(|line| line.contains("Could not"));
        assert_eq!(told.count(), 1, "{refused:?}");
    }
}
