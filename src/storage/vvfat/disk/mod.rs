//! The structures of a FAT disk, by Microsoft's "FAT: General Overview of On-Disk Format" (1.03).

pub(super) mod boot;
pub(super) mod entry;
pub(super) mod long_name;
pub(super) mod table;
pub(super) mod time;

/// Bytes of a sector.
pub(super) const SECTOR: u64 = 512;

/// The first cluster that can hold anything.
pub(super) const FIRST_CLUSTER: u32 = 2;

/// How wide the entries of the table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FatType {
    Fat12,
    Fat16,
    Fat32,
}

impl FatType {
    /// The type of a volume of so many clusters; nothing else decides it (section "FAT Type
    /// Determination").
    pub(super) fn of_clusters(clusters: u32) -> Self {
        match clusters {
            0..4085 => Self::Fat12,
            4085..65525 => Self::Fat16,
            _ => Self::Fat32,
        }
    }

    /// As it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fat12 => "FAT12",
            Self::Fat16 => "FAT16",
            Self::Fat32 => "FAT32",
        }
    }

    /// Bits of an entry of the table.
    fn bits(self) -> u64 {
        match self {
            Self::Fat12 => 12,
            Self::Fat16 => 16,
            Self::Fat32 => 32,
        }
    }

    /// Sectors of a table with entries for so many clusters.
    pub(super) fn table_sectors(self, clusters: u64) -> u64 {
        let entries = clusters.saturating_add(u64::from(FIRST_CLUSTER));
        let bytes = entries.saturating_mul(self.bits()).div_ceil(8);
        bytes.div_ceil(SECTOR)
    }

    /// The entry of the last cluster of a chain.
    pub(super) fn end_of_chain(self) -> u32 {
        match self {
            Self::Fat12 => 0x0fff,
            Self::Fat16 => 0xffff,
            Self::Fat32 => 0x0fff_ffff,
        }
    }

    /// The entry of a cluster that cannot be used.
    pub(super) fn bad_cluster(self) -> u32 {
        self.end_of_chain() - 8
    }
}
