//! A server that rows ask.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::rows::remove;

/// A server, ended when it is dropped.
pub struct Server {
    child: Child,
    /// The socket or file where it is asked.
    pub at: String,
}

impl Server {
    /// Starts `argv`, which is to listen at `socket`, and waits until it does.
    pub fn start(argv: &[&str], socket: String) -> Result<Self, String> {
        remove(&socket)?;
        Self::ready(argv, socket, |socket| UnixStream::connect(socket).is_ok())
    }

    /// The same for one that serves a single connection, which is not to be spent on a trial.
    pub fn start_single(argv: &[&str], socket: String) -> Result<Self, String> {
        remove(&socket)?;
        Self::ready(argv, socket, |socket| Path::new(socket).exists())
    }

    /// Starts `argv`, which is to mount something over the file `at`, and waits until there are bytes in it.
    pub fn mount(argv: &[&str], at: String) -> Result<Self, String> {
        std::fs::write(&at, "").map_err(|e| format!("{at}: {e}"))?;
        Self::ready(argv, at, |at| {
            std::fs::metadata(at).is_ok_and(|file| file.len() > 0)
        })
    }

    fn ready(argv: &[&str], at: String, so: impl Fn(&str) -> bool) -> Result<Self, String> {
        let (program, args) = argv.split_first().ok_or("nothing to run")?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| format!("{program}: {e}"))?;
        let mut server = Self { child, at };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !so(&server.at) {
            let ended = server.child.try_wait().map_err(|e| e.to_string())?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(format!("{} does not serve", argv.join(" ")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    pub fn url(&self) -> String {
        format!("nbd+unix:///?socket={}", self.at)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A mount goes away with a server that may end by itself.
        let id = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        let late = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < late {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = remove(&self.at);
    }
}
