//! Servers in a network and with processes of their own, for those that want fixed ports.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Dir, Ran};
use crate::pair::words;

/// What a script has started; all of it ends when this is dropped.
pub struct Apart {
    child: Child,
}

impl Apart {
    /// Runs a script of bash, whose first argument is the directory, until it is ready; `told` is what there is to say
    /// where it does not come to that.
    #[track_caller]
    pub fn start(
        dir: &Dir,
        script: &str,
        ready: impl Fn() -> bool,
        told: impl Fn() -> String,
    ) -> Self {
        let child = Command::new("unshare")
            .args(["-n", "-m", "-p", "-f", "--mount-proc", "--kill-child"])
            .args(["bash", "-c", script, "bash"])
            .arg(dir.root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("unshare");
        let mut this = Self { child };
        let deadline = Instant::now() + Duration::from_secs(120);
        while !ready() {
            let ended = this.child.try_wait().expect("its state");
            assert!(ended.is_none(), "the server has ended: {}", told());
            assert!(
                Instant::now() < deadline,
                "the server does not start: {}",
                told()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        this
    }

    /// What stands before a command line that is run in the server's network.
    pub fn inside(&self) -> [String; 2] {
        let network = format!("--net=/proc/{}/ns/net", self.child.id());
        ["nsenter".to_owned(), network]
    }

    /// A command in the server's network.
    pub fn command(&self, dir: &Dir, program: &str, args: &[&str]) -> Command {
        let [enter, network] = self.inside();
        let mut command = Command::new(enter);
        command
            .arg(network)
            .arg(program)
            .args(args)
            .current_dir(dir.root())
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    /// The path of something that the server alone sees at `path`.
    pub fn seen(&self, path: &Path) -> PathBuf {
        let inside = self.process(|name| name == "bash").expect("the shell");
        let root = PathBuf::from(format!("/proc/{inside}/root"));
        root.join(path.strip_prefix("/").expect("a whole path"))
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

    /// A process of the server's by its name.
    pub fn process(&self, is: impl Fn(&str) -> bool) -> Option<String> {
        let mut all = vec![self.child.id().to_string()];
        while let Some(pid) = all.pop() {
            let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
            // What has begun by its own name: `comm` is that of a thread for some.
            let line = read("cmdline").unwrap_or_default();
            let name = line.split('\0').next().unwrap_or_default();
            if is(name.rsplit('/').next().unwrap_or_default()) {
                return Some(pid);
            }
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
            for task in tasks.into_iter().flatten().flatten() {
                let children = std::fs::read_to_string(task.path().join("children"));
                let children = children.unwrap_or_default();
                all.extend(children.split_whitespace().map(str::to_owned));
            }
        }
        None
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
