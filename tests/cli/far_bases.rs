//! `commit` and `rebase` of overlays here whose base is with a server that ends, or says nothing, in the middle: what is
//! told to be done is done, else there is one error; the overlay shows what it showed, and what fails succeeds later.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::build::program;
use crate::common::{Dir, Random};
use crate::pair::{ours, words};
use crate::remote_faults::end_of;

/// The images that the server has to have, each as [`prepare`] makes `base`.
pub const BASES: [&str; 2] = ["commit", "rebase"];

/// How much a unit or an image that cannot grow has to hold.
pub const ROOM: u64 = 24 << 20;

/// What comes of a server in the middle of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is there again: what it has promised to keep is kept, and a command may go on.
    Returns,
    /// It is gone for good.
    Gone,
}

/// When a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    First,
    InTheMiddle,
}

/// A server with the bases.
pub struct FarBases<'a> {
    pub dir: &'a Dir,
    pub name: &'a dyn Fn(&str) -> String,
    /// The same by options, each with `file.file.` before it.
    pub options: &'a dyn Fn(&str) -> String,
    /// A command that reaches the server: a program with its arguments.
    pub command: &'a dyn Fn(&str, &[&str]) -> Command,
    /// Copies what the server has of an image, by way of no protocol or by another client.
    pub fetch: &'a dyn Fn(&str, &Path),
}

/// Makes `base`, and `over`, an overlay of it that shows what is in `over.raw`.
pub fn prepare(dir: &Dir) {
    let mut random = Random(5);
    let mut bytes = vec![0; 16 << 20];
    for word in bytes.chunks_exact_mut(8) {
        word.copy_from_slice(&random.next().to_le_bytes());
    }
    std::fs::write(dir.path("a.raw"), bytes).expect("a disk");
    dir.qemu_img_ok(&words("convert -f raw -O qcow2 a.raw base"));
    dir.qemu_img_ok(&words("create -q -f qcow2 -b base -F qcow2 over"));
    dir.qemu_io("qcow2", "over", &["write -q -P 9 1M 8M"]);
    dir.qemu_img_ok(&words("convert -O raw over over.raw"));
}

/// Waits until a command tells of progress, and of no end yet.
#[track_caller]
fn wait_for_the_middle(child: &mut Child, line: &str) {
    let mut out = child.stdout.take().expect("its output");
    let (mut told, mut byte) = (String::new(), [0]);
    while !told.contains('%') || told.contains("(0.00/") {
        if told.ends_with('\r') {
            told.clear();
        }
        if out.read(&mut byte).expect("its output") == 0 {
            let mut errors = String::new();
            let err = child.stderr.as_mut().expect("its errors");
            let _ = err.read_to_string(&mut errors);
            panic!("{line}: {told:?}, {errors}");
        }
        told.push(char::from(byte[0]));
    }
    assert!(!told.contains("(100"), "{line}: has not been slow");
    child.stdout = Some(out);
}

