//! Where everything is located on the disk, and the bytes at each position, which are generated on demand; only the
//! list of files is kept in memory.

use super::disk::boot::Volume;
use super::disk::entry::LEN;
use super::disk::{FIRST_CLUSTER, FatType, SECTOR, table};
use super::files::Files;
use super::settings::{Floppy, Settings};
use super::tree::{ROOT, Tree};
use crate::error::{Error, ErrorKind, Result};

/// Heads and sectors per track of hard disks.
const HEADS: u16 = 16;
const PER_TRACK: u16 = 63;
const CYLINDER: u64 = HEADS as u64 * PER_TRACK as u64;

/// Minimum number of entries of a hard disk's root directory.
const ROOT_ENTRIES: u16 = 512;

/// Number of copies of the table.
const TABLES: u8 = 2;

/// Maximum end of a partition in a partition table.
const MAX_SECTORS: u64 = u32::MAX as u64;

/// The disk: its layout and its contents.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) volume: Volume,
    pub(super) tree: Tree,
    pub(super) len: u64,
    /// The first free cluster.
    free: u32,
}

/// What is located at a position on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Zero,
    PartitionTable,
    /// A sector before the table, by number.
    Reserved(u64),
    /// A copy of the table, by its start.
    Table(u64),
    /// The listing of a directory, by its number and start.
    Listing(u32, u64),
    /// A file, by its number and start.
    File(u32, u64),
}

impl Layout {
    /// Lays out the disk that the settings describe, with the files that were found.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] if they do not fit.
    pub(super) fn new(settings: &Settings, mut tree: Tree) -> Result<Self> {
        let (volume, sectors) = match settings.floppy {
            Some(floppy) => of_floppy(floppy, settings.fat, &tree),
            None => of_hard_disk(settings.fat, &tree),
        };
        let fits = volume.is_some_and(|volume| {
            let needed = tree.clusters_in_all(volume.cluster_bytes());
            needed <= u64::from(volume.clusters())
                && FatType::of_clusters(volume.clusters()) == volume.fat
        });
        let Some(volume) = volume.filter(|_| fits) else {
            return Err(too_large(settings, sectors));
        };
        let free = tree.allocate(volume.cluster_bytes());
        Ok(Self {
            volume,
            tree,
            len: sectors * SECTOR,
            free,
        })
    }

    /// What is located at an offset, and where that ends.
    fn part(&self, offset: u64) -> (Part, u64) {
        let volume = &self.volume;
        let start = u64::from(volume.hidden) * SECTOR;
        let Some(within) = offset.checked_sub(start) else {
            return match offset / SECTOR {
                0 => (Part::PartitionTable, SECTOR),
                _ => (Part::Zero, start),
            };
        };
        let sector = within / SECTOR;
        let reserved = u64::from(volume.reserved);
        if sector < reserved {
            return match sector {
                // The boot sector and, with FAT32, the information sector, and their backups.
                0 | 1 | 6 | 7 => (Part::Reserved(sector), start + (sector + 1) * SECTOR),
                2..=5 => (Part::Zero, start + reserved.min(6) * SECTOR),
                _ => (Part::Zero, start + reserved * SECTOR),
            };
        }
        if sector < volume.root_start() {
            let length = u64::from(volume.sectors_per_table);
            let copy = (sector - reserved) / length;
            let begin = reserved + copy * length;
            let used = volume
                .fat
                .table_sectors(u64::from(self.free - FIRST_CLUSTER));
            return match sector - begin < used {
                true => (
                    Part::Table(start + begin * SECTOR),
                    start + (begin + used) * SECTOR,
                ),
                false => (Part::Zero, start + (begin + length) * SECTOR),
            };
        }
        if sector < volume.data_start() {
            let begin = start + volume.root_start() * SECTOR;
            let end = begin + u64::from(self.tree.node(ROOT).size);
            return match offset < end {
                true => (Part::Listing(ROOT, begin), end),
                false => (Part::Zero, start + volume.data_start() * SECTOR),
            };
        }
        self.data(offset, start)
    }

