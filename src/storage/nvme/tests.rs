//! A controller of these tests, which keeps the rules or breaks them.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::storage::driver::StorageOpen;
use crate::storage::{Durability, Storage, ZeroFlags};
use crate::sys::SharedMemory;
use crate::sys::vfio::SEEN_AT;

use super::bus::Bus;
use super::command::{DATASET_MANAGEMENT, FLUSH, IDENTIFY_ANY, READ, WRITE, WRITE_ZEROES};
use super::controller::{Controller, MEMORY};
use super::options::Settings;
use super::storage::of_controller;

/// What a controller does with a command on blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Manner {
    #[default]
    Right,
    /// Keeps it.
    Silent,
    /// Is gone.
    Gone,
    /// Says that it has failed.
    Fatal,
    /// Ends one that it was not given.
    WrongNumber,
    /// Ends it twice.
    Twice,
    /// Refuses every command of that opcode, with that status.
    Status(u8, u16),
}

#[derive(Debug, Default)]
struct Pair {
    commands: u64,
    ends: u64,
    entries: u32,
    head: u32,
    tail: u32,
    turns: u32,
}

#[derive(Debug)]
struct State {
    configuration: u32,
    admin: [u32; 5],
    pairs: [Pair; 2],
    disk: Vec<u8>,
    block: usize,
    manner: Manner,
    kept: Vec<(usize, [u8; 64])>,
    /// Commands on blocks, by their opcodes.
    seen: Vec<u8>,
    controller: Vec<u8>,
    namespace: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Fake {
    memory: Arc<SharedMemory>,
    state: Arc<Mutex<State>>,
    capabilities: u64,
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Fake {
    /// A disk of so many bytes in blocks of so many.
    fn new(len: usize, block: usize) -> Self {
        let (mut controller, mut namespace) = (vec![0; 4096], vec![0; 4096]);
        put(&mut controller, 516, &1u32.to_le_bytes());
        put(&mut controller, 520, &0xcu16.to_le_bytes());
        controller[525] = 1;
        put(&mut namespace, 0, &((len / block) as u64).to_le_bytes());
        put(&mut namespace, 128, &(block.ilog2() << 16).to_le_bytes());
        namespace[33] = 9;
        Self {
            memory: Arc::new(SharedMemory::new(MEMORY).unwrap()),
            state: Arc::new(Mutex::new(State {
                configuration: 0,
                admin: [0; 5],
                pairs: Default::default(),
                disk: vec![0xee; len],
                block,
                manner: Manner::Right,
                kept: Vec::new(),
                seen: Vec::new(),
                controller,
                namespace,
            })),
            // 32 commands in a queue, half a second, the commands of disks.
            capabilities: 31 | 1 << 24 | 1 << 37,
        }
    }

    fn get(&self, at: u64, into: &mut [u8]) {
        self.memory.read((at - SEEN_AT) as usize, into).unwrap();
    }

    fn set(&self, at: u64, from: &[u8]) {
        self.memory.write((at - SEEN_AT) as usize, from).unwrap();
    }

    /// The pages of so much data of a command.
    fn pages(&self, command: &[u8], len: usize) -> Vec<(u64, usize)> {
        let (first, second) = (number(command, 24), number(command, 32));
        let mut places = vec![first];
        match len.div_ceil(4096) {
            0 | 1 => {}
            2 => places.push(second),
            pages => {
                let mut list = vec![0; (pages - 1) * 8];
                self.get(second, &mut list);
                places.extend((0..pages - 1).map(|page| number(&list, page * 8)));
            }
        }
        let part = |(page, place): (usize, u64)| (place, (len - page * 4096).min(4096));
        places.into_iter().enumerate().map(part).collect()
    }

    fn fill(&self, command: &[u8], bytes: &[u8]) {
        let mut rest = bytes;
        for (place, len) in self.pages(command, bytes.len()) {
            let (now, then) = rest.split_at(len);
            self.set(place, now);
            rest = then;
        }
    }

    fn take(&self, command: &[u8], len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (place, len) in self.pages(command, len) {
            let mut page = vec![0; len];
            self.get(place, &mut page);
            bytes.extend(page);
        }
        bytes
    }

    fn on_blocks(&self, state: &mut State, command: &[u8]) -> u16 {
        let opcode = command[0];
        state.seen.push(opcode);
        if let Manner::Status(of, status) = state.manner
            && of == opcode
        {
            return status;
        }
        let block = state.block;
        let range = |first: u64, count: usize| {
            let at = first as usize * block;
            at..at + count * block
        };
        let count = usize::from(u16::from_le_bytes([command[48], command[49]])) + 1;
        let range_of_command = range(number(command, 40), count);
        match opcode {
            FLUSH => {}
            READ if range_of_command.end <= state.disk.len() => {
                self.fill(command, &state.disk[range_of_command]);
            }
            WRITE if range_of_command.end <= state.disk.len() => {
                let bytes = self.take(command, count * block);
                state.disk[range_of_command].copy_from_slice(&bytes);
            }
            WRITE_ZEROES if range_of_command.end <= state.disk.len() => {
                state.disk[range_of_command].fill(0);
            }
            DATASET_MANAGEMENT => {
                let said = self.take(command, 16);
                let count = u32::from_le_bytes(said[4..8].try_into().unwrap());
                state.disk[range(number(&said, 8), count as usize)].fill(0);
            }
            READ | WRITE | WRITE_ZEROES => return 0x80,
            _ => return 1,
        }
        0
    }

    fn admin(&self, state: &mut State, command: &[u8]) -> u16 {
        match (command[0], command[40]) {
            (IDENTIFY_ANY, 1) => self.fill(command, &state.controller),
            (IDENTIFY_ANY, _) => self.fill(command, &state.namespace),
            (1, 1) => state.pairs[1].commands = number(command, 24),
            (5, 1) => {
                state.pairs[1].ends = number(command, 24);
                state.pairs[1].entries =
                    u32::from(u16::from_le_bytes([command[42], command[43]])) + 1;
            }
            (9, 7) => {}
            _ => return 1,
        }
        0
    }

    fn end(&self, pair: &mut Pair, number: u16, status: u16) {
        let phase = u32::from(pair.turns.is_multiple_of(2));
        let word = u32::from(status) << 17 | phase << 16 | u32::from(number);
        let place = pair.ends + u64::from(pair.tail) * 16;
        self.set(place + 12, &word.to_le_bytes());
        pair.tail += 1;
        if pair.tail == pair.entries {
            (pair.tail, pair.turns) = (0, pair.turns + 1);
        }
    }

    fn carry_out(&self, state: &mut State, pair: usize, command: [u8; 64]) {
        let number = u16::from_le_bytes([command[2], command[3]]);
        let status = match (pair, state.manner) {
            (0, _) => self.admin(state, &command),
            (_, Manner::Right | Manner::Twice | Manner::Status(..)) => {
                self.on_blocks(state, &command)
            }
            (_, Manner::WrongNumber) => 0,
            _ => return state.kept.push((pair, command)),
        };
        let shown = match (pair, state.manner) {
            (1, Manner::WrongNumber) => number ^ 0x8000,
            _ => number,
        };
        self.end(&mut state.pairs[pair], shown, status);
        if (pair, state.manner) == (1, Manner::Twice) {
            self.end(&mut state.pairs[pair], shown, status);
        }
    }

    /// Ends what it has kept.
    fn go_on(&self) {
        let mut state = self.state.lock();
        state.manner = Manner::Right;
        for (pair, command) in std::mem::take(&mut state.kept) {
            self.carry_out(&mut state, pair, command);
        }
    }

    fn ring(&self, state: &mut State, pair: usize, tail: u32) {
        while state.pairs[pair].head != tail {
            let mut command = [0; 64];
            let head = state.pairs[pair].head;
            self.get(
                state.pairs[pair].commands + u64::from(head) * 64,
                &mut command,
            );
            state.pairs[pair].head = (head + 1) % state.pairs[pair].entries;
            self.carry_out(state, pair, command);
        }
    }
}

impl Bus for Fake {
    fn read(&self, at: u64) -> io::Result<u32> {
        let state = self.state.lock();
        Ok(match (at, state.manner) {
            (_, Manner::Gone) => u32::MAX,
            (0, _) => self.capabilities as u32,
            (4, _) => (self.capabilities >> 32) as u32,
            (0x14, _) => state.configuration,
            (0x1c, Manner::Fatal) => 3,
            (0x1c, _) => {
                let down = state.configuration >> 14 & 3 != 0;
                state.configuration & 1 | u32::from(down) << 3
            }
            _ => 0,
        })
    }

