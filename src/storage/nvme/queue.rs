//! A pair of queues: commands go in, ends come out, and each command under way has memory for its data.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};
use crate::job::JobControl;
use crate::memory;

use super::bus::{Bus, seen};
use super::command::{COMMAND, COMPLETION, Command, Completion};

/// The size of a page, which every controller here takes.
pub(super) const PAGE: usize = 4096;
/// What the registers begin with that the doorbells follow.
const DOORBELLS: u64 = 0x1000;
/// The register of the controller's state.
pub(super) const STATE: u64 = 0x1c;
pub(super) const STATE_FATAL: u32 = 1 << 1;
/// How long a controller is asked without a rest: as long as a quick one takes.
const EAGER: Duration = Duration::from_micros(100);
/// The longest rest between two looks.
const REST: Duration = Duration::from_millis(1);
/// How often it is looked whether the controller is there at all.
const LOOK: Duration = Duration::from_millis(100);
/// After so many looks nothing is awaited any more: 30 seconds, as drivers of kernels give a command. A process that was
/// stopped meanwhile has not looked.
const LOOKS: u32 = 300;

/// Where a pair of queues has its memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// 0 is that of the admin.
    pub(super) number: u16,
    /// Commands that fit; one place stays empty.
    pub(super) entries: u16,
    /// Between two doorbells, in bytes.
    pub(super) stride: u64,
    /// A page with the commands.
    pub(super) commands: usize,
    /// A page with the ends.
    pub(super) ends: usize,
    /// For each command that may be under way a page that lists pages, and its data.
    pub(super) data: usize,
    /// Commands that may be under way.
    pub(super) slots: usize,
    /// The data of one, in whole pages.
    pub(super) slot: usize,
}

impl Layout {
    const fn list(&self, slot: usize) -> usize {
        self.data + slot * (PAGE + self.slot)
    }

    const fn data(&self, slot: usize) -> usize {
        self.list(slot) + PAGE
    }

    /// Where it ends.
    pub(super) const fn end(&self) -> usize {
        self.list(self.slots)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Free,
    /// Somebody waits for it.
    Waited,
    /// No thread waits any more, and the controller may still be at its memory.
    Left,
    Ended(Completion),
}

#[derive(Debug)]
struct State {
    /// Where the next command goes.
    tail: u16,
    /// Where the next end comes.
    head: u16,
    /// How the next end is marked as new.
    phase: bool,
    slots: Vec<Slot>,
    /// The controller has broken the rules, or is gone: nothing is believed any more.
    broken: Option<&'static str>,
}

/// A pair of queues.
#[derive(Debug)]
pub(super) struct Queue {
    layout: Layout,
    state: Mutex<State>,
    freed: Condvar,
}

/// What a command carries.
#[derive(Debug)]
pub(super) enum Data<'b> {
    /// The controller fills it.
    Read(&'b mut [u8]),
    /// The controller reads it.
    Write(&'b [u8]),
}

/// A command that is under way.
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
    /// An empty one. The lists of pages are written: they are the same for all commands.
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

    /// The place that leads the controller to so much data of a slot.
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

    /// Sends a command; None where no place is free.
    ///
    /// # Errors
    /// Where the controller is not what it was.
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
        // With the lock: a doorbell that overtakes another would take commands back.
        let rung = bus.write(self.doorbell(false), u32::from(next));
        drop(state);
        rung.map_err(|error| failed(&error))?;
        Ok(Some(ticket))
    }

    /// As [`Queue::try_start`], when a place is free.
    ///
    /// # Errors
    /// As there; of the control.
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

    /// Asks until it is done, with rests that become longer.
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

    /// Takes the ends that have come.
    fn take_ends(&self, bus: &dyn Bus, state: &mut State) -> Result<()> {
        if let Some(why) = state.broken {
            return Err(broken(why));
        }
        let mut taken = false;
        // Not more than there may be under way, whatever the controller writes.
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
    /// Waits for the end, and takes the data that the controller has written where it succeeded.
    ///
    /// # Errors
    /// Where the controller is not what it was; of the control. The command may be carried out all the same.
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
        // The memory stays the controller's until the command ends.
        *slot = match slot {
            Slot::Ended(_) => Slot::Free,
            _ => Slot::Left,
        };
    }
}