    fn data(&self, offset: u64, start: u64) -> (Part, u64) {
        let volume = &self.volume;
        let first = start + volume.data_start() * SECTOR;
        let number = (offset - first) / volume.cluster_bytes();
        let cluster = u32::try_from(number)
            .ok()
            .and_then(|number| number.checked_add(FIRST_CLUSTER));
        let owner = cluster.and_then(|cluster| self.tree.owner(cluster));
        let Some((number, clusters)) = owner else {
            return (Part::Zero, self.len);
        };
        let begin = volume.cluster_offset(clusters.start);
        let node = self.tree.node(number);
        let end = begin + u64::from(node.size);
        match (offset < end, node.is_directory) {
            (true, true) => (Part::Listing(number, begin), end),
            (true, false) => (Part::File(number, begin), end),
            (false, _) => (Part::Zero, volume.cluster_offset(clusters.end)),
        }
    }

    /// Whether the disk is known to be zero at an offset within it, and how far the answer holds.
    pub(super) fn extent(&self, offset: u64, len: u64) -> (bool, u64) {
        let limit = offset.saturating_add(len).min(self.len);
        let (part, mut end) = self.part(offset);
        let zero = part == Part::Zero;
        while end < limit {
            let (next, next_end) = self.part(end);
            if (next == Part::Zero) != zero {
                break;
            }
            end = next_end;
        }
        (zero, end.min(limit) - offset)
    }

    /// Fills `buf` with the bytes of the disk at an offset; past the end they are zeroes.
    ///
    /// # Errors
    /// Errors of reading a file.
    pub(super) fn read(&self, files: &Files, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            if at >= self.len {
                rest.fill(0);
                return Ok(());
            }
            let (part, end) = self.part(at);
            let len = usize::try_from(end.min(self.len) - at).unwrap_or(usize::MAX);
            let (piece, behind) = rest.split_at_mut(len.min(rest.len()));
            self.fill(files, part, piece, at)?;
            at += piece.len() as u64;
            rest = behind;
        }
        Ok(())
    }

    fn fill(&self, files: &Files, part: Part, buf: &mut [u8], at: u64) -> Result<()> {
        let mut of_sector = |sector: [u8; SECTOR as usize]| {
            let from = (at % SECTOR) as usize;
            let len = buf.len();
            buf.copy_from_slice(&sector[from..from + len]);
        };
        match part {
            Part::Zero => buf.fill(0),
            Part::PartitionTable => of_sector(self.volume.partition_table()),
            Part::Reserved(number) => {
                let used = self.free - FIRST_CLUSTER;
                let label = self.tree.label.as_ref();
                of_sector(self.volume.reserved_sector(number, label, used));
            }
            Part::Table(begin) => self.fill_table(buf, at - begin),
            Part::Listing(number, begin) => self.fill_listing(number, buf, at - begin),
            Part::File(number, begin) => {
                return files.read(&self.tree, number, buf, at - begin);
            }
        }
        Ok(())
    }

    fn fill_table(&self, buf: &mut [u8], offset: u64) {
        let (fat, [media, second]) = (self.volume.fat, self.volume.first_entries());
        // Runs are long, so the previous one is checked first.
        let mut run = 0..0;
        table::fill(fat, buf, offset, |cluster| match cluster {
            0 => media,
            1 => second,
            cluster if cluster >= self.free => 0,
            cluster => {
                if !run.contains(&cluster) {
                    run = self.tree.owner(cluster).map_or(0..0, |(_, run)| run);
                }
                match cluster + 1 < run.end {
                    true => cluster + 1,
                    false => fat.end_of_chain(),
                }
            }
        });
    }

    fn fill_listing(&self, number: u32, buf: &mut [u8], offset: u64) {
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let entry = self.tree.listed(number, (at / LEN as u64) as u32);
            let from = (at % LEN as u64) as usize;
            let len = (LEN - from).min(rest.len());
            let (piece, behind) = rest.split_at_mut(len);
            piece.copy_from_slice(&entry[from..from + len]);
            at += len as u64;
            rest = behind;
        }
    }
}

fn too_large(settings: &Settings, sectors: u64) -> Error {
    let capacity = match settings.floppy {
        Some(Floppy::High) => "1.44 MB".to_owned(),
        Some(Floppy::Extended) => "2.88 MB".to_owned(),
        None => {
            let hundredths = (sectors - u64::from(PER_TRACK)) * SECTOR * 100 / 1_024_000;
            format!("{}.{:02} MB", hundredths / 100, hundredths % 100)
        }
    };
    let name = settings.fat.name();
    let error = Error::new(
        ErrorKind::Limit,
        format!("Directory does not fit in {name} (capacity {capacity})"),
    );
    match (settings.fat, settings.floppy) {
        (FatType::Fat32, _) => error,
        (_, None) => error.with_hint("The type FAT32 makes the disk as large as needed"),
        (_, Some(_)) => error.with_hint("A hard disk has more room than a floppy disk"),
    }
}

