//! pyftpdlib on the loopback interface for the length of a test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::Dir;
use crate::site::Serves;

/// A server of what is in a directory; ended when it is dropped.
pub struct Server {
    child: Child,
    ports: Vec<u16>,
    log: PathBuf,
}

/// Whether this machine is to do without the server, which `ci/check.sh` counts.
pub fn server_is_left_out() -> bool {
    let left_out = std::env::var_os("PLATTER_SKIP_WITNESSES").is_some();
    if left_out {
        eprintln!("LEFT OUT: tests of FTP need pyftpdlib (ci/setup.sh)");
    }
    left_out
}

impl Server {
    /// The port without TLS.
    pub fn plain(&self) -> u16 {
        self.ports[0]
    }

    /// The ports without TLS, with TLS that is asked for, and with TLS from the first byte on.
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// That of one whose server is asked for TLS.
    pub fn asked(&self, path: &str) -> String {
        format!("ftp://localhost:{}/{path}", self.ports[1])
    }

    /// That of one over TLS.
    pub fn tls(&self, path: &str) -> String {
        format!("ftps://localhost:{}/{path}", self.ports[2])
    }

    /// What was asked for so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("its log")
    }
}

impl Serves for Server {
    fn new(dir: &Dir, made: &Path) -> Self {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
        let python = target.map(|target| target.join("witnesses/bin/python"));
        let python = python.expect("a target directory");
        let both = ["server-key.pem", "server-cert.pem"]
            .map(|name| std::fs::read(made.join(name)).expect("a file"));
        std::fs::write(made.join("both.pem"), both.concat()).expect("a file");
        let log = made.join("ftpd.log");
        let mut child = Command::new(&python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/ftpd.py"))
            .arg(dir.root())
            .arg(made.join("both.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).expect("a file"))
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{}: {error}; run sh ci/setup.sh, or set PLATTER_SKIP_WITNESSES",
                    python.display()
                )
            });
        let mut line = String::new();
        let out = child.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut line).expect("its ports");
        let ports: Vec<u16> = line
            .split_ascii_whitespace()
            .map(|port| port.parse().expect("a port"))
            .collect();
        let text = std::fs::read_to_string(&log).expect("its log");
        assert_eq!(ports.len(), 3, "run sh ci/setup.sh: {text}");
        Self { child, ports, log }
    }

    fn url(&self, path: &str) -> String {
        format!("ftp://127.0.0.1:{}/{path}", self.ports[0])
    }

    fn line(&self, line: &str) -> String {
        line.replace("U/", &self.url(""))
            .replace("A/", &self.asked(""))
            .replace("T/", &self.tls(""))
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
