//! Where guest bytes are: through the upper table and the lower ones, which are read on demand.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::bytes::be64;
use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::table_cache::Table;
use crate::memory;
use crate::size::SECTOR;
use crate::storage::{Step, read_exact_at, steps};

use super::Qcow;
use super::disk::{ClusterPlace, place_of};

impl Qcow {
    /// Whether what no table holds comes from the backing file.
    pub(super) fn is_overlay(&self) -> bool {
        self.is_overlay.load(Ordering::Acquire)
    }

    /// The place of a lower table according to the upper one, or 0.
    pub(super) fn table_host(&self, index: u32) -> u64 {
        let entry = self.l1.get(index as usize);
        entry.map_or(0, |entry| entry.load(Ordering::Acquire))
    }

    /// Whether a table may be located at `host`.
    pub(super) fn is_table_place(&self, host: u64) -> bool {
        let known = self.file_len.load(Ordering::Acquire);
        self.is_table_place_within(host, known)
            || self.is_table_place_within(host, self.file_len_at_least(u64::MAX))
    }

    /// As [`Qcow::is_table_place`], for a file of that length.
    pub(super) fn is_table_place_within(&self, host: u64, file_len: u64) -> bool {
        let end = host.checked_add(self.geometry.table_len());
        host >= self.l1_end && host.is_multiple_of(SECTOR) && end.is_some_and(|end| end <= file_len)
    }

    /// The table, if there is one.
    pub(super) fn table(&self, index: u32) -> Result<Option<Arc<Table>>> {
        loop {
            if let Some(table) = self.cache.get((0, index)) {
                return Ok(Some(table));
            }
            let host = self.table_host(index);
            if host == 0 {
                return Ok(None);
            }
            let epoch = self.cache.epoch();
            let words = self.read_table(index, host)?;
            let table = Table::new(words.into_iter())?;
            if let Some(table) = self.cache.keep((0, index), table, epoch)? {
                return Ok(Some(table));
            }
        }
    }

    /// Reads the entries of a table from disk.
    pub(super) fn read_table(&self, index: u32, host: u64) -> Result<Vec<u64>> {
        if !self.is_table_place(host) {
            return Err(self.bad_table(index, host));
        }
        let mut bytes = memory::zeroed(self.geometry.table_len() as usize)?;
        steps::announce(&*self.storage, Step::L2Load);
        read_exact_at(&*self.storage, &mut bytes, host)?;
        memory::collect(words_of(&bytes))
    }

    /// The table encoded in those bytes.
    pub(super) fn table_of(bytes: &[u8]) -> Result<Table> {
        Table::new(words_of(bytes))
    }

    pub(super) fn bad_table(&self, index: u32, host: u64) -> Error {
        Error::corrupt(format!(
            "'{}': the L2 table {index} is said to be at {host:#x}, where none can be; check the image",
            self.storage.name()
        ))
        .with_offset(self.l1_offset + u64::from(index) * 8)
        .with_errno(libc::EIO)
    }

    /// The known length of the file, queried again if that is less than `end`.
    pub(super) fn file_len_at_least(&self, end: u64) -> u64 {
        let known = self.file_len.load(Ordering::Acquire);
        if known >= end {
            return known;
        }
        let now = self.storage.len().unwrap_or(known);
        self.file_len.fetch_max(now, Ordering::AcqRel).max(now)
    }

    /// The place named by an entry, if the file has such a place.
    pub(super) fn vetted(&self, word: u64) -> Option<ClusterPlace> {
        let known = self.file_len.load(Ordering::Acquire);
        let vetted = self.vetted_within(word, known);
        vetted.or_else(|| self.vetted_within(word, self.file_len_at_least(u64::MAX)))
    }

    /// As [`Qcow::vetted`], for a file of that length.
    pub(super) fn vetted_within(&self, word: u64, file_len: u64) -> Option<ClusterPlace> {
        let place = place_of(word, self.geometry);
        let fits = match place {
            ClusterPlace::Absent => true,
            // A file may end within its last cluster.
            ClusterPlace::Plain(host) => {
                host >= self.l1_end
                    && host.is_multiple_of(self.geometry.cluster())
                    && host < file_len
            }
            ClusterPlace::Packed { host, len } => {
                len > 0 && host >= self.l1_end && host.saturating_add(len) <= file_len
            }
        };
        fits.then_some(place)
    }