/// Number of entries of the root directory: `at_least`, or as many as it needs.
fn root_entries(at_least: u16, tree: &Tree) -> u16 {
    let needed = tree.node(ROOT).size / LEN as u32;
    let needed = u16::try_from(needed.next_multiple_of(16)).unwrap_or(u16::MAX);
    at_least.max(needed)
}

/// Sizes the tables of a volume for its clusters; `None` if there is no space for any.
fn filled(volume: Volume) -> Option<Volume> {
    let front = u64::from(volume.reserved) + volume.root_sectors();
    let rest = u64::from(volume.sectors).checked_sub(front)?;
    let clusters = rest / u64::from(volume.sectors_per_cluster);
    let sectors_per_table = volume.fat.table_sectors(clusters);
    let volume = Volume {
        sectors_per_table: u32::try_from(sectors_per_table).ok()?,
        ..volume
    };
    (volume.data_start() < u64::from(volume.sectors)).then_some(volume)
}

/// The DOS formats, except that the root directory is enlarged if it has many files.
fn of_floppy(floppy: Floppy, fat: FatType, tree: &Tree) -> (Option<Volume>, u64) {
    let (per_track, per_cluster, entries) = match (floppy, fat) {
        (Floppy::High, _) => (18, 1, 224),
        (Floppy::Extended, FatType::Fat12) => (36, 2, 240),
        // This type needs more clusters than there would be with larger ones.
        (Floppy::Extended, _) => (36, 1, 240),
    };
    let sectors = 80 * 2 * u64::from(per_track);
    let volume = filled(Volume {
        fat,
        hidden: 0,
        sectors: sectors as u32,
        heads: 2,
        sectors_per_track: per_track,
        sectors_per_cluster: per_cluster,
        reserved: 1,
        tables: TABLES,
        sectors_per_table: 0,
        root_entries: root_entries(entries, tree),
        root_cluster: 0,
    });
    (volume, sectors)
}

/// 504 MiB, the most that the oldest machines can address, or with FAT12 as much as its number of clusters allows; with
/// FAT32 as much as needed, if that is more.
fn of_hard_disk(fat: FatType, tree: &Tree) -> (Option<Volume>, u64) {
    let of = |cylinders: u64, sectors_per_cluster: u8| {
        let sectors = cylinders * CYLINDER;
        let is_32 = fat == FatType::Fat32;
        let volume = u32::try_from(sectors - u64::from(PER_TRACK)).ok()?;
        filled(Volume {
            fat,
            hidden: u32::from(PER_TRACK),
            sectors: volume,
            heads: HEADS,
            sectors_per_track: PER_TRACK,
            sectors_per_cluster,
            reserved: if is_32 { 32 } else { 1 },
            tables: TABLES,
            sectors_per_table: 0,
            root_entries: if is_32 {
                0
            } else {
                root_entries(ROOT_ENTRIES, tree)
            },
            root_cluster: if is_32 { FIRST_CLUSTER } else { 0 },
        })
    };
    let cylinders = match fat {
        FatType::Fat12 => 64,
        FatType::Fat16 => 1024,
        FatType::Fat32 => {
            // The disk sizes in cylinders up to which each cluster size is used (section "FAT Volume Initialization").
            for (most, sectors_per_cluster) in [
                (16_644, 8),
                (33_288, 16),
                (66_576, 32),
                (MAX_SECTORS / CYLINDER, 64),
            ] {
                let cluster = u64::from(sectors_per_cluster) * SECTOR;
                let data = tree.clusters_in_all(cluster).saturating_mul(cluster) / SECTOR;
                // Allows for the tables, for rounding up to whole cylinders, and for an eighth of free space.
                let wanted = data.saturating_add(data / 8).div_ceil(CYLINDER) + 4;
                let cylinders = wanted.max(1024);
                if cylinders <= most {
                    return (of(cylinders, sectors_per_cluster), cylinders * CYLINDER);
                }
            }
            return (None, MAX_SECTORS);
        }
    };
    (of(cylinders, 16), cylinders * CYLINDER)
}
