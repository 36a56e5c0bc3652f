//! A sparse extent of any kind: its grain directory and tables, and where each grain is.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::bytes::{le32, le64};
use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::memory;
use crate::size::SECTOR;
use crate::storage::{Storage, read_exact_at};

use super::disk::cowd_header;
use super::disk::se_sparse::{self, GrainEntry};
use super::disk::{CowdHeader, SparseHeader};
use crate::format::read_ahead::{MOST_BYTES, ReadAhead};
use crate::format::table_cache::{Cache, Table};

/// Maximum number of bytes of adjacent tables that are read together.
const READ_AHEAD: u64 = 64 << 10;
/// Maximum number of directory entries that are examined for tables to be read together.
const LOOKS: usize = 1 << 12;

/// How the tables of an extent are structured.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// "KDMV".
    Hosted,
    /// "COWD".
    Cowd,
    /// Space-efficient: the offsets of the first table and the first grain, in bytes.
    SeSparse { tables: u64, grains: u64 },
}

/// A sparse extent.
#[derive(Debug)]
pub(super) struct Sparse {
    /// Its number among the extents, for the cache.
    pub(super) id: u32,
    pub(super) slot: StorageSlot,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) kind: Kind,
    /// Size of a grain in bytes.
    pub(super) grain: u64,
    /// Entries per table.
    pub(super) per_table: u64,
    /// Size in guest bytes.
    pub(super) len: AtomicU64,
    pub(super) compressed: bool,
    /// A footer at the end of the file locates the directory.
    pub(super) has_footer: bool,
    /// A table entry of 1 stands for zeroes.
    pub(super) zeroed: bool,
    /// Where the header and the embedded descriptor of a hosted extent are.
    pub(super) head: Range<u64>,
    pub(super) descriptor: Range<u64>,
    /// No grain begins before this offset.
    pub(super) overhead: u64,
    pub(super) directory: RwLock<Directory>,
    pub(super) cache: Arc<Cache>,
    pub(super) read_ahead: ReadAhead,
    /// The length of the file, as far as it is known.
    pub(super) file_len: AtomicU64,
    /// The state of changes to it.
    pub(super) changes: Mutex<Changes>,
}

/// The grain directories, with one entry per table: its first sector, or one more than its number if tables are
/// numbered; 0 if there is none.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) entries: Vec<u32>,
    /// The redundant one; empty if there is none.
    pub(super) redundant: Vec<u32>,
    /// The first sectors of both in the file.
    pub(super) places: Places,
}

/// Where the directories of a writable extent are, in sectors.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Places {
    pub(super) primary: u64,
    pub(super) redundant: u64,
    /// Number of entries of each there: in memory there may be more while an extent is being extended.
    pub(super) count: usize,
}

/// The state of an extent that is written to.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Where the next grain goes; 0 if that has not been determined yet.
    pub(super) next: u64,
    /// The header was changed to say that the extent is not closed.
    pub(super) marked: bool,
    /// It said so before.
    pub(super) was_unclean: bool,
    /// Directory entries that are not on disk yet.
    pub(super) new_tables: Vec<u32>,
}

/// What an extent contains for a grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    /// Nothing.
    Absent,
    /// Zeroes.
    Zero,
    /// It begins at this offset of the file.
    At(u64),
}

/// A table of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TablePlace {
    /// There is none: nothing is stored.
    Absent,
    /// There is none: everything is zero.
    Zero,
    /// It begins at this offset of the file.
    At(u64),
}

/// Common parameters of [`Sparse::hosted`], [`Sparse::cowd`] and [`Sparse::se_sparse`].
pub(super) struct SparseInput<'a> {
    pub(super) id: u32,
    pub(super) slot: StorageSlot,
    pub(super) storage: &'a Arc<dyn Storage>,
    pub(super) cache: &'a Arc<Cache>,
    pub(super) file_len: u64,
}

