//! `create` and `convert` as operations: wherever they are interrupted, what opens is complete.

use std::sync::Arc;

use bstr::BStr;
use platter::format::{BitmapInfo, RepairMode};
use platter::job::JobControl;
use platter::ops::convert::{ConvertRequest, convert};
use platter::ops::create::{CreatePlan, CreateRequest};
use platter::storage::testing::Log;
use platter::storage::{CacheMode, Durability, Storage, ZeroFlags};
use platter::{ErrorKind, Image, Job, Location, OpenOptions, OpenPolicy, Result};

use crate::configs::{Config, encrypted, kind, qcow2, with_second};
use crate::random::Random;
use crate::rig::{self, FILES, SECTOR, Shelf};
use crate::states::{self, Crash};

const LUKS: &str = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1";

/// Images that `create` makes.
const CREATED: &[Config] = &[
    qcow2("", "cluster_size=4096"),
    qcow2("", "cluster_size=4096,preallocation=metadata"),
    qcow2("", "cluster_size=4096,preallocation=falloc"),
    qcow2("", "cluster_size=4096,preallocation=full"),
    qcow2(
        "",
        "cluster_size=16384,extended_l2=on,preallocation=metadata",
    ),
    qcow2("", "compat=0.10,preallocation=full"),
    with_second(qcow2(
        "",
        "cluster_size=4096,data_file=data,data_file_raw=on,preallocation=metadata",
    )),
    encrypted(qcow2(
        "",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1,preallocation=metadata",
    )),
    kind("", "vmdk", ""),
    kind("", "vmdk", "subformat=streamOptimized"),
    with_second(kind("", "vmdk", "subformat=monolithicFlat")),
    with_second(kind("", "vmdk", "subformat=twoGbMaxExtentSparse")),
    with_second(kind("", "vmdk", "subformat=twoGbMaxExtentFlat")),
    kind("", "qed", "cluster_size=4096"),
    kind("", "qcow", ""),
    kind("", "parallels", "cluster_size=4096"),
];

/// How a conversion goes.
struct How {
    /// Of the target.
    target: Config,
    compress: bool,
    bitmaps: bool,
    /// Into an image that exists, full of other data.
    existing: bool,
}

const fn how(target: Config) -> How {
    How {
        target,
        compress: false,
        bitmaps: false,
        existing: false,
    }
}

const fn compressing(how: How) -> How {
    How {
        compress: true,
        ..how
    }
}

const fn with_bitmaps(how: How) -> How {
    How {
        bitmaps: true,
        ..how
    }
}

const fn existing(how: How) -> How {
    How {
        existing: true,
        ..how
    }
}

const SMALL: How = how(qcow2("", "cluster_size=4096"));

const CONVERTED: &[How] = &[
    SMALL,
    compressing(how(qcow2("", "cluster_size=4096,compression_type=zstd"))),
    with_bitmaps(SMALL),
    with_bitmaps(compressing(how(qcow2("", "cluster_size=512")))),
    with_bitmaps(how(with_second(qcow2(
        "",
        "cluster_size=4096,data_file=data",
    )))),
    how(qcow2(
        "",
        "cluster_size=16384,extended_l2=on,preallocation=metadata",
    )),
    with_bitmaps(how(qcow2("", "cluster_size=4096,preallocation=full"))),
    how(encrypted(qcow2("", LUKS))),
    existing(SMALL),
    existing(with_bitmaps(compressing(SMALL))),
    how(kind("", "vmdk", "")),
    how(kind("", "vmdk", "subformat=streamOptimized")),
    how(with_second(kind("", "vmdk", "subformat=monolithicFlat"))),
    how(with_second(kind(
        "",
        "vmdk",
        "subformat=twoGbMaxExtentSparse",
    ))),
    how(with_second(kind(
        "",
        "vmdk",
        "subformat=twoGbMaxExtentFlat",
    ))),
    existing(how(kind("", "vmdk", ""))),
    existing(how(with_second(kind(
        "",
        "vmdk",
        "subformat=twoGbMaxExtentSparse",
    )))),
    how(kind("", "qed", "cluster_size=4096")),
    existing(how(kind("", "qed", "cluster_size=4096"))),
    how(kind("", "qcow", "")),
    compressing(how(kind("", "qcow", ""))),
    existing(how(kind("", "qcow", ""))),
    existing(compressing(how(kind("", "qcow", "")))),
    how(kind("", "parallels", "cluster_size=4096")),
    existing(how(kind("", "parallels", "cluster_size=4096"))),
];

/// A bitmap, and the ranges that are dirty.
type Held = (BitmapInfo, Vec<(u64, u64)>);

type Files = Vec<(&'static str, Arc<dyn Storage>)>;

fn named(files: &Files) -> Option<Arc<dyn platter::storage::NamedStorages>> {
    Some(Arc::new(Shelf(files.clone())))
}

/// Files for an image of a kind, in a log.
fn logged(log: &Arc<Log>, config: &Config, bytes: Vec<Vec<u8>>) -> Files {
    let bytes = bytes.into_iter().chain(std::iter::repeat_with(Vec::new));
    let files = FILES[..config.files()].iter().zip(bytes);
    let file = |(name, bytes): (&&'static str, Vec<u8>)| {
        (*name, log.file(*name, bytes) as Arc<dyn Storage>)
    };
    files.map(file).collect()
}

/// How an image is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Read,
    Write,
    Check,
}

