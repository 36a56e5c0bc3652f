//! The operations of the library in this process, with every single call failing in turn: a typed
//! error, and of every image the state before or after; the operation done again succeeds.

mod contents;
mod cuts;
mod operations;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use platter::format::RepairMode;
use platter::job::Message;
use platter::object::Objects;
use platter::ops::{bitmap, check, snapshot};
use platter::secret::Secret;
use platter::{Error, ErrorKind, Image, Job, Location, OpenOptions, OpenPolicy};

use super::interpose::{Armed, Strike};
use super::table::{self, Content};
use super::{FAULTS, Fault, Files, KNOWN, files_of, is_dirty, loses_nothing};
use crate::common::Dir;
use contents::Contents;

/// What is done, and what it may leave when a call of it fails.
pub struct Operation {
    /// What it is, and the images that it needs.
    pub line: &'static str,
    /// Files that were there before and may be changed.
    pub touches: &'static [&'static str],
    pub content: Content,
    /// What was damaged may stay so.
    pub damaged: bool,
    /// What cannot be read may be told by the outcome instead of an error.
    pub verdict: bool,
    /// It takes so long that one kind of fault has to do.
    pub slow: bool,
    /// Does it; what it found out is compared with that of a run in which nothing fails.
    pub run: fn(&At<'_>) -> platter::Result<String>,
}

impl Operation {
    /// A disk that is gone for good is left to the tests of the tool.
    fn faults(&self) -> &'static [Fault] {
        const ANY: &[Fault] = &[super::fault("rwsa", super::EIO, false)];
        match self.slow {
            true => ANY,
            false => FAULTS.split_last().map_or(FAULTS, |(_, others)| others),
        }
    }
}

/// The directory that an operation runs in.
pub struct At<'a>(&'a Path);

impl At<'_> {
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn str(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    pub fn location(&self, name: &str) -> Location {
        let path = self.str(name);
        match table::opened_with(name, &path) {
            Some(opts) => Location::from_image_opts(&opts).expect("image options"),
            None => Location::from_path(path),
        }
    }

    pub fn objects(&self) -> Objects {
        let mut objects = Objects::new();
        for (id, passphrase) in [("s", "x"), ("n", "y")] {
            objects
                .add_secret(id, Secret::new(passphrase))
                .expect("a new ID");
        }
        objects
    }

    pub fn options(&self, name: &str) -> OpenOptions {
        let format = match name.rsplit('.').next() {
            _ if table::opened_with(name, name).is_some() => None,
            Some(format @ ("raw" | "vmdk")) => Some(format.to_owned()),
            _ => Some("qcow2".to_owned()),
        };
        OpenOptions {
            format,
            objects: self.objects(),
            policy: OpenPolicy::permissive(),
            ..OpenOptions::default()
        }
    }

    /// Opens an image to read, or to change it, and closes it again.
    pub fn with<T>(
        &self,
        name: &str,
        writable: bool,
        work: impl FnOnce(&Image) -> platter::Result<T>,
    ) -> platter::Result<T> {
        let options = OpenOptions {
            writable,
            ..self.options(name)
        };
        let image = Image::open(&self.location(name), &options)?;
        let done = work(&image);
        let closed = image.close();
        done.and_then(|value| closed.map(|()| value))
    }
}

/// All that an image shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shown {
    contents: Contents,
    /// Of each snapshot its name and contents.
    snapshots: Vec<(String, Contents)>,
    /// Of each bitmap its name and dirty ranges.
    bitmaps: BTreeMap<String, Vec<(u64, u64)>>,
}

impl Shown {
    /// Whether that is shown; a bitmap may say that it is not complete any more.
    fn is(&self, other: &Self) -> bool {
        let broken = self.bitmaps.iter().all(|(name, ranges)| {
            let state = name.trim_end_matches("true");
            let sound = format!("{state}false");
            other.bitmaps.get(name) == Some(ranges)
                || (state != name && other.bitmaps.contains_key(&sound))
        });
        self.contents == other.contents
            && self.snapshots == other.snapshots
            && self.bitmaps.len() == other.bitmaps.len()
            && broken
    }
}

