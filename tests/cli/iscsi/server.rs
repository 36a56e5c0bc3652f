//! An iSCSI target for the length of a test.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Dir, run_in};
use crate::ports;

/// Whether tests with the server have to be left out.
pub fn tgtd_is_missing() -> bool {
    let root = run_in(std::path::Path::new("/"), "id", &["-u"]).out.trim() == "0";
    let library = Command::new("ldconfig").arg("-p").output();
    let library =
        library.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("libiscsi.so.7 "));
    let server = [
        "/usr/sbin/tgtd",
        "/usr/sbin/tgtadm",
        "/usr/bin/iscsi-readcapacity16",
    ];
    let server = server
        .iter()
        .all(|file| std::path::Path::new(file).exists());
    if !(root && library && server) {
        eprintln!(
            "LEFT OUT: tests of iSCSI need root, tgt, libiscsi-bin and libiscsi7 (ci/setup.sh)"
        );
        return true;
    }
    false
}

/// A target on the loopback interface; ended when it is dropped.
pub struct Server {
    child: Child,
    pub port: u16,
    root: PathBuf,
}

impl Server {
    pub fn new(dir: &Dir) -> Self {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(server) = Self::at(dir, ports::free(), deadline) {
                return server;
            }
        }
    }

    /// One at a port; None where somebody else has it.
    pub fn at(dir: &Dir, port: u16, deadline: Instant) -> Option<Self> {
        let child = Command::new("/usr/sbin/tgtd")
            .args(["-f", "--iscsi", &format!("portal=127.0.0.1:{port}")])
            .env("TGT_IPC_SOCKET", dir.path("tgt.ipc"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server");
        let root = dir.root().to_owned();
        let mut server = Self { child, port, root };
        loop {
            if server.child.try_wait().expect("its state").is_some() {
                return None;
            }
            let up = TcpStream::connect(("127.0.0.1", port)).is_ok();
            if up && server.try_adm("--mode sys --op show") {
                return Some(server);
            }
            assert!(Instant::now() < deadline, "tgtd does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn try_adm(&self, line: &str) -> bool {
        let done = Command::new("/usr/sbin/tgtadm")
            .args(["--lld", "iscsi"])
            .args(line.split(' '))
            .env("TGT_IPC_SOCKET", self.root.join("tgt.ipc"))
            .output()
            .expect("tgtadm");
        done.status.success()
    }

    #[track_caller]
    pub fn adm(&self, line: &str) {
        assert!(self.try_adm(line), "tgtadm {line}");
    }

    /// A target of that number with a unit 1 over a file.
    #[track_caller]
    pub fn unit(&self, target: u32, file: &str, blocks: Option<u32>, params: &str) {
        self.adm(&format!(
            "--mode target --op new --tid {target} -T iqn.2025-01.test:{target}"
        ));
        self.unit_of(target, 1, file, blocks);
        if !params.is_empty() {
            self.adm(&format!(
                "--mode logicalunit --op update --tid {target} --lun 1 --params {params}"
            ));
        }
        self.adm(&format!("--mode target --op bind --tid {target} -I ALL"));
    }

    /// A further unit of a target.
    #[track_caller]
    pub fn unit_of(&self, target: u32, number: u32, file: &str, blocks: Option<u32>) {
        let file = self.root.join(file);
        let size = blocks.map_or(String::new(), |size| format!(" --blocksize {size}"));
        self.adm(&format!(
            "--mode logicalunit --op new --tid {target} --lun {number} -b {}{size}",
            file.display()
        ));
    }

    pub fn url(&self, target: u32) -> String {
        format!(
            "iscsi://127.0.0.1:{}/iqn.2025-01.test:{target}/1",
            self.port
        )
    }

    /// With a login before the host.
    pub fn url_as(&self, login: &str, target: u32) -> String {
        self.url(target).replacen("//", &format!("//{login}@"), 1)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.expect("kill").success());
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