fn open(files: &Files, config: &Config, name: &str, to: To) -> Result<Image> {
    let open = OpenOptions {
        writable: to == To::Write,
        for_check: to == To::Check,
        storages: named(files),
        policy: OpenPolicy::permissive(),
        objects: rig::objects(),
        ..OpenOptions::default()
    };
    let at = config.image_opts(name, to != To::Write);
    Image::open(&Location::from_image_opts(&at)?, &open)
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
struct Goal<'a> {
    target: &'a Config,
    sectors: Vec<Option<u64>>,
    /// What the sectors held before, where it was an image already.
    before: Option<Vec<Option<u64>>>,
    bitmaps: Vec<Held>,
}

impl Goal<'_> {
    /// Checks every state that the making of the target may leave; returns their number.
    fn replay(&self, log: &Log, durability: Durability) -> usize {
        let end = log.count();
        let mut random = Random(self.target.options.len() as u64);
        states::each(log, durability, &mut random, 1, |crash| {
            if let Err(text) = self.judge(&crash, crash.count == end) {
                panic!(
                    "{} {}: {} of the first {} events of {end}: {text}",
                    self.target.format, self.target.options, crash.what, crash.count
                );
            }
        })
    }

    fn judge(&self, crash: &Crash, done: bool) -> std::result::Result<(), String> {
        let files: Files = FILES.into_iter().zip(rig::memory(&crash.files)).collect();
        let image = match open(&files, self.target, FILES[0], To::Check) {
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

fn create(target: &Config) -> usize {
    let log = Log::new();
    let files = logged(&log, target, Vec::new());
    let request = CreateRequest {
        location: Location::from_path(FILES[0]),
        format: target.format.to_owned(),
        size: Some(target.size),
        options: target.creation(),
        backing_file: None,
        backing_format: None,
        backing_unsafe: false,
        exclusive: false,
        objects: rig::objects(),
        policy: OpenPolicy::permissive(),
        storages: named(&files),
    };
    let mut job = Job::new();
    let plan = CreatePlan::new(request, &mut job).unwrap();
    plan.run(&mut job).unwrap();
    let goal = Goal {
        target,
        sectors: vec![Some(0); target.sectors()],
        before: None,
        bitmaps: Vec::new(),
    };
    if target.has("encrypt") {
        // What was never written decrypts to anything.
        let found = contents(&open(&files, target, FILES[0], To::Read).unwrap()).unwrap();
        let goal = Goal {
            sectors: found,
            ..goal
        };
        return goal.replay(&log, Durability::Synced);
    }
    goal.replay(&log, Durability::Synced)
}

/// An image with data, zeroes, and bitmaps where it has such.
fn source(config: &Config, tag: u64) -> Files {
    let files: Files = FILES.into_iter().zip(rig::empty_files(config)).collect();
    let storages: Vec<_> = files.iter().map(|(_, file)| file.clone()).collect();
    let new = config.new_image();
    new.create(&storages, Durability::None, |_| Ok(())).unwrap();
    let image = open(&files, config, FILES[0], To::Write).unwrap();
    let names = [("a", 512), ("b", 4096)];
    if let Some(bitmaps) = image.bitmaps() {
        for (name, granularity) in names.iter().take(tag as usize % 3) {
            bitmaps
                .add(BStr::new(name), Some(*granularity), &JobControl::default())
                .unwrap();
        }
    }
    let mut random = Random(tag);
    for n in 0..24 {
        let start = random.below(config.sectors() - 24);
        let bytes = rig::sector_of(tag << 32 | n).repeat(1 + random.below(24));
        image.write_at(&bytes, (start * SECTOR) as u64).unwrap();
    }
    image
        .write_zeroes(96 << 10, 64 << 10, ZeroFlags::empty())
        .unwrap();
    if let Some(bitmaps) = image.bitmaps().filter(|_| tag % 3 == 2) {
        bitmaps
            .set_enabled(BStr::new("b"), false, &JobControl::default())
            .unwrap();
    }
    image.close().unwrap();
    files
}

fn convert_to(how: &How, cache: CacheMode) -> usize {
    let target = &how.target;
    let made = source(&SMALL.target, 5);
    let from: Files = vec![("source", made[0].1.clone())];
    let log = Log::new();
    let old = how.existing.then(|| {
        let files = source(target, 3);
        let files: Vec<_> = files.into_iter().map(|(_, file)| file).collect();
        rig::bytes_of(&files)
    });
    let files = logged(&log, target, old.clone().unwrap_or_default());
    let read = open(&from, &SMALL.target, "source", To::Read).unwrap();
    let image = || open(&files, target, FILES[0], To::Read).unwrap();
    let before = old.map(|_| contents(&image()).unwrap());
    let goal = Goal {
        target,
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
    request.target.format = Some(target.format.to_owned());
    if !how.existing {
        request.target.options = target.creation();
    }
    request.target.exists = how.existing;
    request.target.cache = cache;
    request.target.compress = how.compress;
    request.source.bitmaps = how.bitmaps;
    request.tuning.parallel = Some(1);
    request.target.objects = rig::objects();
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
        _ => CREATED.iter().map(create).sum(),
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
