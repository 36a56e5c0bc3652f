//! The properties of a unit, and retries of commands.

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::memory::IoBuf;
use crate::sys::libiscsi::{Command, Data, Status};

use super::scsi::{self, BlockLimits, Capacity, Reply};
use super::session::Connection;

/// Maximum number of retries after UNIT ATTENTION.
const ATTENTIONS: u32 = 32;
/// How long a unit may be busy, and the delays between retries.
const BUSY: Duration = Duration::from_secs(30);
const PAUSES: [Duration; 5] = [
    Duration::from_millis(2),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
];
/// Supported block sizes, in bytes.
const BLOCKS: std::ops::RangeInclusive<u32> = 512..=64 << 10;

/// The properties of a unit, as they were when it was queried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) capacity: Capacity,
    pub(super) limits: BlockLimits,
    /// It accepts only the short forms of commands, and is read-only.
    pub(super) rom: bool,
    /// Its medium is removable.
    removable: bool,
    pub(super) read_only: bool,
    /// Single writes can be made durable.
    pub(super) through: bool,
    /// Writes may be lost on a power failure of the unit until they are flushed.
    pub(super) cached: bool,
    pub(super) unmap: bool,
    /// WRITE SAME can unmap blocks.
    pub(super) unmap_same: bool,
    /// Its names, by which it is recognized when it is checked again.
    names: Vec<u8>,
}

/// The error for a command that has failed with this status.
pub(super) fn refused(status: Status) -> Error {
    let (errno, text) = match status {
        Status::Sense { key, code } => match (key, code) {
            (scsi::ILLEGAL_REQUEST, scsi::INVALID_OPCODE) => (
                libc::ENOTSUP,
                "The unit does not have the command".to_owned(),
            ),
            (scsi::ILLEGAL_REQUEST, scsi::NO_SUCH_LUN) => {
                (libc::ENXIO, "The target has no such unit".to_owned())
            }
            (scsi::ILLEGAL_REQUEST, scsi::OUT_OF_RANGE) => (
                libc::EINVAL,
                "The unit says that the range is beyond its end".to_owned(),
            ),
            (scsi::ILLEGAL_REQUEST, _) => (
                libc::EINVAL,
                format!("The unit refuses the command (sense code {code:04x})"),
            ),
            (scsi::DATA_PROTECT, scsi::NO_ROOM) => {
                (libc::ENOSPC, "The unit has no room left".to_owned())
            }
            (scsi::DATA_PROTECT, _) => (libc::EACCES, "The unit is write-protected".to_owned()),
            (scsi::NOT_READY, _) => (
                libc::ENXIO,
                format!("The unit is not ready (sense code {code:04x})"),
            ),
            (scsi::MEDIUM_ERROR | scsi::HARDWARE_ERROR, _) => (
                libc::EIO,
                format!("The unit reports an error of its medium (sense code {code:04x})"),
            ),
            (scsi::ABORTED, _) => (
                libc::EIO,
                format!("The unit gave the command up (sense code {code:04x})"),
            ),
            _ => (
                libc::EIO,
                format!("The unit reports an error (sense key {key:x}, code {code:04x})"),
            ),
        },
        Status::Busy | Status::Full => (libc::EBUSY, "The unit is busy".to_owned()),
        Status::Reserved => (
            libc::EBUSY,
            "The unit is reserved for somebody else".to_owned(),
        ),
        Status::TimedOut => (libc::ETIMEDOUT, "The unit does not answer".to_owned()),
        Status::Good { .. } | Status::Cancelled => {
            (libc::ECONNRESET, "The connection was ended".to_owned())
        }
        Status::Other(number) => (
            libc::EIO,
            format!("The unit reports the status {number:#x}"),
        ),
    };
    Error::new(ErrorKind::Os, text).with_errno(errno)
}

/// Whether a unit does not support a command, or not in this form.
pub(super) fn is_unknown(error: &Error) -> bool {
    matches!(error.os_errno(), Some(libc::ENOTSUP | libc::EINVAL))
}

/// Carries out commands, and retries those that the unit is not ready for. Returns the data received in their order,
/// each with the number of missing bytes. After UNIT ATTENTION, `attention` is called before anything is sent again.
///
/// # Errors
/// If the unit, `attention` or the connection fails, or `control` ends the wait.
pub(super) fn carry_out(
    connection: &Connection,
    commands: Vec<Command>,
    control: &JobControl,
    mut attention: impl FnMut(u16) -> Result<()>,
) -> Result<Vec<(IoBuf, usize)>> {
    let mut results: Vec<_> = commands.iter().map(|_| (IoBuf::new(), 0)).collect();
    let forms: Vec<_> = commands
        .iter()
        .map(|command| (command.cdb, command.cdb_len))
        .collect();
    let mut places: Vec<_> = (0..commands.len()).collect();
    let mut commands = commands;
    let mut attentions = 0;
    let mut pauses = PAUSES.iter().copied();
    let end = Instant::now() + BUSY;
    while !commands.is_empty() {
        let replies = connection.run(std::mem::take(&mut commands), control)?;
        let mut again = Vec::new();
        let mut pause = None;
        for (place, (status, data)) in places.iter().zip(replies) {
            let is_attention = match status {
                Status::Good { missing } => {
                    if let (Data::In(data), Some(result)) = (data, results.get_mut(*place)) {
                        *result = (data, missing);
                    }
                    continue;
                }
                Status::Sense { key, code } if key == scsi::UNIT_ATTENTION => {
                    attention(code)?;
                    true
                }
                // It is becoming ready.
                Status::Sense {
                    key: scsi::NOT_READY,
                    code: 0x0401,
                }
                | Status::Busy
                | Status::Full => false,
                other => return Err(refused(other)),
            };
            let over = match is_attention {
                true => attentions >= ATTENTIONS,
                false => Instant::now() >= end,
            };
            if over {
                return Err(refused(status));
            }
            if !is_attention {
                pause = Some(());
            }
            let Some((cdb, cdb_len)) = forms.get(*place).copied() else {
                continue;
            };
            again.push(*place);
            commands.push(Command { cdb, cdb_len, data });
        }
        attentions += 1;
        if pause.is_some() {
            let longest = PAUSES.last().copied().unwrap_or_default();
            control.sleep(pauses.next().unwrap_or(longest))?;
        }
        places = again;
    }
    Ok(results)
}