impl FarBases<'_> {
    /// The overlay of a command, whose base the server has, anew; `slow` where a rebase is to be met in the middle.
    fn overlay(&self, command: &str, slow: bool) {
        std::fs::copy(self.dir.path("over"), self.dir.path(command)).expect("a copy");
        let base = match slow {
            true => {
                let pairs = format!(
                    "driver=qcow2,file.driver=throttle,file.throttle-group=t,{}",
                    (self.options)(command)
                );
                let pairs = pairs.split(',').filter_map(|pair| pair.split_once('='));
                let pairs: Vec<_> = pairs
                    .map(|(key, value)| format!("\"{key}\":\"{value}\""))
                    .collect();
                format!("json:{{{}}}", pairs.join(","))
            }
            false => (self.name)(command),
        };
        self.names(command, &base);
    }

    fn names(&self, command: &str, base: &str) {
        let args = [
            "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", base, command,
        ];
        let ran = ours(&args, self.dir.root());
        assert_eq!(ran.code, 0, "{ran:?}");
    }

    fn tool(&self, line: &str) -> Command {
        let tool = crate::build::tool().to_str().expect("a path");
        let args = words(line);
        (self.command)(tool, &args)
    }

    /// Begins a command and waits until it is in the middle.
    fn begin(&self, command: &str) -> Child {
        self.overlay(command, command == "rebase");
        let line = match command {
            "commit" => "commit -p -r 2M -f qcow2 commit",
            _ => {
                "rebase -p --object throttle-group,id=t,limits.bps-read=2097152 -f qcow2 -b '' rebase"
            }
        };
        let mut child = self.tool(line);
        child.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().expect("the tool");
        wait_for_the_middle(&mut child, line);
        child
    }

    /// What a server has, and the overlay over it, contradict nothing and are what they were or should be.
    #[track_caller]
    fn judge(&self, command: &str, done: bool) {
        let what = format!("{command}, {}", if done { "done" } else { "failed" });
        let seen = self.dir.path("seen");
        let _ = std::fs::remove_file(&seen);
        (self.fetch)(command, &seen);
        let shows = |image: &str, raw: &str| {
            let args = ["compare", "-q", "-f", "qcow2", "-F", "raw", image, raw];
            self.dir.qemu_img(&args).code == 0
        };
        let alone = command == "rebase" && done;
        if !alone {
            self.names(command, "seen");
        }
        for image in ["seen", command] {
            let ran = self
                .dir
                .qemu_img(&["check", "-q", "-U", "-f", "qcow2", image]);
            // Clusters may be lost, and no bytes.
            let leaks = ran.code == 3 && !done;
            assert!(ran.code == 0 || leaks, "{what}, {image}: {ran:?}");
        }
        assert!(shows(command, "over.raw"), "{what}: the overlay");
        match command {
            "commit" if done => assert!(shows("seen", "over.raw"), "{what}: the base"),
            "commit" => {}
            _ => assert!(shows("seen", "a.raw"), "{what}: the base"),
        }
    }

    /// Both commands are met in the middle by what `end` does with the server, one after the other. `again` has it
    /// there as before the next one; then what has failed is done.
    pub fn meets(&self, how: End, end: impl Fn(), again: impl Fn()) {
        for command in BASES {
            let child = self.begin(command);
            end();
            let done = self.ended(command, child);
            assert!(!done || how == End::Returns, "{command}: without a server");
            again();
            self.judge(command, done);
            eprintln!(
                "{how:?}, {command}: {}",
                if done { "done" } else { "failed" }
            );
            if !done {
                self.overlay(command, false);
                let line = match command {
                    "commit" => "commit -q -f qcow2 commit",
                    _ => "rebase -f qcow2 -b '' rebase",
                };
                let output = self.tool(line).output().expect("the tool");
                assert!(output.status.success(), "{line}: {output:?}");
                self.judge(command, true);
            }
        }
    }

    /// Whether a command has done its work; what it says where it has not.
    fn ended(&self, command: &str, mut child: Child) -> bool {
        let status = end_of(&mut child, command);
        let output = child.wait_with_output().expect("its end");
        let text = String::from_utf8_lossy(&output.stderr);
        let own: Vec<_> = text
            .lines()
            .filter(|line| !line.contains("warning: "))
            .collect();
        let tool = crate::build::tool().file_name().expect("a name");
        let prefix = format!("{}: ", tool.display());
        match status.code() {
            Some(0) => true,
            // An error, its cause, and what helps.
            Some(1) => {
                let told = own.iter().filter(|line| line.starts_with(&prefix)).count();
                assert!(told == 1 && own.len() <= 3, "{command}: {text}");
                false
            }
            _ => panic!("{command}: {status:?}: {text}"),
        }
    }

    /// A job whose server is stopped, before it begins and in its middle, ends by its deadline; `stop` says whether it
    /// is to be stopped or to go on.
    pub fn ends_by_a_deadline(&self, whens: &[When], stop: impl Fn(bool)) {
        static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
        let program = PROGRAM.get_or_init(|| program("remote_deadline"));
        let program = program.to_str().expect("a path");
        for kind in ["commit", "rebase", "convert"] {
            for when in whens {
                let first = *when == When::First;
                let base = if kind == "commit" { "commit" } else { "rebase" };
                self.overlay(base, false);
                let (name, stopped) = ((self.name)(base), Cell::new(false));
                let image = if kind == "convert" { &name } else { base };
                let mut args = vec![kind, image];
                if first {
                    args.push("first");
                    stop(true);
                    stopped.set(true);
                }
                let mut command = (self.command)(program, &args);
                command.stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut child = command.stderr(Stdio::piped()).spawn().expect("the program");
                let mut out = BufReader::new(child.stdout.take().expect("its output"));
                let mut line = String::new();
                if !first {
                    out.read_line(&mut line).expect("its output");
                    if line == "begun\n" {
                        stop(true);
                        stopped.set(true);
                        let input = child.stdin.as_mut().expect("its input");
                        input.write_all(b"\n").expect("it reads");
                    }
                }
                let what = format!("{kind}, {when:?}");
                let status = end_of(&mut child, &what);
                if stopped.get() {
                    stop(false);
                }
                let output = child.wait_with_output().expect("its end");
                assert!(status.success(), "{what}: {line}{output:?}");
                assert!(!self.dir.path("late.raw").exists(), "{what}");
                if kind != "convert" {
                    self.judge(base, false);
                }
            }
        }
    }
}
