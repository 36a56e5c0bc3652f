//! Persistent dirty bitmaps (specification: "Bitmaps").
//!
//! While an image may change, the bitmaps that record are marked in use on disk, and writes are recorded in memory: in
//! the finest of their granularities, with one record for all of them. When the image is closed, or the list of bitmaps
//! changes, the record is merged into each of them. So a crash leaves bitmaps that are known to be incomplete, never
//! ones that silently lack something.

mod protect;
mod record;
pub(super) mod recorder;
mod session;
mod store;
mod table;

use std::ops::Range;
use std::sync::Arc;

use bstr::BStr;
use parking_lot::RwLockWriteGuard;

use crate::error::{Error, ErrorKind, Result};
use crate::format::capabilities::{BitmapInfo, Bitmaps, DirtyRanges};
use crate::job::JobControl;

use super::disk::{BitmapEntry, BitmapFlags, DIRTY_BITMAP, MAX_BITMAP_NAME};
use super::state::Qcow2;

use record::Record;
use recorder::{Known, Session};
use session::Next;

/// Granularities that a bitmap can have, as powers of 2.
const GRANULARITIES: Range<u32> = 9..32;
/// The default granularity is the cluster size, within these bounds.
const DEFAULT_GRANULARITIES: (u64, u64) = (4 << 10, 64 << 10);

impl Bitmaps for Qcow2 {
    fn covered(&self) -> u64 {
        self.virtual_size()
    }

    fn list(&self) -> Result<Vec<BitmapInfo>> {
        let session = self.loaded_bitmaps()?;
        Ok(session.known.iter().map(describe).collect())
    }

    fn add(&self, name: &BStr, granularity: Option<u64>, control: &JobControl) -> Result<()> {
        self.change_list(control, |session, next, image| {
            next.push(image.new_bitmap(session, name, granularity)?);
            Ok(())
        })
    }

    fn add_filled(
        &self,
        name: &BStr,
        granularity: u64,
        enabled: bool,
        ranges: &mut DirtyRanges<'_>,
        control: &JobControl,
    ) -> Result<()> {
        let session = &mut *self.changing_bitmaps()?;
        let mut new = self.new_bitmap(session, name, Some(granularity))?;
        new.set_enabled(enabled, session.begun);
        let bits = u32::from(new.known.entry.granularity_bits);
        let marks = Arc::new(Record::new(self.virtual_size(), bits)?);
        ranges(&mut |offset, len| marks.set(offset..offset.saturating_add(len)))?;
        new.add.push(marks);
        self.change_bitmaps(session, control, |_, next| {
            next.push(new);
            Ok(())
        })
    }

    fn remove(&self, name: &BStr, control: &JobControl) -> Result<()> {
        self.change_list(control, |session, next, _| {
            next.remove(find(session, name)?);
            Ok(())
        })
    }

    fn clear(&self, name: &BStr, control: &JobControl) -> Result<()> {
        self.change_one(name, control, |next, _| {
            next.keep = false;
            next.add.clear();
        })
    }

    fn set_enabled(&self, name: &BStr, enabled: bool, control: &JobControl) -> Result<()> {
        self.change_one(name, control, |next, begun| {
            next.set_enabled(enabled, begun)
        })
    }

    fn finish(&self, control: &JobControl) -> Result<()> {
        self.finish_bitmaps(control)
    }

    fn visit_dirty(
        &self,
        name: &BStr,
        range: Range<u64>,
        control: &JobControl,
        visit: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        drop(self.loaded_bitmaps()?);
        let session = self.recorder.session.read();
        let known = session
            .known
            .get(find(&session, name)?)
            .ok_or_else(|| Error::no_such_bitmap(name))?;
        known.check_consistent()?;
        self.visit_bitmap(&session, known, range, control, &mut |run| {
            control.check()?;
            visit(run.start, run.end - run.start)
        })
    }

    fn mark(&self, name: &BStr, ranges: &mut DirtyRanges<'_>, control: &JobControl) -> Result<()> {
        let (size, granularity) = {
            let session = self.loaded_bitmaps()?;
            let known = session.known.get(find(&session, name)?);
            let known = known.ok_or_else(|| Error::no_such_bitmap(name))?;
            known.check_consistent()?;
            let bits = known.entry.granularity_bits;
            self.bitmap_clusters(self.virtual_size(), bits)?;
            (self.virtual_size(), u32::from(bits))
        };
        // The ranges may come from this very image: no lock is held while they are collected.
        let marks = Arc::new(Record::new(size, granularity)?);
        ranges(&mut |offset, len| marks.set(offset..offset.saturating_add(len)))?;
        let session = &mut *self.changing_bitmaps()?;
        self.change_bitmaps(session, control, |session, next| {
            let next = checked(next, find(session, name)?, name)?;
            next.add.push(marks);
            Ok(())
        })
    }
}

