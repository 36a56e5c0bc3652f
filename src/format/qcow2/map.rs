//! Mapping of guest ranges to host ranges: runs across entries, slices and tables.

use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::qcow2::data_file::DATA;

use super::cache::Words;
use super::disk::{L2Entry, L2Kind, SubclusterBitmap};
use super::hex::Hex;
use super::layout::Layout;
use super::state::Qcow2;

/// A run within one slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SliceRun {
    pub(super) kind: ExtentKind,
    pub(super) len: u64,
    /// The host clusters of data belong to this image alone: they may be written in place.
    pub(super) owned: bool,
}

/// Why an entry cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Unaligned(u64),
    ZeroInVersion2,
    CompressedWithDataFile,
    Bitmap,
}

/// An L2 entry with its subcluster bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Entry {
    pub(super) word: L2Entry,
    pub(super) bitmap: SubclusterBitmap,
}

impl Entry {
    /// The entry at `index` of a slice.
    pub(super) fn load(words: &Words, layout: &Layout, index: u64) -> Self {
        let at = index as usize * layout.entry_words();
        let word = |at: usize| words.get(at).map_or(0, |w| w.load(Ordering::Acquire));
        Self {
            word: L2Entry(word(at)),
            bitmap: SubclusterBitmap(if layout.extended_l2() {
                word(at + 1)
            } else {
                0
            }),
        }
    }

    /// Stores the entry at `index` of a slice.
    pub(super) fn store(self, words: &Words, layout: &Layout, index: u64) {
        let at = index as usize * layout.entry_words();
        if let Some(word) = words.get(at) {
            word.store(self.word.0, Ordering::Release);
        }
        if let Some(word) = words.get(at + 1).filter(|_| layout.extended_l2()) {
            word.store(self.bitmap.0, Ordering::Release);
        }
    }
}

/// Whether a run of `kind` that is `len` bytes long continues with `next`.
fn continues(kind: ExtentKind, len: u64, next: ExtentKind) -> bool {
    kind.advanced(len) == next
}

impl Qcow2 {
    /// The longest run of one kind at `offset`; see [`crate::format::Format::map`].
    pub(super) fn map_run(&self, offset: u64, len: u64) -> Result<Extent> {
        let end = self.check_range(offset, len)?;
        if len == 0 {
            return Err(Error::invalid("an empty range has no mapping"));
        }
        let first = self.piece(offset, end)?;
        let mut run = first.len;
        while offset + run < end {
            // Damage is reported when the damaged part itself is requested.
            match self.piece(offset + run, end) {
                Ok(next) if continues(first.kind, run, next.kind) => run += next.len,
                _ => break,
            }
        }
        Ok(Extent {
            len: run,
            kind: first.kind,
        })
    }

    /// As [`Self::map_run`], from tables in memory: None if loading one would block. The run may be shorter than the
    /// longest one.
    pub(super) fn try_map(&self, offset: u64, len: u64) -> Result<Option<Extent>> {
        let end = self.check_range(offset, len)?;
        let Some(first) = self.try_piece(offset, end)? else {
            return Ok(None);
        };
        let mut run = first.len;
        while offset + run < end {
            match self.try_piece(offset + run, end) {
                Ok(Some(next)) if continues(first.kind, run, next.kind) => run += next.len,
                _ => break,
            }
        }
        Ok(Some(Extent {
            len: run,
            kind: first.kind,
        }))
    }

    /// As [`Self::in_place_run`], from tables in memory: whether the run covers the whole range.
    pub(super) fn try_is_in_place(&self, offset: u64, len: u64) -> bool {
        let Some(end) = offset.checked_add(len) else {
            return false;
        };
        let mut at = offset;
        while at < end {
            match self.try_piece(at, end) {
                Ok(Some(piece)) if piece.owned => at += piece.len,
                _ => return false,
            }
        }
        true
    }

    /// As [`Self::in_place_run`], from tables in memory: the host offset, if the run covers the whole range.
    pub(super) fn try_in_place(&self, offset: u64, len: u64) -> Option<u64> {
        let end = self.check_range(offset, len).ok()?;
        let first = self.try_piece(offset, end).ok()??;
        let (ExtentKind::Data { host_offset, .. }, true) = (first.kind, first.owned) else {
            return None;
        };
        let mut run = first.len;
        while offset + run < end {
            let next = self.try_piece(offset + run, end).ok()??;
            if !next.owned || !continues(first.kind, run, next.kind) {
                return None;
            }
            run += next.len;
        }
        Some(host_offset)
    }

