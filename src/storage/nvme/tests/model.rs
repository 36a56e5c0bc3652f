//! A controller that follows the protocol: registers, two pairs of queues and a disk. The test that owns one decides
//! what is done with each command. The fuzz target uses it too.

use super::NvmeMemory;

// Opcodes of NVM Express, sections 5 and 6.
pub const FLUSH: u8 = 0x00;
pub const WRITE: u8 = 0x01;
pub const READ: u8 = 0x02;
pub const WRITE_ZEROES: u8 = 0x08;
pub const DATASET_MANAGEMENT: u8 = 0x09;

const PAGE: usize = 4096;
const INVALID_OPCODE: u16 = 0x01;
const TRANSFER_ERROR: u16 = 0x04;
const OUT_OF_RANGE: u16 = 0x80;

/// A command, and the pair of queues that it came through.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    pub pair: usize,
    pub command: [u8; 64],
}

impl Given {
    pub fn number(&self) -> u16 {
        u16::from_le_bytes([self.command[2], self.command[3]])
    }

    fn word(&self, at: usize) -> u64 {
        word(&self.command, at)
    }
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
pub struct Model {
    pub capabilities: u64,
    pub configuration: u32,
    pub disk: Vec<u8>,
    /// Its identify data.
    pub controller: Vec<u8>,
    pub namespace: Vec<u8>,
    admin: [u32; 5],
    pairs: [Pair; 2],
    block: usize,
}

pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// The pages of `len` bytes of data of a command.
fn pages(memory: &NvmeMemory, given: &Given, len: usize) -> Option<Vec<(u64, usize)>> {
    let (first, second) = (given.word(24), given.word(32));
    let mut places = vec![first];
    match len.div_ceil(PAGE) {
        0 | 1 => {}
        2 => places.push(second),
        pages => {
            let mut list = vec![0; (pages - 1) * 8];
            memory.read(second, &mut list).ok()?;
            places.extend((0..pages - 1).map(|page| word(&list, page * 8)));
        }
    }
    let part = |(page, place): (usize, u64)| (place, (len - page * PAGE).min(PAGE));
    Some(places.into_iter().enumerate().map(part).collect())
}

/// Copies data to the pages of a command.
fn fill(memory: &NvmeMemory, given: &Given, bytes: &[u8]) -> Option<()> {
    let mut rest = bytes;
    for (place, len) in pages(memory, given, bytes.len())? {
        let (now, then) = rest.split_at(len);
        memory.write(place, now).ok()?;
        rest = then;
    }
    Some(())
}

/// Copies data from the pages of a command.
fn take(memory: &NvmeMemory, given: &Given, len: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for (place, len) in pages(memory, given, len)? {
        let mut page = vec![0; len];
        memory.read(place, &mut page).ok()?;
        bytes.extend(page);
    }
    Some(bytes)
}

impl Model {
    /// A controller with a disk of `len` bytes, in blocks of `block` bytes, filled with 0xee.
    pub fn new(len: usize, block: usize) -> Self {
        let (mut controller, mut namespace) = (vec![0; PAGE], vec![0; PAGE]);
        put(&mut controller, 516, &1u32.to_le_bytes());
        put(&mut controller, 520, &0xcu16.to_le_bytes());
        controller[525] = 1;
        put(&mut namespace, 0, &((len / block) as u64).to_le_bytes());
        put(&mut namespace, 128, &(block.ilog2() << 16).to_le_bytes());
        namespace[33] = 9;
        Self {
            // 32 entries in a queue, a timeout of half a second, the NVM command set.
            capabilities: 31 | 1 << 24 | 1 << 37,
            configuration: 0,
            disk: vec![0xee; len],
            controller,
            namespace,
            admin: [0; 5],
            pairs: Default::default(),
            block,
        }
    }

    pub fn register(&self, at: u64) -> u32 {
        match at {
            0 => self.capabilities as u32,
            4 => (self.capabilities >> 32) as u32,
            0x14 => self.configuration,
            0x1c => {
                let down = self.configuration >> 14 & 3 != 0;
                self.configuration & 1 | u32::from(down) << 3
            }
            _ => 0,
        }
    }

