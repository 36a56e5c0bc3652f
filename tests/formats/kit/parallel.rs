//! Crashes while many requests are under way at once, through the queue: any of those between two
//! flushes may have reached the disk, in any order, whole or in part.

use std::ops::Range;
use std::sync::Arc;

use platter::queue::{Queue, QueueOptions, Request};
use platter::storage::testing::Log;
use platter::storage::{Durability, Storage, ZeroFlags};

use super::crash::whole;
use super::sample::{Sample, samples};
use super::shelf::{self, Access, FILES};
use crate::random::Random;
use crate::states::{self, STALE};

const REQUESTS: u64 = 60;
const DEPTH: usize = 8;
/// The guest bytes that change.
const ARENA: usize = 384 << 10;

/// A request that makes each byte of a range the same.
struct Change {
    range: Range<usize>,
    byte: u8,
    /// When it was submitted and when its completion was taken, counted in both together.
    begun: u64,
    ended: Option<u64>,
    /// Events that had happened when it was submitted.
    events: usize,
    durable: bool,
    /// Events that had happened when its completion was taken.
    events_at_end: Option<usize>,
}

impl Change {
    /// Whether it had ended behind `count` events, and is there from then on by itself.
    fn is_settled(&self, count: usize) -> bool {
        self.durable && self.events_at_end.is_some_and(|at| at <= count)
    }
}

struct Flush {
    begun: u64,
    /// Events that had happened when its completion was taken.
    events: Option<usize>,
}

/// The requests, by their token.
enum Asked {
    Change(Change),
    Flush(Flush),
}

#[derive(Default)]
struct History {
    clock: u64,
    asked: Vec<Asked>,
}

impl History {
    fn submit(&mut self, queue: &mut Queue, log: &Log, random: &mut Random) {
        self.clock += 1;
        let (begun, events) = (self.clock, log.count());
        let token = self.asked.len() as u64;
        if random.below(9) == 0 {
            let flush = Flush {
                begun,
                events: None,
            };
            self.asked.push(Asked::Flush(flush));
            return queue.submit(token, Request::Flush, false);
        }
        let unit = [512, 4096, 65536][random.below(3)];
        let start = random.below(ARENA) / unit * unit;
        let most = [2000, 9000, 100_000][random.below(3)];
        let end = (start + 1 + random.below(most)).min(ARENA);
        let zero = random.below(5) == 0;
        let byte = if zero { 0 } else { token as u8 + 1 };
        let (offset, len) = (start as u64, end - start);
        let durable = random.below(12) == 0;
        self.asked.push(Asked::Change(Change {
            range: start..end,
            byte,
            begun,
            ended: None,
            events,
            durable,
            events_at_end: None,
        }));
        let request = if zero {
            Request::WriteZeroes {
                offset,
                len: len as u64,
                flags: match random.coin() {
                    true => ZeroFlags::MAY_UNMAP,
                    false => ZeroFlags::empty(),
                },
                durable,
            }
        } else {
            Request::Write {
                buffer: vec![byte; len].into(),
                offset,
                durable,
            }
        };
        queue.submit(token, request, random.coin());
    }

    /// Takes completions until at most so many requests are under way.
    fn settle(&mut self, queue: &mut Queue, log: &Log, most: usize) {
        while queue.outstanding() > most {
            queue.wait(1, None).expect("a completion");
            while let Some(done) = queue.pop() {
                done.result.expect("a request that succeeds");
                self.clock += 1;
                match &mut self.asked[done.token as usize] {
                    Asked::Change(change) => {
                        change.ended = Some(self.clock);
                        change.events_at_end = Some(log.count());
                    }
                    Asked::Flush(flush) => flush.events = Some(log.count()),
                }
            }
        }
    }

    fn changes(&self) -> impl Iterator<Item = &Change> {
        self.asked.iter().filter_map(|asked| match asked {
            Asked::Change(change) => Some(change),
            Asked::Flush(_) => None,
        })
    }

