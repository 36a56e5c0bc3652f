//! The structures of a virtio block device ("Virtual I/O Device (VIRTIO) Version 1.2", section 5.2).

/// Sizes and offsets of the device are counted in these, whatever its block size.
pub(super) const SECTOR: u64 = 512;
/// Maximum number of segments of one discard or write-zeroes request.
pub(super) const SEGMENTS: u32 = 32;
/// Maximum number of sectors of such a segment.
pub(super) const SEGMENT_SECTORS: u32 = 1 << 22;
/// Length in bytes of such a segment in the request.
pub(super) const SEGMENT: usize = 16;
/// Maximum number of data segments of one request.
const DATA_SEGMENTS: u32 = 126;
/// Length in bytes of the head of each request.
pub(super) const HEAD: usize = 16;
/// Length in bytes of the device's ID.
pub(super) const ID: usize = 20;

/// Feature bits of the device and its queues.
pub(super) mod feature {
    pub(in super::super) const SEG_MAX: u64 = 1 << 2;
    pub(in super::super) const RO: u64 = 1 << 5;
    pub(in super::super) const BLK_SIZE: u64 = 1 << 6;
    pub(in super::super) const FLUSH: u64 = 1 << 9;
    pub(in super::super) const TOPOLOGY: u64 = 1 << 10;
    pub(in super::super) const MQ: u64 = 1 << 12;
    pub(in super::super) const DISCARD: u64 = 1 << 13;
    pub(in super::super) const WRITE_ZEROES: u64 = 1 << 14;
    pub(in super::super) const INDIRECT_DESC: u64 = 1 << 28;
    pub(in super::super) const EVENT_IDX: u64 = 1 << 29;
    pub(in super::super) const PROTOCOL_FEATURES: u64 = 1 << 30;
    pub(in super::super) const VERSION_1: u64 = 1 << 32;
}

/// The type of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    In,
    Out,
    Flush,
    GetId,
    Discard,
    WriteZeroes,
}

/// The head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// None for an unknown type.
    pub kind: Option<Kind>,
    pub sector: u64,
}

impl Head {
    pub(super) fn from_bytes(bytes: [u8; HEAD]) -> Self {
        let [a, b, c, d, _, _, _, _, sector @ ..] = bytes;
        let kind = match u32::from_le_bytes([a, b, c, d]) {
            0 => Some(Kind::In),
            1 => Some(Kind::Out),
            4 => Some(Kind::Flush),
            8 => Some(Kind::GetId),
            11 => Some(Kind::Discard),
            13 => Some(Kind::WriteZeroes),
            _ => None,
        };
        Self {
            kind,
            sector: u64::from_le_bytes(sector),
        }
    }
}

/// A range to discard, or to fill with zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub sector: u64,
    pub sectors: u32,
    pub flags: u32,
}

impl Segment {
    /// The flag that allows zeroes to be deallocated on the host.
    pub(super) const UNMAP: u32 = 1;

    pub(super) fn from_bytes(bytes: [u8; SEGMENT]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, flags @ ..] = bytes;
        Self {
            sector: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            sectors: u32::from_le_bytes([i, j, k, l]),
            flags: u32::from_le_bytes(flags),
        }
    }
}

/// The configuration space of a device with this many sectors.
pub(super) fn config(sectors: u64, queues: u16, writable: bool) -> Vec<u8> {
    let (most, segments) = match writable {
        true => (SEGMENT_SECTORS, SEGMENTS),
        false => (0, 0),
    };
    let parts: [&[u8]; 18] = [
        &sectors.to_le_bytes(),
        // size_max is not offered.
        &0u32.to_le_bytes(),
        &DATA_SEGMENTS.to_le_bytes(),
        // A geometry is not offered.
        &[0; 4],
        &(SECTOR as u32).to_le_bytes(),
        // Physical blocks of 2^3 sectors, aligned to the first sector.
        &[3, 0],
        // Minimum and optimal I/O size, in sectors.
        &8u16.to_le_bytes(),
        &2048u32.to_le_bytes(),
        // The device has a write cache, which cannot be turned off.
        &[1, 0],
        &queues.to_le_bytes(),
        &most.to_le_bytes(),
        &segments.to_le_bytes(),
        // Only discards of whole clusters have an effect; an alignment of this many sectors is not too coarse.
        &8u32.to_le_bytes(),
        &most.to_le_bytes(),
        &segments.to_le_bytes(),
        &[u8::from(writable)],
        &[0; 3],
        &[],
    ];
    parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_the_configuration_stand_where_the_specification_has_them() {
        let config = config(0x1122_3344_5566, 3, true);
        assert_eq!(config.len(), 60);
        assert_eq!(config[..8], [0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0]);
        assert_eq!(config[20..24], [0, 2, 0, 0]);
        assert_eq!(config[24..28], [3, 0, 8, 0]);
        assert_eq!(config[34..36], [3, 0]);
        assert_eq!(config[36..44], [0, 0, 64, 0, 32, 0, 0, 0]);
        assert_eq!(config[48..57], [0, 0, 64, 0, 32, 0, 0, 0, 1]);
    }

    #[test]
    fn heads_and_segments_are_little_endian() {
        let mut bytes = [0; HEAD];
        bytes[0] = 13;
        bytes[9] = 1;
        let head = Head::from_bytes(bytes);
        assert_eq!((head.kind, head.sector), (Some(Kind::WriteZeroes), 256));
        bytes[0] = 99;
        assert_eq!(Head::from_bytes(bytes).kind, None);
        let segment = Segment::from_bytes([1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!((segment.sector, segment.sectors, segment.flags), (1, 2, 3));
    }
}
