//! The backing file named by the header, and emptying an image that has one.

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::Extent;
use crate::format::{BackingChange, BackingRef, Format, NewParent};
use crate::memory;
use crate::size::SECTOR;
use crate::storage::ZeroFlags;

use super::Qcow;
use super::disk::{HEADER_LEN, Header, MAX_NAME};

/// Where names of backing files are stored: right after the header.
pub(super) const NAME_START: u64 = HEADER_LEN as u64;

/// Checks that a header can hold the name of a backing file.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for a name that is too long.
pub(super) fn check_name(backing: &BackingRef) -> Result<()> {
    match backing.name.len() <= MAX_NAME {
        true => Ok(()),
        false => Err(Error::backing_name_too_long()),
    }
}

impl Qcow {
    /// Checks that there is room for a name after the header, where it can be stored without losing the old one in
    /// between: in the same sector, or clear of the old one.
    fn check_room(&self, header: &Header, len: u64) -> Result<()> {
        let place = NAME_START..NAME_START + len;
        let is_apart = |old: Range<u64>| place.end <= old.start || old.end <= place.start;
        let is_safe = place.end <= SECTOR || header.name_place().is_none_or(is_apart);
        if place.end <= header.l1_offset && is_safe {
            return Ok(());
        }
        let room = match header.name_place() {
            None => header.l1_offset,
            Some(_) => header.l1_offset.min(SECTOR),
        };
        Err(Error::new(
            ErrorKind::Limit,
            format!(
                "'{}' has room for a backing file name of {} bytes, and this one has {len}; \
                 use a shorter one, or make a new overlay",
                self.storage.name(),
                room - NAME_START
            ),
        ))
    }
}

impl Qcow {
    /// The header with another backing file.
    fn header_over(&self, backing: Option<&BackingRef>) -> Result<Header> {
        self.check_writable()?;
        let mut new = self.header.lock().clone();
        (new.name_offset, new.name_len, new.mtime) = (0, 0, 0);
        if let Some(backing) = backing {
            check_name(backing)?;
            let len = backing.name.len();
            self.check_room(&self.header.lock(), len as u64)?;
            (new.name_offset, new.name_len) = (NAME_START, len as u32);
        }
        Ok(new)
    }
}

impl BackingChange for Qcow {
    fn check_backing(
        &self,
        backing: Option<&BackingRef>,
        _parent: Option<&NewParent>,
    ) -> Result<()> {
        self.header_over(backing).map(drop)
    }

    fn set_backing(&self, backing: Option<&BackingRef>, _parent: Option<&NewParent>) -> Result<()> {
        self.begin_change()?;
        let new = self.header_over(backing)?;
        // What the guest sees above the new backing file must be on disk before the backing file is named.
        self.flush_all(self.durability)?;
        let mut bytes = memory::copied(&new.to_bytes())?;
        if let Some(backing) = backing {
            bytes.extend_from_slice(&backing.name)?;
        }
        if bytes.len() as u64 > SECTOR {
            let name = bytes.get(HEADER_LEN..).unwrap_or_default();
            self.storage.write_at(name, NAME_START)?;
            self.barrier()?;
            bytes.truncate(HEADER_LEN);
        }
        // In one sector, which no crash tears.
        self.storage.write_at(&bytes, 0)?;
        *self.header.lock() = new;
        *self.backing.lock() = backing.map(|backing| backing.name.clone());
        self.is_overlay.store(backing.is_some(), Ordering::Release);
        self.barrier()
    }

    fn note_parent(&self, _parent: &NewParent) -> Result<()> {
        Ok(())
    }

    fn map_held(&self, offset: u64, len: u64) -> Result<Extent> {
        Format::map(self, offset, len)
    }

    fn make_empty(&self) -> Result<()> {
        self.begin_change()?;
        let _all = self.inflight.reserve(0..u64::MAX);
        self.flush_all(self.durability)?;
        let _one = self.flushing.lock();
        let len = self.l1_end - self.l1_offset;
        self.storage
            .write_zeroes(self.l1_offset, len, ZeroFlags::empty())?;
        for entry in &self.l1 {
            entry.store(0, Ordering::Release);
        }
        self.cache.clear();
        if let Some(tables) = &mut *self.tables.write() {
            tables.clear();
        }
        self.barrier()?;
        // No I/O in flight still refers to the places that others will take.
        self.users.wait();
        self.decoded.forget(0, u64::MAX);
        let name = self.header.lock().name_place();
        let end = name.map_or(0, |name| name.end).max(self.l1_end);
        self.cut_behind(end)
    }
}