fn show(at: &At<'_>, name: &str) -> platter::Result<Shown> {
    let options = at.options(name);
    let mut image = Image::open(&at.location(name), &options)?;
    let mut shown = Shown {
        contents: Contents::of(&image)?,
        ..Shown::default()
    };
    for one in bitmap::list(&image)?.bitmaps {
        let ranges = match one.inconsistent {
            true => Vec::new(),
            false => bitmap::dirty(&image, &one.name, 0..image.len())?.ranges,
        };
        let name = format!("{} {} {}", one.name, one.enabled, one.inconsistent);
        shown.bitmaps.insert(name, ranges);
    }
    for one in snapshot::list(&image)?.snapshots {
        image.load_snapshot(&one.id)?;
        shown
            .snapshots
            .push((one.name.to_string(), Contents::of(&image)?));
        drop(image);
        image = Image::open(&at.location(name), &options)?;
    }
    Ok(shown)
}

/// One operation with its files, in a directory whose changed files are written again for each run.
struct Rig<'a> {
    operation: &'a Operation,
    // Removed at the end.
    _dir: tempfile::TempDir,
    root: PathBuf,
    pristine: Files,
    before: Vec<Shown>,
    after: Vec<Shown>,
    /// What new images show.
    made: BTreeMap<String, Shown>,
    good: String,
}

impl<'a> Rig<'a> {
    fn new(operation: &'a Operation) -> Self {
        let setup = Dir::new();
        table::images(&setup, operation.line);
        // Memory, where there is such a directory.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.expect("a directory");
        let mut rig = Self {
            operation,
            root: dir.path().canonicalize().expect("a path"),
            _dir: dir,
            pristine: files_of(setup.root()),
            before: Vec::new(),
            after: Vec::new(),
            made: BTreeMap::new(),
            good: String::new(),
        };
        rig.fill(&Files::new());
        rig.before = rig.shown().expect("what the images show");
        rig.good = rig
            .run()
            .unwrap_or_else(|error| panic!("{}: {error:?}", operation.line));
        rig.after = rig.shown().expect("what the images show");
        rig.made = rig.new_ones().expect("what the new images show");
        rig.fill(&files_of(&rig.root));
        rig
    }

