//! Commands, completions, and the identify data of controllers and namespaces, as laid out in memory (NVM Express base
//! specification 1.4, sections 4.2, 4.6, 5.15 and 6).

use crate::bytes::{le16, le32, le64};
use crate::error::{Error, Result};

pub(super) const COMMAND: usize = 64;
pub(super) const COMPLETION: usize = 16;
pub(super) const IDENTIFY: usize = 4096;
/// Maximum number of blocks of an I/O command: a 16-bit field, in which 0 means one.
pub(super) const MAX_BLOCKS: u64 = 1 << 16;

/// A command, without its identifier and the address of its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) opcode: u8,
    pub(super) namespace: u32,
    /// Address of the queue, for commands that create one and carry no data.
    pub(super) place: Option<u64>,
    /// Dwords 10 to 15.
    pub(super) words: [u32; 6],
}

// Admin commands.
pub(super) const CREATE_SUBMISSIONS: u8 = 0x01;
pub(super) const CREATE_COMPLETIONS: u8 = 0x05;
pub(super) const IDENTIFY_ANY: u8 = 0x06;
pub(super) const SET_FEATURES: u8 = 0x09;
// I/O commands.
pub(super) const FLUSH: u8 = 0x00;
pub(super) const WRITE: u8 = 0x01;
pub(super) const READ: u8 = 0x02;
pub(super) const WRITE_ZEROES: u8 = 0x08;
pub(super) const DATASET_MANAGEMENT: u8 = 0x09;

const NUMBER_OF_QUEUES: u32 = 0x07;
const UNIT_ACCESS: u32 = 1 << 30;
const DEALLOCATE: u32 = 1 << 25;
const OF_DEALLOCATION: u32 = 1 << 2;

fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

impl Command {
    fn admin(opcode: u8, word10: u32, word11: u32) -> Self {
        Self {
            opcode,
            words: [word10, word11, 0, 0, 0, 0],
            ..Self::default()
        }
    }

    /// Queries the identify data of the controller.
    pub(super) fn identify_controller() -> Self {
        Self::admin(IDENTIFY_ANY, 1, 0)
    }

    /// Queries the identify data of a namespace.
    pub(super) fn identify_namespace(namespace: u32) -> Self {
        Self {
            namespace,
            ..Self::admin(IDENTIFY_ANY, 0, 0)
        }
    }

    /// Requests one pair of I/O queues besides the admin queues.
    pub(super) fn one_pair() -> Self {
        Self::admin(SET_FEATURES, NUMBER_OF_QUEUES, 0)
    }

    /// Creates a completion queue in contiguous memory, without interrupts.
    pub(super) fn create_completions(queue: u16, entries: u16, place: u64) -> Self {
        let size = u32::from(entries.saturating_sub(1)) << 16 | u32::from(queue);
        Self {
            place: Some(place),
            ..Self::admin(CREATE_COMPLETIONS, size, 1)
        }
    }

    /// Creates a submission queue in contiguous memory, which uses the completion queue of the same number.
    pub(super) fn create_submissions(queue: u16, entries: u16, place: u64) -> Self {
        let size = u32::from(entries.saturating_sub(1)) << 16 | u32::from(queue);
        Self {
            place: Some(place),
            ..Self::admin(CREATE_SUBMISSIONS, size, u32::from(queue) << 16 | 1)
        }
    }

    fn on_blocks(opcode: u8, namespace: u32, first: u64, count: u64, flags: u32) -> Self {
        let [low, high] = halves(first);
        // At most MAX_BLOCKS.
        let count = count.saturating_sub(1) as u16;
        Self {
            opcode,
            namespace,
            place: None,
            words: [low, high, u32::from(count) | flags, 0, 0, 0],
        }
    }

    pub(super) fn read(namespace: u32, first: u64, count: u64) -> Self {
        Self::on_blocks(READ, namespace, first, count, 0)
    }

    /// `through` bypasses volatile caches.
    pub(super) fn write(namespace: u32, first: u64, count: u64, through: bool) -> Self {
        let flags = if through { UNIT_ACCESS } else { 0 };
        Self::on_blocks(WRITE, namespace, first, count, flags)
    }

    pub(super) fn write_zeroes(namespace: u32, first: u64, count: u64, unmap: bool) -> Self {
        let flags = if unmap { DEALLOCATE } else { 0 };
        Self::on_blocks(WRITE_ZEROES, namespace, first, count, flags)
    }

    pub(super) fn flush(namespace: u32) -> Self {
        Self {
            opcode: FLUSH,
            namespace,
            ..Self::default()
        }
    }

    /// Deallocates the one range that is its data.
    pub(super) fn deallocate(namespace: u32) -> Self {
        Self {
            namespace,
            ..Self::admin(DATASET_MANAGEMENT, 0, OF_DEALLOCATION)
        }
    }

    /// Encodes it as a queue entry.
    pub(super) fn to_bytes(self, number: u16, pages: [u64; 2]) -> [u8; COMMAND] {
        let mut bytes = [0; COMMAND];
        let pages = self.place.map_or(pages, |place| [place, 0]);
        let mut put = |word: usize, value: u32| {
            bytes[word * 4..][..4].copy_from_slice(&value.to_le_bytes());
        };
        put(0, u32::from(number) << 16 | u32::from(self.opcode));
        put(1, self.namespace);
        for (word, page) in [(6, pages[0]), (8, pages[1])] {
            let [low, high] = halves(page);
            put(word, low);
            put(word + 1, high);
        }
        for (word, value) in self.words.into_iter().enumerate() {
            put(10 + word, value);
        }
        bytes
    }
}

