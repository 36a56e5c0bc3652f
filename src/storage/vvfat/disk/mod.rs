//! The structures of a FAT disk, according to Microsoft's "FAT: General Overview of On-Disk Format" (1.03).

pub(super) mod boot;
pub(super) mod entry;
pub(super) mod long_name;
pub(super) mod table;
pub(super) mod time;

/// Size of a sector in bytes.
pub(super) const SECTOR: u64 = 512;

/// The first cluster that can hold data.
pub(super) const FIRST_CLUSTER: u32 = 2;

/// The type of a volume, named after the width of its table entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FatType {
    Fat12,
    Fat16,
    Fat32,
}

impl FatType {
    /// The type of a volume with this many clusters; nothing else determines it (section "FAT Type Determination").
    pub(super) fn of_clusters(clusters: u32) -> Self {
        match clusters {
            0..4085 => Self::Fat12,
            4085..65525 => Self::Fat16,
            _ => Self::Fat32,
        }
    }

    /// The usual name of the type.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fat12 => "FAT12",
            Self::Fat16 => "FAT16",
            Self::Fat32 => "FAT32",
        }
    }

    /// Number of bits per table entry.
    fn bits(self) -> u64 {
        match self {
            Self::Fat12 => 12,
            Self::Fat16 => 16,
            Self::Fat32 => 32,
        }
    }

    /// Number of sectors of a table with entries for this many clusters.
    pub(super) fn table_sectors(self, clusters: u64) -> u64 {
        let entries = clusters.saturating_add(u64::from(FIRST_CLUSTER));
        let bytes = entries.saturating_mul(self.bits()).div_ceil(8);
        bytes.div_ceil(SECTOR)
    }

    /// The table entry of the last cluster of a chain.
    pub(super) fn end_of_chain(self) -> u32 {
        match self {
            Self::Fat12 => 0x0fff,
            Self::Fat16 => 0xffff,
            Self::Fat32 => 0x0fff_ffff,
        }
    }

    /// The table entry of an unusable cluster.
    pub(super) fn bad_cluster(self) -> u32 {
        self.end_of_chain() - 8
    }
}