    fn write(&self, at: u64, value: u32) -> io::Result<()> {
        let mut state = self.state.lock();
        match at {
            0x14 => {
                if value & 1 != 0 && state.configuration & 1 == 0 {
                    let admin = state.admin;
                    let place =
                        |low: usize| u64::from(admin[low]) | u64::from(admin[low + 1]) << 32;
                    state.pairs = Default::default();
                    state.pairs[0] = Pair {
                        commands: place(1),
                        ends: place(3),
                        entries: (state.admin[0] & 0xffff) + 1,
                        ..Pair::default()
                    };
                }
                state.configuration = value;
            }
            0x24..=0x34 => state.admin[(at as usize - 0x24) / 4] = value,
            0x1000 => self.ring(&mut state, 0, value),
            0x1008 => self.ring(&mut state, 1, value),
            _ => {}
        }
        Ok(())
    }

    fn memory(&self) -> &SharedMemory {
        &self.memory
    }
}

fn open_under(fake: &Fake, control: &Arc<JobControl>) -> Result<Arc<dyn Storage>> {
    let controller = Arc::new(Controller::start(Box::new(fake.clone()), control)?);
    let settings = Settings {
        device: "0000:00:01.0".to_owned(),
        namespace: 1,
    };
    let how = StorageOpen {
        writable: true,
        ..StorageOpen::default()
    };
    of_controller(controller, &settings, how, control)
}

fn open(fake: &Fake) -> Result<Arc<dyn Storage>> {
    open_under(fake, &Arc::default())
}

#[test]
fn a_namespace_keeps_what_is_written_whatever_the_places_and_lengths() {
    for (block, power) in [(512, 0), (512, 1), (4096, 0), (4096, 5)] {
        let len = 3 << 20;
        let fake = Fake::new(len, block);
        fake.state.lock().controller[77] = power;
        let storage = open(&fake).unwrap();
        assert_eq!(storage.len().unwrap(), len as u64);
        let mut model = vec![0xee; len];
        let mut seed = 7_usize;
        let mut next = |bound: usize| {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (seed >> 33) % bound
        };
        for turn in 0..200 {
            let at = next(len);
            let most = if turn % 10 == 0 { 2 << 20 } else { 20_000 };
            let count = next(most).min(len - at);
            let range = at..at + count;
            match turn % 4 {
                0 | 1 => {
                    let bytes = vec![turn as u8; count];
                    storage.write_at(&bytes, at as u64).unwrap();
                    model[range].fill(turn as u8);
                }
                2 => {
                    let flags = ZeroFlags::MAY_UNMAP;
                    storage
                        .write_zeroes(at as u64, count as u64, flags)
                        .unwrap();
                    model[range].fill(0);
                }
                _ => {
                    let mut read = vec![1; count + 10];
                    storage.read_at(&mut read, at as u64).unwrap();
                    let inside = read.len().min(len - at);
                    assert!(read[..inside] == model[at..at + inside]);
                    assert!(read[inside..].iter().all(|byte| *byte == 0));
                }
            }
        }
        storage.discard(100, 20_000).unwrap();
        let (first, last) = (100_usize.next_multiple_of(block), 20_100 / block * block);
        model[first..last].fill(0);
        storage.sync(Durability::Synced).unwrap();
        assert!(fake.state.lock().disk == model);
        assert_eq!(fake.state.lock().seen.last(), Some(&FLUSH));
        drop(storage);
        assert_eq!(fake.state.lock().configuration & 1, 0);
    }
}

#[test]
fn many_threads_have_commands_under_way() {
    let fake = Fake::new(8 << 20, 512);
    let storage = open(&fake).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let storage = &storage;
            scope.spawn(move || {
                let bytes = vec![thread as u8 + 1; 1 << 20];
                storage.write_at(&bytes, thread << 20).unwrap();
                let mut read = vec![0; 1 << 20];
                storage.read_at(&mut read, thread << 20).unwrap();
                assert!(read == bytes);
            });
        }
    });
}

