//! Counting references: L1 tables, L2 tables and the clusters that they refer to.

use crate::error::Result;
use crate::format::qcow2::disk::{Geometry, L1Entry, L2Entry, L2Kind, SubclusterBitmap};
use crate::memory::{self, IoBuf};
use crate::storage::{ReadRange, Storage, steps};

use super::reference_counts::ReferenceCounts;
use super::repairs::Repairs;
use super::report::Findings;

/// L1 tables are read in pieces of this many bytes.
const L1_PIECE: u64 = 1 << 20;
/// Adjacent L2 tables are read together, up to this many bytes.
const L2_BATCH: u64 = 1 << 20;
/// The same for tables wherever they are, if the storage sends requests together.
const L2_TOGETHER: u64 = 4 << 20;
/// Total size of visited tables, in multiples of the file's length, beyond which the check is given up.
const MAX_VISITS: u64 = 16;
/// Maximum number of references past the end of the file that are remembered.
const MAX_WILD: usize = 1 << 16;
/// Total size of tables that may always be visited, in bytes.
const FREE_VISITS: u64 = 64 << 20;

/// Whose L1 table is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The image's own: its clusters count in the statistics.
    Active,
    /// A snapshot's.
    Snapshot,
}

/// The file that is checked, and its geometry.
#[derive(Clone, Copy, Debug)]
pub(super) struct CheckedFile<'a> {
    pub storage: &'a dyn Storage,
    pub geometry: Geometry,
    /// Guest data is in another file.
    pub data_file: bool,
    /// Length of the image file in bytes.
    pub file_len: u64,
}

impl CheckedFile<'_> {
    /// Number of clusters in the file, including a last one that is incomplete.
    pub fn clusters(&self) -> u64 {
        self.geometry.clusters_for(self.file_len)
    }

    /// Calls `visit` with the L1 entries of a table that are not 0, in pieces: bytes past the end of the file are
    /// zeroes.
    pub fn for_l1(
        &self,
        offset: u64,
        entries: u32,
        mut visit: impl FnMut(&[(u32, L1Entry)]) -> Result<()>,
    ) -> Result<()> {
        let there = self.file_len.saturating_sub(offset);
        let bytes = (u64::from(entries) * 8).min(there.next_multiple_of(8));
        let mut piece = IoBuf::new();
        let mut at = 0;
        while at < bytes {
            let len = (bytes - at).min(L1_PIECE);
            piece.room(len as usize)?;
            self.storage.read_at(&mut piece, offset + at)?;
            let first = (at / 8) as u32;
            let found: Vec<_> = piece
                .chunks_exact(8)
                .zip(first..)
                .filter_map(|(bytes, index)| {
                    let entry = L1Entry::from_bytes(bytes.try_into().ok()?);
                    (entry.0 != 0).then_some((index, entry))
                })
                .collect();
            visit(&found)?;
            at += len;
        }
        Ok(())
    }

    /// Calls `visit` with each L1 entry and the bytes of its L2 table.
    pub fn for_l2(
        &self,
        entries: &[(u32, L1Entry)],
        buffer: &mut IoBuf,
        mut visit: impl FnMut(u32, L1Entry, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let cluster = self.geometry.cluster_size();
        let together = steps::are_sent_together(self.storage);
        let batch = if together { L2_TOGETHER } else { L2_BATCH };
        let most = (batch / cluster).max(1) as usize;
        let follows = |one: &(u32, L1Entry), next: &(u32, L1Entry)| {
            one.1.offset().checked_add(cluster) == Some(next.1.offset())
        };
        for batch in entries.chunks(most) {
            // Where requests are sent together, this is done for the tables of a batch, wherever they are.
            if together && self.read_together(batch, buffer).is_ok() {
                visit_each(batch, buffer, cluster, &mut visit)?;
                continue;
            }
            for run in batch.chunk_by(follows) {
                let start = run.first().map_or(0, |(_, entry)| entry.offset());
                buffer.room(run.len() * cluster as usize)?;
                self.storage.read_at(buffer, start)?;
                visit_each(run, buffer, cluster, &mut visit)?;
            }
        }
        Ok(())
    }

    /// Fills the buffer with these tables; what lies past the end of the file reads as zeroes.
    fn read_together(&self, entries: &[(u32, L1Entry)], buffer: &mut IoBuf) -> Result<()> {
        let cluster = self.geometry.cluster_size() as usize;
        buffer.room(entries.len() * cluster)?;
        let mut ranges: Vec<ReadRange<'_>> = Vec::new();
        for ((_, entry), table) in entries.iter().zip(buffer.chunks_exact_mut(cluster)) {
            let inside = self.file_len.saturating_sub(entry.offset());
            let inside = usize::try_from(inside).unwrap_or(cluster).min(cluster);
            let (inside, past) = table.split_at_mut(inside);
            past.fill(0);
            if !inside.is_empty() {
                memory::push(&mut ranges, (entry.offset(), inside))?;
            }
        }
        self.storage.read_many_at(&mut ranges)
    }
}

