//! The NBD server under the tools of others: libnbd's and QEMU's read and write through it, and say of it what
//! they say of QEMU's own server.

mod access;
mod boot_sector;
mod command_line;
mod fuse;
mod guest;
mod killed;
mod large;
mod life;
mod list;
mod machine;
mod remembered;
mod status;
mod tls;
mod vhost_user;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Dir, Ran, run_in};

/// Whether libnbd's tools are here; says so where not.
fn libnbd() -> bool {
    let found = Command::new("nbdinfo")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        eprintln!("SKIPPED: nbdinfo and nbdcopy (package libnbd-bin) are not installed");
    }
    found
}

/// A server on a local socket; it ends with this.
pub(crate) struct Served {
    child: Child,
    socket: PathBuf,
}

impl Served {
    /// Ours, with these further arguments.
    pub(crate) fn ours(dir: &Dir, args: &[&str]) -> Self {
        let mut command = Command::new(crate::build::tool());
        command.arg("serve");
        Self::start(dir, command, "ours", args)
    }

    /// QEMU's.
    fn theirs(dir: &Dir, args: &[&str]) -> Self {
        let mut command = Command::new("qemu-nbd");
        command.args(["-t", "-e", "8"]);
        Self::start(dir, command, "theirs", args)
    }

    fn start(dir: &Dir, mut command: Command, name: &str, args: &[&str]) -> Self {
        let socket = dir.path(&format!("{name}.sock"));
        let pid = dir.path(&format!("{name}.pid"));
        let _ = std::fs::remove_file(&pid);
        let child = command
            .arg("-k")
            .arg(&socket)
            .arg("--pid-file")
            .arg(&pid)
            .args(args)
            .current_dir(dir.root())
            .stdin(Stdio::null())
            .spawn()
            .expect("a server");
        let mut served = Self { child, socket };
        // Written when clients are taken.
        until("the server to begin", || {
            let ended = served.child.try_wait().expect("to look at the server");
            assert!(ended.is_none(), "the server ended: {ended:?}");
            pid.metadata().is_ok_and(|found| found.len() > 0)
        });
        served
    }

    pub(crate) fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket.display())
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill").success());
    }

    /// Ends it by a signal, as users do.
    pub(crate) fn end(mut self) {
        self.signal("-TERM");
        let status = self.child.wait().expect("the end of the server");
        assert!(status.success(), "{status:?}");
        assert!(!self.socket.exists(), "the socket stays");
    }

    fn wait(mut self) -> std::process::ExitStatus {
        self.child.wait().expect("the end of the server")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Looks again and again until it is so.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let late = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < late, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn done(dir: &Dir, program: &str, args: &[&str]) -> String {
    let ran: Ran = run_in(dir.root(), program, args);
    assert_eq!(ran.code, 0, "{program} {args:?}: {ran:?}");
    ran.out
}

/// Images of the same bytes in several forms, as `(format, file)`; `a.raw` has the bytes.
fn images(dir: &Dir) -> Vec<(&'static str, &'static str)> {
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "a.raw", "24M"]);
    let writes = [
        "write -P 1 0 3M",
        "write -P 2 5M 100k",
        "write -P 3 9999k 1k",
        "write -P 0 12M 1M",
        "write -P 4 20M 4M",
    ];
    dir.qemu_io("raw", "a.raw", &writes);
    let convert = |args: &[&str], out: &str| {
        let all = [&["convert", "-f", "raw"], args, &["a.raw", out]].concat();
        dir.qemu_img_ok(&all);
    };
    convert(&["-O", "qcow2"], "b.qcow2");
    convert(&["-O", "qcow2", "-c"], "c.qcow2");
    convert(
        &["-O", "qcow2", "-o", "extended_l2=on,cluster_size=128k"],
        "d.qcow2",
    );
    convert(&["-O", "vmdk"], "e.vmdk");
    // A chain: what is above differs from what it hides.
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "base.raw", "24M"]);
    dir.qemu_io("raw", "base.raw", &["write -P 9 0 3M", "write -P 4 20M 4M"]);
    let over = [
        "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw", "f.qcow2",
    ];
    dir.qemu_img_ok(&over);
    dir.qemu_io("qcow2", "f.qcow2", &writes[..4]);
    vec![
        ("raw", "a.raw"),
        ("qcow2", "b.qcow2"),
        ("qcow2", "c.qcow2"),
        ("qcow2", "d.qcow2"),
        ("vmdk", "e.vmdk"),
        ("qcow2", "f.qcow2"),
    ]
}

/// The tool under QEMU's name.
fn as_qemu_nbd(dir: &Dir) -> PathBuf {
    let path = dir.path("qemu-nbd");
    if !path.exists() {
        std::os::unix::fs::symlink(crate::build::tool(), &path).expect("a link");
    }
    path
}

fn same_file(a: &Path, b: &Path) {
    let read = |path: &Path| std::fs::read(path).expect("a file");
    assert!(read(a) == read(b), "{a:?} and {b:?} differ");
}
