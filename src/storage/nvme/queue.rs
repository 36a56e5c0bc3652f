//! A pair of queues: commands go in, completions come out, and each command in flight has memory for its data.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};
use crate::job::JobControl;
use crate::memory;

use super::bus::{Bus, seen};
use super::command::{COMMAND, COMPLETION, Command, Completion};

/// Page size, which every controller used here supports.
pub(super) const PAGE: usize = 4096;
/// Offset of the doorbell registers.
const DOORBELLS: u64 = 0x1000;
/// The controller status register.
pub(super) const STATE: u64 = 0x1c;
pub(super) const STATE_FATAL: u32 = 1 << 1;
/// How long to poll a controller without sleeping: as long as a fast one takes.
const EAGER: Duration = Duration::from_micros(100);
/// Maximum sleep between two polls.
const REST: Duration = Duration::from_millis(1);
/// Interval of checks whether the controller is still there.
const LOOK: Duration = Duration::from_millis(100);
/// Number of such checks after which to give up: 30 seconds, as kernel drivers allow for a command. Checks are counted
/// because a stopped process does not make any.
const LOOKS: u32 = 300;

/// The memory layout of a pair of queues.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// 0 is the admin queue.
    pub(super) number: u16,
    /// Number of entries; one always stays empty.
    pub(super) entries: u16,
    /// Distance between two doorbells, in bytes.
    pub(super) stride: u64,
    /// Offset of the page with the commands.
    pub(super) commands: usize,
    /// Offset of the page with the completions.
    pub(super) ends: usize,
    /// Offset of the slots, each with a page that lists the pages of its data, and the data.
    pub(super) data: usize,
    /// Maximum number of commands in flight.
    pub(super) slots: usize,
    /// Size of the data of a slot in bytes: whole pages.
    pub(super) slot: usize,
}

impl Layout {
    const fn list(&self, slot: usize) -> usize {
        self.data + slot * (PAGE + self.slot)
    }

    const fn data(&self, slot: usize) -> usize {
        self.list(slot) + PAGE
    }

    /// The end of the memory that it uses.
    pub(super) const fn end(&self) -> usize {
        self.list(self.slots)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Free,
    /// A thread waits for it.
    Waited,
    /// No thread waits any more, but the controller may still access its memory.
    Left,
    Ended(Completion),
}

#[derive(Debug)]
struct State {
    /// Where the next command goes.
    tail: u16,
    /// Where the next completion arrives.
    head: u16,
    /// The phase bit that marks the next completion as new.
    phase: bool,
    slots: Vec<Slot>,
    /// Why the controller is no longer trusted: it violated the protocol, or is gone.
    broken: Option<&'static str>,
}

/// A pair of queues.
#[derive(Debug)]
pub(super) struct Queue {
    layout: Layout,
    state: Mutex<State>,
    freed: Condvar,
}

/// The data of a command.
#[derive(Debug)]
pub(super) enum Data<'b> {
    /// The controller fills it.
    Read(&'b mut [u8]),
    /// The controller reads it.
    Write(&'b [u8]),
}

/// A command in flight.
#[derive(Debug)]
pub(super) struct Ticket<'a> {
    queue: &'a Queue,
    bus: &'a dyn Bus,
    slot: usize,
    ended: bool,
}

fn failed(error: &std::io::Error) -> Error {
    Error::io(error).context("The NVMe controller cannot be reached")
}

impl Queue {
    /// Creates an empty pair. The lists of pages are written once, as they are the same for all commands.
    pub(super) fn new(layout: Layout, bus: &dyn Bus) -> Result<Self> {
        for slot in 0..layout.slots {
            let pages = (1..layout.slot / PAGE).take(PAGE / 8);
            for (entry, page) in pages.enumerate() {
                let place = seen(layout.data(slot) + page * PAGE);
                bus.memory()
                    .write(layout.list(slot) + entry * 8, &place.to_le_bytes())
                    .map_err(|error| failed(&error))?;
            }
        }
        Ok(Self {
            layout,
            state: Mutex::new(State {
                tail: 0,
                head: 0,
                phase: true,
                slots: memory::filled(layout.slots, Slot::Free)?,
                broken: None,
            }),
            freed: Condvar::new(),
        })
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The pointers by which the controller finds `len` bytes of data of a slot.
    fn pages(&self, slot: usize, len: usize) -> [u64; 2] {
        let data = self.layout.data(slot);
        match len {
            0 => [0, 0],
            len if len <= PAGE => [seen(data), 0],
            len if len <= 2 * PAGE => [seen(data), seen(data + PAGE)],
            _ => [seen(data), seen(self.layout.list(slot))],
        }
    }

    fn doorbell(&self, of_ends: bool) -> u64 {
        let number = u64::from(self.layout.number) * 2 + u64::from(of_ends);
        DOORBELLS + number * self.layout.stride
    }

    /// Sends a command; None if no slot is free.
    ///
    /// # Errors
    /// If the controller has failed, or the data does not fit.
    pub(super) fn try_start<'a>(
        &'a self,
        bus: &'a dyn Bus,
        command: Command,
        data: &Data<'_>,
    ) -> Result<Option<Ticket<'a>>> {
        let (from, len) = match data {
            Data::Read(into) => (&[][..], into.len()),
            Data::Write(from) => (*from, from.len()),
        };
        let mut state = self.state.lock();
        self.take_ends(bus, &mut state)?;
        let Some(slot) = state.slots.iter().position(|slot| *slot == Slot::Free) else {
            return Ok(None);
        };
        if len > self.layout.slot {
            return Err(Error::os(libc::EINVAL));
        }
        let (layout, memory) = (&self.layout, bus.memory());
        let bytes = command.to_bytes(slot as u16, self.pages(slot, len));
        let next = (state.tail + 1) % layout.entries;
        memory
            .write(layout.data(slot), from)
            .and_then(|()| {
                let place = layout.commands + usize::from(state.tail) * COMMAND;
                memory.write(place, &bytes)
            })
            .map_err(|error| failed(&error))?;
        state.tail = next;
        state.slots[slot] = Slot::Waited;
        let ticket = Ticket {
            queue: self,
            bus,
            slot,
            ended: false,
        };
        // Under the lock: a doorbell that overtakes another would withdraw commands.
        let rung = bus.write(self.doorbell(false), u32::from(next));
        drop(state);
        rung.map_err(|error| failed(&error))?;
        Ok(Some(ticket))
    }