impl Sparse {
    /// A hosted extent whose header is valid.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`]; if the grain directory cannot be read.
    pub(super) fn hosted(place: &SparseInput<'_>, header: &SparseHeader) -> Result<Self> {
        header.check_directories()?;
        let entries = header.directory_entries();
        let entries_of = |sector: u64| {
            let offset = sector.saturating_mul(SECTOR);
            read_directory(&**place.storage, offset, entries)
        };
        let directory = Directory {
            entries: entries_of(header.directory)?,
            redundant: match header.has_redundant() {
                true => entries_of(header.redundant)?,
                false => Vec::new(),
            },
            places: Places {
                primary: header.directory,
                redundant: header.redundant_place(),
                count: usize::try_from(entries).unwrap_or(usize::MAX),
            },
        };
        let changes = Changes {
            was_unclean: header.unclean,
            ..Changes::default()
        };
        Ok(Self {
            grain: header.grain_bytes(),
            per_table: u64::from(header.table_entries),
            len: AtomicU64::new(header.capacity.saturating_mul(SECTOR)),
            compressed: header.flags.contains(super::disk::Flags::COMPRESSED),
            has_footer: header.has_footer,
            zeroed: header.has_zeroed_grains(),
            head: 0..SECTOR,
            descriptor: header.descriptor.saturating_mul(SECTOR)
                ..header
                    .descriptor
                    .saturating_add(header.descriptor_len)
                    .saturating_mul(SECTOR),
            overhead: header.overhead.saturating_mul(SECTOR),
            changes: Mutex::new(changes),
            ..Self::plain(place, directory, Kind::Hosted)
        })
    }

    /// An extent of an ESX redo log.
    ///
    /// # Errors
    /// As [`Sparse::hosted`].
    pub(super) fn cowd(place: &SparseInput<'_>, header: &CowdHeader) -> Result<Self> {
        let entries = u64::from(header.directory_entries);
        let offset = u64::from(header.directory) * SECTOR;
        let directory = Directory {
            entries: read_directory(&**place.storage, offset, entries)?,
            ..Directory::default()
        };
        Ok(Self {
            grain: u64::from(header.grain) * SECTOR,
            per_table: cowd_header::TABLE_ENTRIES,
            len: AtomicU64::new(u64::from(header.capacity) * SECTOR),
            overhead: offset,
            ..Self::plain(place, directory, Kind::Cowd)
        })
    }

    /// A space-efficient extent.
    ///
    /// # Errors
    /// As [`Sparse::hosted`].
    pub(super) fn se_sparse(
        place: &SparseInput<'_>,
        header: &se_sparse::ConstHeader,
    ) -> Result<Self> {
        let grain = 8 * SECTOR;
        let per_table = se_sparse::TABLE_ENTRIES;
        let len = header.capacity * SECTOR;
        let count = usize::try_from(len.div_ceil(grain * per_table)).map_err(|_| memory::lack())?;
        let mut bytes = memory::zeroed(count.saturating_mul(8))?;
        read_exact_at(&**place.storage, &mut bytes, header.directory)?;
        let mut entries = Vec::new();
        memory::reserve(&mut entries, count)?;
        for n in 0..count {
            let damaged = |entry: u64| {
                let offset = header.directory.saturating_add(n as u64 * 8);
                Error::corrupt(format!(
                    "Invalid entry {entry:#018x} of the grain directory"
                ))
                .with_offset(offset)
            };
            let entry = le64(&bytes, n * 8).unwrap_or_default();
            let index = se_sparse::table_of(entry).map_err(damaged)?;
            entries.push(match index.map(|index| index.checked_add(1)) {
                None => 0,
                Some(Some(index)) => index,
                Some(None) => return Err(damaged(entry)),
            });
        }
        let directory = Directory {
            entries,
            ..Directory::default()
        };
        let kind = Kind::SeSparse {
            tables: header.tables,
            grains: header.grains,
        };
        Ok(Self {
            grain,
            per_table,
            len: AtomicU64::new(len),
            overhead: header.grains,
            ..Self::plain(place, directory, kind)
        })
    }

    fn plain(place: &SparseInput<'_>, directory: Directory, kind: Kind) -> Self {
        Self {
            id: place.id,
            slot: place.slot,
            storage: place.storage.clone(),
            kind,
            grain: SECTOR,
            per_table: 1,
            len: AtomicU64::new(0),
            compressed: false,
            has_footer: false,
            zeroed: false,
            head: 0..0,
            descriptor: 0..0,
            overhead: 0,
            directory: RwLock::new(directory),
            cache: place.cache.clone(),
            read_ahead: ReadAhead::of(&**place.storage),
            file_len: AtomicU64::new(place.file_len),
            changes: Mutex::default(),
        }
    }

    /// Size in guest bytes.
    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Maximum number of tables.
    pub(super) fn tables(&self) -> u32 {
        let tables = self.len().div_ceil(self.per_table * self.grain);
        u32::try_from(tables).unwrap_or(u32::MAX)
    }

    /// Size of a table entry on disk, in bytes.
    pub(super) fn word_len(&self) -> u64 {
        match self.kind {
            Kind::SeSparse { .. } => 8,
            Kind::Hosted | Kind::Cowd => 4,
        }
    }

