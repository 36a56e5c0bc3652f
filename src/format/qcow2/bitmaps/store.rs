//! Storing bitmaps: bits, tables and the directory are written beside the old ones, with refcounts for both, and take
//! effect by one write of the header; only then are the old ones released.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::format::qcow2::disk::{
    Autoclear, BitmapEntry, BitmapTableEntry, BitmapsExtension, Extension, Header, ImageHeader,
    MAX_BITMAP_DIRECTORY, MAX_BITMAPS,
};
use crate::format::qcow2::overlap::Area;
use crate::format::qcow2::snapshot::By;
use crate::format::qcow2::state::Qcow2;
use crate::format::qcow2::table_place::TablePlace;
use crate::job::JobControl;
use crate::memory;
use crate::storage::Durability;

use super::record::Record;
use super::recorder::{Known, Session};
use super::session::Next;
use super::table::add_record;
use crate::format::bits;

/// What a change allocated, and what it leaves behind.
#[derive(Default)]
struct Moved {
    fresh: Vec<TablePlace>,
    left: Vec<u64>,
}

impl Moved {
    fn leave(&mut self, clusters: Range<u64>) -> Result<()> {
        let more = usize::try_from(clusters.end.saturating_sub(clusters.start));
        memory::reserve(&mut self.left, more.unwrap_or(usize::MAX))?;
        self.left.extend(clusters);
        Ok(())
    }
}

impl Qcow2 {
    /// Makes `next` the bitmaps of the image, for a virtual size of `size`, together with a change of header fields.
    /// After a failure, or if `control` ends it, everything is as it was.
    pub(super) fn store_bitmaps(
        &self,
        session: &mut Session,
        next: &[Next],
        size: u64,
        header: impl Fn(&mut Header),
        control: &JobControl,
    ) -> Result<()> {
        let mut moved = Moved::default();
        let stored = self.write_bitmaps(session, next, size, &header, &mut moved, control);
        let (known, place) = match stored {
            Ok(stored) => stored,
            Err(error) => {
                for place in moved.fresh {
                    self.forget(place);
                }
                return Err(error);
            }
        };
        self.protect_directory(place);
        for place in &moved.fresh {
            self.meta
                .add_bitmap(place.first..place.first + place.clusters);
        }
        self.release(session.place);
        for cluster in moved.left {
            self.release(TablePlace {
                first: cluster,
                clusters: 1,
                ..TablePlace::default()
            });
        }
        session.known = known;
        session.place = place;
        Ok(())
    }

    /// Writes the new structures and makes the header refer to them.
    fn write_bitmaps(
        &self,
        session: &Session,
        next: &[Next],
        size: u64,
        header: &impl Fn(&mut Header),
        moved: &mut Moved,
        control: &JobControl,
    ) -> Result<(Vec<Known>, TablePlace)> {
        let mut known = Vec::new();
        memory::reserve(&mut known, next.len())?;
        let mut directory = Vec::new();
        for next in next {
            let bitmap = self
                .write_bitmap(next, size, moved, control)
                .map_err(|error| {
                    if error.kind() == ErrorKind::Cancelled {
                        return error;
                    }
                    let name = next.known.entry.name_text();
                    error.context(format!("Failed to write bitmap '{name}' to file"))
                })?;
            bitmap.entry.write_to(&mut directory);
            known.push(bitmap);
        }
        let mut stay: HashSet<&[u8]> = HashSet::new();
        stay.try_reserve(next.len()).map_err(|_| memory::lack())?;
        stay.extend(next.iter().map(|next| &next.known.entry.name[..]));
        for gone in &session.known {
            if !stay.contains(&gone.entry.name[..]) {
                self.leave_bitmap(&gone.entry, moved)?;
            }
        }
        self.check_left(&mut moved.left)?;
        if known.len() as u64 > u64::from(MAX_BITMAPS)
            || directory.len() as u64 > MAX_BITMAP_DIRECTORY
        {
            return Err(Error::new(
                ErrorKind::Limit,
                "Maximum number of persistent bitmaps is already reached",
            ));
        }
        let len = directory.len() as u64;
        memory::reserve(&mut moved.fresh, 1)?;
        let place = self.write_area(directory)?;
        if place.clusters > 0 {
            moved.fresh.push(place);
        }
        let extension = (len > 0).then_some(BitmapsExtension {
            count: known.len() as u32,
            directory_size: len,
            directory_offset: place.offset,
        });
        let change = |image: &mut ImageHeader| {
            name_bitmaps(image, extension);
            header(&mut image.header);
        };
        self.check_replacement(change)?;
        self.write_metadata(true, Durability::None)?;
        control.check()?;
        self.switch_image_header(change)?;
        Ok((known, place))
    }

