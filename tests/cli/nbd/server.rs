//! Servers for the length of a test, on sockets in its directory.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::Dir;

/// A server; ended when it is dropped.
pub struct Server {
    process: Process,
    socket: String,
}

enum Process {
    Child(Child),
    /// Not ours to wait for.
    Daemon(u32),
}

/// Whether tests with nbdkit have to be left out.
pub fn nbdkit_is_missing() -> bool {
    is_missing("nbdkit")
}

/// Whether tests with this server have to be left out.
pub fn is_missing(program: &str) -> bool {
    let missing = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_err();
    if missing {
        eprintln!("LEFT OUT: {program} is not installed (ci/setup.sh)");
    }
    missing
}

/// Where a server listens, and where it writes its process number, without what an earlier one has left there.
fn places(dir: &Dir, name: &str) -> [String; 2] {
    ["sock", "pid"].map(|end| {
        let place = dir.str(&format!("{name}.{end}"));
        let _ = std::fs::remove_file(&place);
        place
    })
}

impl Server {
    /// QEMU's server.
    pub fn qemu_nbd(dir: &Dir, name: &str, args: &[&str]) -> Self {
        let [socket, pid] = places(dir, name);
        let mut command = Command::new("qemu-nbd");
        command
            .args(["-t", "-k", &socket, "--pid-file", &pid])
            .args(args)
            .stderr(Stdio::null());
        Self::start(command, dir, socket, &pid)
    }

    /// nbdkit.
    pub fn nbdkit(dir: &Dir, name: &str, args: &[String]) -> Self {
        Self::nbdkit_telling(dir, name, args, Stdio::null())
    }

    /// The same, and where its messages go.
    pub fn nbdkit_telling(dir: &Dir, name: &str, args: &[String], messages: Stdio) -> Self {
        let [socket, pid] = places(dir, name);
        let mut command = Command::new("nbdkit");
        command.args(["-f", "-U", &socket, "-P", &pid]).args(args);
        command.stderr(messages);
        Self::start(command, dir, socket, &pid)
    }

    /// That of the nbd project, with a file as the export `e`.
    pub fn nbd_server(dir: &Dir, file: &str) -> Self {
        let [socket, pid] = places(dir, file);
        let path = dir.str(&format!("{file}.conf"));
        let file = dir.str(file);
        let size = std::fs::metadata(&file).unwrap().len();
        let config = format!(
            "[generic]\nunixsock = {socket}\nallowlist = true\n[e]\nexportname = {file}\nfilesize = {size}\nflush = true\nfua = true\n"
        );
        std::fs::write(&path, config).unwrap();
        // It goes into the background by itself; in the foreground it would serve one client alone.
        let started = crate::common::run_in(dir.root(), "nbd-server", &["-C", &path, "-p", &pid]);
        assert_eq!(started.code, 0, "{started:?}");
        let deadline = Instant::now() + Duration::from_secs(30);
        let daemon = loop {
            let text = std::fs::read_to_string(&pid).unwrap_or_default();
            match text.trim().parse() {
                Ok(number) if UnixStream::connect(&socket).is_ok() => break number,
                _ => assert!(Instant::now() < deadline, "nbd-server does not listen"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Self {
            process: Process::Daemon(daemon),
            socket,
        }
    }

    /// QEMU's daemon, with a file as the export `e`.
    pub fn qemu_storage_daemon(dir: &Dir, file: &str) -> Self {
        let [socket, pid] = places(dir, file);
        let mut command = Command::new("qemu-storage-daemon");
        command.args([
            "--blockdev",
            &format!("driver=file,node-name=f,filename={file},discard=unmap"),
            "--nbd-server",
            &format!("addr.type=unix,addr.path={socket}"),
            "--export",
            "type=nbd,id=x,node-name=f,name=e,writable=on",
            "--pidfile",
            &pid,
        ]);
        command.stderr(Stdio::null());
        Self::start(command, dir, socket, &pid)
    }

    /// The file with its process number is written when it listens.
    fn start(mut command: Command, dir: &Dir, socket: String, pid: &str) -> Self {
        let mut child = command
            .current_dir(dir.root())
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::fs::metadata(Path::new(pid)).map_or(0, |meta| meta.len()) == 0 {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{command:?} has ended: {ended:?}");
            assert!(Instant::now() < deadline, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self {
            process: Process::Child(child),
            socket,
        }
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
        match &mut self.process {
            Process::Child(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Process::Daemon(pid) => {
                let _ = Command::new("kill").arg(pid.to_string()).status();
                let there = Path::new("/proc").join(pid.to_string());
                let deadline = Instant::now() + Duration::from_secs(10);
                while there.exists() && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }
}
