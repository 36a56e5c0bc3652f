//! What precedes the table: partition table, boot sector and the additional sectors of FAT32.

use super::{FIRST_CLUSTER, FatType, SECTOR};

/// Identifies the volume in its boot sector, and the disk in its partition table.
const SERIAL: u32 = 0xfabe_1afd;
const DISK: [u8; 4] = [0xfa, 0xfd, 0x1a, 0xbe];

/// Sector where FAT32 keeps the backup of the first sectors.
const BACKUP: u64 = 6;

/// Sector where FAT32 keeps the number of free clusters.
const INFO: u64 = 1;

/// The layout of a volume; sectors are counted from its first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Volume {
    pub(in super::super) fat: FatType,
    /// Number of sectors of the disk that precede it.
    pub(in super::super) hidden: u32,
    pub(in super::super) sectors: u32,
    pub(in super::super) heads: u16,
    pub(in super::super) sectors_per_track: u16,
    pub(in super::super) sectors_per_cluster: u8,
    pub(in super::super) reserved: u16,
    /// Number of copies of the table.
    pub(in super::super) tables: u8,
    pub(in super::super) sectors_per_table: u32,
    /// Number of entries of a root directory that precedes the clusters.
    pub(in super::super) root_entries: u16,
    /// The first cluster of a root directory that is stored in clusters.
    pub(in super::super) root_cluster: u32,
}

impl Volume {
    pub(in super::super) fn cluster_bytes(&self) -> u64 {
        u64::from(self.sectors_per_cluster) * SECTOR
    }

    /// The first sector of a root directory that precedes the clusters.
    pub(in super::super) fn root_start(&self) -> u64 {
        let tables = u64::from(self.tables) * u64::from(self.sectors_per_table);
        u64::from(self.reserved) + tables
    }

    pub(in super::super) fn root_sectors(&self) -> u64 {
        (u64::from(self.root_entries) * 32).div_ceil(SECTOR)
    }

    /// The first sector of the first cluster.
    pub(in super::super) fn data_start(&self) -> u64 {
        self.root_start() + self.root_sectors()
    }

    pub(in super::super) fn clusters(&self) -> u32 {
        let sectors = u64::from(self.sectors).saturating_sub(self.data_start());
        (sectors / u64::from(self.sectors_per_cluster.max(1))) as u32
    }

    /// The byte offset of a cluster on the disk.
    pub(in super::super) fn cluster_offset(&self, cluster: u32) -> u64 {
        let sector = u64::from(self.hidden) + self.data_start();
        let number = u64::from(cluster.saturating_sub(FIRST_CLUSTER));
        sector * SECTOR + number * self.cluster_bytes()
    }

    fn media(&self) -> u8 {
        if self.hidden == 0 { 0xf0 } else { 0xf8 }
    }

    /// The first two entries of the table.
    pub(in super::super) fn first_entries(&self) -> [u32; 2] {
        let end = self.fat.end_of_chain();
        [end & !0xff | u32::from(self.media()), end]
    }

    /// A sector before the table, by number.
    pub(in super::super) fn reserved_sector(
        &self,
        number: u64,
        label: Option<&[u8; 11]>,
        used: u32,
    ) -> [u8; SECTOR as usize] {
        let is_32 = self.fat == FatType::Fat32;
        match number {
            0 => self.boot_sector(label),
            BACKUP if is_32 => self.boot_sector(label),
            INFO if is_32 => self.info_sector(used),
            number if is_32 && number == BACKUP + INFO => self.info_sector(used),
            _ => [0; SECTOR as usize],
        }
    }

    /// Section "Boot Sector and BPB".
    fn boot_sector(&self, label: Option<&[u8; 11]>) -> [u8; SECTOR as usize] {
        let mut sector = [0; SECTOR as usize];
        let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
        let is_32 = self.fat == FatType::Fat32;
        // The number of sectors has two fields, only one of which is used.
        let small = u16::try_from(self.sectors).unwrap_or(0);
        let large = if small == 0 { self.sectors } else { 0 };
        put(0, &[0xeb, if is_32 { 0x58 } else { 0x3c }, 0x90]);
        put(3, b"MSWIN4.1");
        put(11, &(SECTOR as u16).to_le_bytes());
        put(13, &[self.sectors_per_cluster]);
        put(14, &self.reserved.to_le_bytes());
        put(16, &[self.tables]);
        put(17, &self.root_entries.to_le_bytes());
        put(19, &small.to_le_bytes());
        put(21, &[self.media()]);
        put(24, &self.sectors_per_track.to_le_bytes());
        put(26, &self.heads.to_le_bytes());
        put(28, &self.hidden.to_le_bytes());
        put(32, &large.to_le_bytes());
        let drive = if self.hidden == 0 { 0 } else { 0x80 };
        let rest = if is_32 {
            put(36, &self.sectors_per_table.to_le_bytes());
            put(44, &self.root_cluster.to_le_bytes());
            put(48, &(INFO as u16).to_le_bytes());
            put(50, &(BACKUP as u16).to_le_bytes());
            64
        } else {
            put(22, &(self.sectors_per_table as u16).to_le_bytes());
            36
        };
        put(rest, &[drive, 0, 0x29]);
        put(rest + 3, &SERIAL.to_le_bytes());
        put(rest + 7, label.unwrap_or(b"NO NAME    "));
        put(rest + 18, self.fat.name().as_bytes());
        put(rest + 23, b"   ");
        put(510, &[0x55, 0xaa]);
        sector
    }

