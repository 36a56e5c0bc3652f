//! Bitmap tables, and the bits that they refer to.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::format::bit_table::{self, Entry, Measures};
use crate::format::bits;
use crate::format::qcow2::disk::{BitmapEntry, BitmapTableEntry};
use crate::format::qcow2::open::read_table;
use crate::format::qcow2::state::Qcow2;
use crate::job::JobControl;
use crate::memory::{self, IoBuf};

use super::record::Record;

/// Maximum size of one bitmap's bits in bytes, as in QEMU.
const MAX_BYTES: u64 = 512 << 20;

impl Qcow2 {
    /// Number of table entries that a bitmap needs for a disk of `size` bytes.
    pub(super) fn bitmap_clusters(&self, size: u64, granularity_bits: u8) -> Result<u64> {
        let bytes = size.div_ceil(1 << granularity_bits.min(63)).div_ceil(8);
        if bytes > MAX_BYTES {
            return Err(Error::new(
                ErrorKind::Limit,
                "Too much space will be occupied by the bitmap. Use larger granularity",
            ));
        }
        Ok(bytes.div_ceil(self.layout.cluster_size()))
    }

    /// Number of guest bytes per table entry.
    pub(super) fn bitmap_span(&self, granularity_bits: u8) -> u64 {
        let shift = self.layout.cluster_bits() + 3 + u32::from(granularity_bits);
        1u64.checked_shl(shift).unwrap_or(u64::MAX)
    }

    /// All entries of a bitmap's table. Refuses a table that is longer than any bitmap can need, that passes the end of
    /// the file, or that has an invalid entry.
    pub(super) fn bitmap_table(&self, bitmap: &BitmapEntry) -> Result<Vec<BitmapTableEntry>> {
        let damaged = |what: &str| {
            Error::corrupt(format!("Bitmap '{}': {what}", bitmap.name_text()))
                .with_offset(bitmap.table_offset)
        };
        let cluster = self.layout.cluster_size();
        let entries = u64::from(bitmap.table_entries);
        if entries > MAX_BYTES.div_ceil(cluster) {
            return Err(damaged("its table is too long"));
        }
        let file = self.storage.len()?.next_multiple_of(cluster);
        if bitmap.table_offset.saturating_add(entries * 8) > file {
            return Err(damaged("its table passes the end of the file"));
        }
        let mut table = Vec::new();
        read_table(&*self.storage, bitmap.table_offset, entries * 8, |entry| {
            table.push(BitmapTableEntry(entry));
        })?;
        let bad = table.iter().any(|entry| {
            entry.has_reserved_bits()
                || self.layout.in_cluster(entry.offset()) != 0
                || entry.offset().saturating_add(cluster) > file
        });
        if bad {
            return Err(damaged("its table has a damaged entry"));
        }
        Ok(table)
    }

    /// The bytes of the bits that a table entry refers to.
    pub(super) fn bitmap_bytes(&self, entry: BitmapTableEntry) -> Result<IoBuf> {
        let fill = if entry.all_ones() { 0xff } else { 0 };
        let mut bytes = memory::zeroed(self.layout.cluster_size() as usize)?;
        bytes.fill(fill);
        if entry.offset() != 0 {
            self.storage.read_at(&mut bytes, entry.offset())?;
        }
        Ok(bytes)
    }

    /// Calls `visit` with the runs of dirty guest bytes within `range`, in order and at full length: those that are
    /// stored, and those recorded since.
    pub(super) fn visit_stored(
        &self,
        bitmap: &BitmapEntry,
        record: Option<&Record>,
        range: Range<u64>,
        control: &JobControl,
        visit: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let range = range.start..range.end.min(self.virtual_size());
        let granularity = u32::from(bitmap.granularity_bits);
        let table = self.bitmap_table(bitmap)?;
        let measures = Measures {
            span: self.bitmap_span(bitmap.granularity_bits),
            granularity: 1 << granularity.min(63),
        };
        let entry = |index: u64, covered: Range<u64>, bytes: &mut IoBuf| {
            let index = usize::try_from(index).ok();
            let entry = index.and_then(|index| table.get(index).copied());
            let entry = entry.unwrap_or_default();
            let recorded = record.filter(|record| !record.is_clear(covered.clone()));
            if entry.all_ones() {
                return Ok(Entry::Set);
            }
            if entry.offset() == 0 && recorded.is_none() {
                return Ok(Entry::Clear);
            }
            *bytes = self.bitmap_bytes(entry)?;
            if let Some(record) = recorded {
                add_record(bytes, record, covered, granularity);
            }
            Ok(Entry::Stored)
        };
        bit_table::visit_set(measures, range, control, entry, visit)
    }
}

/// Sets those bits of a cluster, which covers the guest bytes `covered`, that are set in a record.
pub(super) fn add_record(
    bytes: &mut [u8],
    record: &Record,
    covered: Range<u64>,
    granularity_bits: u32,
) {
    let start = covered.start;
    record.visit(covered, |run| {
        let first = (run.start - start) >> granularity_bits;
        let end = (run.end - start).div_ceil(1 << granularity_bits);
        bits::set(bytes, first..end);
    });
}
