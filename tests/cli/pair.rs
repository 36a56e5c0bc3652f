//! Two equal directories: one in which QEMU's tool works, one for ours. Every command line runs in
//! both, and everything that can be seen of it must agree.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::build;
use crate::common::{Dir, Ran};

/// How the outputs of a command line are made comparable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Loose {
    /// Not at all: byte for byte, except for the space that a file takes on the disk.
    Exact,
    /// Disk sizes differ where the tools lay out a file differently.
    DiskSize,
    /// How often the progress line is printed depends on the pace of the work.
    Progress,
    /// The time that `bench` prints.
    Time,
}

/// The two directories.
pub struct Pair {
    theirs: Dir,
    ours: Dir,
}

impl Pair {
    /// Two empty directories.
    pub fn new() -> Self {
        // Built before the first test looks at it, so that its failure is the first thing seen.
        build::tool();
        Self {
            theirs: Dir::new(),
            ours: Dir::new(),
        }
    }

    /// Two directories in which QEMU's own tool ran each of these command lines.
    pub fn with(setup: &[&str]) -> Self {
        let pair = Self::new();
        for line in setup {
            pair.qemu(line);
        }
        pair
    }

    /// Runs QEMU's tool in both directories; for what both sides start from.
    pub fn qemu(&self, line: &str) {
        for dir in [&self.theirs, &self.ours] {
            dir.qemu_img_ok(&words(line));
        }
    }

    /// Runs QEMU's tool in its directory and copies what is there then, where it makes random marks.
    pub fn qemu_and_copy(&self, lines: &[&str]) {
        for line in lines {
            self.theirs.qemu_img_ok(&words(line));
        }
        // With the holes of the files.
        let copied = Command::new("cp")
            .args(["-a", "."])
            .arg(self.ours.root())
            .current_dir(self.theirs.root())
            .status();
        assert!(copied.expect("cp").success());
    }

    /// Runs `qemu-io` on the image in both directories.
    pub fn qemu_io(&self, format: &str, image: &str, commands: &[&str]) {
        for dir in [&self.theirs, &self.ours] {
            dir.qemu_io(format, image, commands);
        }
    }

    /// Writes a file into both directories.
    pub fn file(&self, name: &str, content: &[u8]) {
        for dir in [&self.theirs, &self.ours] {
            std::fs::write(dir.path(name), content).expect("a file of the test");
        }
    }

    /// Makes a directory in both.
    pub fn directory(&self, name: &str) {
        for dir in [&self.theirs, &self.ours] {
            std::fs::create_dir_all(dir.path(name)).expect("a directory of the test");
        }
    }

    /// Overwrites bytes of a file in both directories.
    pub fn patch(&self, name: &str, offset: u64, bytes: &[u8]) {
        use std::os::unix::fs::FileExt;
        for dir in [&self.theirs, &self.ours] {
            let file = std::fs::OpenOptions::new()
                .write(true)
                .open(dir.path(name))
                .expect("a file of the test");
            file.write_all_at(bytes, offset).expect("to patch a file");
        }
    }

    /// Replaces text in a file in both directories by other text of the same length.
    pub fn replace(&self, name: &str, from: &str, to: &str) {
        assert_eq!(from.len(), to.len());
        let bytes = std::fs::read(self.theirs.path(name)).expect("a file of the test");
        let at = bytes.windows(from.len()).position(|w| w == from.as_bytes());
        let at = at.unwrap_or_else(|| panic!("{name} does not hold {from}"));
        self.patch(name, at as u64, to.as_bytes());
    }

    /// The directory of ours.
    pub fn ours(&self) -> &Dir {
        &self.ours
    }

    /// The directory of theirs.
    pub fn theirs(&self) -> &Dir {
        &self.theirs
    }

    /// Runs a command line, split at blanks, with both tools; all must agree byte for byte.
    #[track_caller]
    pub fn same(&self, line: &str) -> Ran {
        self.same_args(&words(line), Loose::Exact)
    }

    /// As [`Pair::same`], for each of the lines; files that one of them makes are removed after it.
    #[track_caller]
    pub fn all_same(&self, lines: &[&str]) {
        self.all_same_but(lines, Loose::Exact);
    }