    /// What is wrong with the bytes that a crash behind `count` events has left.
    fn judge(&self, now: &[u8], empty: &[u8], count: usize) -> Result<(), String> {
        // What had ended before a flush began is durable once the flush has ended.
        let durable = self.asked.iter().filter_map(|asked| match asked {
            Asked::Flush(flush) if flush.events.is_some_and(|at| at <= count) => Some(flush.begun),
            _ => None,
        });
        let durable = durable.max().unwrap_or(0);
        let mut borders: Vec<usize> = vec![0, now.len()];
        borders.extend(self.changes().flat_map(|c| [c.range.start, c.range.end]));
        borders.sort_unstable();
        borders.dedup();
        for part in borders.windows(2).map(|pair| pair[0]..pair[1]) {
            let touching = || self.changes().filter(|c| c.range.contains(&part.start));
            let is_settled =
                |c: &Change| c.ended.is_some_and(|at| at < durable) || c.is_settled(count);
            let settled = touching().filter(|c| is_settled(c));
            let last = settled.map(|c| c.begun).max();
            // What ended before that one began is gone.
            let possible = touching()
                .filter(|c| c.events <= count && c.ended.is_none_or(|ended| Some(ended) >= last));
            let mut allowed = [false; 256];
            possible.for_each(|c| {
                allowed[usize::from(c.byte)] = true;
                // Of what was being written, what the disk held before may show.
                allowed[usize::from(STALE)] |= !is_settled(c);
            });
            let wrong = part.clone().find(|&at| {
                let as_new = last.is_none() && now[at] == empty[at];
                !as_new && !allowed[usize::from(now[at])]
            });
            if let Some(at) = wrong {
                return Err(format!("byte {at} is {:#x}", now[at]));
            }
        }
        Ok(())
    }
}

fn run(sample: &Sample) -> usize {
    let log = Log::new();
    let files: Vec<Arc<dyn Storage>> = FILES
        .iter()
        .zip(shelf::bytes(&shelf::created(sample)))
        .map(|(name, bytes)| log.file(*name, bytes) as Arc<dyn Storage>)
        .collect();
    let mut random = Random(sample.name.len() as u64 ^ 0x9a11);
    let image = Arc::new(shelf::open(sample, &files, Access::Write).expect("it opens"));
    let options = QueueOptions {
        depth: DEPTH as u32,
        event: false,
        ring: false,
    };
    let mut queue = Queue::new(image.clone(), options).expect("a queue");
    let mut history = History::default();
    for _ in 0..REQUESTS {
        history.settle(&mut queue, &log, DEPTH - 1);
        history.submit(&mut queue, &log, &mut random);
    }
    history.settle(&mut queue, &log, 0);
    drop(queue);
    let image = Arc::into_inner(image).expect("the queue is gone");
    image.close().expect("a close");
    let empty = shelf::empty(sample);
    let step = if sample.encrypted() { 16 } else { 8 };
    states::each(&log, Durability::Synced, &mut random, step, |crash| {
        let judged =
            whole(sample, &crash.files).and_then(|now| history.judge(&now, &empty, crash.count));
        if let Err(text) = judged {
            // Threads do not run the same way twice, so the files are kept.
            let kept = tempfile::tempdir().expect("a directory").keep();
            for (name, bytes) in FILES.iter().zip(&crash.files) {
                std::fs::write(kept.join(name), bytes).expect("a file");
            }
            panic!(
                "{}: {} of the first {} events: {text}; see {}",
                sample.name,
                crash.what,
                crash.count,
                kept.display()
            );
        }
    })
}

#[test]
fn a_power_cut_among_requests_in_parallel_leaves_any_of_those_under_way() {
    for sample in samples() {
        let states = run(sample);
        // How many there are depends on how the threads ran.
        assert!(states >= 5, "{}: only {states} states", sample.name);
    }
}