    /// Writes the bits that change and a table that refers to them.
    fn write_bitmap(
        &self,
        next: &Next,
        size: u64,
        moved: &mut Moved,
        control: &JobControl,
    ) -> Result<Known> {
        let mut known = next.known.clone();
        let granularity = known.entry.granularity_bits;
        let old_size = self.virtual_size();
        let is_new = known.entry.table_offset == 0;
        let touched = next
            .add
            .iter()
            .any(|record| !record.is_clear(0..u64::MAX >> 1));
        if !is_new && next.keep && !touched && size == old_size {
            return Ok(known);
        }
        let count = self.bitmap_clusters(size, granularity)?;
        if count == 0 {
            return Err(Error::invalid("An image without contents has no bitmaps"));
        }
        let stored = if is_new {
            Vec::new()
        } else {
            self.bitmap_table(&known.entry)?
        };
        let kept: &[BitmapTableEntry] = if next.keep { &stored } else { &[] };
        let span = self.bitmap_span(granularity);
        let mut table = Vec::new();
        memory::reserve(&mut table, count as usize)?;
        for index in 0..count {
            control.check()?;
            let old = kept.get(index as usize).copied().unwrap_or_default();
            let start = index * span;
            let covered = start..start.saturating_add(span).min(size);
            // Bits past the former end, or past the new one, must not reappear later.
            let limit = old_size.min(size);
            let cut = size != old_size
                && old != BitmapTableEntry::default()
                && limit < start.saturating_add(span);
            let add: Vec<&Record> = next
                .add
                .iter()
                .filter(|record| !record.is_clear(covered.clone()))
                .map(Arc::as_ref)
                .collect();
            let new = if cut || !add.is_empty() {
                let valid = cut.then(|| limit.saturating_sub(start));
                self.write_bits(old, valid, covered, granularity, &add, moved)?
            } else {
                old
            };
            table.push(new);
        }
        for (index, old) in stored.iter().enumerate() {
            if old.offset() != 0 && table.get(index) != Some(old) {
                let cluster = old.offset() >> self.layout.cluster_bits();
                moved.leave(cluster..cluster + 1)?;
            }
        }
        if !is_new && table == stored {
            return Ok(known);
        }
        if !is_new {
            moved.leave(self.table_clusters(&known.entry))?;
        }
        memory::reserve(&mut moved.fresh, 1)?;
        let place = self.write_area(memory::bytes_of(table.iter().map(|entry| entry.0))?)?;
        moved.fresh.push(place);
        known.entry.table_offset = place.offset;
        known.entry.table_entries = table.len() as u32;
        Ok(known)
    }