impl Qcow2 {
    /// The bitmaps, as read from the directory.
    fn loaded_bitmaps(&self) -> Result<RwLockWriteGuard<'_, Session>> {
        let mut session = self.recorder.session.write();
        self.load_bitmaps(&mut session)?;
        Ok(session)
    }

    /// The bitmaps, for a change.
    fn changing_bitmaps(&self) -> Result<RwLockWriteGuard<'_, Session>> {
        self.check_writable()?;
        if self.lazy() {
            // Refcounts will change: the dirty bit has to be set first.
            self.prepare_write()?;
        }
        self.loaded_bitmaps()
    }

    fn change_list(
        &self,
        control: &JobControl,
        change: impl FnOnce(&Session, &mut Vec<Next>, &Self) -> Result<()>,
    ) -> Result<()> {
        let session = &mut *self.changing_bitmaps()?;
        self.change_bitmaps(session, control, |session, next| {
            change(session, next, self)
        })
    }

    /// Changes a consistent bitmap; `change` is told whether guest data may be changing.
    fn change_one(
        &self,
        name: &BStr,
        control: &JobControl,
        change: impl FnOnce(&mut Next, bool),
    ) -> Result<()> {
        self.change_list(control, |session, next, _| {
            let next = checked(next, find(session, name)?, name)?;
            change(next, session.begun);
            Ok(())
        })
    }

    /// A new empty bitmap that records writes.
    fn new_bitmap(&self, session: &Session, name: &BStr, granularity: Option<u64>) -> Result<Next> {
        let bits = self.new_granularity(name, granularity)?;
        if find(session, name).is_ok() {
            return Err(Error::new(
                ErrorKind::Exists,
                format!("Bitmap already exists: {name}"),
            ));
        }
        self.check_new(name, bits).map_err(|error| {
            let file = self.storage.name();
            error.context(format!("Can't make bitmap '{name}' persistent in '{file}'"))
        })?;
        let mut new = Next {
            known: Known {
                entry: BitmapEntry {
                    table_offset: 0,
                    table_entries: 0,
                    flags: BitmapFlags::empty(),
                    kind: DIRTY_BITMAP,
                    granularity_bits: bits,
                    name: name.to_vec(),
                    extra: Vec::new(),
                },
                live: false,
            },
            keep: false,
            add: Vec::new(),
        };
        new.set_enabled(true, session.begun);
        Ok(new)
    }

    /// The granularity of a new bitmap, as a power of 2.
    fn new_granularity(&self, name: &BStr, granularity: Option<u64>) -> Result<u8> {
        if name.is_empty() {
            return Err(Error::invalid("Bitmap name cannot be empty"));
        }
        let (least, most) = DEFAULT_GRANULARITIES;
        let granularity =
            granularity.unwrap_or_else(|| self.layout.cluster_size().clamp(least, most));
        let bits = granularity.trailing_zeros();
        if !granularity.is_power_of_two() || !GRANULARITIES.contains(&bits) {
            return Err(Error::invalid(
                "Granularity must be power of 2 and at least 512",
            ));
        }
        Ok(bits as u8)
    }

    fn check_new(&self, name: &BStr, granularity_bits: u8) -> Result<()> {
        if name.len() > MAX_BITMAP_NAME {
            return Err(Error::invalid(format!(
                "Name length exceeds maximum ({MAX_BITMAP_NAME} characters)"
            )));
        }
        if self.bitmap_clusters(self.virtual_size(), granularity_bits)? == 0 {
            return Err(Error::invalid("The image is empty"));
        }
        Ok(())
    }
}

impl Next {
    /// Sets whether it records; `begun`: guest data may be changing.
    fn set_enabled(&mut self, enabled: bool, begun: bool) {
        let flags = &mut self.known.entry.flags;
        flags.set(BitmapFlags::AUTO, enabled);
        flags.set(BitmapFlags::IN_USE, enabled && begun);
        self.known.live = enabled && begun;
    }
}

fn describe(known: &Known) -> BitmapInfo {
    BitmapInfo {
        name: known.entry.name.clone().into(),
        granularity: 1 << known.entry.granularity_bits.min(63),
        enabled: known.enabled(),
        inconsistent: known.inconsistent(),
    }
}

/// The index of a bitmap in the list.
fn find(session: &Session, name: &BStr) -> Result<usize> {
    let mut known = session.known.iter();
    known
        .position(|known| known.entry.name == **name)
        .ok_or_else(|| Error::no_such_bitmap(name))
}

/// The bitmap at `index`, which must be consistent.
fn checked<'n>(next: &'n mut [Next], index: usize, name: &BStr) -> Result<&'n mut Next> {
    let next = next
        .get_mut(index)
        .ok_or_else(|| Error::no_such_bitmap(name))?;
    next.known.check_consistent()?;
    Ok(next)
}
