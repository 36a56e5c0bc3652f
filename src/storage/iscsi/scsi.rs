//! SCSI commands for disks (SBC-3, SPC-4, and READ of MMC), and the decoding of their replies.

use crate::bytes::{be16, be32, be64};
use crate::error::{Error, Result};
use crate::memory::{self, IoBuf, Payload};
use crate::sys::libiscsi::{Command, Data};

/// Sense keys.
pub(super) const NOT_READY: u8 = 2;
pub(super) const MEDIUM_ERROR: u8 = 3;
pub(super) const HARDWARE_ERROR: u8 = 4;
pub(super) const ILLEGAL_REQUEST: u8 = 5;
pub(super) const UNIT_ATTENTION: u8 = 6;
pub(super) const DATA_PROTECT: u8 = 7;
pub(super) const ABORTED: u8 = 0xb;

/// Additional sense codes with their qualifiers.
pub(super) const INVALID_OPCODE: u16 = 0x2000;
pub(super) const OUT_OF_RANGE: u16 = 0x2100;
pub(super) const NO_SUCH_LUN: u16 = 0x2500;
pub(super) const NO_ROOM: u16 = 0x2707;
pub(super) const MEDIUM_CHANGED: u16 = 0x2800;

/// Peripheral device types.
pub(super) const DISK: u8 = 0;
pub(super) const ROM: u8 = 5;

/// Allocation length of replies of which no more is needed.
const SHORT: usize = 255;
/// Allocation length of replies that report runs of blocks.
const RUNS: usize = 8 + 16 * 4096;

/// A range of a disk, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocks {
    pub(super) first: u64,
    pub(super) count: u32,
}

fn command(bytes: &[u8], data: Data) -> Command {
    let mut cdb = [0; 16];
    for (to, from) in cdb.iter_mut().zip(bytes) {
        *to = *from;
    }
    Command {
        cdb,
        cdb_len: bytes.len(),
        data,
    }
}

fn taking(bytes: &[u8], len: usize) -> Result<Command> {
    Ok(command(bytes, Data::In(memory::zeroed(len)?)))
}

fn long(opcode: u8, flags: u8, blocks: Blocks) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[1] = flags;
    cdb[2..10].copy_from_slice(&blocks.first.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.count.to_be_bytes());
    cdb
}

pub(super) fn test_unit_ready() -> Command {
    command(&[0; 6], Data::None)
}

pub(super) fn inquiry() -> Result<Command> {
    taking(&[0x12, 0, 0, 0, SHORT as u8, 0], SHORT)
}

/// A page of the unit's vital product data.
pub(super) fn inquiry_page(page: u8) -> Result<Command> {
    taking(&[0x12, 1, page, 0, SHORT as u8, 0], SHORT)
}

pub(super) fn read_capacity_16() -> Result<Command> {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[13]) = (0x9e, 0x10, 32);
    taking(&cdb, 32)
}

pub(super) fn read_capacity_10() -> Result<Command> {
    taking(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8)
}

/// All mode pages, without block descriptors.
pub(super) fn mode_sense() -> Result<Command> {
    taking(&[0x1a, 8, 0x3f, 0, SHORT as u8, 0], SHORT)
}

/// Reads blocks into a buffer of their length; `short` uses the 10-byte command.
pub(super) fn read(blocks: Blocks, short: bool, data: IoBuf) -> Command {
    if !short {
        return command(&long(0x88, 0, blocks), Data::In(data));
    }
    let mut cdb = [0; 10];
    cdb[0] = 0x28;
    // Such units have at most 32-bit block addresses, and requests at most 16-bit block counts.
    cdb[2..6].copy_from_slice(&(blocks.first as u32).to_be_bytes());
    cdb[7..9].copy_from_slice(&(blocks.count as u16).to_be_bytes());
    command(&cdb, Data::In(data))
}

