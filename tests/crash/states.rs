//! The states that a crash may leave: every prefix of a log, and between barriers random subsets.

use platter::storage::Durability;
use platter::storage::testing::{Event, Log, Record};

use crate::random::Random;

/// Random subsets of what is pending, per event; in one more, writes are torn.
const SUBSETS: usize = 2;
/// What a device writes at once.
const SECTOR: u64 = 512;

/// What a crash left.
pub struct Crash {
    /// It came behind so many events.
    pub count: usize,
    /// The bytes of each file of the log.
    pub files: Vec<Vec<u8>>,
    /// How much of what was pending is there.
    pub what: &'static str,
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

    fn torn(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for event in &self.pending {
            event.apply_torn(&mut bytes, SECTOR, || random.coin());
        }
        bytes
    }
}

/// Hands the states of a log to `visit`, those behind every `step`th event, and counts them. What a
/// kill leaves is a prefix; of what a power cut leaves, only the synced part is certain.
pub fn each(
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
        visit(Crash { count, files, what });
    };
    for count in 0..=records.len() {
        if count.is_multiple_of(step) || count == records.len() {
            let whole = files.iter().map(|file| file.state(|| true)).collect();
            give(count, "all writes", whole);
            let pending = files.iter().any(|file| !file.pending.is_empty());
            if durability == Durability::Synced && pending {
                for _ in 0..SUBSETS {
                    let some = files.iter().map(|file| file.state(|| random.coin()));
                    let some = some.collect();
                    give(count, "some writes", some);
                }
                let torn = files.iter().map(|file| file.torn(random)).collect();
                give(count, "parts of writes", torn);
            }
        }
        let Some(Record { file, event }) = records.get(count) else {
            break;
        };
        let file = &mut files[*file];
        if *event == Event::Sync {
            file.durable = file.state(|| true);
            file.pending.clear();
        } else {
            file.pending.push(event);
        }
    }
    states
}
