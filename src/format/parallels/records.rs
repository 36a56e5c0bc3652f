//! The header of an open image, which says that it is open.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::Result;
use crate::format::blocks::{Keeper, Layout};
use crate::storage::{Durability, Preallocation, Storage, shorten};

use super::disk::{Closing, Header, ParallelsLayout};
use super::extension::Extension;

/// Space that is allocated ahead of need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    pub(super) bytes: u64,
    pub(super) mode: Preallocation,
}

/// The format extension of an open image.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The ranges of it, and of what belongs to it.
    places: Vec<Range<u64>>,
    /// There was one, and it has been dropped.
    dropped: bool,
    /// If it survives changes: where the parts of it that are not understood may be.
    rest: Option<Range<u64>>,
}

impl Kept {
    /// The state as read; `data` is the range where its clusters may be.
    pub(super) fn of(found: Extension, data: Range<u64>) -> Self {
        Self {
            places: found.places,
            dropped: false,
            rest: found.outlasts.then_some(data),
        }
    }
}

/// The header in memory, identical to the one on disk.
#[derive(Debug)]
pub(super) struct Records {
    header: Mutex<Header>,
    durability: Durability,
    extension: Mutex<Kept>,
    ahead: Option<Ahead>,
    /// Where the space in use ends, if space was allocated ahead.
    used: AtomicU64,
}

impl Records {
    pub(super) fn new(
        header: Header,
        durability: Durability,
        extension: Kept,
        ahead: Option<Ahead>,
    ) -> Self {
        Self {
            header: Mutex::new(header),
            durability,
            extension: Mutex::new(extension),
            ahead,
            used: AtomicU64::new(0),
        }
    }

    /// The ranges of the format extension, and of what is known to belong to it.
    pub(super) fn extension(&self) -> Vec<Range<u64>> {
        self.extension.lock().places.clone()
    }

    /// Whether there is a format extension that survives changes.
    pub(super) fn outlasts(&self) -> bool {
        self.extension.lock().rest.is_some()
    }

    /// Where the parts of the format extension that are not understood may end.
    pub(super) fn end_of_rest(&self) -> u64 {
        let kept = self.extension.lock();
        kept.rest.as_ref().map_or(0, |rest| rest.end)
    }

    /// Whether the image has dropped a format extension since it was opened.
    pub(super) fn has_dropped(&self) -> bool {
        self.extension.lock().dropped
    }

    /// A copy of the current header.
    pub(super) fn header(&self) -> Header {
        self.header.lock().clone()
    }

    /// Changes the header, in memory and on disk: it lies in one sector, which no crash tears. A failure leaves memory
    /// unchanged.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn change(
        &self,
        storage: &dyn Storage,
        change: impl FnOnce(&mut Header),
    ) -> Result<()> {
        let header = &mut *self.header.lock();
        let mut new = header.clone();
        change(&mut new);
        if new != *header {
            storage.write_at(&new.to_bytes(), 0)?;
            *header = new;
        }
        Ok(())
    }

    /// Marks the image as open, on disk too. If the contents are about to change, the same write drops the format
    /// extension, unless that survives changes.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn begin(&self, storage: &dyn Storage, contents_change: bool) -> Result<()> {
        let kept = &mut *self.extension.lock();
        let drops = contents_change && kept.rest.is_none();
        let mut had_one = false;
        self.change(storage, |header| {
            had_one = header.extension != 0;
            header.set_closing(Closing::Open);
            if drops {
                header.extension = 0;
            }
        })?;
        if drops && had_one {
            *kept = Kept {
                dropped: true,
                ..Kept::default()
            };
        }
        match self.durability {
            Durability::Synced => storage.sync(Durability::Synced),
            _ => Ok(()),
        }
    }

    /// Marks the image as closed, once everything written is durable. Space allocated ahead is returned. A format
    /// extension that is not up to date is marked as such.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn end(&self, storage: &dyn Storage, is_current: bool) -> Result<()> {
        let used = self.used.load(Ordering::Acquire);
        if used > 0 {
            shorten::cut(storage, used)?;
        }
        self.change(storage, |header| {
            header.set_closing(match is_current || header.extension == 0 {
                true => Closing::Whole,
                false => Closing::WithoutExtension,
            });
        })?;
        match self.durability {
            Durability::Synced => storage.sync(Durability::Synced),
            _ => Ok(()),
        }
    }
}

impl Keeper for Records {
    type Layout = ParallelsLayout;

    fn reserved(&self, _layout: &ParallelsLayout) -> Vec<Range<u64>> {
        self.extension()
    }

    fn end_on_record(&self, _layout: &ParallelsLayout) -> u64 {
        let kept = self.extension.lock();
        let all = kept.places.iter().chain(&kept.rest);
        all.map(|place| place.end).max().unwrap_or(0)
    }

    fn extend(&self, storage: &dyn Storage, end: u64) -> Result<()> {
        if storage.len()? < end {
            match self.ahead {
                None => storage.set_len(end, Preallocation::Off)?,
                Some(ahead) => storage.set_len(end.saturating_add(ahead.bytes), ahead.mode)?,
            }
        }
        if self.ahead.is_some() {
            self.used.fetch_max(end, Ordering::AcqRel);
        }
        Ok(())
    }

    fn begin_block(&self, _storage: &dyn Storage, _host: u64) -> Result<()> {
        Ok(())
    }

    fn record(&self, _storage: &dyn Storage, _layout: &ParallelsLayout, _end: u64) -> Result<()> {
        Ok(())
    }

    fn cut(&self, storage: &dyn Storage, layout: &ParallelsLayout, end: u64) -> Result<()> {
        let end = end.max(layout.new_from());
        self.used.store(0, Ordering::Release);
        shorten::cut(storage, end)
    }
}
