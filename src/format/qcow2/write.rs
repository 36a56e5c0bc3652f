//! Writing guest data: in place where the host cluster belongs to the image alone, otherwise reserve, write, publish.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::extent::StorageSlot;
use crate::format::Below;
use crate::format::qcow2::data_file::DATA;
use crate::memory::{self, IoBuf};
use crate::storage::{Step, steps};

use super::cache::Slice;
use super::disk::{Geometry, L2Entry, L2Kind, SubclusterBitmap};
use super::map::Entry;
use super::state::Qcow2;
use crate::format::limbo::Freed;

/// Runs of zeroes around written data that are shorter than this go into the same request.
const MERGE_ZEROES: u64 = 64 << 10;

/// The starting point of allocation for a guest cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// It can be written in place.
    InPlace,
    /// Its own host cluster at this offset holds no (or not all) data yet.
    Reserved(u64),
    /// A new host cluster is needed, to which old contents may have to move: see [`Source`].
    New(Source),
}

/// Which part of a guest cluster has to move to its new host cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Only what shares a subcluster with written bytes: the rest stays as described by the bitmap.
    Edges,
    /// Everything that is not overwritten.
    Whole,
}

/// A reserved run of host clusters for a run of guest clusters.
#[derive(Debug)]
pub(super) struct ReservedRun {
    /// Guest offset of the first cluster.
    pub(super) guest: u64,
    pub(super) count: u64,
    /// Host offset of the first cluster.
    pub(super) host: u64,
    /// The host clusters were allocated for this write; otherwise they already belong to the guest clusters.
    pub(super) new: bool,
    /// The host clusters read as zeroes.
    pub(super) zeroed: bool,
}

impl Qcow2 {
    /// Writes guest bytes; see [`crate::format::FormatWrite::write`].
    pub(super) fn write_guest(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()> {
        self.prepare_write()?;
        self.check_range(offset, buf.len() as u64)?;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let done = match self.write_in_place(rest, at)? {
                0 => {
                    self.write_back_if_full()?;
                    self.write_allocating(rest, at, below)?
                }
                done => done,
            };
            rest = rest.get(done as usize..).unwrap_or_default();
            at += done;
        }
        Ok(())
    }

    /// Overwrites what belongs to the image alone; returns the length written, from the start of `buf`.
    fn write_in_place(&self, buf: &[u8], offset: u64) -> Result<u64> {
        let _guard = self.limbo.enter();
        let Some((host, len)) = self.in_place_run(offset, buf.len() as u64)? else {
            return Ok(0);
        };
        self.check_data_place(host, len)?;
        let part = buf.get(..len as usize).unwrap_or(buf);
        self.write_data(&[IoSlice::new(part)], host, offset)?;
        Ok(len)
    }

    /// The target of a write to the range if [`Self::write_in_place`] would write all of it, as far as tables in memory
    /// show. Any other outcome, such as an error, is left to the path that blocks.
    pub(super) fn try_place(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)> {
        let ready = self.is_prepared.load(Ordering::Acquire) && self.check_writable().is_ok();
        if !ready || self.encrypted {
            return None;
        }
        // Looked up only once: what a second lookup finds may belong to a snapshot.
        let host = self.try_in_place(offset, len)?;
        let slot = if self.has_data_file {
            DATA
        } else {
            StorageSlot::MAIN
        };
        self.metadata_at(host, len)
            .is_none()
            .then_some((slot, host))
    }

