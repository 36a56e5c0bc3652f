//! Random operations on one image, and the states that a crash among them may leave.

use std::ops::Range;
use std::sync::Arc;

use bstr::BStr;
use platter::format::{Format, FormatWrite, RepairMode};
use platter::storage::testing::{Log, LoggingStorage};
use platter::storage::{Durability, Storage};
use platter::value::Value;

use crate::bitmaps::{self, Tracked};
use crate::configs::Config;
use crate::model::History;
use crate::random::Random;
use crate::rig::{self, Access, Base, FILES, SECTOR};
use crate::states::{self, Crash, Drive};
use crate::{operations::Operation, repair};

/// Operations per run.
const OPERATIONS: usize = 90;

/// A run of operations, and what is known of it.
pub struct Run<'a> {
    pub config: &'a Config,
    pub durability: Durability,
    pub history: History,
    pub log: Arc<Log>,
    pub files: Vec<Arc<LoggingStorage>>,
    pub random: Random,
    pub snapshots: Vec<Taken>,
    pub bitmaps: Vec<Tracked>,
    pub image: Option<Box<dyn Format>>,
    /// Event counts at which flushes ended.
    flushes: Vec<usize>,
    tags: u64,
}

/// A snapshot of the run.
pub struct Taken {
    pub name: String,
    pub contents: Vec<u64>,
    /// Event counts: it is there from the first on, at the latest, and until the second at least.
    pub made: usize,
    pub dropped: usize,
}

/// Runs one configuration with one seed; returns how many crash states were checked, those behind
/// every `step`th event.
pub fn run(config: &Config, durability: Durability, seed: u64, step: usize) -> usize {
    let mut run = Run::new(config, durability, seed);
    for _ in 0..OPERATIONS {
        Operation::pick(&mut run).apply(&mut run);
    }
    run.end(step)
}

/// The files that the operations of a run leave.
pub fn bytes(config: &Config, seed: u64) -> Vec<Vec<u8>> {
    let mut run = Run::new(config, Durability::None, seed);
    for _ in 0..OPERATIONS {
        Operation::pick(&mut run).apply(&mut run);
    }
    run.image().close().unwrap();
    rig::bytes_of(&run.storages())
}

