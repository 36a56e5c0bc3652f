//! Every command on images of a server whose process is stopped, goes on, and is killed: a signal ends what waits, what
//! goes on is done, and whatever comes of a kill, each image shows what it showed and contradicts nothing.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Dir, Ran};
use crate::pair::words;
use crate::remote_faults::end_of;
use crate::site::disk;

/// What is done: `U` stands for a qcow2 image on the server, of each command's own, and `N` for a name that is free.
const COMMANDS: [&str; 14] = [
    "info -f qcow2 U",
    "map -f qcow2 --output=json U",
    "check -f qcow2 U",
    "compare -f qcow2 -F raw U a.raw",
    "measure -f qcow2 -O qcow2 U",
    "snapshot -l U",
    "dd -f qcow2 -O raw bs=256k if=U of=dd.out",
    "convert -f qcow2 -O raw U convert.out",
    "resize -q -f qcow2 U 9M",
    "snapshot -c s U",
    "bitmap --add -f qcow2 U b",
    "amend -f qcow2 -o lazy_refcounts=on U",
    "convert -f raw -O qcow2 a.raw N",
    "create -q -f qcow2 N 1M",
];

/// A server that a test can stop.
pub struct Stopping<'a> {
    /// The name of the image of that number.
    pub image: &'a dyn Fn(usize) -> String,
    /// A name that is free; None where there are no images but those that there are.
    pub free: Option<&'a dyn Fn(usize) -> String>,
    pub tool: &'a dyn Fn(&str) -> Command,
    /// Sends a signal to the server.
    pub signal: &'a dyn Fn(&str),
}

/// How many images there have to be, all the same as [`prepare`] makes.
pub const IMAGES: usize = COMMANDS.len();

/// Makes the disk `a.raw` and the image `b.qcow2` of it.
pub fn prepare(dir: &Dir) {
    disk(dir, "a.raw");
    dir.qemu_img_ok(&words("convert -f raw -O qcow2 a.raw b.qcow2"));
}

/// An image holds what it held, if nothing else.
#[track_caller]
pub fn is_sound(dir: &Dir, file: &str) {
    let check = dir.qemu_img(&["check", "-q", "-f", "qcow2", file]);
    // Clusters may be lost, and no bytes.
    assert!([0, 3].contains(&check.code), "{file}: {check:?}");
    dir.qemu_img_ok(&["compare", "-q", "-f", "qcow2", "-F", "raw", file, "a.raw"]);
}

/// Until a process has a socket: that of a client.
#[track_caller]
fn waits(child: &mut Child, line: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let files = format!("/proc/{}/fd", child.id());
    let is_socket = |file: std::fs::DirEntry| {
        std::fs::read_link(file.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
    };
    let is_client = || {
        let mut files = std::fs::read_dir(&files).into_iter().flatten().flatten();
        files.any(is_socket)
    };
    while !is_client() && child.try_wait().expect("its state").is_none() {
        assert!(Instant::now() < deadline, "{line}: has not begun");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[track_caller]
fn all_done(begun: Vec<(Child, &String)>) {
    for (child, line) in begun {
        let ended = child.wait_with_output().expect("its end");
        let text = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(0), "{line}: {text}");
    }
}

impl Stopping<'_> {
    /// The commands that there are, with the places of their images.
    fn lines(&self) -> Vec<String> {
        let lines = COMMANDS.iter().enumerate().filter_map(|(number, line)| {
            let words = line.split(' ').map(|word| match word {
                "U" => Some((self.image)(number)),
                "if=U" => Some(format!("if={}", (self.image)(number))),
                "N" => self.free.map(|free| free(number)),
                word => Some(word.to_owned()),
            });
            words
                .collect::<Option<Vec<_>>>()
                .map(|words| words.join(" "))
        });
        lines.collect()
    }

    fn begin(&self, line: &str) -> Child {
        let mut command = (self.tool)(line);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("the tool")
    }

    /// All at once while the server is stopped: none ends by itself, and a signal ends each.
    pub fn ends_by_a_signal(&self) {
        (self.signal)("-STOP");
        let mut begun: Vec<_> = self
            .lines()
            .into_iter()
            .map(|line| (self.begin(&line), line))
            .collect();
        for (child, line) in &mut begun {
            waits(child, line);
            let pid = child.id().to_string();
            let _ = Command::new("kill").args(["-TERM", &pid]).status();
        }
        for (mut child, line) in begun {
            let status = end_of(&mut child, &line);
            assert!(status.signal() == Some(15), "{line}: {status:?}");
        }
        (self.signal)("-CONT");
    }

    /// All at once, and the server is stopped for a moment: all is done.
    pub fn goes_on(&self) {
        let lines = self.lines();
        (self.signal)("-STOP");
        let begun: Vec<_> = lines.iter().map(|line| (self.begin(line), line)).collect();
        (self.signal)("-CONT");
        all_done(begun);
    }

    /// All at once, and the server is stopped for a moment once they have begun: all is done.
    pub fn goes_on_from_where_it_was(&self) {
        let lines = self.lines();
        let mut begun: Vec<_> = lines.iter().map(|line| (self.begin(line), line)).collect();
        for (child, line) in &mut begun {
            waits(child, line);
        }
        (self.signal)("-STOP");
        (self.signal)("-CONT");
        all_done(begun);
    }

    /// All at once, and the server is killed; how many have failed.
    pub fn ends_when_it_is_killed(&self) -> usize {
        let lines = self.lines();
        let begun: Vec<_> = lines.iter().map(|line| (self.begin(line), line)).collect();
        (self.signal)("-KILL");
        let ended = begun.into_iter().map(|(mut child, line)| {
            let status = end_of(&mut child, line);
            let output = child.wait_with_output().expect("its end");
            let ran = Ran {
                code: status.code().unwrap_or(-1),
                out: String::new(),
                err: String::from_utf8_lossy(&output.stderr).into_owned(),
            };
            let own = ran.err.lines().filter(|line| !line.contains("warning: "));
            // An error, its cause, and what helps.
            assert!(
                ran.code == 0 || (1..=3).contains(&own.count()),
                "{line}: {ran:?}"
            );
            assert!(ran.code >= 0, "{line}: {ran:?}");
            usize::from(ran.code != 0)
        });
        ended.sum()
    }
}