/// Carries out one command, and returns the data received.
fn ask(connection: &Connection, command: Command, control: &JobControl) -> Result<Vec<u8>> {
    let (data, missing) = carry_out(connection, vec![command], control, |_| Ok(()))?
        .pop()
        .unwrap_or_default();
    let len = data.len().saturating_sub(missing);
    Ok(data.get(..len).unwrap_or_default().to_vec())
}

/// Queries the capacity of the unit.
///
/// # Errors
/// If the unit reports an error, or its block size or length is not supported.
fn capacity(connection: &Connection, rom: bool, control: &JobControl) -> Result<Capacity> {
    let capacity = match rom {
        true => Reply(&ask(connection, scsi::read_capacity_10()?, control)?).capacity_10()?,
        false => Reply(&ask(connection, scsi::read_capacity_16()?, control)?).capacity_16()?,
    };
    let block = capacity.block;
    let len = capacity.blocks.checked_mul(u64::from(block));
    let fits = len.is_some_and(|len| i64::try_from(len).is_ok());
    if !BLOCKS.contains(&block) || !block.is_power_of_two() || !fits {
        return Err(Error::unsupported(format!(
            "Units of {} blocks of {block} bytes are not supported",
            capacity.blocks
        )));
    }
    Ok(capacity)
}

impl Device {
    /// Queries the properties of a unit.
    ///
    /// # Errors
    /// If the unit reports an error, or is neither a disk nor a medium that is read like one.
    pub(super) fn of(connection: &Connection, control: &JobControl) -> Result<Self> {
        let ready = carry_out(connection, vec![scsi::test_unit_ready()], control, |_| {
            Ok(())
        });
        let told = ask(connection, scsi::inquiry()?, control)?;
        let removable = Reply(&told).is_removable();
        let rom = match Reply(&told).unit_type()? {
            Some(scsi::DISK) => false,
            Some(scsi::ROM) => true,
            None => {
                return Err(Error::new(ErrorKind::Os, "The target has no such unit")
                    .with_errno(libc::ENXIO));
            }
            Some(kind) => {
                return Err(Error::unsupported(format!(
                    "The unit is of type {kind:#x}, which is no disk"
                )));
            }
        };
        ready?;
        let capacity = capacity(connection, rom, control)?;
        // A unit is not required to support these pages.
        let page = |page| match ask(connection, scsi::inquiry_page(page)?, control) {
            Err(error) if is_unknown(&error) => Ok(Vec::new()),
            other => other,
        };
        let names = page(scsi::IDENTIFICATION)?;
        if rom {
            return Ok(Self {
                capacity,
                limits: BlockLimits::default(),
                rom,
                removable,
                read_only: true,
                through: false,
                cached: false,
                unmap: false,
                unmap_same: false,
                names,
            });
        }
        let limits = Reply(&page(scsi::BLOCK_LIMITS)?).block_limits();
        let (unmap, unmap_same) = match capacity.thin {
            true => Reply(&page(scsi::PROVISIONING)?).provisioning(),
            false => (false, false),
        };
        let modes = match ask(connection, scsi::mode_sense()?, control) {
            Err(error) if is_unknown(&error) => Vec::new(),
            other => other?,
        };
        let modes = Reply(&modes).modes();
        Ok(Self {
            capacity,
            limits,
            rom,
            removable,
            read_only: modes.read_only,
            through: modes.through,
            cached: modes.cached.unwrap_or(true),
            unmap,
            unmap_same,
            names,
        })
    }

    /// The length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.capacity
            .blocks
            .saturating_mul(u64::from(self.capacity.block))
    }

    /// Whether `now` is the same unit, as far as that can be known; it may have grown beyond `len`.
    pub(super) fn is_same(&self, now: &Self, len: u64) -> bool {
        self.names == now.names
            && self.capacity.block == now.capacity.block
            && self.rom == now.rom
            && now.len() >= len
    }

    /// Whether a unit that reports this code may have another medium.
    pub(super) fn may_have_another(&self, code: u16) -> bool {
        self.removable && code == scsi::MEDIUM_CHANGED
    }
}