/// Writes blocks; `through` writes through the cache of the unit.
pub(super) fn write(blocks: Blocks, through: bool, data: Payload) -> Command {
    let flags = if through { 0x08 } else { 0 };
    command(&long(0x8a, flags, blocks), Data::Out(data))
}

/// Writes the same data to all blocks, or unmaps them if that makes no difference.
pub(super) fn write_same(blocks: Blocks, may_unmap: bool, block: IoBuf) -> Command {
    let flags = if may_unmap { 0x08 } else { 0 };
    command(&long(0x93, flags, blocks), Data::Out(block.into()))
}

/// Unmaps blocks.
pub(super) fn unmap(blocks: Blocks) -> Result<Command> {
    let mut list = memory::zeroed(24)?;
    list[..2].copy_from_slice(&22u16.to_be_bytes());
    list[2..4].copy_from_slice(&16u16.to_be_bytes());
    list[8..16].copy_from_slice(&blocks.first.to_be_bytes());
    list[16..20].copy_from_slice(&blocks.count.to_be_bytes());
    let cdb = [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0];
    Ok(command(&cdb, Data::Out(list.into())))
}

/// Makes everything written so far durable.
pub(super) fn synchronize_cache() -> Command {
    command(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::None)
}

/// Queries which blocks from `first` on are mapped.
pub(super) fn get_lba_status(first: u64) -> Result<Command> {
    let mut cdb = long(
        0x9e,
        0x12,
        Blocks {
            first,
            count: RUNS as u32,
        },
    );
    cdb[14] = 0;
    taking(&cdb, RUNS)
}

/// A reply, as much of it as was received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply<'a>(pub(super) &'a [u8]);

fn strange(what: &str) -> Error {
    Error::new(
        crate::ErrorKind::Os,
        format!("The target's reply to {what} makes no sense"),
    )
    .with_errno(libc::EPROTO)
}

