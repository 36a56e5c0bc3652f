//! Random operations, and the states that a crash among them may leave.

use std::sync::{Arc, Mutex};

use platter::format::{BackingRef, Below, Format, NewSnapshot, RepairMode};
use platter::job::Message;
use platter::storage::memory::MemoryStorage;
use platter::storage::testing::{Event, LoggingStorage};
use platter::storage::{Durability, Storage, ZeroFlags};
use platter::{ErrorKind, Job};

use crate::model::{History, SECTORS};
use crate::rig::{self, Base, Config, SECTOR};

/// Operations per run.
const OPERATIONS: usize = 120;
/// Random subsets of what is pending, per event.
const SUBSETS: usize = 2;

/// SplitMix64: the same numbers on every machine.
pub struct Random(u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

struct Run<'a> {
    config: &'a Config,
    history: History,
    /// Event counts at which flushes ended.
    flushes: Vec<usize>,
    log: Arc<LoggingStorage>,
    random: Random,
    next_tag: u64,
    snapshots: Vec<Taken>,
}

/// A snapshot of the run.
struct Taken {
    name: String,
    contents: Vec<u64>,
    /// Event counts: it is there from the first on, at the latest, and until the second at least.
    made: usize,
    dropped: usize,
}

/// Runs one configuration with one seed; returns how many crash states were checked.
pub fn run(config: &Config, durability: Durability, seed: u64) -> usize {
    let log = Arc::new(LoggingStorage::new("image", rig::new_image(config)));
    let mut run = Run {
        config,
        history: History::new(config.overlay),
        flushes: vec![0],
        log,
        random: Random(seed.wrapping_mul(0x1234_5678_9ABC_DEF1) ^ config.name.len() as u64),
        next_tag: 1,
        snapshots: Vec::new(),
    };
    run.operate(durability);
    run.replay(durability)
}

