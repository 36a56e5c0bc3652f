//! An open VHDX: what all parts of the driver share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::format::inflight::InFlight;
use crate::format::limbo::Limbo;
use crate::format::read_ahead::ReadAhead;
use crate::storage::{Durability, Storage};

use super::disk::{Geometry, Metadata, RegionTable};
use super::free::Space;
use super::headers::Headers;
use super::log::LogWriter;
use super::pages::{Bat, BitmapPages, DirtyPages};

/// An open image.
///
/// Lock order, outermost first: `reshaping`, an in-flight reservation, `log`, `bat`, `read_ahead`, then the small ones.
/// None is held across data I/O, except `reshaping`, which no read or write takes, and the reservation,
/// which only keeps out others that remap the same blocks.
#[derive(Debug)]
pub(super) struct Vhdx {
    /// The file; if it is read-only and its log has to be replayed, with the log replayed in memory.
    pub(super) storage: Arc<dyn Storage>,
    /// The geometry at the time of opening; see [`Vhdx::geometry`].
    pub(super) shape: Geometry,
    /// What is not in this file is in a parent.
    pub(super) has_parent: AtomicBool,
    /// Blocks stay allocated.
    pub(super) fixed: bool,
    pub(super) read_only: bool,
    /// Opened to write guest data: the free space is known.
    pub(super) changes_guest: bool,
    pub(super) durability: Durability,
    pub(super) headers: Mutex<Headers>,
    pub(super) regions: Mutex<RegionTable>,
    pub(super) metadata: Mutex<Metadata>,
    /// The identity of the disk.
    pub(super) disk_id: Uuid,
    pub(super) size: AtomicU64,
    /// Length of the file; blocks do not extend past it.
    pub(super) file_len: AtomicU64,
    pub(super) bat: RwLock<Bat>,
    pub(super) read_ahead: ReadAhead,
    pub(super) bitmaps: BitmapPages,
    /// Held while a bitmap is allocated.
    pub(super) bitmap_alloc: Mutex<()>,
    /// Pages that differ from the disk.
    pub(super) dirty: DirtyPages,
    pub(super) space: Mutex<Space>,
    /// Held by the one thread that writes metadata out.
    pub(super) log: Mutex<LogWriter>,
    pub(super) limbo: Limbo,
    pub(super) inflight: InFlight,
    /// Held by the one thread that frees queued blocks.
    pub(super) reclaiming: Mutex<()>,
    /// Held by the one thread that changes the size or the parent.
    pub(super) reshaping: Mutex<()>,
    /// The header announces changes.
    pub(super) prepared: Mutex<bool>,
    pub(super) is_prepared: AtomicBool,
    /// A sync failed: what it covered may be lost, so no later flush may succeed.
    pub(super) lost: AtomicBool,
    /// The log was replayed when the image was opened for repair.
    pub(super) replayed: AtomicBool,
    /// Maximum size of a table in bytes; see [`crate::policy::OpenPolicy::max_table_bytes`].
    pub(super) max_table_bytes: u64,
}

impl Vhdx {
    /// How the disk is divided into blocks, and whether there may be a parent.
    pub(super) fn geometry(&self) -> Geometry {
        let has_parent = self.has_parent.load(Ordering::Acquire);
        self.shape.with_parent(has_parent)
    }

    /// The virtual size in bytes.
    pub(super) fn virtual_size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// The error for damage in the entry of a block.
    pub(super) fn damaged(&self, block: u64, what: impl std::fmt::Display) -> Error {
        Error::corrupt(format!(
            "'{}': VHDX BAT entry {block}: {what}",
            self.storage.name()
        ))
    }

    /// Checks that a block of which `len` bytes are used lies within the file.
    pub(super) fn check_place(&self, block: u64, host: u64, len: u64) -> Result<()> {
        let file_len = self.file_len.load(Ordering::Acquire);
        if host.checked_add(len).is_some_and(|end| end <= file_len) {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "'{}': {}",
            self.storage.name(),
            past_end(block, host, len, file_len)
        ))
        .with_offset(host))
    }

    /// Fails if the image cannot be written to.
    pub(super) fn check_writable(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::open_read_only(self.storage.name()));
        }
        if !self.changes_guest {
            return Err(Error::invalid(format!(
                "'{}' was opened for its metadata alone",
                self.storage.name()
            )));
        }
        Ok(())
    }

    /// Checks that a guest range does not extend past the end of the image, and returns its end.
    pub(super) fn check_range(&self, offset: u64, len: u64) -> Result<u64> {
        let end = offset
            .checked_add(len)
            .filter(|end| *end <= self.virtual_size());
        end.ok_or_else(|| {
            Error::invalid(format!(
                "'{}': the range at {offset} of {len} bytes passes the end of the image",
                self.storage.name()
            ))
        })
    }
}

/// Describes a block that extends past the end of the file, in the words of QEMU's tools.
pub(super) fn past_end(block: u64, host: u64, len: u64, file_len: u64) -> String {
    let end = host.saturating_add(len).saturating_sub(1);
    format!(
        "VHDX BAT entry {block} end offset {end} points after end of file ({file_len}). Image has probably \
         been truncated."
    )
}
