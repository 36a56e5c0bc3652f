//! Zeroing and discarding: changes to the mapping of guest clusters without new data.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::format::{Below, ZeroBelow};
use crate::memory;
use crate::storage::ZeroFlags;

use super::disk::{L2Entry, L2Kind, SubclusterBitmap};
use super::map::Entry;
use super::state::Qcow2;

/// Zero bytes are written in pieces of this size.
const ZERO_PIECE: u64 = 256 << 10;

/// The change to one cluster.
#[derive(Debug, Default)]
struct Change {
    /// The new entry, if it changes.
    entry: Option<Entry>,
    /// The host clusters of the old entry are released.
    frees: bool,
    /// Bytes of the data file that have to read as zeroes.
    data: Option<Range<u64>>,
}

impl Change {
    fn to(entry: Entry) -> Self {
        Self {
            entry: Some(entry),
            ..Self::default()
        }
    }
}

impl Qcow2 {
    /// Makes a guest range read as zeroes; see [`crate::format::FormatWrite::write_zeroes`].
    pub(super) fn zero_guest(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()> {
        self.prepare_write()?;
        let end = self.check_range(offset, len)?;
        let unit = self.layout.subcluster_size();
        let body = self.whole_units(offset, end, unit);
        // Version 2 has no zero clusters: without a backing file, an unallocated one serves as such.
        if body.is_empty() || (self.version() < 3 && self.has_backing()) {
            return self.zero_bytes(offset, end, flags, below);
        }
        self.zero_bytes(offset, body.start, flags, below)?;
        let skip_absent = self.version() < 3;
        let done = self.remap(
            body,
            end,
            flags,
            skip_absent,
            below,
            |entry, kind, range| self.zeroed(entry, kind, range, flags),
        )?;
        self.zero_bytes(done.min(end), end, flags, below)
    }

    /// Deallocates a guest range; see [`crate::format::FormatWrite::discard`]. Whole clusters read as zeroes
    /// afterwards. Version 2 cannot hide a backing file's data, so nothing is done in that case.
    pub(super) fn discard_guest(&self, offset: u64, len: u64) -> Result<()> {
        self.prepare_write()?;
        let end = self.check_range(offset, len)?;
        let body = self.whole_units(offset, end, self.layout.cluster_size());
        if body.is_empty() || (self.version() < 3 && self.has_backing()) {
            return Ok(());
        }
        let skip_absent = !self.has_backing();
        let flags = ZeroFlags::MAY_UNMAP;
        self.remap(
            body,
            end,
            flags,
            skip_absent,
            &ZeroBelow,
            |entry, kind, range| {
                if kind == L2Kind::Unallocated && !self.has_backing() && entry.bitmap.0 == 0 {
                    return Ok(Change::default());
                }
                self.zeroed(entry, kind, range, flags)
            },
        )?;
        Ok(())
    }

    /// The whole units within a guest range; the end of the image counts as a boundary.
    fn whole_units(&self, offset: u64, end: u64, unit: u64) -> Range<u64> {
        let start = offset.next_multiple_of(unit);
        let end = if end == self.virtual_size() {
            end.next_multiple_of(unit)
        } else {
            end - end % unit
        };
        start..end.max(start)
    }

    /// Zeroes a guest range by writing, unless it already reads as zeroes.
    pub(super) fn zero_bytes(
        &self,
        start: u64,
        end: u64,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()> {
        if start >= end || self.reads_zero_guarded(start, end - start, below)? {
            return Ok(());
        }
        if flags.contains(ZeroFlags::NO_FALLBACK) {
            return Err(Error::unsupported(format!(
                "'{}': the range cannot be zeroed without writing",
                self.storage.name()
            )));
        }
        let zeroes = memory::zeroed((end - start).min(ZERO_PIECE) as usize)?;
        let mut at = start;
        while at < end {
            let len = (end - at).min(ZERO_PIECE);
            let part = zeroes.get(..len as usize).unwrap_or(&zeroes);
            self.write_guest(part, at, below)?;
            at += len;
        }
        Ok(())
    }

    pub(super) fn reads_zero_guarded(
        &self,
        offset: u64,
        len: u64,
        below: &dyn Below,
    ) -> Result<bool> {
        let _guard = self.limbo.enter();
        self.reads_zero(offset, len, below)
    }

    /// The change to a cluster that makes its part `range` read as zeroes.
    fn zeroed(
        &self,
        entry: Entry,
        kind: L2Kind,
        range: Range<u64>,
        flags: ZeroFlags,
    ) -> Result<Change> {
        if self.version() < 3 {
            let mut change = Change::to(Entry::default());
            change.frees = kind != L2Kind::Unallocated;
            return Ok(change);
        }
        let unmap = flags.contains(ZeroFlags::MAY_UNMAP);
        let whole = range.end - range.start == self.layout.cluster_size();
        let owned = entry.word.copied() || self.has_data_file;
        let host = match kind {
            L2Kind::Data(host) | L2Kind::ZeroAllocated(host) => Some(host),
            _ => None,
        };
        let data = match host {
            Some(host) if self.has_data_file && (unmap || self.raw_data_file) => {
                let at = host + self.layout.in_cluster(range.start);
                Some(at..at + (range.end - range.start))
            }
            // The raw file exposes every guest byte, mapped or not.
            None if self.raw_data_file => Some(range.clone()),
            _ => None,
        };
        let kept = host.filter(|_| owned && (!unmap || self.raw_data_file));
        let (new, frees) = if !self.layout.extended_l2() {
            let word = L2Entry::zero(kept);
            (Entry { word, ..entry }, host.is_some() && kept.is_none())
        } else if whole {
            let word = kept.map_or(L2Entry::default(), |host| L2Entry::data(host, true));
            let bitmap = SubclusterBitmap::ALL_ZERO;
            (Entry { word, bitmap }, host.is_some() && kept.is_none())
        } else {
            let size = self.layout.subcluster_size();
            let first = (self.layout.in_cluster(range.start) / size) as u32;
            let count = ((range.end - range.start) / size) as u32;
            let bitmap = entry.bitmap.with_zero(first, count);
            (Entry { bitmap, ..entry }, false)
        };
        let frees = frees || matches!(kind, L2Kind::Compressed(_));
        Ok(Change {
            entry: (new != entry).then_some(new),
            frees,
            data,
        })
    }

    /// Changes the entries of the clusters in `body`, one slice of a table at a time. `skip_absent` skips ranges that
    /// have no table; `asked` is the end of the caller's range. Returns where it stopped: before the end if the image
    /// became version 2, or grew, in the meantime.
    fn remap(
        &self,
        body: Range<u64>,
        asked: u64,
        flags: ZeroFlags,
        skip_absent: bool,
        below: &dyn Below,
        change: impl Fn(Entry, L2Kind, Range<u64>) -> Result<Change>,
    ) -> Result<u64> {
        let cluster = self.layout.cluster_size();
        let unit = self.layout.subcluster_size();
        let span = self.layout.slice_entries() * cluster;
        let mut body = body;
        let mut at = body.start;
        while at < body.end {
            self.write_back_if_full()?;
            let end = body.end.min(at - at % span + span);
            let mine = self.inflight.reserve(at / cluster..end.div_ceil(cluster));
            // The conditions may have changed since the operation began.
            self.check_range(at, asked.min(end).saturating_sub(at))?;
            if self.version() < 3 && self.has_backing() {
                return Ok(at);
            }
            if body.end > asked && self.virtual_size() != asked {
                body.end = asked - asked % unit;
                continue;
            }
            if skip_absent && self.l2_table(at)?.is_none() {
                at = self.next_table(at, body.end);
                continue;
            }
            let guard = self.limbo.enter();
            at = self.remap_slice(at..end, flags, &change)?;
            drop((guard, mine));
            if at < end {
                // Part of a compressed cluster cannot be marked: zeroes are written instead.
                let part = end.min(at - at % cluster + cluster);
                self.zero_bytes(at, part, flags, below)?;
                at = part;
            }
        }
        Ok(at.min(body.end))
    }

    /// Returns where it stopped: at the end, or at a compressed cluster that `range` covers only in part.
    fn remap_slice(
        &self,
        range: Range<u64>,
        flags: ZeroFlags,
        change: impl Fn(Entry, L2Kind, Range<u64>) -> Result<Change>,
    ) -> Result<u64> {
        let cluster = self.layout.cluster_size();
        let (slice, index) = self.l2_slice_for_write(range.start)?;
        let mut freed = Vec::new();
        let mut changed = Vec::new();
        let mut zeroed: Vec<Range<u64>> = Vec::new();
        let mut at = range.start;
        let mut index = index;
        while at < range.end {
            let end = range.end.min(at - at % cluster + cluster);
            let entry = slice.read(|words| Entry::load(words, &self.layout, index));
            let kind = self.checked_kind(entry, at)?;
            if matches!(kind, L2Kind::Compressed(_)) && end - at < cluster {
                break;
            }
            let change = change(entry, kind, at..end)?;
            if let Some(data) = change.data {
                match zeroed.last_mut() {
                    Some(last) if last.end == data.start => last.end = data.end,
                    _ => memory::push(&mut zeroed, data)?,
                }
            }
            if let Some(new) = change.entry {
                memory::push(&mut changed, (index, new))?;
                if change.frees {
                    let punch = flags.contains(ZeroFlags::MAY_UNMAP);
                    self.collect_references(entry, punch, &mut freed)?;
                }
            }
            at = end;
            index += 1;
        }
        self.zero_data_file(&zeroed, flags)?;
        if changed.is_empty() {
            return Ok(at);
        }
        self.cache.modify(&slice, |words| {
            for (index, entry) in changed {
                entry.store(words, &self.layout, index);
            }
        });
        self.give_up(freed);
        Ok(at)
    }

    fn zero_data_file(&self, ranges: &[Range<u64>], flags: ZeroFlags) -> Result<()> {
        let Some(data) = &self.data_file else {
            return Ok(());
        };
        for range in ranges {
            let end = self.end_of_data(range.end);
            if range.start < end {
                data.write_zeroes(range.start, end - range.start, flags & ZeroFlags::MAY_UNMAP)?;
            }
        }
        Ok(())
    }
}