    /// The metadata in a range of the storage of guest data, if there is any.
    fn metadata_at(&self, host: u64, len: u64) -> Option<&'static str> {
        if self.has_data_file {
            return None;
        }
        let bits = self.layout.cluster_bits();
        let end = host
            .saturating_add(len)
            .div_ceil(self.layout.cluster_size());
        self.meta.overlap(host >> bits..end)
    }

    /// Refuses to write guest data over metadata.
    pub(super) fn check_data_place(&self, host: u64, len: u64) -> Result<()> {
        match self.metadata_at(host, len) {
            None => Ok(()),
            Some(what) => Err(self.corruption(
                format!("Preventing invalid write on metadata (overlaps with {what})"),
                host,
            )),
        }
    }

    /// Writes the beginning of `buf` if at least the first cluster cannot be written in place; returns the length. 0 if
    /// another write has allocated it in the meantime.
    fn write_allocating(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<u64> {
        let bits = self.layout.cluster_bits();
        let slice_span = self.layout.slice_entries() << bits;
        // At most one slice of the table, as it is published at once.
        let end = (offset + buf.len() as u64).min(offset - offset % slice_span + slice_span);
        let first = offset >> bits;
        let clusters = first..end.div_ceil(self.layout.cluster_size());
        let _mine = self.inflight.reserve(clusters.clone());
        // The image may have been shrunk in the meantime.
        self.check_range(offset, end - offset)?;
        let _guard = self.limbo.enter();
        let (slice, index) = self.l2_slice_for_write(offset)?;
        let entries: Vec<Entry> = slice.read(|words| {
            (0..clusters.end - clusters.start)
                .map(|n| Entry::load(words, &self.layout, index + n))
                .collect()
        });
        let Some((start, count)) = self.run_to_write(&entries, offset, end)? else {
            return Ok(0);
        };
        let target = match start {
            Start::InPlace => return Ok(0),
            Start::Reserved(host) => ReservedRun {
                guest: first << bits,
                count,
                host,
                new: false,
                zeroed: false,
            },
            Start::New(_) => self.reserve_data(first << bits, count)?,
        };
        let end = end.min(target.guest + (target.count << bits));
        let data = buf.get(..(end - offset) as usize).unwrap_or(buf);
        let entries = entries.get(..target.count as usize).unwrap_or(&entries);
        let written = self
            .check_data_place(target.host, target.count << bits)
            .and_then(|()| self.write_new(&target, entries, data, offset, below))
            .and_then(|covered| Ok((covered, self.given_up_for(&target, entries)?)));
        match written {
            Ok((covered, freed)) => {
                self.publish(&slice, index, &target, entries, covered);
                self.give_up(freed);
                Ok(end - offset)
            }
            Err(error) => {
                if target.new && !self.has_data_file {
                    self.free_unused(target.host >> bits, target.count);
                }
                Err(error)
            }
        }
    }

    /// How to write the first clusters, and how many of them are written in the same way.
    fn run_to_write(
        &self,
        entries: &[Entry],
        offset: u64,
        end: u64,
    ) -> Result<Option<(Start, u64)>> {
        let cluster = self.layout.cluster_size();
        let mut run: Option<(Start, u64)> = None;
        let mut at = offset - self.layout.in_cluster(offset);
        for entry in entries {
            let range = at.max(offset)..(at + cluster).min(end);
            let next = self.start_of(*entry, range)?;
            run = match (run, next) {
                (None, next) => Some((next, 1)),
                (Some((Start::New(a), n)), Start::New(_)) => Some((Start::New(a), n + 1)),
                (Some((Start::Reserved(host), n)), Start::Reserved(other))
                    if other == host + n * cluster =>
                {
                    Some((Start::Reserved(host), n + 1))
                }
                (run, _) => return Ok(run),
            };
            at += cluster;
        }
        Ok(run)
    }

    /// How to write one cluster in `range`.
    fn start_of(&self, entry: Entry, range: Range<u64>) -> Result<Start> {
        let owned = entry.word.copied() || self.has_data_file;
        Ok(match self.checked_kind(entry, range.start)? {
            L2Kind::Data(host) if owned => {
                if self.layout.extended_l2() && !self.covers(entry.bitmap, &range) {
                    Start::Reserved(host)
                } else {
                    Start::InPlace
                }
            }
            L2Kind::ZeroAllocated(host) if owned => Start::Reserved(host),
            L2Kind::Unallocated | L2Kind::Zero => Start::New(Source::Edges),
            _ => Start::New(Source::Whole),
        })
    }

    /// The subclusters that a guest range within one cluster touches.
    fn subclusters(&self, range: &Range<u64>) -> (u32, u32) {
        let size = self.layout.subcluster_size();
        let first = self.layout.in_cluster(range.start) / size;
        let last = self.layout.in_cluster(range.end - 1) / size;
        (first as u32, (last - first + 1) as u32)
    }

    fn covers(&self, bitmap: SubclusterBitmap, range: &Range<u64>) -> bool {
        let (first, count) = self.subclusters(range);
        bitmap.allocated(first) && bitmap.run(first) >= count
    }

    /// Reserves host clusters for a run of guest clusters: as many as are contiguous.
    pub(super) fn reserve_data(&self, guest: u64, count: u64) -> Result<ReservedRun> {
        let bits = self.layout.cluster_bits();
        if let Some(data) = &self.data_file {
            // In the data file, guest data is stored at its guest offset.
            return Ok(ReservedRun {
                guest,
                count,
                host: guest,
                new: true,
                zeroed: guest >= data.len()?,
            });
        }
        let run = self.alloc_run(count)?;
        Ok(ReservedRun {
            guest,
            count: run.count,
            host: run.cluster << bits,
            new: true,
            zeroed: run.zeroed,
        })
    }

    /// The guest offset where copying has to begin for a write that begins at `offset` in the cluster of `entry`, or
    /// with `end`, where it has to end for one that ends there.
    fn edge(&self, entry: Entry, offset: u64, end: bool) -> Result<u64> {
        let cluster = self.layout.cluster_size();
        let within = if end { offset - 1 } else { offset };
        let whole = match self.start_of(entry, within..within + 1)? {
            // An allocated subcluster is written in place: nothing around it moves.
            Start::InPlace => return Ok(offset),
            Start::Reserved(_) => !self.layout.extended_l2(),
            Start::New(source) => source == Source::Whole,
        };
        let unit = if whole {
            cluster
        } else {
            self.layout.subcluster_size()
        };
        Ok(if end {
            offset.next_multiple_of(unit)
        } else {
            offset - offset % unit
        })
    }

    /// Writes `data` and what is needed around it. Returns the guest range that the host clusters now hold.
    fn write_new(
        &self,
        target: &ReservedRun,
        entries: &[Entry],
        data: &[u8],
        offset: u64,
        below: &dyn Below,
    ) -> Result<Range<u64>> {
        let data_end = offset + data.len() as u64;
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(offset..offset);
        };
        let start = self.edge(*first, offset, false)?;
        let end = self.end_of_data(self.edge(*last, data_end, true)?);
        let head = self.around(start..offset, target, below)?;
        let tail = self.around(data_end..end, target, below)?;
        let host = |guest: u64| target.host + (guest - target.guest);
        let mut bufs = Vec::with_capacity(3);
        let mut from = offset;
        if let Around::Bytes(bytes) = &head {
            bufs.push(IoSlice::new(bytes));
            from = start;
        }
        bufs.push(IoSlice::new(data));
        if let Around::Bytes(bytes) = &tail {
            bufs.push(IoSlice::new(bytes));
        }
        for (part, range) in [(&head, start..offset), (&tail, data_end..end)] {
            if matches!(part, Around::Zeroes) {
                let len = range.end - range.start;
                steps::announce(&**self.data_storage(), Step::ClusterAllocSpace);
                self.write_zero_data(len, host(range.start), range.start)?;
            }
        }
        if bufs.len() > 1 {
            steps::announce(&**self.data_storage(), Step::CowWrite);
        }
        self.write_data(&bufs, host(from), from)?;
        Ok(start..end)
    }

    /// What goes into a range next to written data.
    fn around(&self, range: Range<u64>, target: &ReservedRun, below: &dyn Below) -> Result<Around> {
        let len = range.end - range.start;
        if len == 0 {
            return Ok(Around::Nothing);
        }
        if self.reads_zero(range.start, len, below)? {
            // Zeroes on the host would decrypt to noise.
            return Ok(if target.zeroed && !self.encrypted {
                Around::Nothing
            } else if len >= MERGE_ZEROES {
                Around::Zeroes
            } else {
                Around::Bytes(memory::zeroed(len as usize)?)
            });
        }
        let mut bytes = memory::zeroed(len as usize)?;
        self.announce(Step::CowRead);
        self.read_layer(&mut bytes, range.start, Some(below))?;
        Ok(Around::Bytes(bytes))
    }

    /// Makes the entries refer to the new data, and releases what they referred to before.
    fn publish(
        &self,
        slice: &Arc<Slice>,
        index: u64,
        target: &ReservedRun,
        entries: &[Entry],
        covered: Range<u64>,
    ) {
        let cluster = self.layout.cluster_size();
        self.cache.modify(slice, |words| {
            for (n, old) in (0..target.count).zip(entries) {
                let guest = target.guest + n * cluster;
                let range = covered.start.max(guest)..covered.end.min(guest + cluster);
                let host = target.host + n * cluster;
                let keeps = !target.new
                    || matches!(
                        old.word.kind(&self.layout, self.has_data_file),
                        L2Kind::Unallocated | L2Kind::Zero
                    );
                let before = if keeps {
                    old.bitmap
                } else {
                    SubclusterBitmap::default()
                };
                let bitmap = if self.layout.extended_l2() {
                    let (first, count) = self.subclusters(&range);
                    before.with_allocated(first, count.min(Geometry::SUBCLUSTERS))
                } else {
                    SubclusterBitmap::default()
                };
                Entry {
                    word: L2Entry::data(host, true),
                    bitmap,
                }
                .store(words, &self.layout, index + n);
            }
        });
    }

    /// What the entries refer to and new clusters replace.
    fn given_up_for(&self, target: &ReservedRun, entries: &[Entry]) -> Result<Vec<Freed>> {
        let mut freed = Vec::new();
        for old in entries.iter().filter(|_| target.new) {
            self.collect_references(*old, false, &mut freed)?;
        }
        Ok(freed)
    }

    /// Adds to `freed` the host clusters that an entry refers to.
    pub(super) fn collect_references(
        &self,
        entry: Entry,
        punch: bool,
        freed: &mut Vec<Freed>,
    ) -> Result<()> {
        if self.has_data_file {
            // Clusters of the data file have no refcounts.
            return Ok(());
        }
        let bits = self.layout.cluster_bits();
        let clusters = match entry.word.kind(&self.layout, false) {
            L2Kind::Data(host) | L2Kind::ZeroAllocated(host) => host >> bits..=host >> bits,
            L2Kind::Compressed(bytes) => {
                let (first, last) = bytes.clusters(&self.layout);
                first..=last
            }
            L2Kind::Unallocated | L2Kind::Zero => return Ok(()),
        };
        for cluster in clusters {
            memory::push(freed, Freed { cluster, punch })?;
        }
        Ok(())
    }

    /// Queues references that no entry in memory holds any more.
    pub(super) fn give_up(&self, freed: Vec<Freed>) {
        if freed.is_empty() {
            return;
        }
        {
            // No more compressed data may go into a cluster that is about to be freed.
            let alloc = &mut *self.alloc.lock();
            for freed in &freed {
                alloc.partial.forget(freed.cluster);
            }
        }
        self.limbo.queue(freed);
    }
}

/// What goes next to written data.
enum Around {
    /// Nothing: the host bytes already read correctly, or the range is empty.
    Nothing,
    /// A run of zeroes, written as such.
    Zeroes,
    /// These bytes.
    Bytes(IoBuf),
}