impl Reply<'_> {
    fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    fn bit(&self, at: usize, bit: u8) -> bool {
        self.byte(at) >> bit & 1 == 1
    }

    fn number(&self, at: usize) -> u32 {
        be32(self.0, at).unwrap_or(0)
    }

    /// From INQUIRY: the type of the unit; None if there is no unit.
    pub(super) fn unit_type(&self) -> Result<Option<u8>> {
        if self.0.len() < 5 {
            return Err(strange("INQUIRY"));
        }
        Ok((self.byte(0) >> 5 == 0).then_some(self.byte(0) & 0x1f))
    }

    /// From INQUIRY: whether the medium is removable.
    pub(super) fn is_removable(&self) -> bool {
        self.bit(1, 7)
    }

    /// Decodes READ CAPACITY (16).
    pub(super) fn capacity_16(&self) -> Result<Capacity> {
        let last = be64(self.0, 0).filter(|_| self.0.len() >= 12);
        let last = last.ok_or_else(|| strange("READ CAPACITY"))?;
        Ok(Capacity {
            blocks: last
                .checked_add(1)
                .ok_or_else(|| strange("READ CAPACITY"))?,
            block: self.number(8),
            thin: self.bit(14, 7),
            zero: self.bit(14, 6),
        })
    }

    /// Decodes READ CAPACITY (10).
    pub(super) fn capacity_10(&self) -> Result<Capacity> {
        if self.0.len() < 8 {
            return Err(strange("READ CAPACITY"));
        }
        let last = self.number(0);
        Ok(Capacity {
            // An empty drive.
            blocks: if last == 0 { 0 } else { u64::from(last) + 1 },
            block: self.number(4),
            thin: false,
            zero: false,
        })
    }

    /// Whether the reply is the page of that number.
    fn is_page(&self, page: u8) -> bool {
        self.0.len() >= 4 && self.byte(1) == page
    }

    /// Decodes the block limits page.
    pub(super) fn block_limits(&self) -> BlockLimits {
        if !self.is_page(BLOCK_LIMITS) {
            return BlockLimits::default();
        }
        let same = be64(self.0, 36).unwrap_or(0);
        BlockLimits {
            transfer: self.number(8),
            unmap: self.number(20),
            same: u32::try_from(same).unwrap_or(u32::MAX),
        }
    }

    /// From the provisioning page: whether UNMAP, and whether WRITE SAME with unmapping, is supported.
    pub(super) fn provisioning(&self) -> (bool, bool) {
        match self.is_page(PROVISIONING) {
            true => (self.bit(5, 7), self.bit(5, 6)),
            false => (false, false),
        }
    }

    /// Decodes MODE SENSE.
    pub(super) fn modes(&self) -> Modes {
        let mut modes = Modes {
            read_only: self.bit(2, 7),
            through: self.bit(2, 4),
            cached: None,
        };
        let mut at = 4 + usize::from(self.byte(3));
        let end = (1 + usize::from(self.byte(0))).min(self.0.len());
        while at + 2 <= end {
            let sub_pages = self.bit(at, 6);
            let len = match sub_pages {
                true => 4 + be16(self.0, at + 2).map_or(usize::MAX / 2, usize::from),
                false => 2 + usize::from(self.byte(at + 1)),
            };
            if self.byte(at) & 0x7f == CACHING && at + 2 < end {
                modes.cached = Some(self.bit(at + 2, 2));
            }
            at = at.saturating_add(len);
        }
        modes
    }

    /// From GET LBA STATUS: runs from `first` on, as lengths in blocks and whether the blocks are mapped.
    pub(super) fn runs(&self, first: u64) -> Result<Vec<(u64, bool)>> {
        let len = (self.number(0) as usize).saturating_add(4);
        let list = self.0.get(8..len.min(self.0.len())).unwrap_or_default();
        let mut runs = Vec::with_capacity(list.len() / 16);
        let mut at = first;
        for run in list.chunks_exact(16) {
            let run = Reply(run);
            let start = be64(run.0, 0).unwrap_or(0);
            let end = start.saturating_add(u64::from(run.number(8)));
            // The first run may begin earlier.
            if end <= at || start > at || (start < at && at != first) {
                return Err(strange("GET LBA STATUS"));
            }
            runs.push((end - at, run.byte(12) & 0xf != DEALLOCATED));
            at = end;
        }
        match runs.is_empty() {
            true => Err(strange("GET LBA STATUS")),
            false => Ok(runs),
        }
    }
}

/// Pages of vital product data.
pub(super) const IDENTIFICATION: u8 = 0x83;
pub(super) const BLOCK_LIMITS: u8 = 0xb0;
pub(super) const PROVISIONING: u8 = 0xb2;
/// The caching mode page.
const CACHING: u8 = 8;
/// The provisioning status of unmapped blocks; all others count as mapped.
const DEALLOCATED: u8 = 1;

/// The capacity of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    pub(super) blocks: u64,
    /// Block size in bytes.
    pub(super) block: u32,
    /// Blocks may be unmapped.
    pub(super) thin: bool,
    /// Unmapped blocks read as zeroes.
    pub(super) zero: bool,
}

/// Maximum number of blocks of one command; 0 if the unit reports none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BlockLimits {
    pub(super) transfer: u32,
    pub(super) unmap: u32,
    pub(super) same: u32,
}

