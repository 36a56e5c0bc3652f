//! A controller in use by this process: started, identified, and finally shut down.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::job::JobControl;
use crate::sys::vfio::Device;

use super::bus::{Bus, seen};
use super::command::{About, Command, Completion, IDENTIFY, Namespace};
use super::queue::{Data, Layout, PAGE, Queue, STATE, STATE_FATAL, Ticket};

// Registers.
const CAPABILITIES: u64 = 0x00;
const CONFIGURATION: u64 = 0x14;
const ADMIN_ENTRIES: u64 = 0x24;
const ADMIN_COMMANDS: u64 = 0x28;
const ADMIN_ENDS: u64 = 0x30;

const ENABLED: u32 = 1;
/// Entry sizes as powers of two: commands of 64 bytes, and completions of 16.
const SIZES: u32 = 6 << 16 | 4 << 20;
const SHUT_DOWN: u32 = 1 << 14;
const SHUT_DOWN_MASK: u32 = 3 << 14;
const STATE_READY: u32 = 1;
const STATE_SHUT_DOWN_MASK: u32 = 3 << 2;
const STATE_SHUT_DOWN: u32 = 2 << 2;

/// Maximum number of entries of a queue: a page of commands.
const ENTRIES: u16 = 64;
/// Maximum number of commands in flight.
const SLOTS: usize = 16;
/// Maximum data length of one, in bytes.
const SLOT: usize = 256 << 10;
/// Size of the memory that a controller can access.
pub(super) const MEMORY: usize = on_blocks(0, ENTRIES).end();
/// How long a controller may take to shut down when it is no longer used.
const FAREWELL: Duration = Duration::from_secs(5);

/// The layout of the admin queues, with space for the data of one command.
const fn admin(stride: u64) -> Layout {
    Layout {
        number: 0,
        entries: ENTRIES,
        stride,
        commands: 0,
        ends: PAGE,
        data: 2 * PAGE,
        slots: 1,
        slot: PAGE,
    }
}

/// The layout of the I/O queues.
const fn on_blocks(stride: u64, entries: u16) -> Layout {
    let begin = admin(stride).end();
    Layout {
        number: 1,
        entries,
        stride,
        commands: begin,
        ends: begin + PAGE,
        data: begin + 2 * PAGE,
        // One entry of a queue always stays empty.
        slots: if entries as usize > SLOTS {
            SLOTS
        } else {
            entries as usize - 1
        },
        slot: SLOT,
    }
}

/// The capabilities register of a controller.
#[derive(Clone, Copy, Debug)]
struct Capabilities(u64);

impl Capabilities {
    /// # Errors
    /// If it lacks something that is needed.
    fn of(bus: &dyn Bus) -> Result<Self> {
        let word = |at| bus.read(at).map_err(|error| unreachable(&error));
        let this = Self(u64::from(word(CAPABILITIES)?) | u64::from(word(CAPABILITIES + 4)?) << 32);
        let smallest = this.0 >> 48 & 0xf;
        if this.0 == u64::MAX {
            return Err(Error::os(libc::ENODEV).with_message("The device does not answer"));
        }
        if this.0 >> 37 & 1 == 0 || this.entries() < 2 || smallest != 0 {
            return Err(Error::unsupported(
                "The device is no NVMe controller of disks, or takes no pages of 4 KiB",
            ));
        }
        Ok(this)
    }

    /// Maximum number of entries of a queue.
    fn entries(self) -> u32 {
        (self.0 as u32 & 0xffff) + 1
    }

    /// Distance between two doorbells, in bytes.
    fn stride(self) -> u64 {
        4 << (self.0 >> 32 & 0xf)
    }

    /// How long it may take to start or to stop.
    fn timeout(self) -> Duration {
        Duration::from_millis((self.0 >> 24 & 0xff).max(1) * 500)
    }
}

fn unreachable(error: &std::io::Error) -> Error {
    Error::io(error).context("The NVMe controller cannot be reached")
}

