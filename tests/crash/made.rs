//! `create` and `convert` as operations: wherever they are interrupted, what opens is complete.

use std::sync::Arc;

use bstr::BStr;
use platter::format::{BitmapInfo, RepairMode};
use platter::job::JobControl;
use platter::ops::convert::{ConvertRequest, convert};
use platter::ops::create::{CreatePlan, CreateRequest};
use platter::storage::memory::MemoryStorage;
use platter::storage::testing::Log;
use platter::storage::{CacheMode, Durability, Storage, ZeroFlags};
use platter::{ErrorKind, Image, Job, Location, OpenOptions, OpenPolicy, Options, Result};

use crate::random::Random;
use crate::rig::{self, FILES, New, SECTOR, SIZE, Shelf};
use crate::states::{self, Crash};

/// Options of images that `create` makes.
const CREATED: &[&str] = &[
    "cluster_size=4096",
    "cluster_size=4096,preallocation=metadata",
    "cluster_size=4096,preallocation=falloc",
    "cluster_size=4096,preallocation=full",
    "cluster_size=16384,extended_l2=on,preallocation=metadata",
    "compat=0.10,preallocation=full",
    "cluster_size=4096,data_file=data,data_file_raw=on,preallocation=metadata",
    "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1,preallocation=metadata",
];

/// How a conversion goes.
struct How {
    /// Of the target.
    options: &'static str,
    compress: bool,
    bitmaps: bool,
    /// Into an image that exists, full of other data.
    existing: bool,
}

const fn how(options: &'static str, compress: bool, bitmaps: bool, existing: bool) -> How {
    How {
        options,
        compress,
        bitmaps,
        existing,
    }
}

const CONVERTED: &[How] = &[
    how("cluster_size=4096", false, false, false),
    how(
        "cluster_size=4096,compression_type=zstd",
        true,
        false,
        false,
    ),
    how("cluster_size=4096", false, true, false),
    how("cluster_size=512", true, true, false),
    how("cluster_size=4096,data_file=data", false, true, false),
    how(
        "cluster_size=16384,extended_l2=on,preallocation=metadata",
        false,
        false,
        false,
    ),
    how("cluster_size=4096,preallocation=full", false, true, false),
    how(
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1",
        false,
        false,
        false,
    ),
    how("cluster_size=4096", false, false, true),
    how("cluster_size=4096", true, true, true),
];

/// A bitmap, and the ranges that are dirty.
type Held = (BitmapInfo, Vec<(u64, u64)>);