/// The data of [`Command::deallocate`]: the range.
pub(super) fn deallocation(first: u64, count: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&count.to_le_bytes());
    bytes[8..].copy_from_slice(&first.to_le_bytes());
    bytes
}

/// The completion of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Completion {
    /// Identifier of the command.
    pub(super) number: u16,
    /// 0 means success.
    status: u16,
}

impl Completion {
    /// Decodes the last dword of a completion, whose phase has been checked.
    pub(super) fn of_word(word: u32) -> Self {
        Self {
            number: word as u16,
            // Without the bits for retries and for more information in a log.
            status: (word >> 17) as u16 & 0x7ff,
        }
    }

    /// # Errors
    /// The error that the controller reports.
    pub(super) fn check(self) -> Result<()> {
        let (text, errno) = match self.status {
            0 => return Ok(()),
            0x001 => ("it does not know the command", libc::ENOTSUP),
            0x002 => ("it does not take a field of the command", libc::EINVAL),
            0x00b => ("there is no such namespace", libc::ENXIO),
            0x020 | 0x182 => ("the namespace is write protected", libc::EROFS),
            0x080 => ("the range passes the end of the namespace", libc::ENOSPC),
            0x081 => ("the namespace has no room left", libc::ENOSPC),
            0x082 => ("the namespace is not ready", libc::EIO),
            0x280 => ("the write failed", libc::EIO),
            0x281 => ("the medium cannot be read there", libc::EIO),
            _ => ("the command failed", libc::EIO),
        };
        Err(Error::os(errno).with_message(format!(
            "The NVMe controller says that {text} (status {:#05x})",
            self.status
        )))
    }

    /// Whether the controller never accepts such a command.
    pub(super) fn is_refusal(self) -> bool {
        matches!(self.status, 0x001 | 0x002)
    }
}

/// The part of a controller's identify data that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct About {
    /// Maximum data length of a command, in bytes.
    pub(super) most: u64,
    pub(super) namespaces: u32,
    pub(super) zeroes: bool,
    pub(super) deallocates: bool,
    /// Whether it has a volatile write cache.
    pub(super) cached: bool,
}

impl About {
    /// Decodes the [`IDENTIFY`] bytes; `page` is the minimum page size of the controller.
    pub(super) fn of(bytes: &[u8; IDENTIFY], page: u64) -> Self {
        let optional = le16(bytes, 520).unwrap_or_default();
        Self {
            most: match bytes[77] {
                0 => u64::MAX,
                // A power of two, in pages.
                power => page.saturating_mul(1u64.checked_shl(power.into()).unwrap_or(u64::MAX)),
            },
            namespaces: le32(bytes, 516).unwrap_or_default(),
            zeroes: optional & 1 << 3 != 0,
            deallocates: optional & 1 << 2 != 0,
            cached: bytes[525] & 1 != 0,
        }
    }
}

/// The part of a namespace's identify data that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Namespace {
    pub(super) block: u32,
    pub(super) blocks: u64,
    /// Zeroes may be written by deallocating blocks.
    pub(super) zeroes_deallocate: bool,
    pub(super) protected: bool,
}

impl Namespace {
    /// Decodes the [`IDENTIFY`] bytes.
    ///
    /// # Errors
    /// If the namespace does not exist, or its block format or size is not supported.
    pub(super) fn of(bytes: &[u8; IDENTIFY]) -> Result<Self> {
        let blocks = le64(bytes, 0).unwrap_or_default();
        if blocks == 0 {
            return Err(Error::os(libc::ENXIO).with_message("There is no such namespace"));
        }
        let formatted = bytes[26];
        let format = usize::from(formatted & 0xf | (formatted & 0x60) >> 1);
        let known = usize::from(bytes[25]);
        if format > known.min(63) {
            return Err(Error::os(libc::EIO).with_message(
                "The NVMe controller gives a format of blocks that it does not have",
            ));
        }
        let word = le32(bytes, 128 + 4 * format).unwrap_or_default();
        let (metadata, power) = (word as u16, (word >> 16) as u8);
        if metadata != 0 {
            return Err(Error::unsupported(
                "The blocks of the namespace have metadata: it can be formatted without",
            ));
        }
        if !(9..=16).contains(&power) {
            return Err(Error::unsupported(format!(
                "The namespace has blocks of 2^{power} bytes"
            )));
        }
        let len = blocks.checked_mul(1 << power);
        if len.is_none_or(|len| i64::try_from(len).is_err()) {
            return Err(Error::os(libc::EFBIG).with_message("The namespace is too large"));
        }
        Ok(Self {
            block: 1 << power,
            blocks,
            zeroes_deallocate: bytes[33] & 0xf == 0x9,
            protected: bytes[99] & 1 != 0,
        })
    }

    pub(super) fn len(&self) -> u64 {
        self.blocks * u64::from(self.block)
    }
}
