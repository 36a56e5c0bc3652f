//! An NFS server for the length of a test, in a network of its own: it needs a server of ports at a fixed one.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Dir, Ran, run_in};
use crate::pair::words;

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
pub struct Server {
    child: Child,
}

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
        let child = Command::new("unshare")
            .args(["-n", "-m", "-p", "-f", "--mount-proc", "--kill-child"])
            .args(["bash", "-c", START, "bash"])
            .arg(dir.root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("unshare");
        let mut server = Self { child };
        let deadline = Instant::now() + Duration::from_secs(60);
        let log = || std::fs::read_to_string(dir.path("log")).unwrap_or_default();
        while !log().contains("NFS SERVER INITIALIZED") {
            let ended = server.child.try_wait().expect("its state");
            assert!(ended.is_none(), "the server has ended: {}", log());
            assert!(
                Instant::now() < deadline,
                "the server does not start: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// A command in the server's network.
    pub fn command(&self, dir: &Dir, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.child.id()))
            .arg(program)
            .args(args)
            .current_dir(dir.root())
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    /// The tool.
    pub fn tool(&self, dir: &Dir, line: &str) -> Command {
        let tool = crate::build::tool().to_str().expect("a path");
        self.command(dir, tool, &words(line))
    }

    pub fn run(&self, dir: &Dir, line: &str) -> Ran {
        let output = self.tool(dir, line).output().expect("nsenter");
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Kills the server itself, which is started anew.
    pub fn kill(&self) {
        let mut all = vec![self.child.id().to_string()];
        while let Some(pid) = all.pop() {
            let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
            if read("comm").is_ok_and(|name| name.starts_with("ganesha")) {
                let _ = Command::new("kill").args(["-9", &pid]).status();
                return;
            }
            let children = read(&format!("task/{pid}/children")).unwrap_or_default();
            all.extend(children.split_whitespace().map(str::to_owned));
        }
        panic!("the server is gone");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