    /// Where a table is.
    pub(super) fn table_place(&self, index: u32) -> Result<TablePlace> {
        let entry = self.directory.read().entries.get(index as usize).copied();
        let offset = match (entry, &self.kind) {
            (None | Some(0), _) => return Ok(TablePlace::Absent),
            (Some(1), _) if self.zeroed => return Ok(TablePlace::Zero),
            (Some(entry), Kind::SeSparse { tables, .. }) => {
                let bytes = self.per_table * 8;
                tables.checked_add(u64::from(entry - 1).saturating_mul(bytes))
            }
            (Some(entry), _) => Some(u64::from(entry) * SECTOR),
        };
        offset
            .map(TablePlace::At)
            .ok_or_else(|| Error::corrupt(format!("Grain table {index} lies outside of any file")))
    }

    /// A grain table; `None` if there is none.
    pub(super) fn table(&self, index: u32) -> Result<Option<Arc<Table>>> {
        loop {
            if let Some(table) = self.cache.get((self.id, index)) {
                return Ok(Some(table));
            }
            let TablePlace::At(offset) = self.table_place(index)? else {
                return Ok(None);
            };
            let epoch = self.cache.epoch();
            let count = self.neighbours(index, offset);
            let words = self.read_tables(offset, count)?;
            let mut found = None;
            for (n, words) in (0..count).zip(words.chunks_exact(self.per_table as usize)) {
                let table = Table::new(words.iter().copied())?;
                let kept = self.cache.keep((self.id, index + n as u32), table, epoch)?;
                found = found.or(kept.filter(|_| n == 0));
            }
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    /// Number of tables, from this one on, that are adjacent in the file.
    fn neighbours(&self, index: u32, offset: u64) -> u64 {
        let bytes = self.per_table * self.word_len();
        let most = (READ_AHEAD / bytes).max(1);
        let in_row = (1..most).take_while(|n| {
            let place = index
                .checked_add(*n as u32)
                .map(|next| self.table_place(next));
            let follows = matches!(place, Some(Ok(TablePlace::At(at))) if at == offset + n * bytes);
            follows && !self.is_taken(offset + n * bytes..offset + (n + 1) * bytes)
        });
        1 + in_row.count() as u64
    }

    /// Reads the entries of adjacent tables. Only the first table has to lie within the file.
    fn read_tables(&self, offset: u64, count: u64) -> Result<Vec<u64>> {
        self.check_table_place(offset)?;
        let word = self.word_len();
        let one = self.per_table * word;
        let mut bytes = memory::zeroed((one * count) as usize)?;
        self.storage.read_at(&mut bytes, offset)?;
        memory::collect(self.words_of(&bytes))
    }

    fn words_of<'b>(&self, bytes: &'b [u8]) -> impl ExactSizeIterator<Item = u64> + use<'b> {
        let words = bytes.chunks_exact(self.word_len() as usize);
        words.map(|word| match word.len() {
            8 => le64(word, 0).unwrap_or_default(),
            _ => u64::from(le32(word, 0).unwrap_or_default()),
        })
    }

    /// See [`crate::format::Format::map_ahead`]; offsets are those within the extent.
    pub(super) fn look_ahead(&self, offset: u64, end: u64) {
        let last = self.indices(end.saturating_sub(1)).0;
        self.tables_ahead(self.indices(offset).0..last.saturating_add(1), |_| false);
    }

    /// Reads the first of these tables into memory, except for those that `is_skipped`, unless the first one is there.
    pub(super) fn tables_ahead(&self, indices: Range<u32>, is_skipped: impl Fn(u32) -> bool) {
        if !self.read_ahead.is_on() || indices.len() < 2 {
            return;
        }
        let first = indices.start;
        let len = self.per_table * self.word_len();
        let most = (MOST_BYTES / len.max(1)) as usize;
        let most = most.min(self.cache.most_ahead(self.per_table));
        let place = |index| match self.table_place(index) {
            Ok(TablePlace::At(offset)) if !self.cache.has((self.id, index)) => Some(offset),
            _ => None,
        };
        // A run may continue in the next table.
        let is_needed = || place(first).is_some() || place(first.saturating_add(1)).is_some();
        self.read_ahead.run(most, is_needed, |count| {
            let mut places = Vec::new();
            let wanted = indices
                .take(LOOKS)
                .filter(|index| !is_skipped(*index))
                .filter_map(|index| Some(((self.id, index), place(index)?)))
                .filter(|(_, offset)| self.check_table_place(*offset).is_ok());
            for place in wanted.take(count) {
                memory::push(&mut places, place)?;
            }
            let decode = |bytes: &[u8]| Table::new(self.words_of(bytes));
            self.cache.load(&*self.storage, &places, len, decode)
        });
    }

