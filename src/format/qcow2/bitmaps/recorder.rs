//! The state of an open image's bitmaps, in memory.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::RwLock;

use crate::error::{Error, Result};
use crate::format::qcow2::disk::{BitmapEntry, BitmapFlags};
use crate::format::qcow2::table_place::TablePlace;

use super::record::Record;

/// The state of an open image's bitmaps.
///
/// The session's lock comes before `pass` in the lock order.
#[derive(Debug, Default)]
pub(in crate::format::qcow2) struct Recorder {
    /// Some bitmap records: checked by each write, without a lock.
    pub(super) recording: AtomicBool,
    pub(super) session: RwLock<Session>,
}

/// A bitmap.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Its entry in the directory, as on disk.
    pub(super) entry: BitmapEntry,
    /// It is marked in use on disk because this image records into it.
    pub(super) live: bool,
}

impl Known {
    /// Whether it records writes.
    pub(super) fn enabled(&self) -> bool {
        self.entry.flags.contains(BitmapFlags::AUTO)
    }

    /// Whether its bits cannot be trusted.
    pub(super) fn inconsistent(&self) -> bool {
        self.entry.flags.contains(BitmapFlags::IN_USE) && !self.live
    }

    /// Refuses a bitmap whose bits cannot be trusted.
    pub(super) fn check_consistent(&self) -> Result<()> {
        if !self.inconsistent() {
            return Ok(());
        }
        let name = self.entry.name_text();
        Err(Error::corrupt(format!(
            "Bitmap '{name}' is inconsistent and cannot be used"
        ))
        .with_hint("Try block-dirty-bitmap-remove to delete this bitmap from disk"))
    }
}

#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) loaded: bool,
    /// In the order of the directory.
    pub(super) known: Vec<Known>,
    /// The place of the directory.
    pub(super) place: TablePlace,
    /// Writes since the live bitmaps were stored, in their finest granularity.
    pub(super) record: Option<Arc<Record>>,
    /// Guest data may change: bitmaps that record are marked in use on disk.
    pub(super) begun: bool,
}
