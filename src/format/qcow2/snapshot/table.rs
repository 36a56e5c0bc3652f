//! The snapshot table: reading it, and rewriting it elsewhere.

use bstr::BStr;

use crate::error::{Error, ErrorKind, Result};
use crate::format::limbo::Freed;
use crate::format::qcow2::disk::{
    Header, MAX_L1_BYTES, MAX_SNAPSHOT_TABLE, SnapshotEntry, read_damaged_snapshot_table,
    read_snapshot_table,
};
use crate::format::qcow2::overlap::Area;
use crate::format::qcow2::state::Qcow2;
use crate::format::qcow2::table_place::TablePlace;
use crate::memory;
use crate::storage::{Durability, ZeroFlags};

/// A table is written in units of this many bytes, which suit direct I/O.
const WRITE_UNIT: u64 = 4 << 10;

/// L1 tables are read in pieces of this many bytes.
const PIECE: u64 = 1 << 20;

impl Qcow2 {
    /// All snapshots, and the clusters of their table.
    pub(in crate::format::qcow2) fn snapshot_table(
        &self,
    ) -> Result<(Vec<SnapshotEntry>, TablePlace)> {
        let header = self.header.lock().header.clone();
        // For reading an existing snapshot, it does not matter that others are missing.
        let (entries, len) = if self.read_only {
            read_damaged_snapshot_table(&*self.storage, &header)?
        } else {
            read_snapshot_table(&*self.storage, &header)?
        };
        if entries.is_empty() {
            return Ok((entries, TablePlace::default()));
        }
        let first = header.snapshots_offset >> self.layout.cluster_bits();
        let place = TablePlace {
            offset: header.snapshots_offset,
            first,
            clusters: self.layout.clusters_for(len),
        };
        Ok((entries, place))
    }

    /// The bytes of a table, whose entries get all known fields.
    fn table_bytes(&self, entries: &mut [SnapshotEntry]) -> Result<Vec<u8>> {
        let size = self.virtual_size();
        entries.iter_mut().for_each(|entry| entry.complete(size));
        let mut bytes = Vec::new();
        let len = entries.iter().map(SnapshotEntry::padded_len).sum();
        memory::reserve(&mut bytes, len)?;
        for entry in entries {
            entry.write_to(&mut bytes);
        }
        if bytes.len() as u64 > MAX_SNAPSHOT_TABLE {
            return Err(Error::new(ErrorKind::Limit, "File too large").with_errno(libc::EFBIG));
        }
        Ok(bytes)
    }

    /// Writes a table to newly allocated clusters.
    pub(super) fn write_snapshot_table(&self, entries: &mut [SnapshotEntry]) -> Result<TablePlace> {
        self.write_area(self.table_bytes(entries)?)
    }

    /// Refuses a table that [`Qcow2::complete_snapshots`] could not write.
    pub(in crate::format::qcow2) fn check_snapshots_complete(&self) -> Result<()> {
        let (mut entries, _) = self.snapshot_table()?;
        self.table_bytes(&mut entries).map(drop)
    }

    /// Rewrites the table if an entry lacks fields that version 3 requires: without them it would take each new size of
    /// the image for its own.
    pub(in crate::format::qcow2) fn complete_snapshots(&self) -> Result<()> {
        let (mut entries, old) = self.snapshot_table()?;
        if entries.iter().all(SnapshotEntry::is_complete) {
            return Ok(());
        }
        let place = self.write_snapshot_table(&mut entries)?;
        if let Err(error) = self.write_metadata(true, Durability::None) {
            self.forget(place);
            return Err(error);
        }
        self.switch_header(|header| Self::point(header, &entries, place))?;
        self.protect_snapshots(&entries, place);
        self.release_at_once(old)?;
        self.flush_all(self.durability)
    }