fn visit_each(
    entries: &[(u32, L1Entry)],
    tables: &[u8],
    cluster: u64,
    visit: &mut impl FnMut(u32, L1Entry, &[u8]) -> Result<()>,
) -> Result<()> {
    for ((index, entry), table) in entries.iter().zip(tables.chunks_exact(cluster as usize)) {
        visit(*index, *entry, table)?;
    }
    Ok(())
}

/// Walks tables and counts what they refer to.
pub(super) struct Walker<'a, 'b> {
    pub layout: CheckedFile<'a>,
    pub counts: ReferenceCounts,
    pub findings: Findings<'b>,
    /// End of the clusters to compare: those of the file, and one that is referred to just past it.
    pub end: u64,
    /// How often each cluster was visited as an L2 table.
    pub tables: ReferenceCounts,
    /// First and last clusters of regions past the end of the file that something refers to; if there are many, the
    /// first ones.
    pub wild: Vec<(u64, u64)>,
    /// The entries to repair during the walk.
    pub repairs: Repairs,
    max: u64,
    visited: u64,
    buffer: IoBuf,
}

impl<'a, 'b> Walker<'a, 'b> {
    /// Starts with nothing counted.
    pub fn new(layout: CheckedFile<'a>, findings: Findings<'b>) -> Self {
        Self {
            layout,
            counts: ReferenceCounts::default(),
            findings,
            end: layout.clusters(),
            tables: ReferenceCounts::default(),
            wild: Vec::new(),
            repairs: Repairs::default(),
            max: layout.geometry.refcount_width().max(),
            visited: 0,
            buffer: IoBuf::new(),
        }
    }

    /// Counts a reference to each cluster of a region.
    pub fn refer(&mut self, offset: u64, len: u64) {
        if len == 0 {
            return;
        }
        let geometry = self.layout.geometry;
        let end = offset.saturating_add(len);
        if end.saturating_sub(self.layout.file_len) >= geometry.cluster_size()
            && end > self.layout.file_len
        {
            self.repairs.insane = true;
            if self.wild.len() < MAX_WILD {
                let last = geometry.cluster_of(end - 1);
                self.wild.push((geometry.cluster_of(offset), last));
            }
            self.findings.lost(|| {
                format!(
                    "ERROR: counting reference for region exceeding the end of the file by one \
                     cluster or more: offset {offset:#x} size {len:#x}"
                )
            });
            return;
        }
        for cluster in geometry.cluster_of(offset)..=geometry.cluster_of(end - 1) {
            self.end = self.end.max(cluster + 1);
            if !self.counts.add(cluster, self.max) {
                let at = cluster * geometry.cluster_size();
                self.findings.corruption(|| {
                    format!(
                        "ERROR: overflow cluster offset={at:#x}\nA larger width of its refcounts \
                         makes the image whole, and so does a copy where it cannot be opened for \
                         writing"
                    )
                });
            }
        }
    }