impl Run<'_> {
    fn operate(&mut self, durability: Durability) {
        let below = Base(self.config.overlay);
        let mut image = rig::open(self.log.clone(), durability).unwrap();
        for n in 0..OPERATIONS {
            if n % 40 == 39 {
                self.change_layer(&*image, n);
                continue;
            }
            let start = self.random.below(SECTORS);
            let span = if self.random.below(4) == 0 { 64 } else { 12 };
            let count = 1 + self.random.below(span.min(SECTORS - start));
            let (offset, len) = ((start * SECTOR) as u64, (count * SECTOR) as u64);
            let at = self.log.event_count();
            match self.random.below(23) {
                20..23 => self.snapshot(&*image, n),
                0..10 => {
                    let tag = self.next_tag;
                    self.next_tag += 1;
                    (start..start + count).for_each(|s| self.history.set(at, s, tag));
                    image
                        .write(&rig::sector_of(tag).repeat(count), offset, &below)
                        .unwrap();
                }
                10..13 => {
                    (start..start + count).for_each(|s| self.history.set(at, s, 0));
                    let flags = match self.random.below(2) {
                        0 => ZeroFlags::empty(),
                        _ => ZeroFlags::MAY_UNMAP,
                    };
                    image.write_zeroes(offset, len, flags, &below).unwrap();
                }
                13..16 => {
                    // A discard may make a sector read as zeroes or as what lies below.
                    for s in start..start + count {
                        let now = self.history.current(s);
                        self.history.set(at, s, 0);
                        if self.config.overlay {
                            self.history.set(at, s, rig::base_tag(s));
                        }
                        self.history.observe(s, now);
                    }
                    image.discard(offset, len).unwrap();
                    let mut bytes = vec![0; len as usize];
                    rig::read(&*image, &mut bytes, offset, &below).unwrap();
                    for (s, sector) in (start..).zip(bytes.chunks_exact(SECTOR)) {
                        self.history.observe(s, tag_of(sector).unwrap());
                    }
                }
                16..18 if self.config.name != "v2" || n % 2 == 0 => {
                    image.flush(durability).unwrap();
                    self.settle();
                }
                _ => {
                    image.close().unwrap();
                    drop(image);
                    self.log.sync(durability).unwrap();
                    self.settle();
                    image = rig::open(self.log.clone(), durability).unwrap();
                }
            }
        }
        image.close().unwrap();
    }

    /// Creates, applies or deletes a snapshot.
    fn snapshot(&mut self, image: &dyn Format, n: usize) {
        let at = self.log.event_count();
        let snapshots = image.snapshots().unwrap();
        let live: Vec<usize> = (0..self.snapshots.len())
            .filter(|n| self.snapshots[*n].dropped == usize::MAX)
            .collect();
        let pick = live.get(self.random.below(live.len().max(1))).copied();
        let action = self.random.below(if live.len() > 4 { 2 } else { 4 });
        match (action, pick) {
            (0, Some(pick)) => {
                for (sector, tag) in self.snapshots[pick].contents.iter().enumerate() {
                    self.history.set(at, sector, *tag);
                }
                let id = self.id_of(image, pick);
                snapshots.apply(&id).unwrap();
            }
            (1, Some(pick)) => {
                self.snapshots[pick].dropped = at;
                snapshots.delete(&self.id_of(image, pick)).unwrap();
            }
            _ => {
                let name = format!("s{n}");
                let new = NewSnapshot {
                    name: name.clone(),
                    ..NewSnapshot::default()
                };
                let contents = (0..SECTORS).map(|s| self.history.current(s)).collect();
                self.snapshots.push(Taken {
                    name,
                    contents,
                    made: usize::MAX,
                    dropped: usize::MAX,
                });
                match snapshots.create(&new) {
                    Ok(_) => {
                        self.snapshots.last_mut().unwrap().made = self.log.event_count();
                    }
                    Err(error) => {
                        // One bit cannot count two references.
                        assert_eq!(self.config.name, "narrow", "{error:?}");
                        self.snapshots.pop();
                        return;
                    }
                }
            }
        }
        self.settle();
    }

    fn id_of(&self, image: &dyn Format, index: usize) -> String {
        let list = image.info().unwrap().snapshots;
        let name = &self.snapshots[index].name;
        list.into_iter().find(|s| s.name == *name).unwrap().id
    }

    /// What is wrong with the snapshots of a state behind `count` events.
    fn snapshots_wrong(&self, image: &dyn Format, count: usize) -> Vec<String> {
        let mut wrong = Vec::new();
        let list = image.info().unwrap().snapshots;
        for taken in &self.snapshots {
            let found = list.iter().find(|s| s.name == taken.name);
            let Some(found) = found else {
                if taken.made <= count && count <= taken.dropped {
                    wrong.push(format!("snapshot {} is missing", taken.name));
                }
                continue;
            };
            let view = image.snapshots().unwrap().view(&found.id).unwrap();
            for (sector, tag) in self.read_all(&*view).into_iter().enumerate() {
                if tag != Some(taken.contents[sector]) {
                    wrong.push(format!(
                        "sector {sector} of snapshot {} holds {tag:x?}",
                        taken.name
                    ));
                }
            }
        }
        wrong
    }

    /// What commit and rebase do to an overlay.
    fn change_layer(&mut self, image: &dyn Format, n: usize) {
        let overlay = image.overlay().unwrap();
        if self.config.overlay {
            let backing = BackingRef {
                name: format!("base {n}"),
                format: (n % 80 == 39).then(|| "raw".to_owned()),
            };
            overlay.set_backing(Some(&backing)).unwrap();
            assert_eq!(image.backing(), Some(backing));
        }
        let at = self.log.event_count();
        for s in 0..SECTORS {
            let below = if self.config.overlay {
                rig::base_tag(s)
            } else {
                0
            };
            self.history.set(at, s, below);
        }
        overlay.make_empty().unwrap();
    }

    fn settle(&mut self) {
        let at = self.log.event_count();
        self.history.flushed(at);
        self.flushes.push(at);
    }

    /// Builds and checks every state.
    fn replay(&mut self, durability: Durability) -> usize {
        let events = self.log.events();
        let mut durable = self.log.crash_state(0, |_| false);
        let mut pending: Vec<&Event> = Vec::new();
        let mut states = 0;
        for count in 0..=events.len() {
            let flush = *self.flushes.iter().rfind(|at| **at <= count).unwrap();
            let whole = state(&durable, &pending, |_| true);
            self.check(whole, count, flush, "all writes");
            states += 1;
            if durability == Durability::Synced && !pending.is_empty() {
                for _ in 0..SUBSETS {
                    let keep: Vec<bool> =
                        pending.iter().map(|_| self.random.below(2) == 0).collect();
                    let some = state(&durable, &pending, |n| keep[n]);
                    self.check(some, count, flush, "some writes");
                    states += 1;
                }
            }
            match events.get(count) {
                Some(Event::Sync) => {
                    durable = state(&durable, &pending, |_| true);
                    pending.clear();
                }
                Some(event) => pending.push(event),
                None => {}
            }
        }
        states
    }

    fn check(&self, bytes: Vec<u8>, count: usize, flush: usize, what: &str) {
        let config = self.config.name;
        let fail = |text: String| -> ! {
            let path = std::env::temp_dir().join(format!("crash-{config}-{count}.qcow2"));
            let _ = std::fs::write(&path, &bytes);
            panic!(
                "{config}: {what} of the first {count} events: {text}; see {}",
                path.display()
            )
        };
        let notes = Notes::default();
        let image = rig::open_for_check(bytes.clone())
            .unwrap_or_else(|error| fail(format!("does not open: {error:?}")));
        let mut lines = Vec::new();
        let mut job = collecting(&notes);
        let report = image
            .checker()
            .unwrap()
            .check(RepairMode::Report, &mut job)
            .unwrap_or_else(|error| fail(format!("cannot be checked: {error:?}")));
        // With the dirty bit set, refcounts are rebuilt before the next write.
        let dirty = image.info().unwrap().dirty == Some(true);
        let corrupt = report.corruptions != 0 && !dirty && !self.harmless(&notes);
        if report.check_errors != 0 || corrupt {
            fail(format!("{report:?} {:?}", notes.lock().unwrap()));
        }
        lines.extend(self.snapshots_wrong(&*image, count));
        lines.extend(
            self.read_all(&*image)
                .iter()
                .enumerate()
                .filter_map(|(sector, tag)| {
                    let ok = tag.is_some_and(|tag| self.history.allows(sector, tag, count, flush));
                    (!ok).then(|| format!("sector {sector} holds {tag:x?}"))
                }),
        );
        drop(image);
        if !lines.is_empty() {
            fail(lines.join(", "));
        }
        if count.is_multiple_of(16) {
            self.go_on(bytes.clone(), count)
                .unwrap_or_else(|error| fail(format!("{error:?}")));
        }
    }

    fn read_all(&self, image: &dyn platter::format::Format) -> Vec<Option<u64>> {
        let mut bytes = vec![0; SECTORS * SECTOR];
        rig::read(image, &mut bytes, 0, &Base(self.config.overlay)).unwrap();
        bytes.chunks_exact(SECTOR).map(tag_of).collect()
    }

    /// A crashed image can be written on, and stays whole.
    fn go_on(&self, bytes: Vec<u8>, count: usize) -> platter::Result<()> {
        let memory = Arc::new(MemoryStorage::with_bytes("crashed", bytes));
        let image = rig::open(memory.clone(), Durability::None)?;
        let below = Base(self.config.overlay);
        for sector in (0..SECTORS).step_by(37) {
            image.write(&rig::sector_of(7), (sector * SECTOR) as u64, &below)?;
        }
        image.close()?;
        drop(image);
        let image = rig::open_for_check(memory.to_vec())?;
        let notes = Notes::default();
        let report = image
            .checker()
            .unwrap()
            .check(RepairMode::Report, &mut collecting(&notes))?;
        let wrong = self.snapshots_wrong(&*image, count);
        let corrupt = report.corruptions != 0 && !self.harmless(&notes);
        if !corrupt && report.check_errors == 0 && wrong.is_empty() {
            return Ok(());
        }
        Err(platter::Error::new(
            ErrorKind::Corrupt,
            format!(
                "after more writes: {report:?} {wrong:?} {:?}",
                notes.lock().unwrap()
            ),
        ))
    }

    /// Version 2 has no dirty bit for the moment in which COPIED flags and refcounts change: all
    /// that may be wrong then are flags of clusters that no one else refers to.
    fn harmless(&self, notes: &Notes) -> bool {
        let notes = notes.lock().unwrap();
        self.config.name == "v2"
            && notes
                .iter()
                .filter(|note| note.starts_with("ERROR"))
                .all(|note| note.starts_with("ERROR OFLAG_COPIED"))
    }
}

/// The findings of a check.
type Notes = Arc<Mutex<Vec<String>>>;

fn collecting(notes: &Notes) -> Job {
    let notes = notes.clone();
    Job::new().on_message(Box::new(move |message| {
        if let Message::Note(line) = message {
            notes.lock().unwrap().push(line.clone());
        }
    }))
}

/// The tag that a sector is full of; None when it is torn.
fn tag_of(sector: &[u8]) -> Option<u64> {
    let tag = u64::from_le_bytes(sector[..8].try_into().unwrap());
    sector
        .chunks_exact(8)
        .all(|chunk| chunk == tag.to_le_bytes())
        .then_some(tag)
}

fn state(durable: &[u8], pending: &[&Event], keep: impl Fn(usize) -> bool) -> Vec<u8> {
    let mut bytes = durable.to_vec();
    for (n, event) in pending.iter().enumerate() {
        if keep(n) {
            event.apply(&mut bytes);
        }
    }
    bytes
}

#[test]
fn the_base_reads_as_its_tags() {
    let mut buf = [0; SECTOR];
    Base(true).read_below(&mut buf, 3 * SECTOR as u64).unwrap();
    assert_eq!(tag_of(&buf), Some(rig::base_tag(3)));
}