type Files = Vec<(&'static str, Arc<dyn Storage>)>;

fn named(files: &Files) -> Option<Arc<dyn platter::storage::NamedStorages>> {
    Some(Arc::new(Shelf(files.clone())))
}

/// Empty files for an image with these options, in a log.
fn logged(log: &Arc<Log>, options: &str, bytes: Vec<Vec<u8>>) -> Files {
    let count = 1 + usize::from(options.contains("data_file"));
    let bytes = bytes.into_iter().chain(std::iter::repeat_with(Vec::new));
    let files = FILES[..count].iter().zip(bytes);
    let file = |(name, bytes): (&&'static str, Vec<u8>)| {
        (*name, log.file(*name, bytes) as Arc<dyn Storage>)
    };
    files.map(file).collect()
}

fn location(options: &str) -> Location {
    if options.contains("encrypt") {
        let tree = r#"json:{"driver":"qcow2","encrypt.key-secret":"s","file.driver":"file","file.filename":"image"}"#;
        return Location::parse(tree).unwrap();
    }
    Location::from_path("image")
}

fn open(files: &Files, options: &str, name: Option<&str>, check: bool) -> Result<Image> {
    let encrypted = options.contains("encrypt");
    let open = OpenOptions {
        format: (!encrypted).then(|| "qcow2".to_owned()),
        for_check: check,
        storages: named(files),
        policy: OpenPolicy::permissive(),
        secrets: rig::secrets(),
        ..OpenOptions::default()
    };
    let at = name.map_or_else(|| location(options), Location::from_path);
    Image::open(&at, &open)
}

fn contents(image: &Image) -> Result<Vec<Option<u64>>> {
    let mut bytes = vec![0; image.len() as usize];
    image.read_at(&mut bytes, 0)?;
    Ok(bytes.chunks_exact(SECTOR).map(rig::tag_of).collect())
}

/// The bitmaps of an image with what they hold; those that say that they miss something without.
fn bitmaps(image: &Image) -> Result<Vec<Held>> {
    let Some(bitmaps) = image.bitmaps() else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    for info in bitmaps
        .list()?
        .into_iter()
        .filter(|info| !info.inconsistent)
    {
        let mut runs = Vec::new();
        bitmaps.visit_dirty(
            BStr::new(&info.name),
            0..u64::MAX,
            &JobControl::default(),
            &mut |offset, len| {
                runs.push((offset, len));
                Ok(())
            },
        )?;
        all.push((info, runs));
    }
    Ok(all)
}

/// What a target is to be in the end.
struct Goal {
    options: &'static str,
    sectors: Vec<Option<u64>>,
    /// What the sectors held before, where it was an image already.
    before: Option<Vec<Option<u64>>>,
    bitmaps: Vec<Held>,
}

impl Goal {
    /// Checks every state that the making of the target may leave; returns their number.
    fn replay(&self, log: &Log, durability: Durability) -> usize {
        let end = log.count();
        let mut random = Random(self.options.len() as u64);
        states::each(log, durability, &mut random, 1, |crash| {
            if let Err(text) = self.judge(&crash, crash.count == end) {
                panic!(
                    "{}: {} of the first {} events of {end}: {text}",
                    self.options, crash.what, crash.count
                );
            }
        })
    }

    fn judge(&self, crash: &Crash, done: bool) -> std::result::Result<(), String> {
        let files: Files = FILES.into_iter().zip(rig::memory(&crash.files)).collect();
        let image = match open(&files, self.options, None, true) {
            Ok(image) => image,
            Err(error) => {
                let refused = error.kind() == ErrorKind::NotAnImage;
                let may = refused && !done && self.before.is_none();
                return may.then_some(()).ok_or(format!("does not open: {error:?}"));
            }
        };
        let fail = |error: platter::Error| format!("{error:?}");
        let (report, notes) = rig::check(image.format(), RepairMode::Report).map_err(fail)?;
        let dirty = image.format().info().map_err(fail)?.dirty == Some(true);
        if report.check_errors != 0 || report.corruptions != 0 && !dirty {
            return Err(format!("{report:?} {notes:?}"));
        }
        let found = contents(&image).map_err(fail)?;
        let other = (0..self.sectors.len()).find(|n| {
            let old = self
                .before
                .as_ref()
                .filter(|_| !done)
                .map(|before| before[*n]);
            found.get(*n) != Some(&self.sectors[*n]) && old != found.get(*n).copied()
        });
        if let Some(sector) = other.filter(|_| found.len() == self.sectors.len()) {
            return Err(format!("sector {sector} holds {:x?}", found[sector]));
        }
        if found.len() != self.sectors.len() {
            return Err(format!("it has {} sectors", found.len()));
        }
        let there = bitmaps(&image).map_err(fail)?;
        let wrong = there.iter().find(|one| !self.bitmaps.contains(one));
        if let Some(wrong) = wrong {
            return Err(format!("{wrong:?} is none of the source"));
        }
        if done && there.len() != self.bitmaps.len() {
            return Err(format!("only {there:?}"));
        }
        Ok(())
    }
}

fn create(options: &'static str) -> usize {
    let log = Log::new();
    let files = logged(&log, options, Vec::new());
    let request = CreateRequest {
        location: Location::from_path("image"),
        format: "qcow2".to_owned(),
        size: Some(SIZE),
        options: Options::parse(options).unwrap(),
        backing_file: None,
        backing_format: None,
        backing_unsafe: false,
        secrets: rig::secrets(),
        policy: OpenPolicy::permissive(),
        storages: named(&files),
    };
    let mut job = Job::new();
    let plan = CreatePlan::new(request, &mut job).unwrap();
    plan.run(&mut job).unwrap();
    let goal = Goal {
        options,
        sectors: vec![Some(0); SIZE as usize / SECTOR],
        before: None,
        bitmaps: Vec::new(),
    };
    if options.contains("encrypt") {
        // What was never written decrypts to anything.
        let found = contents(&open(&files, options, None, false).unwrap()).unwrap();
        let goal = Goal {
            sectors: found,
            ..goal
        };
        return goal.replay(&log, Durability::Synced);
    }
    goal.replay(&log, Durability::Synced)
}

/// An image with data, zeroes and bitmaps.
fn source(tag: u64) -> Arc<dyn Storage> {
    let file: Arc<dyn Storage> = Arc::new(MemoryStorage::new("image"));
    let new = New {
        format: "qcow2",
        options: "cluster_size=4096",
        len: SIZE,
        backing: None,
    };
    new.create(std::slice::from_ref(&file), Durability::None, |_| Ok(()))
        .unwrap();
    let options = OpenOptions {
        format: Some("qcow2".to_owned()),
        writable: true,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let image = Image::open_storage(file.clone(), &options).unwrap();
    let names = [("a", 512), ("b", 4096)];
    for (name, granularity) in names.iter().take(tag as usize % 3) {
        image
            .bitmaps()
            .unwrap()
            .add(BStr::new(name), Some(*granularity), &JobControl::default())
            .unwrap();
    }
    let mut random = Random(tag);
    for n in 0..24 {
        let start = random.below(SIZE as usize / SECTOR - 24);
        let bytes = rig::sector_of(tag << 32 | n).repeat(1 + random.below(24));
        image.write_at(&bytes, (start * SECTOR) as u64).unwrap();
    }
    image
        .write_zeroes(96 << 10, 64 << 10, ZeroFlags::empty())
        .unwrap();
    if tag % 3 == 2 {
        image
            .bitmaps()
            .unwrap()
            .set_enabled(BStr::new("b"), false, &JobControl::default())
            .unwrap();
    }
    image.close().unwrap();
    file
}

fn convert_to(how: &How, cache: CacheMode) -> usize {
    let from: Files = vec![("source", source(5))];
    let log = Log::new();
    let old = how.existing.then(|| {
        let file = source(3);
        rig::bytes_of(&[file])
    });
    let options = how.options;
    let files = logged(&log, options, old.clone().unwrap_or_default());
    let read = open(&from, "", Some("source"), false).unwrap();
    let before = old.map(|_| contents(&open(&files, options, None, false).unwrap()).unwrap());
    let goal = Goal {
        options,
        sectors: contents(&read).unwrap(),
        before,
        bitmaps: bitmaps(&read).unwrap(),
    };
    assert_eq!(goal.bitmaps.len(), 2);
    drop(read);
    let mut request =
        ConvertRequest::new(Location::from_path("source"), Location::from_path("image"));
    request.source.options.storages = named(&from);
    request.source.options.policy = OpenPolicy::permissive();
    request.source.options.format = Some("qcow2".to_owned());
    request.target.format = Some("qcow2".to_owned());
    if !how.existing {
        request.target.options = Options::parse(options).unwrap();
    }
    request.target.exists = how.existing;
    request.target.cache = cache;
    request.target.compress = how.compress;
    request.source.bitmaps = how.bitmaps;
    request.tuning.parallel = Some(1);
    request.target.secrets = rig::secrets();
    request.target.policy = OpenPolicy::permissive();
    request.target.storages = named(&files);
    convert(&request, &mut Job::new()).unwrap();
    let goal = Goal {
        bitmaps: if how.bitmaps {
            goal.bitmaps
        } else {
            Vec::new()
        },
        ..goal
    };
    goal.replay(&log, crash_of(cache))
}

/// Interrupts each at every event; returns the number of states.
pub fn run(cache: CacheMode) -> usize {
    let created: usize = match cache {
        CacheMode::Unsafe => 0,
        _ => CREATED.iter().map(|options| create(options)).sum(),
    };
    let converted: usize = CONVERTED.iter().map(|how| convert_to(how, cache)).sum();
    created + converted
}

/// What the target must survive: without flushes, the end of the process.
fn crash_of(cache: CacheMode) -> Durability {
    match cache {
        CacheMode::Unsafe => Durability::Ordered,
        _ => Durability::Synced,
    }
}