    /// As [`Pair::all_same`], for lines that print what depends on the layout.
    #[track_caller]
    pub fn all_same_but(&self, lines: &[&str], loose: Loose) {
        let mut wrong = Vec::new();
        let before = list(&self.ours);
        for line in lines {
            if let Err(text) = self.differ(&words(line), loose) {
                wrong.push(text);
            }
            // The next line finds what this one found.
            for dir in [&self.theirs, &self.ours] {
                for new in list(dir).keys().filter(|name| !before.contains_key(*name)) {
                    std::fs::remove_file(dir.root().join(new)).expect("to remove a file");
                }
            }
        }
        let count = wrong.len();
        wrong.truncate(20);
        assert!(
            count == 0,
            "{count} of {} lines:\n{}",
            lines.len(),
            wrong.join("\n\n")
        );
    }

    /// As [`Pair::same`], for a line that prints what depends on the layout or the pace.
    #[track_caller]
    pub fn same_but(&self, line: &str, loose: Loose) -> Ran {
        self.same_args(&words(line), loose)
    }

    /// As [`Pair::same`], with the arguments one by one.
    #[track_caller]
    pub fn same_args(&self, args: &[&str], loose: Loose) -> Ran {
        match self.differ(args, loose) {
            Ok(ran) => ran,
            Err(text) => panic!("{text}"),
        }
    }

    /// Runs both: what theirs and ours did, and whether they print the same and end alike.
    pub fn both(&self, args: &[&str], loose: Loose) -> (Ran, Ran, bool) {
        let theirs = run(Path::new("qemu-img"), args, self.theirs.root());
        let ours = run(build::tool(), args, self.ours.root());
        let same = ours.code == theirs.code
            && normal(&without_own_options(&ours.out), loose) == normal(&theirs.out, loose)
            && without_advice(&ours.err) == without_values(&theirs.err);
        (theirs, ours, same)
    }

    /// Runs both; what ours did, or a description of the difference.
    pub fn differ(&self, args: &[&str], loose: Loose) -> Result<Ran, String> {
        let (theirs, ours, same) = self.both(args, loose);
        let mut files = (list(&self.theirs), list(&self.ours));
        if ours.code != 0 {
            // Some failures of theirs leave an empty or partial file; ours leave none.
            files.0.retain(|name, _| files.1.contains_key(name));
        }
        if same && files.0 == files.1 {
            return Ok(ours);
        }
        let mut text = format!("`qemu-img {}`\n", args.join(" "));
        text += &format!("  theirs: {theirs:?}\n  ours:   {ours:?}");
        if files.0 != files.1 {
            text += &format!(
                "\n  files of theirs: {:?}\n  of ours: {:?}",
                files.0, files.1
            );
        }
        Err(text)
    }

