//! Servers for the length of a test, on sockets in its directory.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::Dir;

/// A server; ended when it is dropped.
pub struct Server {
    child: Child,
    socket: String,
}

/// Whether tests with nbdkit have to be left out.
pub fn nbdkit_is_missing() -> bool {
    let missing = Command::new("nbdkit")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err();
    if missing {
        eprintln!("LEFT OUT: nbdkit is not installed (ci/setup.sh)");
    }
    missing
}

impl Server {
    /// QEMU's server.
    pub fn qemu_nbd(dir: &Dir, name: &str, args: &[&str]) -> Self {
        let socket = dir.str(&format!("{name}.sock"));
        let pid = dir.str(&format!("{name}.pid"));
        let mut command = Command::new("qemu-nbd");
        command
            .args(["-t", "-k", &socket, "--pid-file", &pid])
            .args(args);
        Self::start(command, dir, socket, &pid)
    }

    /// nbdkit.
    pub fn nbdkit(dir: &Dir, name: &str, args: &[String]) -> Self {
        let socket = dir.str(&format!("{name}.sock"));
        let pid = dir.str(&format!("{name}.pid"));
        // What an earlier one has left behind when it was killed.
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("nbdkit");
        command.args(["-f", "-U", &socket, "-P", &pid]).args(args);
        Self::start(command, dir, socket, &pid)
    }

    /// The file with its process number is written when it listens.
    fn start(mut command: Command, dir: &Dir, socket: String, pid: &str) -> Self {
        let _ = std::fs::remove_file(pid);
        let mut child = command
            .current_dir(dir.root())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::fs::metadata(Path::new(pid)).map_or(0, |meta| meta.len()) == 0 {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{command:?} has ended: {ended:?}");
            assert!(Instant::now() < deadline, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, socket }
    }

    /// Where it listens.
    pub fn socket(&self) -> String {
        self.socket.clone()
    }

    /// The name of one of its exports.
    pub fn url(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