    /// The host offset and length of the longest run that can be overwritten in place, if any.
    pub(super) fn in_place_run(&self, offset: u64, len: u64) -> Result<Option<(u64, u64)>> {
        let end = offset + len;
        let first = self.piece(offset, end)?;
        let (ExtentKind::Data { host_offset, .. }, true) = (first.kind, first.owned) else {
            return Ok(None);
        };
        let mut run = first.len;
        while offset + run < end {
            let next = self.piece(offset + run, end)?;
            if !next.owned || !continues(first.kind, run, next.kind) {
                break;
            }
            run += next.len;
        }
        Ok(Some((host_offset, run)))
    }

    /// The longest run at `offset` within one slice; without a table, up to the next table.
    pub(super) fn piece(&self, offset: u64, end: u64) -> Result<SliceRun> {
        let Some(table) = self.l2_table(offset)? else {
            return Ok(SliceRun {
                kind: ExtentKind::Unallocated { host_offset: None },
                len: self.next_table(offset, end) - offset,
                owned: false,
            });
        };
        self.look_ahead(offset, end);
        let (slice, index) = self.l2_slice(table.offset(), offset)?;
        let found = slice.read(|words| self.piece_in(words, index, offset, end));
        found.map_err(|(fault, at)| self.fault(fault, table.offset(), at))
    }

    /// As [`Self::piece`]; None if loading the slice would block.
    fn try_piece(&self, offset: u64, end: u64) -> Result<Option<SliceRun>> {
        let Some(table) = self.l2_table(offset)? else {
            return self.piece(offset, end).map(Some);
        };
        let Some((slice, index)) = self.l2_slice_now(table.offset(), offset) else {
            return Ok(None);
        };
        let found = slice.read(|words| self.piece_in(words, index, offset, end));
        found
            .map(Some)
            .map_err(|(fault, at)| self.fault(fault, table.offset(), at))
    }

    /// The guest offset, at most `end`, of the next range that has an L2 table.
    pub(super) fn next_table(&self, offset: u64, end: u64) -> u64 {
        let l1 = self.l1.read();
        let mut index = self.layout.l1_index(offset);
        loop {
            index += 1;
            let start = match index.checked_shl(self.layout.l1_shift()) {
                Some(start) if start >> self.layout.l1_shift() == index => start,
                _ => return end,
            };
            if start >= end || l1.get(index).offset() != 0 {
                return start.min(end);
            }
        }
    }

    /// Number of empty entries from `index` on, None if that one is not empty: sparse images consist mostly of these,
    /// so they are scanned word by word.
    fn empty_entries(&self, words: &Words, index: u64) -> Option<u64> {
        let from = index as usize * self.layout.entry_words();
        let rest = words.get(from..)?;
        let zeroes = rest
            .iter()
            .take_while(|word| word.load(Ordering::Acquire) == 0)
            .count();
        let empty = zeroes / self.layout.entry_words();
        (empty > 0).then_some(empty as u64)
    }

    fn piece_in(
        &self,
        words: &Words,
        index: u64,
        offset: u64,
        end: u64,
    ) -> Result<SliceRun, (Fault, u64)> {
        if let Some(empty) = self.empty_entries(words, index) {
            let start = offset - self.layout.in_cluster(offset);
            let len = start.saturating_add(empty * self.layout.cluster_size()) - offset;
            return Ok(SliceRun {
                kind: ExtentKind::Unallocated { host_offset: None },
                len: len.min(end - offset),
                owned: false,
            });
        }
        let mut piece: Option<SliceRun> = None;
        let mut at = offset;
        for index in index..self.layout.slice_entries() {
            let entry = Entry::load(words, &self.layout, index);
            let cluster_end = self.layout.in_cluster(at) ^ at;
            let cluster_end = cluster_end.saturating_add(self.layout.cluster_size());
            while at < cluster_end.min(end) {
                let next = match self.piece_of(entry, at, cluster_end) {
                    Ok(next) => next,
                    Err(_) if piece.is_some() => return Ok(finish(piece, end - offset)),
                    Err(fault) => return Err((fault, at)),
                };
                match &mut piece {
                    None => piece = Some(next),
                    Some(run)
                        if run.owned == next.owned && continues(run.kind, run.len, next.kind) =>
                    {
                        run.len += next.len;
                    }
                    Some(_) => return Ok(finish(piece, end - offset)),
                }
                at += next.len;
            }
            if at >= end {
                break;
            }
        }
        Ok(finish(piece, end - offset))
    }