/// A controller.
#[derive(Debug)]
pub(super) struct Controller {
    bus: Box<dyn Bus>,
    capabilities: Capabilities,
    admin: Queue,
    /// Held while an admin command is in flight.
    asking: Mutex<()>,
    work: Queue,
    pub(super) about: About,
    /// Held while part of a block is modified.
    pub(super) partial: Mutex<()>,
}

/// Controllers in use, by their addresses: the kernel lets each be opened only once.
static IN_USE: Mutex<Vec<(String, Weak<Controller>)>> = Mutex::new(Vec::new());

/// The controller at an address of the bus, which may already be in use elsewhere in this process.
///
/// # Errors
/// If it is not bound to vfio-pci or does not start, or `control` ends the wait.
pub(super) fn at(address: &str, control: &JobControl) -> Result<Arc<Controller>> {
    let mut all = control.lock(&IN_USE)?;
    all.retain(|(_, one)| one.strong_count() > 0);
    let mut known = all.iter().filter(|(known, _)| known == address);
    if let Some(known) = known.find_map(|(_, one)| one.upgrade()) {
        return Ok(known);
    }
    let device = Device::open(address, MEMORY).map_err(|(what, error)| {
        let remedy = "it needs a device that is bound to vfio-pci; the disk of one that the kernel uses is a block \
                      device, such as /dev/nvme0n1";
        let error = Error::io(&error).context(what);
        let message = format!("{error}: {remedy}");
        error.with_message(message)
    })?;
    let fresh = Arc::new(Controller::start(Box::new(device), control)?);
    all.push((address.to_owned(), Arc::downgrade(&fresh)));
    Ok(fresh)
}

/// Disables a controller, and waits for at most `time` until it has stopped.
fn stop(bus: &dyn Bus, time: Duration, control: &JobControl) -> Result<()> {
    let read = |at| bus.read(at).map_err(|error| unreachable(&error));
    let configuration = read(CONFIGURATION)?;
    if configuration & ENABLED != 0 {
        bus.write(CONFIGURATION, configuration & !ENABLED)
            .map_err(|error| unreachable(&error))?;
    }
    until(bus, time, control, || Ok(read(STATE)? & STATE_READY == 0))
}

fn until(
    bus: &dyn Bus,
    time: Duration,
    control: &JobControl,
    mut done: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let (begin, time) = (Instant::now(), bus.patience(time));
    while !done()? {
        if begin.elapsed() > time {
            return Err(Error::os(libc::ETIMEDOUT).with_message(
                "The NVMe controller takes longer to start or to stop than it says",
            ));
        }
        control.sleep(Duration::from_millis(1))?;
    }
    Ok(())
}

impl Controller {
    /// Starts a controller, whatever its state is.
    ///
    /// # Errors
    /// If it does not start or cannot be used, or `control` ends the wait.
    pub(super) fn start(bus: Box<dyn Bus>, control: &JobControl) -> Result<Self> {
        let capabilities = Capabilities::of(&*bus)?;
        let (stride, time) = (capabilities.stride(), capabilities.timeout());
        stop(&*bus, time, control)?;
        let layout = admin(stride);
        let admin = Queue::new(layout, &*bus)?;
        // At most ENTRIES.
        let entries = capabilities.entries().min(u32::from(ENTRIES)) as u16;
        let work = Queue::new(on_blocks(stride, entries), &*bus)?;
        let both = u32::from(layout.entries - 1);
        for (at, value) in [
            (ADMIN_ENTRIES, both << 16 | both),
            (ADMIN_COMMANDS, seen(layout.commands) as u32),
            (ADMIN_COMMANDS + 4, (seen(layout.commands) >> 32) as u32),
            (ADMIN_ENDS, seen(layout.ends) as u32),
            (ADMIN_ENDS + 4, (seen(layout.ends) >> 32) as u32),
            (CONFIGURATION, SIZES | ENABLED),
        ] {
            bus.write(at, value).map_err(|error| unreachable(&error))?;
        }
        until(&*bus, time, control, || {
            let state = bus.read(STATE).map_err(|error| unreachable(&error))?;
            match state & STATE_FATAL == 0 {
                true => Ok(state & STATE_READY != 0),
                false => Err(Error::os(libc::EIO).with_message("The NVMe controller has failed")),
            }
        })?;
        let mut this = Self {
            bus,
            capabilities,
            admin,
            asking: Mutex::new(()),
            work,
            about: About {
                most: 0,
                namespaces: 0,
                zeroes: false,
                deallocates: false,
                cached: true,
            },
            partial: Mutex::new(()),
        };
        let mut said = [0; IDENTIFY];
        this.ask(control, Command::identify_controller(), &mut said)?;
        this.about = About::of(&said, PAGE as u64);
        let layout = *this.work.layout();
        for command in [
            Command::one_pair(),
            Command::create_completions(layout.number, layout.entries, seen(layout.ends)),
            Command::create_submissions(layout.number, layout.entries, seen(layout.commands)),
        ] {
            this.ask(control, command, &mut [])?;
        }
        Ok(this)
    }