    /// As [`Queue::try_start`], but waits for a free slot.
    ///
    /// # Errors
    /// As there, or if `control` ends the wait.
    pub(super) fn start<'a>(
        &'a self,
        bus: &'a dyn Bus,
        control: &JobControl,
        command: Command,
        data: &Data<'_>,
    ) -> Result<Ticket<'a>> {
        let mut ticket = None;
        self.wait(bus, control, || {
            ticket = self.try_start(bus, command, data)?;
            Ok(ticket.is_some())
        })?;
        ticket.ok_or_else(Error::cancelled)
    }

    /// Polls until `done`, with increasing delays.
    fn wait(
        &self,
        bus: &dyn Bus,
        control: &JobControl,
        mut done: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let (begin, mut looked, mut looks) = (Instant::now(), Instant::now(), 0);
        let look = bus.patience(LOOK);
        let mut rest = Duration::from_micros(20);
        while !done()? {
            control.check()?;
            if begin.elapsed() < EAGER {
                std::hint::spin_loop();
                continue;
            }
            if looked.elapsed() > look {
                (looked, looks) = (Instant::now(), looks + 1);
                let state = bus.read(STATE).map_err(|error| failed(&error))?;
                if state & STATE_FATAL != 0 {
                    return Err(self.break_down(match state {
                        u32::MAX => "The NVMe controller is gone",
                        _ => "The NVMe controller has failed",
                    }));
                }
                if looks > LOOKS {
                    return Err(self.break_down("The NVMe controller does not answer"));
                }
            }
            let mut state = self.state.lock();
            self.freed.wait_for(&mut state, rest);
            rest = (rest * 2).min(REST);
        }
        Ok(())
    }

    fn break_down(&self, why: &'static str) -> Error {
        let mut state = self.state.lock();
        let why = *state.broken.get_or_insert(why);
        broken(why)
    }

    /// Processes the completions that have arrived.
    fn take_ends(&self, bus: &dyn Bus, state: &mut State) -> Result<()> {
        if let Some(why) = state.broken {
            return Err(broken(why));
        }
        let mut taken = false;
        // No more than can be in flight, whatever the controller writes.
        for _ in 0..self.layout.slots {
            let place = self.layout.ends + usize::from(state.head) * COMPLETION + 12;
            let word = bus.memory().word(place).map_err(|error| failed(&error))?;
            if (word & 1 << 16 != 0) != state.phase {
                break;
            }
            let end = Completion::of_word(word);
            let slot = state.slots.get_mut(usize::from(end.number));
            match slot {
                Some(slot @ Slot::Waited) => *slot = Slot::Ended(end),
                Some(slot @ Slot::Left) => *slot = Slot::Free,
                _ => {
                    let why = "The NVMe controller ends a command that it was not given";
                    state.broken = Some(why);
                    return Err(broken(why));
                }
            }
            state.head += 1;
            if state.head == self.layout.entries {
                (state.head, state.phase) = (0, !state.phase);
            }
            taken = true;
        }
        if taken {
            self.freed.notify_all();
            bus.write(self.doorbell(true), u32::from(state.head))
                .map_err(|error| failed(&error))?;
        }
        Ok(())
    }
}

fn broken(why: &'static str) -> Error {
    Error::os(libc::EIO).with_message(why)
}

impl Ticket<'_> {
    /// Waits for the completion, and on success copies the data that the controller has written.
    ///
    /// # Errors
    /// If the controller has failed, or `control` ends the wait. The command may be carried out all the same.
    pub(super) fn finish(mut self, control: &JobControl, data: Data<'_>) -> Result<Completion> {
        let (queue, bus) = (self.queue, self.bus);
        let mut end = None;
        queue.wait(bus, control, || {
            let mut state = queue.state.lock();
            if let Slot::Ended(completion) = state.slots[self.slot] {
                end = Some(completion);
                return Ok(true);
            }
            queue.take_ends(bus, &mut state)?;
            Ok(false)
        })?;
        let end = end.ok_or_else(Error::cancelled)?;
        if let (Data::Read(into), true) = (data, end.check().is_ok()) {
            bus.memory()
                .read(queue.layout.data(self.slot), into)
                .map_err(|error| failed(&error))?;
        }
        queue.state.lock().slots[self.slot] = Slot::Free;
        self.ended = true;
        queue.freed.notify_all();
        Ok(end)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut state = self.queue.state.lock();
        let slot = &mut state.slots[self.slot];
        // The memory belongs to the controller until the command completes.
        *slot = match slot {
            Slot::Ended(_) => Slot::Free,
            _ => Slot::Left,
        };
    }
}