#[test]
fn what_a_controller_says_of_itself_is_judged() {
    type Lie = fn(&mut Fake);
    let lies: [(&str, Lie); 10] = [
        ("does not answer", |fake| fake.capabilities = u64::MAX),
        ("is no NVMe controller of disks", |fake| {
            fake.capabilities &= !(1 << 37)
        }),
        ("is no NVMe controller of disks", |fake| {
            fake.capabilities |= 1 << 48
        }),
        ("is no NVMe controller of disks", |fake| {
            fake.capabilities &= !0xffff
        }),
        ("There is no namespace 1: the controller has 0", |fake| {
            fake.state.lock().controller[516] = 0;
        }),
        ("There is no such namespace", |fake| {
            fake.state.lock().namespace[..8].fill(0)
        }),
        ("is too large", |fake| {
            fake.state.lock().namespace[..8].fill(0xff)
        }),
        ("have metadata", |fake| fake.state.lock().namespace[128] = 8),
        ("blocks of 2^63 bytes", |fake| {
            fake.state.lock().namespace[130] = 63
        }),
        ("that it does not have", |fake| {
            fake.state.lock().namespace[26] = 0x6f
        }),
    ];
    for (text, lie) in lies {
        let mut fake = Fake::new(1 << 20, 512);
        lie(&mut fake);
        let error = open(&fake).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    let fake = Fake::new(1 << 20, 512);
    fake.state.lock().namespace[99] = 1;
    assert_eq!(open(&fake).unwrap_err().kind(), ErrorKind::ReadOnly);
}

#[test]
fn a_controller_that_breaks_the_rules_is_not_believed_again() {
    for (manner, text) in [
        (Manner::WrongNumber, "ends a command that it was not given"),
        (Manner::Twice, "ends a command that it was not given"),
        (Manner::Gone, "is gone"),
        (Manner::Fatal, "has failed"),
    ] {
        let fake = Fake::new(1 << 20, 512);
        let storage = open(&fake).unwrap();
        fake.state.lock().manner = manner;
        let mut block = [0; 512];
        // The second end may come when the first has been taken.
        let mut read = || storage.read_at(&mut block, 0);
        let error = read().and_then(|()| read()).unwrap_err();
        assert!(error.to_string().contains(text), "{manner:?}: {error}");
        fake.state.lock().manner = Manner::Right;
        let error = storage.write_at(&[1; 512], 0).unwrap_err();
        assert_eq!(error.os_errno(), Some(libc::EIO));
    }
}

#[test]
fn memory_stays_the_controllers_until_it_ends_what_nobody_waits_for() {
    let fake = Fake::new(1 << 20, 512);
    let control = Arc::new(JobControl::default());
    let storage = open_under(&fake, &control).unwrap();
    fake.state.lock().manner = Manner::Silent;
    control.set_deadline(Some(std::time::Duration::from_millis(5)));
    let late = |done: Result<()>| assert_eq!(done.unwrap_err().kind(), ErrorKind::Cancelled);
    // More than may be under way.
    late(storage.write_at(&vec![7; 1 << 20], 0));
    for _ in 0..20 {
        late(storage.read_at(&mut [0; 512], 0));
    }
    control.set_deadline(None);
    let kept = fake.state.lock().kept.len();
    assert_eq!(kept, 16);
    fake.go_on();
    let mut bytes = vec![0; 1 << 20];
    storage.read_at(&mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 7));
}

