//! What readers of other projects see in images, which share no line with this one or with QEMU: they
//! and this library agree byte for byte. `ci/setup.sh` installs them; `tests/tools/witness.py` calls
//! them.

mod bundles;
mod chains;
mod images;

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use platter::ops::convert::{ConvertRequest, convert};
use platter::{Image, Job, Location, OpenOptions, OpenPolicy, Options};
use serde_json::json;

use crate::common::Dir;
use crate::kit::work::Change;
use crate::random::Random;

/// Whether this machine is to do without them, which `ci/check.sh` counts.
fn left_out() -> bool {
    std::env::var_os("PLATTER_SKIP_WITNESSES").is_some()
}

/// Runs the script that calls them.
fn script(dir: &Dir, args: &[&str], input: &str) -> Output {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let python = target.map(|target| target.join("witnesses/bin/python"));
    let python = python.expect("a target directory");
    let mut child = Command::new(&python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/witness.py"))
        .args(args)
        .current_dir(dir.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "{}: {error}; run sh ci/setup.sh, or set PLATTER_SKIP_WITNESSES",
                python.display()
            )
        });
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("its input");
    drop(stdin);
    child.wait_with_output().expect("its output")
}

/// What witnesses are asked about the images of a directory.
struct Questions<'a> {
    dir: &'a Dir,
    labels: Vec<String>,
    list: Vec<serde_json::Value>,
}

impl<'a> Questions<'a> {
    fn new(dir: &'a Dir) -> Self {
        Self {
            dir,
            labels: Vec::new(),
            list: Vec::new(),
        }
    }

    /// Whether each of `readers` sees in an image, over its parents, the bytes of a raw file.
    fn ask(&mut self, label: &str, readers: &[&str], names: &[&str], raw: &str) {
        for reader in readers {
            self.labels.push(format!("{reader}: {label}"));
            self.list.push(json!([reader, names, raw]));
        }
    }

    /// Whether each of `readers` sees a disk of that size, and in its ranges (offset, length) the bytes of a
    /// raw file that holds nothing else.
    fn ask_ranges(
        &mut self,
        readers: &[&str],
        name: &str,
        size: u64,
        ranges: &[(u64, u64)],
        raw: &str,
    ) {
        for reader in readers {
            self.labels.push(format!("{reader}: {name}"));
            self.list.push(json!([reader, [name], raw, size, ranges]));
        }
    }

    /// They do.
    fn agreed(self) {
        let ran = script(self.dir, &[], &json!(self.list).to_string());
        let out = String::from_utf8_lossy(&ran.stdout);
        let said: Vec<_> = out.lines().collect();
        assert_eq!(said.len(), self.labels.len(), "{ran:?}");
        let answers = self.labels.iter().zip(said);
        let wrong: Vec<_> = answers.filter(|(_, said)| *said != "ok").collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

fn options(format: &str, writable: bool) -> OpenOptions {
    OpenOptions {
        format: Some(format.to_owned()),
        writable,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

fn open(path: &Path, format: &str, writable: bool) -> Image {
    Image::open(&Location::from_path(path), &options(format, writable))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn contents(path: &Path, format: &str) -> Vec<u8> {
    let image = open(path, format, false);
    let mut bytes = vec![0; image.len() as usize];
    image.read_at(&mut bytes, 0).expect("a read");
    bytes
}

/// A conversion of files of the directory.
fn conversion(dir: &Dir, from: (&str, &str), to: (&str, &str), text: &str) -> ConvertRequest {
    let at = |name: &str| Location::from_path(dir.path(name));
    let mut request = ConvertRequest::new(at(from.1), at(to.1));
    request.source.options = options(from.0, false);
    request.target.format = Some(to.0.to_owned());
    request.target.policy = OpenPolicy::permissive();
    request.target.options = match text {
        "" => Options::new(),
        text => Options::parse(text).expect("options"),
    };
    request
}

fn converted(dir: &Dir, from: (&str, &str), to: (&str, &str), text: &str) {
    convert(&conversion(dir, from, to, text), &mut Job::new())
        .unwrap_or_else(|error| panic!("{} {text}: {error}", to.1));
}

/// Changes of an image at random, in multiples of `unit`, and of the bytes that it shows.
fn scribble(image: &Image, model: &mut [u8], random: &mut Random, unit: u64) {
    for _ in 0..30 {
        let whole = |range: Range<u64>| range.start / unit * unit..range.end.next_multiple_of(unit);
        let change = match Change::pick(random, image.len()) {
            Change::Write(at, mut bytes) => {
                let range = whole(at..at + bytes.len() as u64);
                bytes.resize((range.end - range.start) as usize, random.next() as u8);
                Change::Write(range.start, bytes)
            }
            Change::Zero(range, unmap) => Change::Zero(whole(range), unmap),
            // What it leaves is not certain.
            Change::Discard(_) => continue,
        };
        change.apply(image).expect("a change");
        change.note(image, model, |_| 0).expect("a note");
    }
}
