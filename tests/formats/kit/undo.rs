//! Each driver takes back what it made: a creation that fails late, is cancelled or is refused leaves no new file, of
//! however many the image has, and nothing else that it has not begun to fill is touched.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use platter::job::JobControl;
use platter::ops::convert::{ConvertRequest, convert};
use platter::storage::callbacks::{CallbackStorage, StorageCallbacks};
use platter::storage::{CacheMode, NamedStorages, Storage, StorageOpen};
use platter::{Error, ErrorKind, Job, Location, OpenPolicy, Options, Result};

use super::sample::{Sample, objects, samples};
use super::shelf::{self, FILES};
use crate::common::Dir;

/// What was there before under the names of the new image.
const BEFORE: &[u8] = b"bytes of somebody";

/// A source of the caller's own under the name `source`.
#[derive(Debug)]
struct Source(Arc<dyn Storage>);

impl NamedStorages for Source {
    fn find(&self, name: &Path, _: &StorageOpen) -> Option<Result<Arc<dyn Storage>>> {
        (name.as_os_str() == "source").then(|| Ok(self.0.clone()))
    }
}

/// How a creation ends before it is done.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// That read of the source, and every later one, fails.
    Fault(u64),
    /// The job is cancelled while that part of the source is read.
    Cancel(u64),
    /// The job was cancelled beforehand.
    Cancelled,
    /// Nothing may be overwritten, and something is there.
    Exclusive,
}

/// A source without a zero that counts its reads and brings that ending about.
fn source(
    sample: &Sample,
    ending: Option<Ending>,
    control: &Arc<JobControl>,
) -> (Arc<dyn Storage>, Arc<AtomicU64>) {
    let (size, control) = (sample.size, control.clone());
    let reads = Arc::new(AtomicU64::new(0));
    let counted = reads.clone();
    let read = move |buf: &mut [u8], offset: u64| {
        let count = counted.fetch_add(1, Ordering::Relaxed);
        match ending {
            Some(Ending::Fault(nth)) if count >= nth => {
                return Err(Error::os(libc::EIO));
            }
            Some(Ending::Cancel(nth)) if count == nth => control.cancel(),
            _ => {}
        }
        for (at, byte) in (offset..).zip(buf) {
            *byte = (at / 512 % 250) as u8 + 1;
        }
        Ok(())
    };
    let callbacks = StorageCallbacks {
        read: Box::new(read),
        size: Box::new(move || Ok(size)),
        write: None,
        flush: None,
        set_size: None,
        zero: None,
        discard: None,
        extent: None,
        close: None,
    };
    let storage =
        CallbackStorage::new("source", callbacks, CacheMode::Writeback).expect("a source");
    (Arc::new(storage), reads)
}

/// The files of a directory.
type Files = BTreeMap<String, Vec<u8>>;

fn files(dir: &Dir) -> Files {
    let entries = std::fs::read_dir(dir.root()).expect("a directory");
    let one = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.expect("an entry");
        let bytes = std::fs::read(entry.path()).expect("a file");
        (entry.file_name().into_string().expect("UTF-8"), bytes)
    };
    entries.map(one).collect()
}

/// A directory with the backing file of the sample and these files of others.
fn directory(sample: &Sample, others: &[String]) -> Dir {
    let dir = Dir::new();
    if sample.overlay {
        std::fs::write(dir.path(FILES[2]), shelf::base(sample)).expect("a backing file");
    }
    for name in others {
        std::fs::write(dir.path(name), BEFORE).expect("a file");
    }
    dir
}