    /// Section "FAT32 FSInfo Sector Structure and Backup Boot Sector".
    fn info_sector(&self, used: u32) -> [u8; SECTOR as usize] {
        let mut sector = [0; SECTOR as usize];
        let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"RRaA");
        put(484, b"rrAa");
        put(488, &self.clusters().saturating_sub(used).to_le_bytes());
        put(492, &used.saturating_add(FIRST_CLUSTER).to_le_bytes());
        put(510, &[0x55, 0xaa]);
        sector
    }

    /// The first sector of a hard disk, with the volume as its only partition.
    pub(in super::super) fn partition_table(&self) -> [u8; SECTOR as usize] {
        let mut sector = [0; SECTOR as usize];
        let last = u64::from(self.hidden) + u64::from(self.sectors) - 1;
        let (first, within) = self.address(u64::from(self.hidden));
        let (end, end_within) = self.address(last);
        let kind = match (self.fat, within && end_within) {
            (FatType::Fat12, _) => 0x01,
            (FatType::Fat16, true) => 0x06,
            (FatType::Fat16, false) => 0x0e,
            (FatType::Fat32, true) => 0x0b,
            (FatType::Fat32, false) => 0x0c,
        };
        sector[440..444].copy_from_slice(&DISK);
        sector[446] = 0x80;
        sector[447..450].copy_from_slice(&first);
        sector[450] = kind;
        sector[451..454].copy_from_slice(&end);
        sector[454..458].copy_from_slice(&self.hidden.to_le_bytes());
        sector[458..462].copy_from_slice(&self.sectors.to_le_bytes());
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    /// Head, sector and cylinder of a sector of the disk, and whether it can be addressed this way.
    fn address(&self, sector: u64) -> ([u8; 3], bool) {
        let (heads, per_track) = (u64::from(self.heads), u64::from(self.sectors_per_track));
        let (track, sector) = (sector / per_track, sector % per_track + 1);
        let (cylinder, head) = (track / heads, track % heads);
        if cylinder > 1023 {
            return ([0xfe, 0xff, 0xff], false);
        }
        let high = (cylinder >> 2 & 0xc0) as u8;
        ([head as u8, sector as u8 | high, cylinder as u8], true)
    }
}

impl Volume {
    /// The volume that a boot sector describes, located after `hidden` sectors of the disk and at most `room` sectors
    /// long; `None` if it does not describe one.
    pub(in super::super) fn from_bytes(
        sector: &[u8; SECTOR as usize],
        hidden: u32,
        room: u64,
    ) -> Option<Self> {
        let pair = |at: usize| u16::from_le_bytes([sector[at], sector[at + 1]]);
        let number = |at: usize| u32::from(pair(at)) | u32::from(pair(at + 2)) << 16;
        let [small, small_table] = [pair(19), pair(22)];
        let is_32 = small_table == 0;
        let sectors = match small {
            0 => number(32),
            small => u32::from(small),
        };
        let volume = Self {
            fat: FatType::Fat32,
            hidden,
            sectors,
            heads: pair(26),
            sectors_per_track: pair(24),
            sectors_per_cluster: sector[13],
            reserved: pair(14),
            tables: sector[16],
            sectors_per_table: match is_32 {
                true => number(36),
                false => u32::from(small_table),
            },
            root_entries: pair(17),
            root_cluster: if is_32 { number(44) } else { 0 },
        };
        // With FAT32, only one of several tables may be active, which is not supported.
        let understood = matches!(sector[0], 0xeb | 0xe9)
            && sector[510..] == [0x55, 0xaa]
            && u64::from(pair(11)) == SECTOR
            && volume.sectors_per_cluster.is_power_of_two()
            && volume.reserved != 0
            && (1..=2).contains(&volume.tables)
            && u64::from(sectors) <= room
            && volume.data_start() < u64::from(sectors)
            && (!is_32 || volume.root_entries == 0 && volume.root_cluster != 0)
            && (!is_32 || pair(40) & 0x80 == 0)
            && (is_32 || volume.root_entries != 0);
        if !understood {
            return None;
        }
        let clusters = volume.clusters();
        let fat = match is_32 {
            true => FatType::Fat32,
            false => FatType::of_clusters(clusters),
        };
        let fits = fat.table_sectors(u64::from(clusters)) <= u64::from(volume.sectors_per_table)
            && (is_32 || fat != FatType::Fat32)
            && clusters < fat.bad_cluster() - FIRST_CLUSTER;
        fits.then_some(Self { fat, ..volume })
    }
}
