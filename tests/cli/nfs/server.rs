//! An NFS server for the length of a test, in a network of its own: it needs a server of ports at a fixed one.

use std::ops::Deref;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::apart::Apart;
use crate::common::{Dir, run_in};
use crate::ports;

/// Whether tests with the server have to be left out.
pub fn ganesha_is_missing() -> bool {
    let root = run_in(std::path::Path::new("/"), "id", &["-u"]).out.trim() == "0";
    let library = Command::new("ldconfig").arg("-p").output();
    let library =
        library.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("libnfs.so.13 "));
    let files = [
        "/usr/bin/ganesha.nfsd",
        "/usr/lib/x86_64-linux-gnu/ganesha/libfsalvfs.so",
        "/usr/sbin/rpcbind",
        "/usr/bin/nfs-cat",
        "/usr/bin/nsenter",
    ];
    let files = files
        .iter()
        .all(|file| std::path::Path::new(file).exists() || file.ends_with(".so"));
    if !(root && library && files) {
        eprintln!(
            "LEFT OUT: tests of NFS need root, nfs-ganesha, nfs-ganesha-vfs, rpcbind, libnfs-utils and libnfs13 (ci/setup.sh)"
        );
        return true;
    }
    false
}

const START: &str = "
ip link set lo up
ip addr add 127.0.0.2/8 dev lo
ip -6 addr add fd00::1/128 dev lo nodad
mount -t tmpfs none /run
mkdir -p /run/rpcbind /run/ganesha
rpcbind -f &
until (exec 3<>/dev/tcp/127.0.0.1/111) 2>/dev/null; do sleep 0.01; done
while :; do ganesha.nfsd -F -L $1/log -f $1/config -p $1/pid -N EVENT; rm $1/pid; done
";

/// A server of the directory `exp`; ended when it is dropped.
pub struct Server(Apart);

impl Server {
    pub fn new(dir: &Dir) -> Self {
        let root = dir.root().display();
        for name in ["exp", "rec"] {
            std::fs::create_dir_all(dir.path(name)).expect("a directory");
        }
        let config = format!(
            "NFS_CORE_PARAM {{ Bind_addr = 127.0.0.1; NFS_Port = 2049; MNT_Port = 20048; Protocols = 3,4; \
             Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; mount_path_pseudo = false; }}\n\
             NFSv4 {{ Graceless = true; RecoveryRoot = {root}/rec; Minor_Versions = 0,1,2; }}\n\
             EXPORT_DEFAULTS {{ Squash = No_Root_Squash; SecType = sys; Access_Type = RW; }}\n\
             EXPORT {{ Export_Id = 1; Path = {root}/exp; Pseudo = /exp; Protocols = 3,4; Transports = TCP; \
             FSAL {{ Name = VFS; }} }}\n"
        );
        std::fs::write(dir.path("config"), config).expect("a configuration");
        let _ = std::fs::remove_file(dir.path("log"));
        let log = || std::fs::read_to_string(dir.path("log")).unwrap_or_default();
        let ready = || log().contains("NFS SERVER INITIALIZED");
        Self(Apart::start(dir, START, ready, log))
    }

    /// Kills the server itself, which is started anew.
    pub fn kill(&self) {
        self.signal("-KILL");
    }

    /// Sends a signal to the server itself.
    pub fn signal(&self, signal: &str) {
        let server = self.process(|name| name == "ganesha.nfsd");
        let sent = Command::new("kill")
            .args([signal, &server.expect("the server")])
            .status();
        assert!(sent.expect("kill").success());
    }
}

impl Deref for Server {
    type Target = Apart;

    fn deref(&self) -> &Apart {
        &self.0
    }
}

/// A server of version 4 alone in this network, which needs no server of ports: of the directory `exp`, as `/exp`. Ended
/// when it is dropped.
pub struct Alone {
    child: Child,
    pub port: u16,
}

impl Alone {
    pub fn new(dir: &Dir) -> Self {
        let root = dir.root().display();
        for name in ["exp", "rec"] {
            std::fs::create_dir_all(dir.path(name)).expect("a directory");
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let port = ports::free();
            let config = format!(
                "NFS_CORE_PARAM {{ Bind_addr = 127.0.0.1; NFS_Port = {port}; Protocols = 4; \
                 Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }}\n\
                 NFSv4 {{ Graceless = true; RecoveryRoot = {root}/rec; }}\n\
                 EXPORT_DEFAULTS {{ Squash = No_Root_Squash; SecType = sys; Access_Type = RW; }}\n\
                 EXPORT {{ Export_Id = 1; Path = {root}/exp; Pseudo = /exp; Protocols = 4; Transports = TCP; \
                 FSAL {{ Name = VFS; }} }}\n"
            );
            std::fs::write(dir.path("config"), config).expect("a configuration");
            let log = dir.path("log");
            let _ = std::fs::remove_file(&log);
            let child = Command::new("ganesha.nfsd")
                .args(["-F", "-N", "EVENT", "-L", &dir.str("log")])
                .args(["-f", &dir.str("config"), "-p", &dir.str("pid")])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the server");
            let mut this = Self { child, port };
            loop {
                let told = std::fs::read_to_string(&log).unwrap_or_default();
                if told.contains("NFS SERVER INITIALIZED") {
                    return this;
                }
                assert!(Instant::now() < deadline, "ganesha does not start: {told}");
                // Another process may have taken the port.
                if this.child.try_wait().expect("its state").is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