    /// Checks that a table can be at an offset: within the file, and not in the place of something else.
    pub(super) fn check_table_place(&self, offset: u64) -> Result<()> {
        let what = match offset.checked_add(self.per_table * self.word_len()) {
            Some(end) if self.is_taken(offset..end) => "stands in the place of other metadata",
            Some(end) if end <= self.file_len_at_least(end) => return Ok(()),
            _ => "stands behind the end of the file",
        };
        Err(Error::corrupt(format!(
            "'{}': the grain table at {offset} {what}",
            self.storage.name()
        ))
        .with_offset(offset))
    }

    /// Whether a range of the file overlaps the header, the descriptor or a grain directory.
    fn is_taken(&self, range: Range<u64>) -> bool {
        if !matches!(self.kind, Kind::Hosted) {
            return false;
        }
        let directory = self.directory.read();
        let places = [
            (directory.places.primary, &directory.entries),
            (directory.places.redundant, &directory.redundant),
        ];
        let directories = places.map(|(sector, entries)| {
            let start = sector.saturating_mul(SECTOR);
            let count = entries.len().min(directory.places.count);
            start..start.saturating_add(count as u64 * 4)
        });
        [&self.head, &self.descriptor]
            .into_iter()
            .chain(&directories)
            .any(|other| range.start < other.end && other.start < range.end)
    }

    /// The length of the file, queried again if the known one is less than `end`.
    pub(super) fn file_len_at_least(&self, end: u64) -> u64 {
        let known = self.file_len.load(Ordering::Acquire);
        if known >= end {
            return known;
        }
        let now = self.storage.len().unwrap_or(known);
        self.file_len.fetch_max(now, Ordering::AcqRel).max(now)
    }

    /// The meaning of an entry for the grain at guest offset `guest`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if it refers to a place where no grain can be.
    pub(super) fn grain_of(&self, word: u64, guest: u64) -> Result<Grain> {
        self.grain_within(word, guest, |end| self.file_len_at_least(end))
            .ok_or_else(|| self.bad_entry(word, guest))
    }

    /// As [`Sparse::grain_of`], but with the known length of the file, and without creating an error for each of many
    /// entries.
    pub(super) fn known_grain(&self, word: u64, guest: u64) -> Option<Grain> {
        self.grain_within(word, guest, |_| self.file_len.load(Ordering::Acquire))
    }

    /// The same for a file of this length.
    pub(super) fn grain_in(&self, word: u64, guest: u64, file_len: u64) -> Option<Grain> {
        self.grain_within(word, guest, |_| file_len)
    }

    fn grain_within(
        &self,
        word: u64,
        guest: u64,
        file_len: impl FnOnce(u64) -> u64,
    ) -> Option<Grain> {
        let offset = match &self.kind {
            _ if word == 0 => return Some(Grain::Absent),
            Kind::SeSparse { grains, .. } => match se_sparse::grain_of(word) {
                Ok(GrainEntry::Absent) => return Some(Grain::Absent),
                Ok(GrainEntry::Zero) => return Some(Grain::Zero),
                Ok(GrainEntry::Grain(number)) => number
                    .checked_mul(self.grain)
                    .and_then(|at| at.checked_add(*grains)),
                Err(_) => None,
            },
            _ if word == 1 && self.zeroed => return Some(Grain::Zero),
            Kind::Hosted | Kind::Cowd => word.checked_mul(SECTOR),
        }?;
        let start = guest - guest % self.grain;
        let needed = match self.compressed {
            true => super::disk::marker::GRAIN_MARKER as u64,
            false => self.len().saturating_sub(start).min(self.grain),
        };
        let end = offset.saturating_add(needed);
        let fits = offset >= self.overhead && end <= file_len(end).next_multiple_of(SECTOR);
        fits.then_some(Grain::At(offset))
    }

    /// What is left of a grain if a file of this length ends within it.
    pub(super) fn cut_grain(&self, word: u64, file_len: u64) -> Option<Range<u64>> {
        let offset = match &self.kind {
            Kind::SeSparse { .. } => None,
            Kind::Hosted | Kind::Cowd => word.checked_mul(SECTOR),
        }?;
        let is_cut = offset >= self.overhead && offset < file_len && !self.compressed;
        is_cut.then(|| offset..file_len.min(offset + self.grain))
    }

