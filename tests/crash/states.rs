//! The states that a crash may leave: every prefix of a log, and between barriers random subsets.
//!
//! Where writes are torn, each block holds any of the writes to it that were pending: so that is
//! also what another order of them leaves.

use platter::storage::Durability;
use platter::storage::testing::{Event, Log, Record};

use crate::random::Random;

/// A state that holds a part of the next event.
const PART_OF_NEXT: &str = "all, and of one more a part,";
const SECTOR: u64 = 512;
/// What the kernel keeps or gives up as one.
const PAGE: u64 = 4096;

/// What a crash left.
pub struct Crash {
    /// It came behind so many events.
    pub count: usize,
    /// The bytes of each file of the log.
    pub files: Vec<Vec<u8>>,
    /// How much of what was pending is there.
    pub what: &'static str,
    /// A part of the next event is there too: nobody can say whether that has happened.
    pub begun: bool,
}

impl Crash {
    /// Judges the state as one behind its events; where one more has begun, also as one behind that:
    /// it need only be right in one of the two ways.
    pub fn judge(&self, judge: impl Fn(usize) -> Result<(), String>) -> Result<(), String> {
        let before = judge(self.count);
        match before {
            Err(text) if self.begun => judge(self.count + 1)
                .map_err(|after| format!("{text}; with the next event: {after}")),
            judged => judged,
        }
    }
}

/// What the disk held before a file grew over it, and the garbage that it left in a sector.
pub const STALE: u8 = 0xa7;

/// Whether a sector that was to hold these bytes may hold garbage.
pub type MayBe<'a> = &'a dyn Fn(&[u8]) -> bool;

/// What the files lie on.
#[derive(Clone, Copy)]
pub struct Drive<'a> {
    /// What it writes whole or not at all.
    pub sector: u64,
    /// Which sectors may hold garbage when the power failed while they were written.
    pub garbage: Option<MayBe<'a>>,
}

impl Drive<'_> {
    /// With sectors of so many bytes, each of which holds what it held or what was written to it.
    pub fn of_sectors(sector: u64) -> Self {
        Self {
            sector,
            garbage: None,
        }
    }

    /// What is written at once: a sector, or a page of the kernel.
    fn unit(&self, random: &mut Random) -> u64 {
        [self.sector, PAGE][random.below(2)]
    }
}

/// A file while its log is replayed.
struct File<'a> {
    durable: Vec<u8>,
    pending: Vec<&'a Event>,
}

impl File<'_> {
    fn state(&self, mut keep: impl FnMut() -> bool) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for event in &self.pending {
            if keep() {
                event.apply(&mut bytes);
            }
        }
        bytes
    }

    fn torn(&self, unit: u64, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for event in &self.pending {
            event.apply_torn(&mut bytes, unit, || random.coin());
        }
        bytes
    }

    /// Parts of what is pending, by sectors; a sector that was being written may hold neither what it held nor what
    /// was written to it, where `may` says that this is promised to do no harm.
    fn garbled(&self, sector: u64, may: MayBe<'_>, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for event in &self.pending {
            let Event::Write { offset, bytes: new } = event else {
                event.apply_torn(&mut bytes, sector, || random.coin());
                continue;
            };
            // Whole sectors alone: the others hold bytes that nobody wrote.
            let sectors = (*offset..).step_by(sector as usize);
            let whole = offset.is_multiple_of(sector) && new.len().is_multiple_of(sector as usize);
            let sectors = sectors.zip(new.chunks(sector as usize));
            for (at, sector) in sectors.filter(|_| whole) {
                let left = match random.below(3) {
                    0 => continue,
                    1 if may(sector) => vec![STALE; sector.len()],
                    _ => sector.to_vec(),
                };
                let event = Event::Write {
                    offset: at,
                    bytes: left,
                };
                event.apply(&mut bytes);
            }
            if !whole {
                event.apply_torn(&mut bytes, sector, || random.coin());
            }
        }
        bytes
    }

    /// Some of what is pending; where a write that is not there made the file longer, it may be
    /// longer all the same, over what the disk held before.
    fn stale(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for event in &self.pending {
            let (start, end) = match event {
                Event::Write { offset, bytes } => {
                    (*offset as usize, *offset as usize + bytes.len())
                }
                _ => (0, 0),
            };
            if random.coin() {
                event.apply(&mut bytes);
            } else if end > bytes.len() {
                // Before the write there is a hole.
                bytes.resize(bytes.len().max(start), 0);
                bytes.resize(end, STALE);
            }
        }
        bytes
    }

    /// All that is pending, and the beginning of one more write.
    fn begun(&self, next: &Event, drive: Drive<'_>, random: &mut Random) -> Option<Vec<u8>> {
        let Event::Write { offset, bytes } = next else {
            return None;
        };
        let unit = drive.unit(random) as usize;
        let first = unit - *offset as usize % unit;
        let whole = bytes.len().saturating_sub(first + 1) / unit;
        let part = (bytes.len() > first).then(|| first + random.below(whole + 1) * unit)?;
        let mut state = self.state(|| true);
        let part = Event::Write {
            offset: *offset,
            bytes: bytes[..part].to_vec(),
        };
        part.apply(&mut state);
        Some(state)
    }
}

