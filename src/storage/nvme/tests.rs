//! Tests with a simulated controller, which follows the protocol or violates it.

mod model;

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::storage::{Durability, Storage, ZeroFlags};

use super::plain::{NvmeController, NvmeMemory, nvme_over};
use model::{FLUSH, Given, Model, READ, WRITE, WRITE_ZEROES};

/// What a controller does with an I/O command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Manner {
    #[default]
    Right,
    /// Does not complete it.
    Silent,
    /// Is gone.
    Gone,
    /// Reports that it has failed.
    Fatal,
    /// Completes one that it was not given.
    WrongNumber,
    /// Completes it twice.
    Twice,
    /// Fails every command of that opcode with that status.
    Status(u8, u16),
}

/// The factor by which timeouts for the controllers are shorter in these tests.
const HASTE: u32 = 500;

#[derive(Debug)]
struct State {
    model: Model,
    manner: Manner,
    kept: Vec<Given>,
    /// The opcodes of the I/O commands received.
    seen: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Fake(Arc<Mutex<State>>);

impl State {
    fn carry_out(&mut self, memory: &NvmeMemory, given: &Given) -> u16 {
        let opcode = given.command[0];
        if given.pair == 1 {
            self.seen.push(opcode);
        }
        match (given.pair, self.manner) {
            (1, Manner::Status(of, status)) if of == opcode => status,
            (1, Manner::WrongNumber) => 0,
            _ => self.model.carry_out(memory, given),
        }
    }

    fn take(&mut self, memory: &NvmeMemory, given: Given) {
        let (pair, number) = (given.pair, given.number());
        if pair == 1 && matches!(self.manner, Manner::Silent | Manner::Gone | Manner::Fatal) {
            return self.kept.push(given);
        }
        let status = self.carry_out(memory, &given);
        let shown = match (pair, self.manner) {
            (1, Manner::WrongNumber) => number ^ 0x8000,
            _ => number,
        };
        self.model.end(memory, pair, shown, status);
        if (pair, self.manner) == (1, Manner::Twice) {
            self.model.end(memory, pair, shown, status);
        }
    }
}

impl Fake {
    /// A disk of `len` bytes, in blocks of `block` bytes.
    fn new(len: usize, block: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            model: Model::new(len, block),
            manner: Manner::Right,
            kept: Vec::new(),
            seen: Vec::new(),
        })))
    }

    fn behave(&self, manner: Manner) {
        self.0.lock().manner = manner;
    }
}

impl NvmeController for Fake {
    fn read(&self, memory: &NvmeMemory, at: u64) -> io::Result<u32> {
        let mut state = self.0.lock();
        if state.manner == Manner::Right {
            for kept in std::mem::take(&mut state.kept) {
                state.take(memory, kept);
            }
        }
        Ok(match (at, state.manner) {
            (_, Manner::Gone) => u32::MAX,
            (0x1c, Manner::Fatal) => 3,
            _ => state.model.register(at),
        })
    }

    fn write(&self, memory: &NvmeMemory, at: u64, value: u32) -> io::Result<()> {
        let mut state = self.0.lock();
        for given in state.model.set(memory, at, value) {
            state.take(memory, given);
        }
        Ok(())
    }
}

fn open_under(fake: &Fake, control: &Arc<JobControl>) -> Result<Arc<dyn Storage>> {
    nvme_over(Box::new(fake.clone()), HASTE, control)
}

fn open(fake: &Fake) -> Result<Arc<dyn Storage>> {
    open_under(fake, &Arc::default())
}

