//! Puts what the workers have prepared back into guest order, so that the layout of the target does not depend on their
//! number.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};

use super::buffer::Buffer;
use super::lateness::Lateness;
use super::piece::Prepared;
use super::plan::Planner;
use super::sink::Sink;

/// How long a waiting worker sleeps before it checks again, so that progress is reported.
const NAP: Duration = Duration::from_millis(50);

/// What the workers share.
pub(super) struct Order {
    state: Mutex<State>,
    changed: Condvar,
    /// Signals that all workers may work, or that nothing is left.
    all_wanted: Condvar,
    /// Maximum number of concurrent writers. File systems admit one writer to a file at a time: the others had better
    /// read on than wait there.
    writers: usize,
    /// Whether a checksum is computed for each range before it is placed.
    sums: bool,
}

struct State {
    /// The turn to be placed next.
    next: u64,
    /// The turn to be checksummed next.
    next_sum: u64,
    /// Whether a worker is computing a checksum.
    summing: bool,
    /// Prepared, but not yet checksummed.
    unsummed: BTreeMap<u64, Prepared>,
    /// Prepared out of turn.
    parked: BTreeMap<u64, Prepared>,
    /// Placed, to be written by the next free worker.
    placed: VecDeque<Prepared>,
    /// Number of workers that are writing.
    writing: usize,
    /// Buffers not in use.
    free: Vec<Buffer>,
    /// Additional ones, for when all workers are wanted.
    spare: Vec<Buffer>,
    /// The storages are slow to answer, or nothing is left: no worker has to wait until it is wanted.
    all_wanted: bool,
    /// Ranges read or written.
    steps: u64,
    reads: Lateness,
    writes: Lateness,
    /// The failure with the lowest turn.
    failure: Option<(u64, Error)>,
    stopped: bool,
}

/// What a worker does next.
pub(super) enum Step {
    /// Compute the checksum of what comes next, and return it through [`Order::summed`].
    Sum(Prepared),
    /// Write what was placed.
    Write(Prepared),
    /// Prepare another range in this buffer.
    Prepare(Buffer),
    /// Check again.
    Again,
    /// Nothing is left for this worker to do.
    Done,
}

impl Order {
    /// One range per buffer is in progress at a time, and `writers` of them are being written; those in `spare` are
    /// added when all workers are wanted. With `sums`, each range goes through [`Step::Sum`].
    pub fn new(free: Vec<Buffer>, spare: Vec<Buffer>, writers: usize, sums: bool) -> Self {
        Self {
            state: Mutex::new(State {
                next: 0,
                next_sum: 0,
                summing: false,
                unsummed: BTreeMap::new(),
                parked: BTreeMap::new(),
                placed: VecDeque::new(),
                writing: 0,
                free,
                spare,
                all_wanted: false,
                steps: 0,
                reads: Lateness::default(),
                writes: Lateness::default(),
                failure: None,
                stopped: false,
            }),
            changed: Condvar::new(),
            all_wanted: Condvar::new(),
            writers: writers.max(1),
            sums,
        }
    }

    /// Finds work: first what can be placed now, then what can be prepared.
    pub fn step(&self, planner: &Planner<'_>, sink: &dyn Sink) -> Result<Step> {
        let mut state = self.state.lock();
        if state.stopped {
            return Ok(Step::Done);
        }
        if !state.summing {
            let next = state.next_sum;
            if let Some(prepared) = state.unsummed.remove(&next) {
                state.summing = true;
                return Ok(Step::Sum(prepared));
            }
        }
        // Under the lock: space is assigned to one range at a time, in guest order.
        while let Some(mut prepared) = {
            let next = state.next;
            state.parked.remove(&next)
        } {
            sink.place(&mut prepared)?;
            state.next += 1;
            state.placed.push_back(prepared);
        }
        if state.writing < self.writers
            && let Some(prepared) = state.placed.pop_front()
        {
            state.writing += 1;
            if !state.placed.is_empty() {
                self.changed.notify_one();
            }
            return Ok(Step::Write(prepared));
        }
        match planner.turns_if_done() {
            Some(turns) if state.next >= turns && state.placed.is_empty() => {
                self.changed.notify_all();
                self.want_all(&mut state);
                return Ok(Step::Done);
            }
            None => {
                if let Some(buffer) = state.free.pop() {
                    return Ok(Step::Prepare(buffer));
                }
            }
            Some(_) => {}
        }
        self.changed.wait_for(&mut state, NAP);
        Ok(Step::Again)
    }

    /// Returns a range whose checksum was computed.
    pub fn summed(&self, prepared: Prepared) {
        let mut state = self.state.lock();
        state.summing = false;
        state.next_sum += 1;
        state.parked.insert(prepared.turn, prepared);
        self.changed.notify_all();
    }