/// Hands the states of a log to `visit`, those behind every `step`th event, and counts them. What a
/// kill leaves is a prefix; of what a power cut leaves, only the synced part is certain.
pub fn each(
    log: &Log,
    durability: Durability,
    random: &mut Random,
    step: usize,
    visit: impl FnMut(Crash),
) -> usize {
    each_on(
        Drive::of_sectors(SECTOR),
        log,
        durability,
        random,
        step,
        visit,
    )
}

/// As [`each`], on this drive.
pub fn each_on(
    drive: Drive<'_>,
    log: &Log,
    durability: Durability,
    random: &mut Random,
    step: usize,
    mut visit: impl FnMut(Crash),
) -> usize {
    let records = log.records();
    let mut files: Vec<File<'_>> = log
        .initial()
        .into_iter()
        .map(|durable| File {
            durable,
            pending: Vec::new(),
        })
        .collect();
    let mut states = 0;
    let mut give = |count, what, files| {
        states += 1;
        let begun = what == PART_OF_NEXT;
        visit(Crash {
            count,
            files,
            what,
            begun,
        });
    };
    for count in 0..=records.len() {
        if count.is_multiple_of(step) || count == records.len() {
            let whole = files.iter().map(|file| file.state(|| true)).collect();
            give(count, "all writes", whole);
            let pending = files.iter().any(|file| !file.pending.is_empty());
            if durability == Durability::Synced && pending {
                let some = files.iter().map(|file| file.state(|| random.coin()));
                let some = some.collect();
                give(count, "some writes", some);
                // Nearly all, or nearly none: what one write alone must not do.
                let most = random.coin();
                let mut keep = || (random.below(8) != 0) == most;
                let few = files.iter().map(|file| file.state(&mut keep)).collect();
                give(count, "most or few writes", few);
                let unit = drive.unit(random);
                let torn = files.iter().map(|file| file.torn(unit, random)).collect();
                give(count, "parts of writes", torn);
                let stale = files.iter().map(|file| file.stale(random)).collect();
                give(count, "some writes and stale bytes", stale);
                let last = count == records.len();
                if let Some(may) = drive
                    .garbage
                    .filter(|_| count.is_multiple_of(3 * step) || last)
                {
                    let garbled = |file: &File<'_>| file.garbled(drive.sector, may, random);
                    let garbled = files.iter().map(garbled);
                    let garbled = garbled.collect();
                    give(count, "parts of writes and garbage", garbled);
                }
            }
            if let (Durability::Ordered, Some(next)) = (durability, records.get(count)) {
                // The end of the process may come within a write.
                if let Some(part) = files[next.file].begun(&next.event, drive, random) {
                    let mut whole: Vec<_> = files.iter().map(|file| file.state(|| true)).collect();
                    whole[next.file] = part;
                    give(count, PART_OF_NEXT, whole);
                }
            }
        }
        let Some(Record { file, event }) = records.get(count) else {
            break;
        };
        let file = &mut files[*file];
        match event {
            Event::Sync => {
                file.durable = file.state(|| true);
                file.pending.clear();
            }
            // Each page was written or is given up.
            Event::SyncFailed => {
                file.durable = file.torn(PAGE, random);
                file.pending.clear();
            }
            _ => file.pending.push(event),
        }
    }
    states
}