    /// The place named by the entry of the cluster at a guest offset.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the file has no such place.
    pub(super) fn place(&self, word: u64, guest: u64) -> Result<ClusterPlace> {
        self.vetted(word).ok_or_else(|| {
            let cluster = guest - guest % self.geometry.cluster();
            Error::corrupt(format!(
                "'{}': the entry {word:#018x} of the cluster at {cluster} names nothing in the file; check the image",
                self.storage.name()
            ))
            .with_errno(libc::EIO)
        })
    }

    /// Where the cluster at a guest offset is.
    pub(super) fn lookup(&self, guest: u64) -> Result<ClusterPlace> {
        let (index, entry) = self.geometry.indices(guest);
        match self.table(index)? {
            Some(table) => self.place(table.get(entry), guest),
            None => Ok(ClusterPlace::Absent),
        }
    }

    /// The longest run of one kind at `offset`, at most `len` bytes; encrypted data counts as data.
    pub(super) fn run(&self, offset: u64, len: u64) -> Result<Extent> {
        let end = offset.saturating_add(len);
        let behind = self
            .geometry
            .indices(end.saturating_sub(1))
            .0
            .saturating_add(1);
        let run = self.run_with(offset, len, |index| {
            self.tables_ahead(index..behind, |_| false);
            self.table(index).map(Some)
        })?;
        run.ok_or_else(|| Error::new(ErrorKind::Internal, "An empty run of clusters"))
    }

    /// As [`Qcow::run`], but from memory alone.
    pub(super) fn try_run(&self, offset: u64, len: u64) -> Result<Option<Extent>> {
        self.run_with(offset, len, |index| {
            let known = self.cache.get((0, index));
            Ok(match (known, self.table_host(index)) {
                (Some(table), _) => Some(Some(table)),
                (None, 0) => Some(None),
                (None, _) => None,
            })
        })
    }

    /// The run, as far as `table` provides the tables that it needs.
    fn run_with(
        &self,
        offset: u64,
        len: u64,
        table: impl Fn(u32) -> Result<Option<Option<Arc<Table>>>>,
    ) -> Result<Option<Extent>> {
        let (cluster, covered) = (self.geometry.cluster(), self.geometry.covered());
        let end = offset.saturating_add(len);
        let mut run: Option<Extent> = None;
        let mut at = offset;
        while at < end {
            let (index, mut entry) = self.geometry.indices(at);
            let table_end = (at - at % covered).saturating_add(covered).min(end);
            let table = match table(index) {
                Ok(Some(table)) => table,
                Ok(None) => return Ok(run),
                Err(error) => return run.map(Some).ok_or(error),
            };
            let Some(table) = table else {
                if !extend(
                    &mut run,
                    self.kind(ClusterPlace::Absent, at),
                    table_end - at,
                ) {
                    break;
                }
                at = table_end;
                continue;
            };
            while at < table_end {
                let next = (at - at % cluster).saturating_add(cluster).min(table_end);
                let kind = match self.place(table.get(entry), at) {
                    Ok(place) => self.kind(place, at),
                    Err(error) => return run.map(Some).ok_or(error),
                };
                if !extend(&mut run, kind, next - at) {
                    return Ok(run);
                }
                at = next;
                entry += 1;
            }
        }
        Ok(run)
    }

    fn kind(&self, place: ClusterPlace, guest: u64) -> ExtentKind {
        match place {
            ClusterPlace::Absent => ExtentKind::Unallocated { host_offset: None },
            ClusterPlace::Packed { .. } => ExtentKind::Encoded { compressed: true },
            ClusterPlace::Plain(host) => ExtentKind::Data {
                slot: StorageSlot::MAIN,
                host_offset: host + guest % self.geometry.cluster(),
            },
        }
    }

    /// The extent as others see it: encrypted data counts as encoded.
    pub(super) fn shown(&self, mut extent: Extent) -> Extent {
        if self.encrypted && matches!(extent.kind, ExtentKind::Data { .. }) {
            extent.kind = ExtentKind::Encoded { compressed: false };
        }
        extent
    }

    /// Refuses a range outside the image.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub(super) fn check_range(&self, offset: u64, len: u64) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(Error::invalid("The range does not lie in the image")),
        }
    }
}

fn words_of(bytes: &[u8]) -> impl ExactSizeIterator<Item = u64> + '_ {
    bytes.chunks_exact(8).map(|word| be64(word, 0).unwrap_or(0))
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