    /// Hands in a prepared range.
    pub fn park(&self, prepared: Prepared) {
        let mut state = self.state.lock();
        if self.sums {
            let in_turn = prepared.turn == state.next_sum;
            state.unsummed.insert(prepared.turn, prepared);
            if in_turn {
                self.changed.notify_all();
            }
            return;
        }
        let in_turn = prepared.turn == state.next;
        state.parked.insert(prepared.turn, prepared);
        if in_turn {
            self.changed.notify_all();
        }
    }

    /// Returns the buffer of a range that was written.
    pub fn written(&self, buffer: Buffer) {
        let mut state = self.state.lock();
        state.writing -= 1;
        state.free.push(buffer);
        self.changed.notify_one();
    }

    /// Returns an unused buffer.
    pub fn recycle(&self, buffer: Buffer) {
        self.state.lock().free.push(buffer);
        self.changed.notify_one();
    }

    /// Records how long it took to read a range.
    pub fn read_took(&self, time: Duration) {
        self.took(time, |state| &mut state.reads);
    }

    /// Records how long it took to write a range.
    pub fn write_took(&self, time: Duration) {
        self.took(time, |state| &mut state.writes);
    }

    fn took(&self, time: Duration, of: impl Fn(&mut State) -> &mut Lateness) {
        let mut state = self.state.lock();
        state.steps += 1;
        if of(&mut state).note(time) {
            self.want_all(&mut state);
        }
    }

    /// Waits until all workers are wanted: as long as they hardly wait for a storage, a few workers keep their buffers
    /// in the processor's cache. One of the waiting workers `watches` whether the few make any progress.
    pub fn wait_until_wanted(&self, watches: bool) {
        let mut state = self.state.lock();
        while !state.all_wanted {
            if !watches {
                self.all_wanted.wait(&mut state);
                continue;
            }
            let steps = state.steps;
            if self.all_wanted.wait_for(&mut state, NAP).timed_out() && state.steps == steps {
                self.want_all(&mut state);
            }
        }
    }

    fn want_all(&self, state: &mut State) {
        if !std::mem::replace(&mut state.all_wanted, true) {
            let spare = std::mem::take(&mut state.spare);
            // The ones that already have memory are taken first.
            state.free.splice(0..0, spare);
            self.all_wanted.notify_all();
            self.changed.notify_all();
        }
    }

    /// Stops every worker; of several failures, the one with the lowest turn is kept.
    pub fn fail(&self, turn: u64, error: Error) {
        let mut state = self.state.lock();
        if state
            .failure
            .as_ref()
            .is_none_or(|(first, _)| turn < *first)
        {
            state.failure = Some((turn, error));
        }
        state.stopped = true;
        self.want_all(&mut state);
        self.changed.notify_all();
    }

    /// Stops every worker without recording a failure: one of them is panicking.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        self.want_all(&mut state);
        self.changed.notify_all();
    }

    /// The outcome, once all workers have ended.
    pub fn into_result(self) -> Result<()> {
        match self.state.into_inner().failure {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(5);
    const SHORT: Duration = Duration::from_millis(1);

    fn order() -> Order {
        let buffers = |count| std::iter::repeat_with(|| Buffer::new(4096)).take(count);
        Order::new(buffers(2).collect(), buffers(5).collect(), 7, false)
    }

    fn free(order: &Order) -> usize {
        order.state.lock().free.len()
    }

    #[test]
    fn all_workers_are_wanted_when_reads_or_writes_are_late() {
        for took in [Order::read_took, Order::write_took] {
            let order = order();
            std::thread::scope(|scope| {
                let waiting = [(); 3].map(|()| scope.spawn(|| order.wait_until_wanted(false)));
                for _ in 0..50 {
                    took(&order, SHORT);
                }
                assert_eq!(free(&order), 2);
                assert!(waiting.iter().all(|thread| !thread.is_finished()));
                for _ in 0..10 {
                    took(&order, LONG);
                }
            });
            assert_eq!(free(&order), 7);
            order.wait_until_wanted(false);
        }
    }

    #[test]
    fn late_reads_are_seen_between_prompt_writes() {
        let order = order();
        for _ in 0..10 {
            order.read_took(LONG);
            for _ in 0..3 {
                order.write_took(SHORT);
            }
        }
        assert_eq!(free(&order), 7);
    }

    #[test]
    fn all_workers_are_wanted_when_nothing_comes_on() {
        let order = order();
        order.wait_until_wanted(true);
        assert_eq!(free(&order), 7);
    }

    #[test]
    fn nobody_waits_any_more_for_work_that_ends() {
        let ends: [fn(&Order); 2] = [Order::stop, |order| order.fail(0, Error::invalid("no"))];
        for end in ends {
            let order = order();
            std::thread::scope(|scope| {
                scope.spawn(|| order.wait_until_wanted(false));
                end(&order);
            });
        }
    }
}