    fn at(&self) -> At<'_> {
        At(&self.root)
    }

    fn run(&self) -> platter::Result<String> {
        (self.operation.run)(&self.at())
    }

    /// Makes the files what they were at first; `now` is what they are.
    fn fill(&self, now: &Files) {
        self.place(&self.pristine, now);
    }

    /// Makes the files these; `now` is what they are.
    fn place(&self, files: &Files, now: &Files) {
        for name in now.keys().filter(|name| !files.contains_key(*name)) {
            std::fs::remove_file(self.root.join(name)).expect("to remove a file");
            let above = Path::new(name).ancestors().skip(1);
            for directory in above.filter(|above| !above.as_os_str().is_empty()) {
                // Where nothing is left in it.
                let _ = std::fs::remove_dir(self.root.join(directory));
            }
        }
        for (name, bytes) in files {
            if now.get(name) != Some(bytes) {
                let path = self.root.join(name);
                std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
                std::fs::write(path, bytes).expect("a file of the test");
            }
        }
    }

    fn shown(&self) -> platter::Result<Vec<Shown>> {
        self.images().map(|name| show(&self.at(), name)).collect()
    }

    /// What is touched, without the extents of disks in parts.
    fn images(&self) -> impl Iterator<Item = &'static str> {
        let touches = self.operation.touches.iter().copied();
        touches.filter(|name| !name.contains("-s0"))
    }

    /// What the images show that were not there at first.
    fn new_ones(&self) -> platter::Result<BTreeMap<String, Shown>> {
        let files = files_of(&self.root).into_keys();
        let new = files.filter(|name| !self.pristine.contains_key(name));
        // A header or data file by itself shows nothing.
        let images = new.filter(|name| !name.contains("part") && !name.contains("-s0"));
        images
            .map(|name| show(&self.at(), &name).map(|shown| (name, shown)))
            .collect()
    }

    /// What is wrong after a run in which a call failed; the files are as at first then.
    fn judge(&self, fault: &Fault, outcome: &platter::Result<String>) -> Result<(), String> {
        let now = files_of(&self.root);
        let verdict = self.judge_outcome(fault, outcome).and_then(|done| {
            self.judge_files(&now, done)?;
            if done {
                self.judge_new()?;
            }
            if done || now != self.pristine {
                self.judge_images(done)?;
            }
            match done {
                true => Ok(()),
                false if self.operation.slow => Ok(()),
                false => self.judge_another(),
            }
        });
        self.fill(&files_of(&self.root));
        verdict
    }

    /// Whether it was done although a call failed.
    fn judge_outcome(
        &self,
        fault: &Fault,
        outcome: &platter::Result<String>,
    ) -> Result<bool, String> {
        let error = match outcome {
            Ok(found) if *found == self.good => return Ok(true),
            Ok(_) if self.operation.verdict => return Ok(false),
            Ok(found) => return Err(format!("it found {found}")),
            Err(error) => error,
        };
        let kind = match fault.errno {
            libc::ENOSPC => ErrorKind::NoSpace,
            _ => ErrorKind::Os,
        };
        // `compare` has the reason on a line of its own.
        let reason = format!("\n{}", fault.words);
        let text = error
            .to_string()
            .replace(&reason, &format!(": {}", fault.words));
        if error.kind() != kind || error.os_errno() != Some(fault.errno) {
            return Err("another kind of error".to_owned());
        }
        let why = text.ends_with(fault.words) || error.hints().iter().any(|h| h == fault.words);
        if text.contains('\n') || !why {
            return Err("the error does not say why on one line".to_owned());
        }
        let root = self.root.to_str().expect("UTF-8");
        let known = KNOWN.iter().any(|words| text.starts_with(words));
        let mut names = self.pristine.keys();
        if !known && !text.contains(root) && !names.any(|name| text.contains(name)) {
            return Err("the error names no file".to_owned());
        }
        Ok(false)
    }

    fn judge_files(&self, now: &Files, done: bool) -> Result<(), String> {
        for (name, bytes) in &self.pristine {
            match now.get(name) {
                None => return Err(format!("'{name}' is gone")),
                Some(now) if now != bytes && !self.operation.touches.contains(&name.as_str()) => {
                    return Err(format!("'{name}' has changed"));
                }
                Some(_) => {}
            }
        }
        match now.keys().find(|name| !self.pristine.contains_key(*name)) {
            Some(new) if !done => Err(format!("'{new}' was left behind")),
            _ => Ok(()),
        }
    }

    fn judge_new(&self) -> Result<(), String> {
        for name in self.made.keys().filter(|name| is_checked(name)) {
            self.check(name)?;
        }
        match self.new_ones() {
            Ok(made) if made == self.made => Ok(()),
            Ok(_) => Err("the new image shows something else".to_owned()),
            Err(error) => Err(format!("the new image cannot be read: {error:?}")),
        }
    }

    fn judge_images(&self, done: bool) -> Result<(), String> {
        for name in self.operation.touches {
            if is_checked(name) && !self.operation.damaged {
                self.check(name)?;
            }
        }
        let shown = self.shown().map_err(|error| format!("{error:?}"))?;
        for (n, name) in self.images().enumerate() {
            let [now, before, after] = [&shown[n], &self.before[n], &self.after[n]];
            let right = match self.operation.content {
                _ if done => now == after,
                Content::Any => true,
                Content::Either => now.is(before) || now.is(after),
                // Only the first need show the same: a base gets what its overlay has.
                Content::Same if n > 0 => true,
                Content::Same => now.contents == before.contents && (now == before || now == after),
            };
            if !right {
                return Err(format!("'{name}' shows {}", difference(now, before, after)));
            }
        }
        Ok(())
    }

    fn check(&self, name: &str) -> Result<(), String> {
        let at = self.at();
        let options = OpenOptions {
            for_check: true,
            ..at.options(name)
        };
        let failed = |error: Error| format!("'{name}' cannot be checked: {error:?}");
        if is_dirty(&std::fs::read(at.path(name)).expect("the image")) {
            // Whoever opens it for writing counts the references anew.
            let options = OpenOptions {
                writable: true,
                ..at.options(name)
            };
            let image = Image::open(&at.location(name), &options).map_err(failed)?;
            image.close().map_err(failed)?;
        }
        let image = Image::open(&at.location(name), &options).map_err(failed)?;
        let notes = Arc::new(Mutex::new(Vec::new()));
        let sink = notes.clone();
        let mut job = Job::new().on_message(Box::new(move |message| {
            if let Message::Note(line) = message {
                sink.lock().unwrap().push(line.clone());
            }
        }));
        let checked = check::check(&image, RepairMode::Report, &mut job);
        let report = checked.map_err(failed)?.report;
        drop(job);
        let info = image.format().info().map_err(failed)?;
        if info.dirty == Some(true) && report.check_errors == 0 {
            // Of two copies of a table one may be the older one until the image is closed.
            let notes = notes.lock().unwrap();
            let is_copy = |line: &String| line.starts_with("ERROR: the redundant copy ");
            if notes.iter().all(is_copy) {
                return Ok(());
            }
        }
        let notes = notes.lock().unwrap();
        let harmless = notes.iter().filter(|line| loses_nothing(line));
        let harmless = harmless.count() as u64;
        if report.corruptions != harmless || report.check_errors != 0 {
            let errors = notes.iter().filter(|line| line.starts_with("ERROR"));
            let errors: Vec<_> = errors.take(3).collect();
            return Err(format!("'{name}' is damaged: {errors:?} {report:?}"));
        }
        Ok(())
    }

    /// Done again, it comes to what it comes to without a fault, unless it was done already.
    fn judge_another(&self) -> Result<(), String> {
        let shown = self.shown().map_err(|error| format!("{error:?}"))?;
        if shown == self.after && self.before != self.after {
            return Ok(());
        }
        let broken = |shown: &Shown| shown.bitmaps.keys().any(|name| name.ends_with("true"));
        if shown.iter().any(broken) {
            return Ok(());
        }
        let again = self.run().map_err(|error| format!("again: {error:?}"))?;
        // A part may have been repaired before.
        if again != self.good && !self.operation.verdict {
            return Err(format!("again, it found {again}"));
        }
        let shown = self.shown().map_err(|error| format!("{error:?}"))?;
        if shown != self.after {
            return Err("again, it did something else".to_owned());
        }
        self.judge_new()?;
        self.judge_images(true)
    }
}