#[test]
fn what_a_controller_refuses_is_done_in_another_way_or_said() {
    let fake = Fake::new(1 << 20, 512);
    let storage = open(&fake).unwrap();
    fake.state.lock().manner = Manner::Status(WRITE_ZEROES, 1);
    storage
        .write_zeroes(1000, 5000, ZeroFlags::empty())
        .unwrap();
    assert_eq!(fake.state.lock().disk[1000..6000], [0; 5000]);
    let error = storage
        .write_zeroes(0, 512, ZeroFlags::NO_FALLBACK)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let errno = |error: Error| error.os_errno();
    for (opcode, status, wanted) in [
        (WRITE, 0x182, libc::EROFS),
        (WRITE, 0x81, libc::ENOSPC),
        (WRITE, 0x280, libc::EIO),
        (WRITE, 0x7ff, libc::EIO),
    ] {
        fake.state.lock().manner = Manner::Status(opcode, status);
        assert_eq!(
            errno(storage.write_at(&[1; 512], 0).unwrap_err()),
            Some(wanted)
        );
    }
    // The bytes of a read that failed are nobody's.
    fake.state.lock().manner = Manner::Status(READ, 0x281);
    let error = storage.read_at(&mut [0; 512], 0).unwrap_err();
    assert!(error.to_string().contains("status 0x281"), "{error}");
    // What a flush has lost does not come back.
    fake.state.lock().manner = Manner::Status(FLUSH, 0x280);
    storage.sync(Durability::Synced).unwrap_err();
    fake.state.lock().manner = Manner::Right;
    storage.sync(Durability::Synced).unwrap_err();
    storage.write_at(&[1; 512], 0).unwrap_err();
    let mut block = [0; 512];
    storage.read_at(&mut block, 0).unwrap();
    assert_eq!(
        storage.write_at(&block, 1 << 20).unwrap_err().kind(),
        ErrorKind::NoSpace
    );
}
