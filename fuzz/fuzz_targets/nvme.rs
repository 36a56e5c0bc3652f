//! An NVMe controller that does anything: says anything of itself, ends commands late, wrongly, twice or never, writes
//! where it likes and answers with other registers. What one without a fault is told to keep is read again.
#![no_main]

#[path = "../../src/storage/nvme/tests/model.rs"]
mod model;

use std::io;
use std::sync::{Arc, Mutex};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use platter::storage::testing::{NvmeController, NvmeMemory, nvme_over};
use platter::storage::{Durability, ZeroFlags};

use model::{Given, Model};

/// Half a minute becomes 60 ms.
const HASTE: u32 = 500;
/// The largest disk.
const MOST: usize = 1 << 20;

#[derive(Arbitrary, Debug)]
struct Case {
    len: u16,
    block: u8,
    /// What the controller takes at once, as a power of two.
    most: u8,
    /// Commands that it does not have, and a cache.
    offered: u8,
    entries: u8,
    stride: u8,
    lies: Vec<Lie>,
    turns: Vec<Turn>,
    calls: Vec<Call>,
}

/// What is not so.
#[derive(Arbitrary, Debug)]
enum Lie {
    Capabilities(u64),
    Controller { at: u16, word: u32 },
    Namespace { at: u8, word: u32 },
}

/// What is done with a command, or when a register is read: most is right.
#[derive(Arbitrary, Debug)]
struct Turn {
    weight: u8,
    act: Act,
}

#[derive(Arbitrary, Debug)]
enum Act {
    /// Ends it when a register is read.
    Late,
    Never,
    Status(u16),
    OtherNumber(u16),
    Twice,
    /// Ends it and does nothing.
    Idle,
    /// Writes where it likes.
    Memory {
        at: u32,
        bytes: Vec<u8>,
    },
    /// Writes an end where it likes.
    End {
        pair: bool,
        number: u16,
        status: u16,
    },
    /// Any register from then on.
    Register(u32),
    Unreachable,
}

#[derive(Arbitrary, Debug)]
enum Call {
    Read { at: u32, len: u32 },
    Write { at: u32, len: u32 },
    Zeroes { at: u32, len: u32, flags: u8 },
    Discard { at: u32, len: u32 },
    Sync,
}

#[derive(Debug)]
struct State {
    model: Model,
    turns: std::vec::IntoIter<Turn>,
    late: Vec<Given>,
    register: Option<u32>,
    is_unreachable: bool,
    /// Something was not right.
    fault: bool,
}

#[derive(Clone, Debug)]
struct Hostile(Arc<Mutex<State>>);

impl State {
    fn right(&mut self, memory: &NvmeMemory, given: &Given) {
        let status = self.model.carry_out(memory, given);
        self.model.end(memory, given.pair, given.number(), status);
    }

    /// The next turn; None where all is right.
    fn turn(&mut self) -> Option<Act> {
        let turn = self.turns.next().filter(|turn| turn.weight >= 160)?;
        self.fault |= !matches!(turn.act, Act::Late);
        Some(turn.act)
    }

    fn take(&mut self, memory: &NvmeMemory, given: Given) {
        let (pair, number) = (given.pair, given.number());
        match self.turn() {
            None => self.right(memory, &given),
            Some(Act::Late) => self.late.push(given),
            Some(Act::Never) => {}
            Some(Act::Status(status)) => self.model.end(memory, pair, number, status),
            Some(Act::OtherNumber(number)) => self.model.end(memory, pair, number, 0),
            Some(Act::Idle) => self.model.end(memory, pair, number, 0),
            Some(Act::Twice) => {
                self.right(memory, &given);
                self.model.end(memory, pair, number, 0);
            }
            Some(act) => {
                self.right(memory, &given);
                self.misbehave(memory, act);
            }
        }
    }

    fn misbehave(&mut self, memory: &NvmeMemory, act: Act) {
        let (start, len) = memory.range();
        match act {
            Act::Memory { at, bytes } => {
                let _ = memory.write(start + u64::from(at) % len as u64, &bytes);
            }
            Act::End {
                pair,
                number,
                status,
            } => self.model.end(memory, usize::from(pair), number, status),
            Act::Register(value) => self.register = Some(value),
            Act::Unreachable => self.is_unreachable = true,
            _ => {}
        }
    }

    fn check(&self) -> io::Result<()> {
        match self.is_unreachable {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => Ok(()),
        }
    }
}