#[test]
fn a_namespace_keeps_what_is_written_whatever_the_places_and_lengths() {
    for (block, power) in [(512, 0), (512, 1), (4096, 0), (4096, 5)] {
        let len = 3 << 20;
        let fake = Fake::new(len, block);
        fake.0.lock().model.controller[77] = power;
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
        assert!(fake.0.lock().model.disk == model);
        assert_eq!(fake.0.lock().seen.last(), Some(&FLUSH));
        drop(storage);
        assert_eq!(fake.0.lock().model.configuration & 1, 0);
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
    type Lie = fn(&Fake);
    let lies: [(&str, Lie); 10] = [
        ("does not answer", |fake| {
            fake.0.lock().model.capabilities = u64::MAX
        }),
        ("is no NVMe controller of disks", |fake| {
            fake.0.lock().model.capabilities &= !(1 << 37)
        }),
        ("is no NVMe controller of disks", |fake| {
            fake.0.lock().model.capabilities |= 1 << 48
        }),
        ("is no NVMe controller of disks", |fake| {
            fake.0.lock().model.capabilities &= !0xffff
        }),
        ("There is no namespace 1: the controller has 0", |fake| {
            fake.0.lock().model.controller[516] = 0;
        }),
        ("There is no such namespace", |fake| {
            fake.0.lock().model.namespace[..8].fill(0)
        }),
        ("is too large", |fake| {
            fake.0.lock().model.namespace[..8].fill(0xff)
        }),
        ("have metadata", |fake| {
            fake.0.lock().model.namespace[128] = 8
        }),
        ("blocks of 2^63 bytes", |fake| {
            fake.0.lock().model.namespace[130] = 63
        }),
        ("that it does not have", |fake| {
            fake.0.lock().model.namespace[26] = 0x6f
        }),
    ];
    for (text, lie) in lies {
        let fake = Fake::new(1 << 20, 512);
        lie(&fake);
        let error = open(&fake).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    let fake = Fake::new(1 << 20, 512);
    fake.0.lock().model.namespace[99] = 1;
    assert_eq!(open(&fake).unwrap_err().kind(), ErrorKind::ReadOnly);
}

#[test]
fn a_controller_that_breaks_the_rules_is_not_believed_again() {
    for (manner, text) in [
        (Manner::WrongNumber, "ends a command that it was not given"),
        (Manner::Twice, "ends a command that it was not given"),
        (Manner::Gone, "is gone"),
        (Manner::Fatal, "has failed"),
        (Manner::Silent, "does not answer"),
    ] {
        let fake = Fake::new(1 << 20, 512);
        let storage = open(&fake).unwrap();
        fake.behave(manner);
        let mut block = [0; 512];
        // The second completion may arrive after the first has been processed.
        let mut read = || storage.read_at(&mut block, 0);
        let error = read().and_then(|()| read()).unwrap_err();
        assert!(error.to_string().contains(text), "{manner:?}: {error}");
        fake.behave(Manner::Right);
        let error = storage.write_at(&[1; 512], 0).unwrap_err();
        assert_eq!(error.os_errno(), Some(libc::EIO));
    }
}

#[test]
fn memory_stays_the_controllers_until_it_ends_what_nobody_waits_for() {
    let fake = Fake::new(1 << 20, 512);
    let control = Arc::new(JobControl::default());
    let storage = open_under(&fake, &control).unwrap();
    fake.behave(Manner::Silent);
    control.set_deadline(Some(std::time::Duration::from_millis(5)));
    let late = |done: Result<()>| assert_eq!(done.unwrap_err().kind(), ErrorKind::Cancelled);
    // More than can be in flight.
    late(storage.write_at(&vec![7; 1 << 20], 0));
    for _ in 0..20 {
        late(storage.read_at(&mut [0; 512], 0));
    }
    control.set_deadline(None);
    let kept = fake.0.lock().kept.len();
    assert_eq!(kept, 16);
    fake.behave(Manner::Right);
    let mut bytes = vec![0; 1 << 20];
    storage.read_at(&mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 7));
}

#[test]
fn what_a_controller_refuses_is_done_in_another_way_or_said() {
    let fake = Fake::new(1 << 20, 512);
    let storage = open(&fake).unwrap();
    fake.behave(Manner::Status(WRITE_ZEROES, 1));
    storage
        .write_zeroes(1000, 5000, ZeroFlags::empty())
        .unwrap();
    assert_eq!(fake.0.lock().model.disk[1000..6000], [0; 5000]);
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
        fake.behave(Manner::Status(opcode, status));
        assert_eq!(
            errno(storage.write_at(&[1; 512], 0).unwrap_err()),
            Some(wanted)
        );
    }
    // The bytes of a read that failed are not used.
    fake.behave(Manner::Status(READ, 0x281));
    let error = storage.read_at(&mut [0; 512], 0).unwrap_err();
    assert!(error.to_string().contains("status 0x281"), "{error}");
    // What a failed flush has lost does not come back.
    fake.behave(Manner::Status(FLUSH, 0x280));
    storage.sync(Durability::Synced).unwrap_err();
    fake.behave(Manner::Right);
    storage.sync(Durability::Synced).unwrap_err();
    storage.write_at(&[1; 512], 0).unwrap_err();
    let mut block = [0; 512];
    storage.read_at(&mut block, 0).unwrap();
    assert_eq!(
        storage.write_at(&block, 1 << 20).unwrap_err().kind(),
        ErrorKind::NoSpace
    );
}