    /// Counts an L1 table, its L2 tables and their clusters.
    ///
    /// # Errors
    /// If I/O fails, or when cancelled.
    pub fn l1_table(&mut self, offset: u64, entries: u32, role: Role) -> Result<()> {
        self.refer(offset, u64::from(entries) * 8);
        let layout = self.layout;
        let mut buffer = std::mem::take(&mut self.buffer);
        layout.for_l1(offset, entries, |found| {
            self.visit_bytes(found.len() as u64 * 8);
            let mut found = found;
            let place = |index: u32| offset + u64::from(index) * 8;
            // Tables are read together, but reported one by one.
            while !found.is_empty() && !self.given_up() {
                let batch = found.len().min(64);
                let (now, later) = found.split_at(batch);
                layout.for_l2(now, &mut buffer, |index, entry, table| {
                    if self.given_up() {
                        return Ok(());
                    }
                    self.l1_entry(entry, offset, place(index))?;
                    self.l2_table(entry.offset(), table, role)?;
                    self.visit_bytes(table.len() as u64);
                    self.check_complete()?;
                    self.findings.advance(table.len() as u64)
                })?;
                found = later;
            }
            Ok(())
        })?;
        self.buffer = buffer;
        Ok(())
    }

    /// Fails if a reference could not be counted because memory ran out.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn check_complete(&self) -> Result<()> {
        self.counts.check_complete()?;
        self.tables.check_complete()
    }

    /// Whether the check was given up, because tables were visited over and over.
    pub fn given_up(&self) -> bool {
        self.visited > self.limit()
    }

    fn limit(&self) -> u64 {
        self.layout
            .file_len
            .saturating_mul(MAX_VISITS)
            .saturating_add(FREE_VISITS)
    }

    pub fn visit_bytes(&mut self, bytes: u64) {
        let before = self.given_up();
        self.visited = self.visited.saturating_add(bytes);
        if self.given_up() && !before {
            self.findings.check_error(|| {
                "ERROR: tables refer to each other more often than this file can need; the check \
                 is given up"
                    .to_owned()
            });
        }
    }

    fn l1_entry(&mut self, entry: L1Entry, l1: u64, place: u64) -> Result<()> {
        let offset = entry.offset();
        let aligned = self.layout.geometry.in_cluster(offset) == 0;
        if entry.has_reserved_bits() {
            let there = offset != 0 && aligned && offset < self.layout.file_len;
            let repaired = there && self.repairs.l1(l1, self.layout.geometry)?;
            self.findings.repaired_or_not(repaired, |what| {
                format!("{what} L1 entry with reserved bits set: {:x}", entry.0)
            });
            if repaired {
                let word = entry.0 & !L1Entry::RESERVED_MASK;
                self.repairs.words.insert(place, word);
            }
        }
        self.refer(offset, self.layout.geometry.cluster_size());
        if aligned {
            self.tables
                .add(self.layout.geometry.cluster_of(offset), u64::MAX);
        } else {
            self.findings.lost(|| {
                format!(
                    "ERROR l2_offset={offset:x}: Table is not cluster aligned; L1 entry corrupted"
                )
            });
        }
        Ok(())
    }

    fn l2_table(&mut self, at: u64, table: &[u8], role: Role) -> Result<()> {
        let geometry = self.layout.geometry;
        let entry_size = geometry.l2_entry_size();
        let mut stats = Stats::default();
        let overlaid = self.repairs.overlaid(at, table)?;
        let table = overlaid.as_deref().unwrap_or(table);
        self.repairs
            .begin_table(at, table.len() / entry_size, geometry)?;
        let places = (at..).step_by(entry_size);
        for ((slot, index), place) in table.chunks_exact(entry_size).zip(0usize..).zip(places) {
            let Some((word, bitmap)) = slot.split_first_chunk::<8>() else {
                continue;
            };
            let entry = L2Entry::from_bytes(*word);
            let bitmap = match bitmap.try_into() {
                Ok(bytes) => SubclusterBitmap::from_bytes(bytes),
                Err(_) => SubclusterBitmap::default(),
            };
            if entry.0 != 0 || bitmap.0 != 0 {
                let now = self.l2_entry(entry, bitmap, index, &mut stats);
                if now != entry {
                    self.repairs.words.insert(place, now.0);
                }
            }
        }
        self.repairs.end_table()?;
        if role == Role::Active {
            self.findings.report.allocated_clusters += stats.allocated;
            self.findings.report.compressed_clusters += stats.compressed;
            self.findings.report.fragmented_clusters += stats.fragmented;
        }
        Ok(())
    }

    /// Counts what an entry refers to; returns the entry as it should be.
    fn l2_entry(
        &mut self,
        entry: L2Entry,
        bitmap: SubclusterBitmap,
        index: usize,
        stats: &mut Stats,
    ) -> L2Entry {
        let geometry = self.layout.geometry;
        let mut now = entry;
        if !entry.is_compressed() && entry.0 & L2Entry::RESERVED_MASK != 0 {
            let repaired = self.repairs.l2();
            self.findings.repaired_or_not(repaired, |what| {
                format!("{what} l2 entry with reserved bits set: {:x}", entry.0)
            });
            if repaired {
                now.0 &= !L2Entry::RESERVED_MASK;
            }
        }
        let offset = match entry.kind(&geometry, self.layout.data_file) {
            L2Kind::Compressed(bytes) => {
                if self.compressed_is_sound(entry, bitmap, index, bytes.offset, &mut now) {
                    self.refer(bytes.offset, bytes.len);
                    stats.allocated += 1;
                    stats.compressed += 1;
                    // Nothing can be contiguous with a compressed cluster.
                    stats.fragmented += 1;
                }
                return now;
            }
            L2Kind::Zero => return now,
            L2Kind::Unallocated => {
                if geometry.extended_l2() && bitmap.any_allocated() {
                    self.repairs.insane = true;
                    self.findings.lost(|| {
                        "ERROR: Unallocated cluster has non-zero subcluster allocation map"
                            .to_owned()
                    });
                }
                return now;
            }
            L2Kind::ZeroAllocated(offset) => offset,
            L2Kind::Data(offset) => offset,
        };
        if bitmap.contradicts() {
            self.repairs.insane = true;
            self.findings.corruption(|| {
                format!(
                    "ERROR offset={offset:x}: Allocated cluster has corrupted subcluster \
                     allocation bitmap"
                )
            });
        }
        if geometry.in_cluster(offset) != 0 {
            let holds_data = if geometry.extended_l2() {
                bitmap.any_allocated()
            } else {
                entry.0 & L2Entry::ZERO == 0
            };
            // A cluster without data is not needed: zeroes are read without it.
            let repaired = !holds_data && self.repairs.l2();
            let what = if holds_data { "Data" } else { "Preallocated" };
            if holds_data {
                self.repairs.insane = true;
            }
            let line = |first: &str| {
                format!(
                    "{first} offset={offset:x}: {what} cluster is not properly aligned; L2 entry \
                     corrupted."
                )
            };
            if repaired {
                self.findings.report.corruptions_fixed += 1;
                self.findings.note(|| line("Repairing"));
                return L2Entry(if geometry.extended_l2() {
                    0
                } else {
                    L2Entry::ZERO
                });
            }
            self.findings.lost(|| line("ERROR"));
        }
        stats.allocated += 1;
        if stats.next.is_some_and(|next| next != 0 && next != offset) {
            stats.fragmented += 1;
        }
        stats.next = Some(offset.wrapping_add(geometry.cluster_size()));
        if !self.layout.data_file {
            self.refer(offset, geometry.cluster_size());
        }
        now
    }

    fn compressed_is_sound(
        &mut self,
        entry: L2Entry,
        bitmap: SubclusterBitmap,
        index: usize,
        offset: u64,
        now: &mut L2Entry,
    ) -> bool {
        let word = entry.0 & !L2Entry::COPIED;
        if entry.copied() {
            let repaired = self.repairs.l2();
            let line = |first: &str| {
                format!(
                    "{first} coffset={offset:#x}: copied flag must never be set for compressed \
                     clusters"
                )
            };
            if repaired {
                self.findings.report.corruptions_fixed += 1;
                self.findings.note(|| line("Repairing"));
                now.0 = word;
            } else {
                self.findings.corruption(|| line("ERROR:"));
            }
        }
        if self.layout.data_file {
            self.repairs.insane = true;
            self.findings.lost(|| {
                format!("ERROR compressed cluster {index} with data file, entry={word:#x}")
            });
            return false;
        }
        if bitmap.0 != 0 {
            self.repairs.insane = true;
            self.findings.lost(|| {
                format!(
                    "ERROR compressed cluster {index} with non-zero subcluster allocation bitmap, \
                     entry={word:#x}"
                )
            });
            return false;
        }
        true
    }
}

/// The contribution of one L2 table to the statistics.
#[derive(Debug, Default)]
struct Stats {
    allocated: u64,
    compressed: u64,
    fragmented: u64,
    /// Where the next cluster would be without a gap.
    next: Option<u64>,
}