    /// Carries out an admin command.
    fn ask(&self, control: &JobControl, command: Command, into: &mut [u8]) -> Result<()> {
        let _alone = control.lock(&self.asking)?;
        let bus = &*self.bus;
        let data = Data::Read(into);
        let ticket = self.admin.start(bus, control, command, &data)?;
        ticket.finish(control, data)?.check()
    }

    /// Queries a namespace.
    ///
    /// # Errors
    /// If there is no namespace of that number, or it cannot be used.
    pub(super) fn namespace(&self, number: u32, control: &JobControl) -> Result<Namespace> {
        if number > self.about.namespaces {
            return Err(Error::os(libc::ENXIO).with_message(format!(
                "There is no namespace {number}: the controller has {}",
                self.about.namespaces
            )));
        }
        let mut said = [0; IDENTIFY];
        self.ask(control, Command::identify_namespace(number), &mut said)?;
        Namespace::of(&said)
    }

    /// Maximum data length of a command.
    pub(super) fn most(&self) -> u64 {
        self.about.most.min(SLOT as u64)
    }

    /// Carries out a command, with data that the controller reads.
    ///
    /// # Errors
    /// If the controller has failed, or `control` ends the wait.
    pub(super) fn carry_out(
        &self,
        control: &JobControl,
        command: Command,
        from: &[u8],
    ) -> Result<Completion> {
        let data = Data::Write(from);
        let ticket = self.work.start(&*self.bus, control, command, &data)?;
        ticket.finish(control, data)
    }

    /// Carries out commands that transfer data, many of them at once.
    ///
    /// # Errors
    /// The error of the first command that fails; as [`Controller::carry_out`].
    pub(super) fn transfer<'b>(
        &self,
        control: &JobControl,
        pieces: impl Iterator<Item = (Command, Data<'b>)>,
    ) -> Result<()> {
        let bus = &*self.bus;
        let mut under_way = VecDeque::with_capacity(SLOTS);
        let finish = |(ticket, data): (Ticket<'_>, Data<'_>)| ticket.finish(control, data)?.check();
        for (command, data) in pieces {
            let ticket = loop {
                if let Some(ticket) = self.work.try_start(bus, command, &data)? {
                    break ticket;
                }
                // A thread must not hold a slot while it waits for another.
                match under_way.pop_front() {
                    Some(first) => finish(first)?,
                    None => break self.work.start(bus, control, command, &data)?,
                }
            };
            under_way.push_back((ticket, data));
        }
        under_way.into_iter().try_for_each(finish)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // A normal shutdown saves the contents of its cache; once stopped, it no longer accesses the memory.
        JobControl::apart(FAREWELL, |control| {
            let bus = &*self.bus;
            let Ok(configuration) = bus.read(CONFIGURATION) else {
                return;
            };
            let _ = bus.write(CONFIGURATION, configuration & !SHUT_DOWN_MASK | SHUT_DOWN);
            let time = self.capabilities.timeout().min(FAREWELL);
            let _ = until(bus, time, control, || {
                let state = bus.read(STATE).map_err(|error| unreachable(&error))?;
                Ok(state & STATE_SHUT_DOWN_MASK == STATE_SHUT_DOWN)
            });
            let _ = stop(bus, time, control);
        });
    }
}