    /// The run within one cluster at `at`, which ends at `cluster_end`.
    fn piece_of(&self, entry: Entry, at: u64, cluster_end: u64) -> Result<SliceRun, Fault> {
        let kind = self.kind_of(entry)?;
        let rest = cluster_end - at;
        let within = self.layout.in_cluster(at);
        let owned = entry.word.copied() || self.has_data_file;
        if !self.layout.extended_l2() || matches!(kind, L2Kind::Compressed(_)) {
            let kind = match kind {
                L2Kind::Unallocated => ExtentKind::Unallocated { host_offset: None },
                L2Kind::Zero => ExtentKind::ZEROES,
                L2Kind::ZeroAllocated(host) => ExtentKind::Zero {
                    slot: self.data_slot(),
                    host_offset: Some(host + within),
                },
                L2Kind::Data(host) => self.data(host + within),
                L2Kind::Compressed(_) => ExtentKind::Encoded { compressed: true },
            };
            return Ok(SliceRun {
                kind,
                len: rest,
                owned: owned && matches!(kind, ExtentKind::Data { .. }),
            });
        }
        let size = self.layout.subcluster_size();
        let first = (within / size) as u32;
        let len = u64::from(entry.bitmap.run(first)) * size - within % size;
        let host = match kind {
            L2Kind::Data(host) => Some(host + within),
            _ => None,
        };
        let kind = match (
            host,
            entry.bitmap.allocated(first),
            entry.bitmap.zero(first),
        ) {
            (Some(host), true, _) => self.data(host),
            (host, false, true) => ExtentKind::Zero {
                slot: self.data_slot(),
                host_offset: host,
            },
            (host, _, _) => ExtentKind::Unallocated { host_offset: host },
        };
        Ok(SliceRun {
            kind,
            len: len.min(rest),
            owned: owned && matches!(kind, ExtentKind::Data { .. }),
        })
    }

    fn data(&self, host_offset: u64) -> ExtentKind {
        ExtentKind::Data {
            slot: self.data_slot(),
            host_offset,
        }
    }

    fn data_slot(&self) -> StorageSlot {
        match self.has_data_file {
            true => DATA,
            false => StorageSlot::MAIN,
        }
    }

    fn kind_of(&self, entry: Entry) -> Result<L2Kind, Fault> {
        let kind = entry.word.kind(&self.layout, self.has_data_file);
        match kind {
            L2Kind::Zero | L2Kind::ZeroAllocated(_) if self.version() < 3 => {
                return Err(Fault::ZeroInVersion2);
            }
            L2Kind::Data(host) | L2Kind::ZeroAllocated(host)
                if self.layout.in_cluster(host) != 0 =>
            {
                return Err(Fault::Unaligned(host));
            }
            L2Kind::Compressed(_) if self.has_data_file => {
                return Err(Fault::CompressedWithDataFile);
            }
            _ => {}
        }
        let bitmap_bad = match kind {
            L2Kind::Compressed(_) => false,
            L2Kind::Unallocated => entry.bitmap.any_allocated(),
            _ => entry.bitmap.contradicts(),
        };
        if self.layout.extended_l2() && (bitmap_bad || entry.bitmap.contradicts()) {
            return Err(Fault::Bitmap);
        }
        Ok(kind)
    }

    /// The kind of an entry, or the error for a damaged one.
    pub(super) fn checked_kind(&self, entry: Entry, guest: u64) -> Result<L2Kind> {
        self.kind_of(entry).map_err(|fault| {
            let table = self.l1.read().get(self.layout.l1_index(guest)).offset();
            self.fault(fault, table, guest)
        })
    }

    fn fault(&self, fault: Fault, table: u64, guest: u64) -> Error {
        let index = self.layout.l2_index(guest);
        let place = format!("(L2 offset: {}, L2 index: {})", Hex(table), Hex(index));
        let text = match fault {
            Fault::Unaligned(host) => {
                format!("Cluster allocation offset {} unaligned {place}", Hex(host))
            }
            Fault::ZeroInVersion2 => format!("Zero cluster entry found in pre-v3 image {place}"),
            Fault::CompressedWithDataFile => {
                format!("Compressed cluster entry found in image with external data file {place}")
            }
            Fault::Bitmap => format!("Invalid cluster entry found  {place}"),
        };
        let at = table + index * self.layout.l2_entry_size() as u64;
        self.corruption(text, at)
    }
}

/// Cuts the run off at the end of the requested range.
fn finish(piece: Option<SliceRun>, len: u64) -> SliceRun {
    let mut piece = piece.unwrap_or(SliceRun {
        kind: ExtentKind::Unallocated { host_offset: None },
        len,
        owned: false,
    });
    piece.len = piece.len.min(len);
    piece
}