    fn bad_entry(&self, word: u64, guest: u64) -> Error {
        let error = Error::corrupt(format!(
            "'{}': the grain at offset {guest} of the extent is said to be at sector {word}, where none can be",
            self.storage.name()
        ));
        match self.entry_offset(guest) {
            Some(offset) => error.with_offset(offset),
            None => error,
        }
    }

    /// File offset of the entry of a grain.
    fn entry_offset(&self, guest: u64) -> Option<u64> {
        let (index, entry) = self.indices(guest);
        match self.table_place(index) {
            Ok(TablePlace::At(table)) => table.checked_add(entry * self.word_len()),
            _ => None,
        }
    }

    /// The table for a guest offset, and the index of the entry in it.
    pub(super) fn indices(&self, guest: u64) -> (u32, u64) {
        let grain = guest / self.grain;
        // A directory with more entries is never read.
        let table = u32::try_from(grain / self.per_table).unwrap_or(u32::MAX);
        (table, grain % self.per_table)
    }

    /// What the extent contains for the grain at a guest offset.
    pub(super) fn lookup(&self, guest: u64) -> Result<Grain> {
        let (index, entry) = self.indices(guest);
        match self.table(index)? {
            Some(table) => self.grain_of(table.get(entry), guest),
            None => Ok(self.without_table(index)?),
        }
    }

    fn without_table(&self, index: u32) -> Result<Grain> {
        Ok(match self.table_place(index)? {
            TablePlace::Zero => Grain::Zero,
            _ => Grain::Absent,
        })
    }

    /// The longest run of one kind at `offset` of the extent, at most `len` bytes.
    pub(super) fn map(&self, offset: u64, len: u64) -> Result<Extent> {
        let end = offset.saturating_add(len);
        let mut run: Option<Extent> = None;
        let mut at = offset;
        while at < end {
            let (index, first) = self.indices(at);
            let span = self.per_table * self.grain;
            let table_end = (at - at % span).saturating_add(span).min(end);
            self.look_ahead(at, end);
            let table = match self.table(index) {
                Ok(table) => table,
                Err(error) => return run.ok_or(error),
            };
            let Some(table) = table else {
                let kind = kind_of(self.without_table(index)?, at, self);
                if !extend(&mut run, kind, table_end - at) {
                    break;
                }
                at = table_end;
                continue;
            };
            let mut entry = first;
            while at < table_end {
                let next = (at - at % self.grain)
                    .saturating_add(self.grain)
                    .min(table_end);
                let kind = match self.grain_of(table.get(entry), at) {
                    Ok(grain) => kind_of(grain, at, self),
                    Err(error) => return run.ok_or(error),
                };
                if !extend(&mut run, kind, next - at) {
                    return run.ok_or_else(empty);
                }
                at = next;
                entry += 1;
            }
        }
        run.ok_or_else(empty)
    }
}

fn empty() -> Error {
    Error::new(crate::ErrorKind::Internal, "An empty run of grains")
}

fn kind_of(grain: Grain, at: u64, sparse: &Sparse) -> ExtentKind {
    match grain {
        Grain::Absent => ExtentKind::Unallocated { host_offset: None },
        Grain::Zero => ExtentKind::ZEROES,
        Grain::At(_) if sparse.compressed => ExtentKind::Encoded { compressed: true },
        Grain::At(offset) => ExtentKind::Data {
            slot: sparse.slot,
            host_offset: offset + at % sparse.grain,
        },
    }
}

/// Extends a run by what follows it; returns false if that is of another kind.
fn extend(run: &mut Option<Extent>, kind: ExtentKind, len: u64) -> bool {
    match run {
        None => *run = Some(Extent { len, kind }),
        Some(run) if run.kind.advanced(run.len) == kind => run.len += len,
        Some(_) => return false,
    }
    true
}

/// Reads the entries of a grain directory.
fn read_directory(storage: &dyn Storage, offset: u64, entries: u64) -> Result<Vec<u32>> {
    let len = usize::try_from(entries.saturating_mul(4)).map_err(|_| memory::lack())?;
    if offset
        .checked_add(len as u64)
        .is_none_or(|end| end > i64::MAX as u64)
    {
        return Err(Error::corrupt(format!(
            "The grain directory at {offset} lies outside of any file"
        )));
    }
    // Before memory is allocated for something that does not exist.
    if len > 0 {
        read_exact_at(storage, &mut [0], offset + len as u64 - 1)?;
    }
    let mut bytes = memory::zeroed(len)?;
    read_exact_at(storage, &mut bytes, offset)?;
    let words = bytes.chunks_exact(4);
    memory::collect(words.map(|word| le32(word, 0).unwrap_or_default()))
}