    /// Writes a register; returns the commands that this submits.
    pub fn set(&mut self, memory: &NvmeMemory, at: u64, value: u32) -> Vec<Given> {
        let stride = 4 << (self.capabilities >> 32 & 0xf);
        match at {
            0x14 => {
                if value & 1 != 0 && self.configuration & 1 == 0 {
                    let place = |low: usize| {
                        u64::from(self.admin[low]) | u64::from(self.admin[low + 1]) << 32
                    };
                    let admin = Pair {
                        commands: place(1),
                        ends: place(3),
                        entries: (self.admin[0] & 0xffff) + 1,
                        ..Pair::default()
                    };
                    self.pairs = [admin, Pair::default()];
                }
                self.configuration = value;
            }
            0x24..=0x34 => self.admin[(at as usize - 0x24) / 4] = value,
            0x1000 => return self.given(memory, 0, value),
            at if at == 0x1000 + 2 * stride => return self.given(memory, 1, value),
            _ => {}
        }
        Vec::new()
    }

    fn given(&mut self, memory: &NvmeMemory, number: usize, tail: u32) -> Vec<Given> {
        let (pair, mut all) = (&mut self.pairs[number], Vec::new());
        while pair.head != tail && tail < pair.entries {
            let mut command = [0; 64];
            let place = pair.commands + u64::from(pair.head) * 64;
            if memory.read(place, &mut command).is_err() {
                break;
            }
            pair.head = (pair.head + 1) % pair.entries;
            all.push(Given {
                pair: number,
                command,
            });
        }
        all
    }

    /// Carries out a command; returns its completion status.
    pub fn carry_out(&mut self, memory: &NvmeMemory, given: &Given) -> u16 {
        let done = match given.pair {
            0 => self.admin(memory, given),
            _ => self.on_blocks(memory, given),
        };
        done.unwrap_or(TRANSFER_ERROR)
    }

    fn on_blocks(&mut self, memory: &NvmeMemory, given: &Given) -> Option<u16> {
        let (block, size) = (self.block as u64, self.disk.len() as u64);
        let range = |first: u64, count: u64| {
            let start = first.checked_mul(block)?;
            let end = start.checked_add(count.checked_mul(block)?)?;
            (end <= size).then_some(start as usize..end as usize)
        };
        let count = (given.word(48) & 0xffff) + 1;
        let whole = range(given.word(40), count);
        match (given.command[0], whole) {
            (FLUSH, _) => {}
            (READ, Some(range)) => fill(memory, given, &self.disk[range])?,
            (WRITE, Some(range)) => {
                let bytes = take(memory, given, range.len())?;
                self.disk[range].copy_from_slice(&bytes);
            }
            (WRITE_ZEROES, Some(range)) => self.disk[range].fill(0),
            (DATASET_MANAGEMENT, _) => {
                let said = take(memory, given, 16)?;
                match range(word(&said, 8), word(&said, 0) >> 32) {
                    Some(range) => self.disk[range].fill(0),
                    None => return Some(OUT_OF_RANGE),
                }
            }
            (READ | WRITE | WRITE_ZEROES, None) => return Some(OUT_OF_RANGE),
            _ => return Some(INVALID_OPCODE),
        }
        Some(0)
    }

    fn admin(&mut self, memory: &NvmeMemory, given: &Given) -> Option<u16> {
        let place = given.word(24);
        match (given.command[0], given.command[40]) {
            (6, 1) => fill(memory, given, &self.controller)?,
            (6, _) => fill(memory, given, &self.namespace)?,
            (1, 1) => self.pairs[1].commands = place,
            (5, 1) => {
                self.pairs[1].ends = place;
                self.pairs[1].entries = (given.word(40) >> 16 & 0xffff) as u32 + 1;
            }
            (9, 7) => {}
            _ => return Some(INVALID_OPCODE),
        }
        Some(0)
    }

    /// Completes a command.
    pub fn end(&mut self, memory: &NvmeMemory, pair: usize, number: u16, status: u16) {
        let pair = &mut self.pairs[pair];
        let phase = u32::from(pair.turns.is_multiple_of(2));
        let word = u32::from(status & 0x7fff) << 17 | phase << 16 | u32::from(number);
        let place = pair.ends + u64::from(pair.tail) * 16;
        // A completion queue outside the memory is ignored.
        let _ = memory.write(place + 12, &word.to_le_bytes());
        pair.tail += 1;
        if pair.tail >= pair.entries {
            (pair.tail, pair.turns) = (0, pair.turns + 1);
        }
    }
}
