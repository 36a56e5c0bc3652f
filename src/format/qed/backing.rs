//! The backing file named by the header.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::format::{BackingChange, BackingRef, Format, NewParent, ParentRef, raw};
use crate::job::JobControl;
use crate::memory;

use super::Qed;
use super::behind::look_behind;
use super::disk::{FeatureBits, HEADER_LEN, Header};

/// The feature bits that concern a backing file.
const OVERLAY: FeatureBits = FeatureBits::BACKING_FILE.union(FeatureBits::BACKING_IS_RAW);

/// Maximum length of a name that QEMU's tools read.
const MAX_NAME: usize = 1023;

/// Where names are stored: alternately, so that the old one remains until the header points to the new one.
const NAME_PLACES: [u32; 2] = [HEADER_LEN as u32, 2048];

/// Records a backing file in a header; its name is to be stored at `offset`.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for a name that is too long.
pub(super) fn record(header: &mut Header, backing: &BackingRef, offset: u32) -> Result<()> {
    if backing.name.len() > MAX_NAME {
        return Err(Error::backing_name_too_long());
    }
    let is_raw = backing
        .format
        .as_ref()
        .is_some_and(|format| format == raw::DRIVER.name);
    header.features |= FeatureBits::BACKING_FILE;
    header.features.set(FeatureBits::BACKING_IS_RAW, is_raw);
    header.name_offset = offset;
    header.name_len = backing.name.len() as u32;
    Ok(())
}

impl Qed {
    /// The backing file named by the header, which only says of its format whether it is raw.
    pub(super) fn parent_ref(&self) -> Option<ParentRef> {
        let name = self.own.backing.lock().clone()?;
        let header = self.blocks.keeper.header();
        let is_raw = header.features.contains(FeatureBits::BACKING_IS_RAW);
        Some(ParentRef::named(BackingRef {
            name,
            format: is_raw.then(|| raw::DRIVER.name.into()),
        }))
    }
}

impl Qed {
    /// The header with another backing file, and the range of the name of the old one.
    fn header_over(&self, backing: Option<&BackingRef>) -> Result<(Header, Range<u64>)> {
        self.blocks.check_writable()?;
        let storage = &*self.blocks.storage;
        let old = self.blocks.keeper.header();
        if old.compatible != 0 {
            return Err(Error::unsupported(format!(
                "'{}' has features that are not known ({:x}): something may stand where names do",
                storage.name(),
                old.compatible
            )));
        }
        let mut new = old.clone();
        (new.name_offset, new.name_len) = (0, 0);
        new.features.remove(OVERLAY);
        let old_name = match old.features.contains(FeatureBits::BACKING_FILE) {
            true => {
                u64::from(old.name_offset)..u64::from(old.name_offset) + u64::from(old.name_len)
            }
            false => 0..0,
        };
        if let Some(backing) = backing {
            let len = backing.name.len() as u64;
            let is_apart = |place: &&u32| {
                let place = u64::from(**place);
                place >= old_name.end || place + len <= old_name.start
            };
            let place = NAME_PLACES.iter().find(is_apart);
            let place = place.ok_or_else(Error::backing_name_too_long)?;
            record(&mut new, backing, *place)?;
        }
        Ok((new, old_name))
    }
}

impl BackingChange for Qed {
    fn check_backing(
        &self,
        backing: Option<&BackingRef>,
        _parent: Option<&NewParent>,
    ) -> Result<()> {
        self.header_over(backing).map(drop)
    }

    fn set_backing(&self, backing: Option<&BackingRef>, _parent: Option<&NewParent>) -> Result<()> {
        let (new, old_name) = self.header_over(backing)?;
        let storage = &*self.blocks.storage;
        let keeper = &self.blocks.keeper;
        // What the guest sees above the new backing file must be on disk before the backing file is named.
        self.blocks.flush(self.blocks.durability())?;
        if let Some(backing) = backing {
            storage.write_at(&backing.name, u64::from(new.name_offset))?;
            self.blocks.barrier()?;
        }
        keeper.change(storage, |header| {
            header.features.remove(OVERLAY);
            header.features |= new.features & OVERLAY;
            (header.name_offset, header.name_len) = (new.name_offset, new.name_len);
            header.autoclear = 0;
        })?;
        *self.own.backing.lock() = backing.map(|backing| backing.name.clone());
        self.blocks.set_overlay(backing.is_some());
        self.blocks.barrier()?;
        // The next name may be stored there.
        if old_name.start >= HEADER_LEN as u64 {
            let zeroes = memory::zeroed((old_name.end - old_name.start) as usize)?;
            storage.write_at(&zeroes, old_name.start)?;
        }
        Ok(())
    }

    fn note_parent(&self, _parent: &NewParent) -> Result<()> {
        Ok(())
    }

    fn map_held(&self, offset: u64, len: u64) -> Result<Extent> {
        Format::map(self, offset, len)
    }

    fn make_empty(&self) -> Result<()> {
        let forever = JobControl::default();
        let header = self.blocks.keeper.header();
        if look_behind(&*self.blocks.storage, &header, &forever)?.has_clusters {
            // The header may say too small a size; dropping what lies past that would lose data.
            return Ok(());
        }
        self.note_change()?;
        let alone = self.blocks.exclusive();
        self.blocks.keeper.begin(&*self.blocks.storage)?;
        alone.free_all(&forever)?;
        alone.pack(&forever)
    }
}