    /// Writes bytes to newly allocated clusters and zeroes the rest of them.
    pub(in crate::format::qcow2) fn write_area(
        &self,
        bytes: impl AsRef<[u8]>,
    ) -> Result<TablePlace> {
        let bytes = bytes.as_ref();
        if bytes.is_empty() {
            return Ok(TablePlace::default());
        }
        let cluster = self.layout.cluster_size();
        let clusters = self.layout.clusters_for(bytes.len() as u64);
        let written = (bytes.len() as u64)
            .next_multiple_of(WRITE_UNIT)
            .min(clusters * cluster);
        let mut padded = memory::copied(bytes)?;
        padded.resize(written as usize)?;
        let first = self.alloc_contiguous(clusters)?;
        let offset = first << self.layout.cluster_bits();
        let end = offset + clusters * cluster;
        self.cache.invalidate(offset, clusters * cluster);
        let done = self
            .storage
            .write_at(&padded, offset)
            .and_then(|()| self.zero_in_file(offset + written, end));
        if let Err(error) = done {
            self.free_unused(first, clusters);
            return Err(error);
        }
        Ok(TablePlace {
            offset,
            first,
            clusters,
        })
    }

    /// Zeroes host bytes up to the end of the file: what lies beyond already reads as zeroes.
    fn zero_in_file(&self, start: u64, end: u64) -> Result<()> {
        let end = end.min(self.storage.len()?);
        if start >= end {
            return Ok(());
        }
        self.storage
            .write_zeroes(start, end - start, ZeroFlags::MAY_UNMAP)
    }

    /// Releases an area that no header on disk refers to any more.
    pub(in crate::format::qcow2) fn release(&self, place: TablePlace) {
        let clusters = place.first..place.first + place.clusters;
        self.limbo.queue(clusters.map(|cluster| Freed {
            cluster,
            punch: false,
        }));
    }

    /// Releases at once an area that nothing on disk refers to any more and nobody reads.
    pub(super) fn release_at_once(&self, place: TablePlace) -> Result<()> {
        let clusters = place.first..place.first + place.clusters;
        self.drop_references(&mut self.alloc.lock(), clusters)
    }

    /// Releases an area that was never referred to.
    pub(in crate::format::qcow2) fn forget(&self, place: TablePlace) {
        self.free_unused(place.first, place.clusters);
    }

    /// Makes a header refer to the snapshot table.
    pub(super) fn point(header: &mut Header, entries: &[SnapshotEntry], place: TablePlace) {
        header.snapshots = entries.len() as u32;
        header.snapshots_offset = place.offset;
    }

    /// Protects the snapshot table and the L1 tables of the snapshots against other writes.
    pub(super) fn protect_snapshots(&self, entries: &[SnapshotEntry], place: TablePlace) {
        let range = place.first..place.first + place.clusters;
        self.meta.set_area(Area::SnapshotTable, range);
        self.meta.clear_areas(Area::InactiveL1);
        for entry in entries {
            let first = entry.l1_offset >> self.layout.cluster_bits();
            let clusters = self.layout.clusters_for(u64::from(entry.l1_entries) * 8);
            self.meta
                .set_area(Area::InactiveL1, first..first.saturating_add(clusters));
        }
    }

    /// The L1 table of a snapshot.
    pub(in crate::format::qcow2) fn snapshot_l1(&self, entry: &SnapshotEntry) -> Result<Vec<u64>> {
        let len = u64::from(entry.l1_entries) * 8;
        let damaged = |what: &str| {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            Err(Error::corrupt(format!(
                "Snapshot L1 table of '{name}' {what}"
            )))
        };
        if self.layout.in_cluster(entry.l1_offset) != 0 {
            return damaged("is not cluster aligned");
        }
        if len > MAX_L1_BYTES {
            return damaged("is too large");
        }
        let file = self
            .storage
            .len()?
            .next_multiple_of(self.layout.cluster_size());
        if entry.l1_offset.saturating_add(len) > file {
            return damaged("passes the end of the file");
        }
        let mut table = Vec::new();
        let mut at = 0;
        while at < len {
            let mut piece = memory::zeroed((len - at).min(PIECE) as usize)?;
            self.storage.read_at(&mut piece, entry.l1_offset + at)?;
            let words = piece.chunks_exact(8);
            memory::reserve(&mut table, words.len())?;
            table.extend(words.map(|word| word.iter().fold(0, |v, b| v << 8 | u64::from(*b))));
            at += piece.len() as u64;
        }
        Ok(table)
    }
}

/// Index of the snapshot with this ID in the table.
pub(super) fn position(entries: &[SnapshotEntry], id: &BStr) -> Result<usize> {
    entries
        .iter()
        .position(|entry| entry.id == **id)
        .ok_or_else(|| Qcow2::no_snapshot(id))
}
