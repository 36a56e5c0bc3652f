//! An SSH server for the length of a test, with keys and a configuration of its own.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Dir, run_in};
use crate::ports;

const SSHD: &str = "/usr/sbin/sshd";

/// Whether tests with the server have to be left out.
pub fn sshd_is_missing() -> bool {
    let root = run_in(std::path::Path::new("/"), "id", &["-u"]).out.trim() == "0";
    let library = Command::new("ldconfig").arg("-p").output();
    let library =
        library.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("libssh.so.4 "));
    let missing = !std::path::Path::new(SSHD).exists() || !root || !library;
    if missing {
        eprintln!("LEFT OUT: tests of ssh need root, openssh-server and libssh-4 (ci/setup.sh)");
    }
    missing
}

/// A server on the loopback interface; ended when it is dropped.
pub struct Server {
    child: Child,
    pub port: u16,
    root: PathBuf,
}

/// Makes a pair of keys.
#[track_caller]
pub fn key(dir: &Dir, name: &str, kind: &str, passphrase: &str) {
    let args = ["-q", "-t", kind, "-N", passphrase, "-f", name];
    let ran = run_in(dir.root(), "ssh-keygen", &args);
    assert_eq!(ran.code, 0, "{ran:?}");
}

impl Server {
    /// One that serves files itself.
    pub fn new(dir: &Dir) -> Self {
        Self::with(dir, "internal-sftp")
    }

    /// One with that program in the place of its own for files.
    pub fn with(dir: &Dir, subsystem: &str) -> Self {
        Self::started(dir, subsystem, "", &[])
    }

    /// One with further lines of configuration, which come before the others, that is started by a command.
    pub fn started(dir: &Dir, subsystem: &str, lines: &str, by: &[&str]) -> Self {
        if !dir.path("host").exists() {
            key(dir, "host", "ed25519", "");
            key(dir, "id", "ed25519", "");
            key(dir, "locked", "ed25519", "open sesame");
            key(dir, "stranger", "ed25519", "");
            let keys = ["id.pub", "locked.pub"]
                .map(|name| std::fs::read_to_string(dir.path(name)).expect("a public key"));
            std::fs::write(dir.path("authorized"), keys.concat()).expect("a file of keys");
        }
        std::fs::create_dir_all("/run/sshd").expect("the server's directory");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let port = ports::free();
            let root = dir.root().display();
            let config = format!(
                "{lines}Port {port}\nListenAddress 127.0.0.1\nHostKey {root}/host\nPidFile none\n\
                 AuthorizedKeysFile {root}/authorized\nPasswordAuthentication no\n\
                 KbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nMaxStartups 100\n\
                 PermitRootLogin yes\nSubsystem sftp {subsystem}\n"
            );
            std::fs::write(dir.path("config"), config).expect("a configuration");
            let mut words = by.iter().copied().chain([SSHD]);
            let mut child = Command::new(words.next().unwrap_or(SSHD))
                .args(words)
                .args(["-D", "-e", "-f", &dir.str("config")])
                .current_dir(dir.root())
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the server");
            loop {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    let root = dir.root().to_owned();
                    return Self { child, port, root };
                }
                assert!(Instant::now() < deadline, "sshd does not listen");
                // Another process may have taken the port.
                if child.try_wait().expect("its state").is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// The name of a file, with the right key and without a check of the host.
    pub fn url(&self, name: &str) -> String {
        let root = self.root.display();
        self.url_with(name, &format!("host_key_check=no&identity={root}/id"))
    }

    /// The name of a file with what stands behind the `?`.
    pub fn url_with(&self, name: &str, query: &str) -> String {
        let (root, port) = (self.root.display(), self.port);
        format!("ssh://root@127.0.0.1:{port}{root}/{name}?{query}")
    }
}

impl Server {
    /// Ends it as if the machine were switched off, except for the connections that it has.
    pub fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// An agent that has the right key; ended when it is dropped.
pub struct Agent {
    child: Child,
    pub socket: String,
}

impl Agent {
    /// With the key of the server of that directory.
    pub fn new(dir: &Dir) -> Self {
        let socket = dir.str("agent");
        let child = Command::new("ssh-agent")
            .args(["-D", "-a", &socket])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("ssh-agent");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !dir.path("agent").exists() {
            assert!(Instant::now() < deadline, "ssh-agent does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        let added = Command::new("ssh-add")
            .args(["-q", &dir.str("id")])
            .env("SSH_AUTH_SOCK", &socket)
            .status();
        assert!(added.expect("ssh-add").success());
        Self { child, socket }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