/// Whether an image of that name has a check.
fn is_checked(name: &str) -> bool {
    name.ends_with(".qcow2") || crate::vmdk::is_image(name)
}

/// Where an image is neither what it was nor what it was to become.
fn difference(now: &Shown, before: &Shown, after: &Shown) -> String {
    let mut text = String::new();
    for (other, name) in [(before, "before"), (after, "after")] {
        if let Some(at) = now.contents.differ_at(&other.contents) {
            let _ = write!(text, "other contents than {name} at {at}; ");
        }
        if now.bitmaps != other.bitmaps {
            let _ = write!(
                text,
                "bitmaps {:?}, {name} {:?}; ",
                now.bitmaps, other.bitmaps
            );
        }
        if now.snapshots != other.snapshots {
            let names = |shown: &Shown| {
                let names = shown.snapshots.iter().map(|(name, _)| name.clone());
                names.collect::<Vec<_>>()
            };
            let _ = write!(
                text,
                "snapshots {:?}, {name} {:?}; ",
                names(now),
                names(other)
            );
        }
    }
    text
}

fn run(operations: &[Operation]) {
    let mut wrong = Vec::new();
    for operation in operations {
        let rig = Rig::new(operation);
        for fault in operation.faults() {
            for nth in 0.. {
                let strike = Strike {
                    calls: fault.calls,
                    nth,
                    errno: fault.errno,
                    forever: fault.forever,
                };
                let armed = Armed::new(&rig.root, strike);
                let outcome = rig.run();
                let struck = armed.struck();
                drop(armed);
                if let Err(text) = rig.judge(fault, &outcome) {
                    wrong.push(format!(
                        "`{}`, call {nth} of {}, {}: {text}\n  {outcome:?}",
                        operation.line, fault.calls, fault.words
                    ));
                }
                if !struck {
                    break;
                }
            }
        }
    }
    let count = wrong.len();
    wrong.truncate(200);
    assert!(count == 0, "{count} failures:\n{}", wrong.join("\n"));
}

#[test]
fn operations_that_make_an_image() {
    run(operations::MAKE);
}

#[test]
fn operations_that_convert() {
    run(operations::CONVERT);
}

#[test]
fn operations_that_read() {
    run(operations::READ);
}

#[test]
fn operations_on_vmdk_images() {
    run(operations::VMDK);
}

#[test]
fn operations_that_change_a_chain() {
    run(operations::CHAIN);
}

#[test]
fn operations_that_change_an_image() {
    run(operations::CHANGE);
}