    /// The table entry for the bits of `old` combined with those of `add`; bits from the guest byte `valid` of the
    /// entry on are cleared first.
    fn write_bits(
        &self,
        old: BitmapTableEntry,
        valid: Option<u64>,
        covered: Range<u64>,
        granularity_bits: u8,
        add: &[&Record],
        moved: &mut Moved,
    ) -> Result<BitmapTableEntry> {
        let granularity = u32::from(granularity_bits);
        let before = self.bitmap_bytes(old)?;
        let mut bytes = memory::copied(&before)?;
        let all = bytes.len() as u64 * 8;
        if let Some(valid) = valid {
            bits::clear(&mut bytes, valid.div_ceil(1 << granularity)..all);
        }
        for record in add {
            add_record(&mut bytes, record, covered.clone(), granularity);
        }
        let count = (covered.end - covered.start).div_ceil(1 << granularity);
        if bits::find(&bytes, 0..all, true) == all {
            return Ok(BitmapTableEntry::default());
        }
        if bits::find(&bytes, 0..count, false) == count {
            return Ok(BitmapTableEntry::ONES);
        }
        if *bytes == *before && old.offset() != 0 {
            return Ok(old);
        }
        memory::reserve(&mut moved.fresh, 1)?;
        let place = self.write_area(bytes)?;
        moved.fresh.push(place);
        Ok(BitmapTableEntry(place.offset))
    }

    /// Adds all clusters of a bitmap to those left behind.
    fn leave_bitmap(&self, bitmap: &BitmapEntry, moved: &mut Moved) -> Result<()> {
        let bits = self.layout.cluster_bits();
        let table = match self.bitmap_table(bitmap) {
            // Nothing that a damaged table refers to is safe to free: it is leaked.
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(()),
            table => table?,
        };
        let named = table.iter().filter(|entry| entry.offset() != 0);
        for entry in named {
            memory::push(&mut moved.left, entry.offset() >> bits)?;
        }
        moved.leave(self.table_clusters(bitmap))
    }

    fn table_clusters(&self, bitmap: &BitmapEntry) -> Range<u64> {
        let first = bitmap.table_offset >> self.layout.cluster_bits();
        let len = u64::from(bitmap.table_entries) * 8;
        first..first + self.layout.clusters_for(len)
    }

    /// Refuses to release clusters that hold something else, or whose refcounts are too low.
    fn check_left(&self, clusters: &mut [u64]) -> Result<()> {
        for cluster in clusters.iter() {
            if let Some(what) = self.meta.overlap_other(*cluster) {
                let offset = cluster << self.layout.cluster_bits();
                return Err(Error::corrupt(format!(
                    "A bitmap's table names offset {offset:#x}, where the {what} stands"
                ))
                .with_offset(offset));
            }
        }
        clusters.sort_unstable();
        self.check_references(clusters, By::Lower)
            .map_err(|error| error.context("The bitmaps' tables are damaged"))
    }

    /// Switches the header to other bitmaps, with a barrier on both sides.
    fn switch_image_header(&self, change: impl FnOnce(&mut ImageHeader)) -> Result<()> {
        self.barrier()?;
        self.note_header_change(self.replace_header(change).and_then(|()| self.barrier()))
    }

    /// Protects the directory against other writes.
    fn protect_directory(&self, place: TablePlace) {
        self.meta.set_area(
            Area::BitmapDirectory,
            place.first..place.first + place.clusters,
        );
    }
}

/// Replaces the bitmaps extension, and updates the autoclear bit that vouches for it.
fn name_bitmaps(image: &mut ImageHeader, extension: Option<BitmapsExtension>) {
    let is_bitmaps = |extension: &Extension| matches!(extension, Extension::Bitmaps(_));
    let at = image.extensions.iter().position(is_bitmaps);
    image.extensions.retain(|extension| !is_bitmaps(extension));
    image
        .header
        .autoclear
        .set(Autoclear::BITMAPS, extension.is_some());
    if let Some(extension) = extension {
        let names = |extension: &Extension| matches!(extension, Extension::FeatureNames(_));
        // Before the long feature name table: close to the fields that change with it.
        let at = at
            .or_else(|| image.extensions.iter().position(names))
            .unwrap_or(image.extensions.len());
        image.extensions.insert(at, Extension::Bitmaps(extension));
    }
}
