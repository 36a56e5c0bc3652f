//! Changes of an image, and those who need all of it in one state meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::image::detect_zeroes::DetectZeroes;
use crate::job::{JobControl, Unchanged};

/// Changes of one image run side by side. Who looks at all of its metadata keeps them waiting, or learns that there
/// was one.
#[derive(Debug, Default)]
pub(super) struct Changes {
    gate: RwLock<()>,
    /// The thread that keeps the others waiting.
    holder: Mutex<Option<ThreadId>>,
    watchers: AtomicUsize,
    /// Changes that began while someone watched.
    seen: Arc<AtomicU64>,
}

/// A change that is under way.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    _beside_others: RwLockReadGuard<'a, ()>,
}

/// While it lives, changes are noted.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    changes: &'a Changes,
    unchanged: Unchanged,
}

/// While it lives, changes of others wait.
#[derive(Debug)]
pub(crate) struct Hold<'a> {
    changes: &'a Changes,
    _alone: RwLockWriteGuard<'a, ()>,
}

impl Changes {
    /// Begins a change, unless this thread is the one that changes wait for. One that only `overwrites` guest bytes
    /// where they are is not noted.
    pub(super) fn begin(&self, overwrites: impl FnOnce() -> bool) -> Result<Change<'_>> {
        let under_way = match self.gate.try_read() {
            Some(under_way) => under_way,
            None => {
                self.check_other_thread()?;
                self.gate.read()
            }
        };
        if self.watchers.load(Ordering::Relaxed) > 0 && !overwrites() {
            self.note();
        }
        Ok(Change {
            _beside_others: under_way,
        })
    }

    fn note(&self) {
        self.seen.fetch_add(1, Ordering::SeqCst);
    }

    fn check_other_thread(&self) -> Result<()> {
        match *self.holder.lock() {
            Some(holder) if holder == thread::current().id() => Err(busy(
                "The image cannot be changed within the job that holds its changes back",
            )),
            _ => Ok(()),
        }
    }

    /// Waits until no change is under way, and lets none begin.
    fn hold(&self, control: &JobControl) -> Result<Hold<'_>> {
        self.check_other_thread()?;
        let alone = control.lock_alone(&self.gate)?;
        *self.holder.lock() = Some(thread::current().id());
        Ok(Hold {
            changes: self,
            _alone: alone,
        })
    }
}

fn busy(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Busy, message).with_errno(libc::EBUSY)
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        *self.changes.holder.lock() = None;
    }
}

impl Watch<'_> {
    /// For a job that is to end once there is a change.
    pub(crate) fn unchanged(&self) -> Unchanged {
        self.unchanged.clone()
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.changes.watchers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Image {
    /// For a change of the layer that no method of the image makes. It must call none that makes one.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] within a job that holds changes back.
    pub(crate) fn begin_change(&self) -> Result<Change<'_>> {
        self.changes.begin(|| false)
    }

    /// Waits for the changes that are under way, has the files hold what they made, and notes changes of metadata
    /// from then on.
    ///
    /// # Errors
    /// As [`Image::flush`], or [`ErrorKind::Cancelled`].
    pub(crate) fn watch_changes(&self, control: &JobControl) -> Result<Watch<'_>> {
        let _none = self.changes.hold(control)?;
        self.flush_as(self.settings.cache.durability())?;
        self.changes.watchers.fetch_add(1, Ordering::SeqCst);
        Ok(Watch {
            changes: &self.changes,
            unchanged: Unchanged::of(&self.changes.seen),
        })
    }

    /// As [`Image::watch_changes`], and lets no further change begin; `to_change` says that the caller makes some.
    ///
    /// # Errors
    /// As [`Image::flush`], or [`ErrorKind::Cancelled`].
    pub(crate) fn hold_changes(&self, to_change: bool, control: &JobControl) -> Result<Hold<'_>> {
        let hold = self.changes.hold(control)?;
        self.flush_as(self.settings.cache.durability())?;
        if to_change {
            self.changes.note();
        }
        Ok(hold)
    }

    /// What to say of an image that has changed under the eyes of a job.
    pub(crate) fn changed_meanwhile(&self) -> Error {
        busy(format!(
            "'{}' was changed meanwhile, so that nothing is known of it as a whole",
            self.filename()
        ))
    }

    /// Begins a change of guest bytes.
    pub(super) fn begin_write(&self, offset: u64, len: u64) -> Result<Change<'_>> {
        self.changes.begin(|| self.overwrites(offset, len))
    }

    /// Whether a write to the range is known to change nothing but guest bytes where they are.
    fn overwrites(&self, offset: u64, len: u64) -> bool {
        let Some(immediate) = self.format.immediate() else {
            return false;
        };
        // Zeroes that are looked for may take their place away.
        if self.settings.detect_zeroes != DetectZeroes::Off {
            return false;
        }
        let unit = u64::from(self.format.cluster_size().unwrap_or(u32::MAX)).max(1);
        let end = offset.saturating_add(len);
        let mut at = offset;
        while at < end {
            let next = (at / unit + 1).saturating_mul(unit).min(end);
            if immediate.in_place_range(at, next - at).is_none() {
                return false;
            }
            at = next;
        }
        true
    }
}