/// As [`run`], with these operations.
pub fn sequence(config: &Config, durability: Durability, operations: &[fn(&mut Run<'_>)]) -> usize {
    let mut run = Run::new(config, durability, 0);
    for operation in operations {
        operation(&mut run);
    }
    run.end(1)
}

impl<'a> Run<'a> {
    fn new(config: &'a Config, durability: Durability, seed: u64) -> Self {
        let log = Log::new();
        let files = FILES.iter().zip(rig::new_image(config));
        let mut run = Self {
            config,
            durability,
            history: History::new(config),
            files: files.map(|(name, bytes)| log.file(*name, bytes)).collect(),
            log,
            random: Random(seed.wrapping_mul(0x1234_5678_9ABC_DEF1) ^ config.name.len() as u64),
            snapshots: Vec::new(),
            bitmaps: Vec::new(),
            image: None,
            flushes: vec![0],
            tags: 0,
        };
        run.image = Some(run.open(&run.storages(), Access::Write).unwrap());
        run
    }

    /// Closes the image and checks the states.
    fn end(mut self, step: usize) -> usize {
        self.image().close().unwrap();
        self.image = None;
        self.replay(step)
    }

    /// The open image.
    pub fn image(&self) -> &dyn Format {
        &**self.image.as_ref().unwrap()
    }

    /// What writes it.
    pub fn writer(&self) -> &dyn FormatWrite {
        self.image().writer().expect("a format that can be written")
    }

    /// The files of the run.
    pub fn storages(&self) -> Vec<Arc<dyn Storage>> {
        let files = self.files.iter();
        files.map(|file| file.clone() as Arc<dyn Storage>).collect()
    }

    /// What lies below the image.
    pub fn below(&self) -> Base {
        self.config.below()
    }

    /// A number that no sector has held.
    pub fn new_tag(&mut self) -> u64 {
        self.tags += 1;
        self.tags
    }

    /// Opens an image of the run's kind.
    pub fn open(
        &self,
        files: &[Arc<dyn Storage>],
        access: Access,
    ) -> platter::Result<Box<dyn Format>> {
        rig::open(self.config, files, self.durability, access)
    }

    /// Takes what the sectors read as now for what was decided.
    pub fn look(&mut self, sectors: Range<usize>) {
        let mut bytes = vec![0; sectors.len() * SECTOR];
        let offset = (sectors.start * SECTOR) as u64;
        rig::read(self.image(), &mut bytes, offset, &self.below()).unwrap();
        for (s, sector) in sectors.zip(bytes.chunks_exact(SECTOR)) {
            let tag = rig::tag_of(sector).unwrap();
            let possible = [0, self.history.below(s), self.history.current(s)];
            assert!(possible.contains(&tag), "sector {s} reads as {tag:x}");
            self.history.observe(s, tag);
        }
    }

    /// A flush has ended.
    pub fn settle(&mut self) {
        let at = self.log.count();
        self.history.flushed(at);
        self.bitmaps
            .iter_mut()
            .for_each(|bitmap| bitmap.enabled.settle(at));
        self.flushes.push(at);
    }

    /// An operation changes sectors, to this tag where it is none that others could read as.
    pub fn record(&mut self, sectors: &Range<usize>, tag: Option<u64>) {
        let flushes = self.flushes.len();
        for bitmap in &mut self.bitmaps {
            bitmap.record(sectors.clone(), tag, flushes);
        }
    }

    /// How often all was made durable so far.
    pub fn flush_count(&self) -> usize {
        self.flushes.len()
    }

    /// A property of the image as it is, by its name in `info`.
    pub fn property(&self, name: &str) -> Option<Value> {
        property(self.image(), name)
    }

    /// Whether the image is one of version 2 now.
    pub fn is_old(&self) -> bool {
        is_old(self.image())
    }

    /// The ID of a snapshot of the run.
    pub fn id_of(&self, index: usize) -> String {
        let list = self.image().info().unwrap().snapshots;
        let name = &self.snapshots[index].name;
        list.into_iter()
            .find(|s| s.name == *name)
            .unwrap()
            .id
            .to_string()
    }

    /// Builds and checks every state.
    fn replay(&mut self, step: usize) -> usize {
        let log = self.log.clone();
        let mut random = Random(self.random.next());
        let config = self.config;
        let last_tag = self.tags;
        let garbage = |sector: &[u8]| may_be_garbage(config, last_tag, sector);
        let drive = Drive {
            garbage: Some(&garbage),
            ..config.drive()
        };
        states::each_on(drive, &log, self.durability, &mut random, step, |crash| {
            if let Err(text) = crash.judge(|count| self.check(&crash, count)) {
                let name = format!("crash-{}-{}", self.config.name, crash.count);
                let path = std::env::temp_dir().join(name);
                let _ = std::fs::write(&path, &crash.files[0]);
                panic!(
                    "{}: {} of the first {} events: {text}; see {}",
                    self.config.name,
                    crash.what,
                    crash.count,
                    path.display()
                );
            }
        })
    }

    /// What is wrong with a state as one behind `count` events.
    fn check(&self, crash: &Crash, count: usize) -> Result<(), String> {
        let image = self
            .open(&rig::memory(&crash.files), Access::Check)
            .map_err(|error| format!("does not open: {error:?}"))?;
        self.judge(&*image)?;
        let flush = *self.flushes.iter().rfind(|at| **at <= count).unwrap();
        let len = image.len() as usize / SECTOR;
        if !self.history.allows_len(len, count, flush) {
            return Err(format!("has {len} sectors"));
        }
        let tags = self.read(&*image)?;
        let wrong = tags.iter().enumerate().find_map(|(sector, tag)| {
            let ok = tag.is_some_and(|tag| self.history.allows(sector, tag, count, flush));
            (!ok).then(|| format!("sector {sector} holds {tag:x?}"))
        });
        wrong.map_or(Ok(()), Err)?;
        let mut guests = tags.chunks(self.config.per_sector);
        if let Some(at) = guests.position(|tags| !is_one_write(tags)) {
            return Err(format!("sector {at} of the guest is torn"));
        }
        self.check_raw_data(&*image, crash, count, flush)?;
        self.check_snapshots(&*image, count)?;
        bitmaps::check(&*image, &self.bitmaps, &tags, count, &self.flushes)?;
        drop(image);
        if crash.count.is_multiple_of(16) {
            self.go_on(crash, count)
                .map_err(|text| format!("written on: {text}"))?;
        }
        if crash.count.is_multiple_of(48) {
            repair::run(self, crash, count).map_err(|text| format!("repaired: {text}"))?;
        }
        Ok(())
    }

    /// Nothing is corrupt; what is leaked does no harm.
    pub fn judge(&self, image: &dyn Format) -> Result<(), String> {
        let (report, notes) = rig::check(image, RepairMode::Report)
            .map_err(|error| format!("cannot be checked: {error:?}"))?;
        // With the dirty bit set, refcounts are rebuilt before the next write.
        let dirty = image.info().unwrap().dirty == Some(true);
        // Version 2 has no dirty bit for the moment in which COPIED flags and refcounts change: all
        // that may be wrong then are missing flags of clusters that no one else refers to.
        let harmless = is_old(image)
            && notes
                .iter()
                .filter(|note| note.starts_with("ERROR"))
                .all(|note| is_missing_flag(note));
        let corrupt = report.corruptions != 0 && !dirty && !harmless;
        if report.check_errors != 0 || corrupt {
            return Err(format!("{report:?} {notes:?}"));
        }
        Ok(())
    }

    /// A data file that stays valid as a raw disk is one.
    fn check_raw_data(
        &self,
        image: &dyn Format,
        crash: &Crash,
        count: usize,
        flush: usize,
    ) -> Result<(), String> {
        if property(image, "data-file-raw") != Some(true.into()) {
            return Ok(());
        }
        let sectors = crash.files[1].chunks_exact(SECTOR).map(rig::tag_of);
        let sectors = sectors.take(image.len() as usize / SECTOR).enumerate();
        for (sector, tag) in sectors {
            if !tag.is_some_and(|tag| self.history.allows(sector, tag, count, flush)) {
                return Err(format!("sector {sector} of the data file holds {tag:x?}"));
            }
        }
        Ok(())
    }

    /// The tags of all sectors.
    pub fn read(&self, image: &dyn Format) -> Result<Vec<Option<u64>>, String> {
        rig::read_tags(image, &self.below()).map_err(|error| format!("cannot be read: {error:?}"))
    }

    /// The snapshots of a state behind `count` events are there and hold what they did.
    pub fn check_snapshots(&self, image: &dyn Format, count: usize) -> Result<(), String> {
        let list = image.info().unwrap().snapshots;
        for taken in &self.snapshots {
            let found = list.iter().find(|s| s.name == taken.name);
            let Some(found) = found else {
                if taken.made <= count && count <= taken.dropped {
                    return Err(format!("snapshot {} is missing", taken.name));
                }
                continue;
            };
            let view = image
                .snapshots()
                .unwrap()
                .view(BStr::new(&found.id))
                .unwrap();
            let tags = self.read(&*view)?;
            let same = tags
                .iter()
                .zip(&taken.contents)
                .all(|(a, b)| *a == Some(*b));
            if !same || tags.len() != taken.contents.len() {
                return Err(format!("snapshot {} has changed", taken.name));
            }
        }
        Ok(())
    }

    /// A crashed image can be written on, and stays whole.
    fn go_on(&self, crash: &Crash, count: usize) -> Result<(), String> {
        let files = rig::memory(&crash.files);
        let below = self.below();
        let image = self
            .open(&rig::memory(&crash.files), Access::Check)
            .map_err(|error| format!("{error:?}"))?;
        let before = bitmaps::list(&*image)?;
        let unit = self.config.per_sector;
        let sectors = (0..image.len() as usize / SECTOR).step_by(37 * unit);
        let written = self.open(&files, Access::Write).and_then(|image| {
            let writer = image.writer().expect("a format that can be written");
            for sector in sectors.clone() {
                let bytes = rig::sector_of(7).repeat(unit);
                writer.write(&bytes, (sector * SECTOR) as u64, &below)?;
            }
            image.close()
        });
        written.map_err(|error| format!("{error:?}"))?;
        let image = self
            .open(&files, Access::Check)
            .map_err(|error| format!("does not open: {error:?}"))?;
        self.judge(&*image)?;
        self.check_snapshots(&*image, count)?;
        bitmaps::check(&*image, &self.bitmaps, &[], count, &self.flushes)?;
        bitmaps::check_recorded(&*image, &before, sectors)
    }
}

/// Whether the tags of a sector of the guest are from one write, or from below.
fn is_one_write(tags: &[Option<u64>]) -> bool {
    let first = tags.first().copied().flatten();
    let below = |(n, tag): (usize, &Option<u64>)| *tag == first.map(|first| first + n as u64);
    tags.iter().all(|tag| *tag == first)
        || first.is_some_and(|tag| tag >> 32 == rig::base_tag(0) >> 32)
            && tags.iter().enumerate().all(below)
}

/// A property of an image, by its name in `info`.
fn property(image: &dyn Format, name: &str) -> Option<Value> {
    let specific = image.info().unwrap().specific?;
    specific.get(name).cloned()
}

/// Whether a sector that a power cut leaves half written may hold anything: one of the guest, which has written to
/// it, and any where checksums tell that and a log makes up for it.
fn may_be_garbage(config: &Config, last_tag: u64, sector: &[u8]) -> bool {
    let is_guests = |tag| (1..=last_tag).contains(&tag) || tag >> 32 == rig::base_tag(0) >> 32;
    config.format == "vhdx" || rig::tag_of(sector).is_some_and(is_guests)
}

/// Whether an image is one of version 2.
fn is_old(image: &dyn Format) -> bool {
    property(image, "compat") == Some("0.10".into())
}

/// Whether a finding is of a COPIED flag that is not there although it could be: that costs a copy.
fn is_missing_flag(note: &str) -> bool {
    let Some(finding) = note.strip_prefix("ERROR OFLAG_COPIED ") else {
        return false;
    };
    let entry = finding.split("_entry=").nth(1);
    let word = entry.and_then(|rest| rest.split(' ').next());
    let word = word.and_then(|word| u64::from_str_radix(word, 16).ok());
    word.is_some_and(|word| word >> 63 == 0) && finding.ends_with(" refcount=1")
}

#[test]
fn only_a_missing_flag_is_harmless() {
    let flag = |word: u64, count| {
        format!("ERROR OFLAG_COPIED data cluster: l2_entry={word:x} refcount={count}")
    };
    assert!(is_missing_flag(&flag(0x5000, 1)));
    assert!(!is_missing_flag(&flag(0x5000 | 1 << 63, 2)));
    assert!(!is_missing_flag(&flag(0x5000 | 1 << 63, 0)));
    let table = "ERROR OFLAG_COPIED L2 cluster: l1_index=3 l1_entry=7000 refcount=1";
    assert!(is_missing_flag(table));
    assert!(!is_missing_flag("ERROR cluster 5 refcount=0 reference=1"));
}

#[test]
fn the_base_reads_as_its_tags() {
    use platter::format::Below;
    let mut buf = [0; SECTOR];
    Base(8 << 9)
        .read_below(&mut buf, 3 * SECTOR as u64)
        .unwrap();
    assert_eq!(rig::tag_of(&buf), Some(rig::base_tag(3)));
}

/// A driver that writes what it was not told to, though it is what was there already, puts it at risk.
#[test]
fn garbage_shows_a_write_that_is_longer_than_it_should_be() {
    use platter::storage::testing::Event;
    // How many states have lost the first of two sectors, of which the second is written.
    let lost = |sectors: &[u64]| {
        let log = Log::new();
        let file = log.file("image", [5, 6].map(rig::sector_of).concat());
        let written: Vec<_> = sectors.iter().map(|tag| rig::sector_of(*tag)).collect();
        let offset = (2 - sectors.len()) * SECTOR;
        file.write_at(&written.concat(), offset as u64).unwrap();
        assert!(matches!(file.events()[..], [Event::Write { .. }]));
        let garbage = |sector: &[u8]| rig::tag_of(sector).is_some();
        let mut lost = 0;
        for seed in 0..32 {
            let drive = Drive {
                garbage: Some(&garbage),
                ..Drive::of_sectors(SECTOR as u64)
            };
            let (random, durability) = (&mut Random(seed), Durability::Synced);
            states::each_on(drive, &log, durability, random, 1, |crash| {
                let first = rig::tag_of(&crash.files[0][..SECTOR]);
                lost += usize::from(first != Some(5));
            });
        }
        lost
    };
    assert_eq!(lost(&[7]), 0);
    assert!(lost(&[5, 7]) > 0);
}