impl NvmeController for Hostile {
    fn read(&self, memory: &NvmeMemory, at: u64) -> io::Result<u32> {
        let mut state = self.0.lock().expect("a lock");
        // The last that came is the first that ends.
        while let Some(given) = state.late.pop() {
            state.right(memory, &given);
        }
        match state.turn() {
            Some(act) => state.misbehave(memory, act),
            None => {}
        }
        state.check()?;
        Ok(state.register.unwrap_or_else(|| state.model.register(at)))
    }

    fn write(&self, memory: &NvmeMemory, at: u64, value: u32) -> io::Result<()> {
        let mut state = self.0.lock().expect("a lock");
        for given in state.model.set(memory, at, value) {
            state.take(memory, given);
        }
        state.check()
    }
}

impl Hostile {
    fn of(case: &Case, turns: Vec<Turn>) -> (Self, usize) {
        let block = 512 << (case.block % 8);
        let len = (usize::from(case.len) * 16)
            .next_multiple_of(block)
            .clamp(block, MOST);
        let mut model = Model::new(len, block);
        // Two to 256 places in a queue, and doorbells up to 128 KiB apart.
        model.capabilities =
            u64::from(case.entries.max(1)) | 1 << 24 | u64::from(case.stride & 0xf) << 32 | 1 << 37;
        model.controller[77] = case.most;
        model.controller[520] = case.offered & 0xc;
        model.controller[525] = case.offered & 1;
        for lie in &case.lies {
            match lie {
                Lie::Capabilities(value) => model.capabilities = *value,
                Lie::Controller { at, word } => {
                    let at = usize::from(*at) % 4093;
                    model::put(&mut model.controller, at, &word.to_le_bytes());
                }
                Lie::Namespace { at, word } => {
                    model::put(&mut model.namespace, usize::from(*at), &word.to_le_bytes());
                }
            }
        }
        let state = State {
            model,
            turns: turns.into_iter(),
            late: Vec::new(),
            register: None,
            is_unreachable: false,
            fault: !case.lies.is_empty(),
        };
        (Self(Arc::new(Mutex::new(state))), len)
    }

    fn is_clean(&self) -> bool {
        !self.0.lock().expect("a lock").fault
    }
}

fn play(mut case: Case) {
    let turns = std::mem::take(&mut case.turns);
    let (hostile, len) = Hostile::of(&case, turns);
    let storage = match nvme_over(Box::new(hostile.clone()), HASTE, &Arc::default()) {
        Ok(storage) => storage,
        Err(error) => {
            assert!(!hostile.is_clean(), "a controller without a fault: {error}");
            return;
        }
    };
    let mut disk = vec![0xee; len];
    for call in case.calls.iter().take(12) {
        let place = |at: u32, count: u32| {
            let at = at as usize % len;
            at..at + count as usize % (len - at + 1)
        };
        let done = match call {
            Call::Read { at, len } => {
                let range = place(*at, *len);
                let mut buf = vec![0xa4; range.len()];
                let done = storage.read_at(&mut buf, range.start as u64);
                if done.is_ok() && hostile.is_clean() {
                    assert!(buf == disk[range.clone()], "other bytes in {range:?}");
                }
                done
            }
            Call::Write { at, len } => {
                let range = place(*at, *len);
                let byte = *at as u8 | 1;
                disk[range.clone()].fill(byte);
                storage.write_at(&vec![byte; range.len()], range.start as u64)
            }
            Call::Zeroes { at, len, flags } => {
                let range = place(*at, *len);
                let flags = ZeroFlags::from_bits_truncate((*flags).into());
                let done = storage.write_zeroes(range.start as u64, range.len() as u64, flags);
                match done {
                    // Nothing was done.
                    Err(_) if flags.contains(ZeroFlags::NO_FALLBACK) => Ok(()),
                    done => {
                        disk[range].fill(0);
                        done
                    }
                }
            }
            Call::Discard { at, len } => {
                let range = place(*at, *len);
                let block = 512 << (case.block % 8);
                let whole = range.start.next_multiple_of(block)..range.end / block * block;
                // A controller may have no such command.
                if storage
                    .discard(range.start as u64, range.len() as u64)
                    .is_ok()
                    && whole.start < whole.end
                {
                    disk[whole].fill(0);
                }
                Ok(())
            }
            Call::Sync => storage.sync(Durability::Synced),
        };
        if let Err(error) = done {
            assert!(
                !hostile.is_clean(),
                "a controller without a fault: {call:?}: {error}"
            );
        }
    }
}

fuzz_target!(|case: Case| play(case));