/// The mode parameters of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Modes {
    pub(super) read_only: bool,
    /// Single writes can be written through its cache.
    pub(super) through: bool,
    /// Whether it has a volatile write cache, if it reports that.
    pub(super) cached: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_their_numbers_where_they_belong() {
        let blocks = Blocks {
            first: 0x0102_0304_0506_0708,
            count: 0x0a0b_0c0d,
        };
        let read = read(blocks, false, IoBuf::new());
        let expected = [0x88, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 0, 0];
        assert_eq!((read.cdb, read.cdb_len), (expected, 16));
        let short = Blocks {
            first: 0x01020304,
            count: 0x0506,
        };
        let read = super::read(short, true, IoBuf::new());
        assert_eq!(read.cdb[..10], [0x28, 0, 1, 2, 3, 4, 0, 5, 6, 0]);
        assert_eq!(read.cdb_len, 10);
        assert_eq!(write(blocks, true, IoBuf::new().into()).cdb[..2], [0x8a, 8]);
        assert_eq!(write_same(blocks, true, IoBuf::new()).cdb[..2], [0x93, 8]);
        let unmap = unmap(blocks).unwrap();
        let Data::Out(list) = unmap.data else {
            panic!()
        };
        let expected = [
            0, 22, 0, 16, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 0, 0, 0, 0,
        ];
        assert_eq!(list[..], expected);
    }

    #[test]
    fn replies_are_believed_as_far_as_they_make_sense() {
        assert_eq!(Reply(&[0x00, 0, 5, 2, 31]).unit_type().unwrap(), Some(DISK));
        assert_eq!(Reply(&[0x7f, 0, 5, 2, 31]).unit_type().unwrap(), None);
        assert!(Reply(&[0]).unit_type().is_err());
        assert!(Reply(&[0x00, 0x80, 5, 2, 31]).is_removable());
        assert!(!Reply(&[0x80, 0x7f, 5, 2, 31]).is_removable());
        let mut capacity = [0; 32];
        (capacity[7], capacity[10], capacity[14]) = (99, 2, 0xc0);
        let capacity = Reply(&capacity).capacity_16().unwrap();
        assert_eq!((capacity.blocks, capacity.block), (100, 512));
        assert!(capacity.thin && capacity.zero);
        assert!(Reply(&[0xff; 32]).capacity_16().is_err());
        assert!(Reply(&[0; 11]).capacity_16().is_err());
        let modes = [
            15, 0, 0x90, 0, 0x01, 0x01, 0, 0x08, 0x0a, 0x04, 0, 0, 0, 0, 0, 0,
        ];
        let modes = Reply(&modes).modes();
        assert!(modes.read_only && modes.through);
        assert_eq!(modes.cached, Some(true));
        assert_eq!(Reply(&[]).modes().cached, None);
        assert_eq!(Reply(&[0xff; 40]).block_limits(), BlockLimits::default());
    }

    fn status(runs: &[(u64, u32, u8)]) -> Vec<u8> {
        let mut reply = (4 + 16 * runs.len() as u32).to_be_bytes().to_vec();
        reply.extend([0; 4]);
        for (first, count, state) in runs {
            reply.extend(first.to_be_bytes());
            reply.extend(count.to_be_bytes());
            reply.extend([*state, 0, 0, 0]);
        }
        reply
    }

    proptest::proptest! {
        #[test]
        fn no_reply_is_too_strange(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64), first: u64) {
            let reply = Reply(&bytes);
            let _ = (reply.unit_type(), reply.capacity_16(), reply.capacity_10(), reply.modes());
            let _ = (reply.block_limits(), reply.provisioning());
            let mut at = first;
            for (len, _) in reply.runs(first).unwrap_or_default() {
                proptest::prop_assert!(len > 0);
                at = at.saturating_add(len);
            }
            proptest::prop_assert!(at >= first);
        }
    }

    #[test]
    fn runs_of_blocks_follow_each_other() {
        let good = status(&[(0, 10, 1), (10, 5, 0), (15, 1, 2)]);
        let runs = Reply(&good).runs(4).unwrap();
        assert_eq!(runs, [(6, false), (5, true), (1, true)]);
        for bad in [
            status(&[]),
            status(&[(5, 10, 1)]),
            status(&[(0, 4, 1)]),
            status(&[(0, 10, 1), (11, 5, 0)]),
            status(&[(0, 10, 1), (9, 5, 0)]),
            vec![0xff; 3],
        ] {
            assert!(Reply(&bad).runs(4).is_err(), "{bad:?}");
        }
        // A run that was cut off is left out.
        assert_eq!(Reply(&good[..30]).runs(4).unwrap(), [(6, false)]);
    }
}