/// Converts into a new image of the sample until that happens; whether it has happened, and what came of it.
fn ended(sample: &Sample, dir: &Dir, ending: Option<Ending>) -> (bool, Result<()>) {
    let mut job = Job::new();
    let (source, reads) = source(sample, ending, job.control());
    if let Some(Ending::Cancelled) = ending {
        job.control().cancel();
    }
    let mut request = ConvertRequest::new(
        Location::from_path("source"),
        Location::from_path(dir.path(FILES[0])),
    );
    request.source.options.format = Some("raw".to_owned());
    request.source.options.policy = OpenPolicy::permissive();
    request.source.options.storages = Some(Arc::new(Source(source)));
    request.target.format = Some(sample.format.to_owned());
    let options = sample.options(&dir.str(FILES[1]));
    if !options.is_empty() {
        request.target.options = Options::parse(&options).expect("options");
    }
    if sample.overlay {
        request.target.backing_file = Some(dir.str(FILES[2]).into());
        request.target.backing_format = Some(sample.base_format.to_owned());
    }
    request.target.exclusive = matches!(ending, Some(Ending::Exclusive));
    request.target.objects = objects();
    request.target.policy = OpenPolicy::permissive();
    let result = convert(&request, &mut job).map(drop);
    let met = match ending {
        Some(Ending::Fault(nth) | Ending::Cancel(nth)) => reads.load(Ordering::Relaxed) > nth,
        Some(Ending::Exclusive | Ending::Cancelled) => true,
        None => false,
    };
    (met, result)
}

/// The names of the files that a new image of the sample has.
fn names(sample: &Sample) -> Vec<String> {
    let dir = directory(sample, &[]);
    let before = files(&dir);
    ended(sample, &dir, None)
        .1
        .unwrap_or_else(|error| panic!("{}: {error}", sample.name));
    let after = files(&dir);
    let made = after.into_keys().filter(|name| !before.contains_key(name));
    made.collect()
}

/// Ends the creation over these files of others; whether that happened at all.
fn undoes(sample: &Sample, others: &[String], ending: Ending) -> bool {
    let dir = directory(sample, others);
    let before = files(&dir);
    let (met, result) = ended(sample, &dir, Some(ending));
    let what = format!("{}, {ending:?} over {others:?}", sample.name);
    let error = match (met, result) {
        (true, Err(error)) => error,
        // A cancel during the last read may come too late.
        (true, Ok(())) if matches!(ending, Ending::Cancel(nth) if nth > 0) => return true,
        (true, Ok(())) => panic!("{what}: it is done"),
        (false, result) => {
            result.unwrap_or_else(|error| panic!("{what}: {error}"));
            return false;
        }
    };
    let kind = match ending {
        Ending::Fault(_) => ErrorKind::Os,
        Ending::Exclusive => ErrorKind::Exists,
        Ending::Cancel(_) | Ending::Cancelled => ErrorKind::Cancelled,
    };
    assert_eq!(error.kind(), kind, "{what}: {error}");
    let after = files(&dir);
    let was_begun = matches!(ending, Ending::Fault(_) | Ending::Cancel(_));
    for (name, bytes) in &before {
        let now = after.get(name);
        let now = now.unwrap_or_else(|| panic!("{what}: '{name}' is gone"));
        let is_emptied = was_begun && others.contains(name) && now.is_empty();
        assert!(now == bytes || is_emptied, "{what}: '{name}' has changed");
    }
    let mut left = after.keys().filter(|name| !before.contains_key(*name));
    assert_eq!(left.next(), None, "{what}: left behind");
    true
}

#[test]
fn every_format_takes_back_what_a_creation_made_that_did_not_succeed() {
    for sample in samples() {
        let names = names(sample);
        assert!(names.contains(&FILES[0].to_owned()), "{}", sample.name);
        // Something of others is in the place of no file of the image, of one, of all.
        for others in std::iter::once(&names[..0])
            .chain(names.chunks(1))
            .chain([&names[..]])
        {
            for ending in [Ending::Fault, Ending::Cancel] {
                assert!(undoes(sample, others, ending(0)), "{}", sample.name);
                (1..)
                    .take_while(|&nth| undoes(sample, others, ending(nth)))
                    .count();
            }
            undoes(sample, others, Ending::Cancelled);
            if !others.is_empty() {
                undoes(sample, others, Ending::Exclusive);
            }
        }
    }
}