    /// As [`Pair::same`], with arguments of any bytes, except the lengths of files; gives the bytes that
    /// ours printed.
    #[track_caller]
    pub fn same_bytes(&self, args: &[Vec<u8>]) -> Vec<u8> {
        let theirs = output(Path::new("qemu-img"), args, self.theirs.root());
        let ours = self.ours_bytes(args);
        // A character for a byte: all of them count.
        let exact = |bytes: &[u8]| {
            let text: String = bytes.iter().map(|b| char::from(*b)).collect();
            let lines = normal(&text, Loose::DiskSize);
            let lines = lines.split_inclusive('\n');
            let kept = lines.filter(|line| !line.trim_start().starts_with("\"virtual-size\": "));
            kept.collect::<String>()
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let shown: Vec<String> = args.iter().map(|arg| text(arg)).collect();
        assert_eq!(
            (
                ours.status.code(),
                exact(&ours.stdout),
                without_advice(&text(&ours.stderr)),
            ),
            (
                theirs.status.code(),
                exact(&theirs.stdout),
                text(&theirs.stderr),
            ),
            "{shown:?}"
        );
        ours.stdout
    }

    /// Runs ours alone with arguments of any bytes.
    pub fn ours_bytes(&self, args: &[Vec<u8>]) -> Output {
        output(build::tool(), args, self.ours.root())
    }

    /// As [`Pair::same_image`] for a qcow2 image with snapshots, whose dates differ: content alone.
    #[track_caller]
    pub fn same_image_loose_dates(&self, name: &str) {
        let (theirs, ours) = (self.theirs.str(name), self.ours.str(name));
        let check = self.ours.qemu_img(&["check", &ours]);
        assert_eq!(check.code, 0, "{name}: {check:?}");
        let arguments = ["compare", &theirs, &ours];
        let compared = self.ours.qemu_img(&arguments);
        assert_eq!(
            compared.out, "Images are identical.\n",
            "{name}: {compared:?}"
        );
    }

    /// Both made the same image: QEMU's tools find ours clean, equal in size, content, options.
    #[track_caller]
    pub fn same_image(&self, name: &str, format: &str) {
        let (theirs, ours) = (self.theirs.str(name), self.ours.str(name));
        let compared = self
            .ours
            .qemu_img(&["compare", "-s", "-f", format, "-F", format, &theirs, &ours]);
        // Strict mode also compares which parts are allocated; content alone must always agree.
        if compared.code != 0 {
            let loose = self
                .ours
                .qemu_img(&["compare", "-f", format, "-F", format, &theirs, &ours]);
            assert_eq!(loose.out, "Images are identical.\n", "{name}: {loose:?}");
            assert_eq!(loose.code, 0, "{name}: {compared:?}");
        }
        if format == "qcow2" {
            let check = self.ours.qemu_img(&["check", "-f", format, &ours]);
            assert_eq!(check.code, 0, "{name}: {check:?}");
        }
        let info = |dir: &Dir| {
            let text = dir.qemu_img_ok(&["info", "--output=json", "-f", format, name]);
            let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            strip_layout(&mut value);
            value
        };
        assert_eq!(info(&self.ours), info(&self.theirs), "info of {name}");
    }
}

/// Runs ours alone in `directory` under the name `qemu-img`.
pub fn ours(args: &[&str], directory: &Path) -> Ran {
    run(build::tool(), args, directory)
}

/// Ours, ready to be started under the name `qemu-img`.
pub fn ours_command(args: &[&str], directory: &Path) -> Command {
    command(build::tool(), args, directory)
}

fn command<S: AsRef<OsStr>>(program: &Path, args: &[S], directory: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg0("qemu-img")
        .args(args)
        .current_dir(directory)
        .env("LC_ALL", "C")
        .env_remove("POSIXLY_CORRECT")
        .stdin(Stdio::null());
    command
}

fn output(program: &Path, args: &[Vec<u8>], directory: &Path) -> Output {
    let args: Vec<&OsStr> = args.iter().map(|arg| OsStr::from_bytes(arg)).collect();
    command(program, &args, directory)
        .output()
        .unwrap_or_else(|error| panic!("{} must run: {error}", program.display()))
}

/// Runs a tool under the name `qemu-img`.
pub fn run(program: &Path, args: &[&str], directory: &Path) -> Ran {
    let output = command(program, args, directory)
        .output()
        .unwrap_or_else(|error| panic!("{} must run: {error}", program.display()));
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs ours in `directory` with the bytes of a file on a pipe.
pub fn piped(line: &str, directory: &Path, input: &Path) -> Output {
    let mut cat = Command::new("cat")
        .arg(input)
        .stdout(Stdio::piped())
        .spawn()
        .expect("cat");
    let out = ours_command(&words(line), directory)
        .stdin(cat.stdout.take().expect("a pipe"))
        .output();
    let _ = cat.wait();
    out.expect("the tool")
}

/// Splits a command line at blanks; `''` is an empty argument.
pub fn words(line: &str) -> Vec<&str> {
    line.split_whitespace()
        .map(|word| if word == "''" { "" } else { word })
        .collect()
}

/// The files of a directory with their lengths where those must agree: an empty file that a failed
/// creation leaves is not the same as none.
fn list(dir: &Dir) -> BTreeMap<PathBuf, bool> {
    let mut files = BTreeMap::new();
    let mut pending = vec![dir.root().to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory of the test") {
            let entry = entry.expect("a directory entry");
            let kind = entry.file_type().expect("a file type");
            if kind.is_dir() {
                pending.push(entry.path());
            }
            let empty = kind.is_file() && entry.metadata().is_ok_and(|m| m.len() == 0);
            let name = entry.path();
            let name = name.strip_prefix(dir.root()).expect("below the root");
            files.insert(name.to_owned(), empty);
        }
    }
    files
}

/// Ours shows no text that may be a secret.
fn without_values(text: &str) -> String {
    let echo = "Parameter 'qom-type' does not accept ";
    text.split_inclusive('\n')
        .map(|line| match line.split_once(&format!("{echo}value '")) {
            Some((start, _)) => {
                format!("{start}{echo}this value; \"--object help\" lists the types\n")
            }
            None => line.to_owned(),
        })
        .collect()
}

/// Takes out the lines that ours adds to say more than QEMU's tool does.
pub fn without_advice(text: &str) -> String {
    text.split_inclusive('\n')
        .filter(|line| !line.starts_with("Valid parameters: "))
        .filter(|line| !line.starts_with("The children of "))
        .filter(|line| !line.starts_with('\'') || !line.contains("cannot be read: "))
        .collect()
}

/// Leaves out how much space a file takes: the file system may give it a block more or less.
fn without_disk_size(text: &str) -> String {
    let mut result = String::new();
    for line in text.split_inclusive('\n') {
        let start = ["disk size: ", "\"actual-size\": "]
            .iter()
            .find(|start| line.trim_start().starts_with(**start));
        match start.and_then(|start| Some(line.find(start)? + start.len())) {
            Some(end) => result += &format!("{}...\n", &line[..end]),
            None => result += line,
        }
    }
    result
}

fn normal(text: &str, loose: Loose) -> String {
    match loose {
        Loose::Exact => without_disk_size(text),
        Loose::DiskSize => {
            let mut in_child = false;
            text.split_inclusive('\n')
                .filter(|line| {
                    let line = line.trim_start();
                    in_child |= line.starts_with("\"info\": {");
                    // In a child that is the length of the file.
                    let length = in_child && line.starts_with("\"virtual-size\": ");
                    in_child &= !length;
                    let sizes = ["disk size: ", "file length: ", "\"actual-size\": "];
                    !length && !sizes.iter().any(|start| line.starts_with(start))
                })
                .collect()
        }
        Loose::Time => text
            .split_inclusive('\n')
            .map(|line| match line.strip_prefix("Run completed in ") {
                Some(time) if is_seconds(time) => "Run completed in T seconds.\n",
                _ => line,
            })
            .collect(),
        Loose::Progress => {
            let mut seen = false;
            text.split_inclusive('\r')
                .filter(|part| {
                    let is_progress = part.starts_with("    (") && part.ends_with("/100%)\r");
                    // Later ones may stand at the end of one part and before the verdict.
                    !is_progress || !std::mem::replace(&mut seen, true)
                })
                .collect()
        }
    }
}

/// Whether the text is a time with three digits: `1.234 seconds.`
fn is_seconds(text: &str) -> bool {
    let number = text.strip_suffix(" seconds.\n");
    let parts = number.and_then(|number| number.split_once('.'));
    parts.is_some_and(|(whole, part)| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits(whole) && digits(part) && part.len() == 3
    })
}

/// Takes out of `info`'s JSON what depends on how a tool lays out the file.
fn strip_layout(value: &mut serde_json::Value) {
    if let Some(object) = value.as_object_mut() {
        object.remove("actual-size");
        if let Some(children) = object.get_mut("children").and_then(|c| c.as_array_mut()) {
            for child in children {
                if let Some(info) = child.get_mut("info").and_then(|i| i.as_object_mut()) {
                    info.remove("actual-size");
                    info.remove("virtual-size");
                }
            }
        }
    }
    if let Some(list) = value.as_array_mut() {
        for item in list {
            strip_layout(item);
        }
    }
}

/// The help on options without those that QEMU does not have, which stand under a heading of their own.
fn without_own_options(out: &str) -> String {
    let mut own = false;
    let kept = out.split_inclusive('\n').filter(|line| {
        own = *line == "Further options:\n" || (own && line.starts_with("  "));
        !own
    });
    kept.collect()
}
