//! Changes of an image, and operations that need all of it in one state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::image::detect_zeroes::DetectZeroes;
use crate::job::{JobControl, Unchanged};

/// Changes of one image run concurrently. Operations on its metadata as a whole either make them wait, or detect that
/// there was one.
#[derive(Debug, Default)]
pub(super) struct Changes {
    gate: RwLock<()>,
    /// The thread that makes the others wait.
    holder: Mutex<Option<ThreadId>>,
    watchers: AtomicUsize,
    /// Number of changes that began while there were watchers.
    seen: Arc<AtomicU64>,
}

/// A change in progress.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    _beside_others: RwLockReadGuard<'a, ()>,
}

/// Changes are recorded while this exists.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    changes: &'a Changes,
    unchanged: Unchanged,
}

/// Changes by other threads wait while this exists.
#[derive(Debug)]
pub(crate) struct Hold<'a> {
    changes: &'a Changes,
    _alone: RwLockWriteGuard<'a, ()>,
}

impl Changes {
    /// Begins a change, unless this thread is the one that changes wait for. A change that only `overwrites` guest
    /// bytes in place is not recorded.
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

    /// Waits until no change is in progress, and prevents new ones.
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
    /// For a job that must end once there is a change.
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
    /// Begins a change of the layer that bypasses the methods of the image. It must not call methods that change the
    /// image.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] within a job that prevents changes.
    pub(crate) fn begin_change(&self) -> Result<Change<'_>> {
        self.changes.begin(|| false)
    }

    /// Waits for the changes in progress, flushes them to the files, and records metadata changes from then on.
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

    /// As [`Image::watch_changes`], but prevents further changes; `to_change` means that the caller makes some itself.
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

    /// The error for an image that was changed during a job.
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

    /// Whether a write to the range is known to change nothing except guest bytes in place.
    fn overwrites(&self, offset: u64, len: u64) -> bool {
        let Some(immediate) = self.format.immediate() else {
            return false;
        };
        // With zero detection, a write may turn into an unmapping.
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
