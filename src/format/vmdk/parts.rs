//! The extents of a disk, in guest order.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::storage::Storage;

use super::disk::ExtentType;
use super::sparse::Sparse;

/// An extent and its position in the guest.
#[derive(Debug)]
pub(super) struct Part {
    /// The first guest byte.
    pub(super) start: u64,
    /// Its type in the descriptor; `None` if the file itself is the extent.
    pub(super) word: Option<ExtentType>,
    /// Its line in the descriptor.
    pub(super) line: usize,
    /// Writes are rejected.
    pub(super) read_only: bool,
    pub(super) kind: PartKind,
}

/// The kind of an extent.
#[derive(Debug)]
pub(super) enum PartKind {
    /// The raw guest bytes, from an offset of a file on.
    Flat {
        slot: StorageSlot,
        storage: Arc<dyn Storage>,
        offset: u64,
        len: std::sync::atomic::AtomicU64,
    },
    /// Nothing but zeroes.
    Zero { len: u64 },
    /// Grains that tables refer to.
    Sparse(Box<Sparse>),
}

impl Part {
    /// Size in guest bytes.
    pub(super) fn len(&self) -> u64 {
        match &self.kind {
            PartKind::Flat { len, .. } => len.load(std::sync::atomic::Ordering::Acquire),
            PartKind::Zero { len } => *len,
            PartKind::Sparse(sparse) => sparse.len(),
        }
    }

    /// Its file.
    pub(super) fn storage(&self) -> Option<&Arc<dyn Storage>> {
        match &self.kind {
            PartKind::Flat { storage, .. } => Some(storage),
            PartKind::Zero { .. } => None,
            PartKind::Sparse(sparse) => Some(&sparse.storage),
        }
    }

    /// The slot of its file.
    pub(super) fn slot(&self) -> Option<StorageSlot> {
        match &self.kind {
            PartKind::Flat { slot, .. } => Some(*slot),
            PartKind::Zero { .. } => None,
            PartKind::Sparse(sparse) => Some(sparse.slot),
        }
    }

    /// As [`crate::format::Format::map`], within the part; `holes` also queries the host for holes in a flat file.
    pub(super) fn map(&self, offset: u64, len: u64, holes: bool) -> Result<Extent> {
        match &self.kind {
            PartKind::Zero { .. } => Ok(Extent {
                len,
                kind: ExtentKind::ZEROES,
            }),
            PartKind::Sparse(sparse) => sparse.map(offset, len),
            PartKind::Flat {
                slot,
                storage,
                offset: start,
                ..
            } => {
                let host_offset = start + offset;
                let run = match holes {
                    true => Some(storage.extent(host_offset, len)?),
                    false => None,
                };
                let kind = match run {
                    Some(run) if run.zero => ExtentKind::Zero {
                        slot: *slot,
                        host_offset: Some(host_offset),
                    },
                    _ => ExtentKind::Data {
                        slot: *slot,
                        host_offset,
                    },
                };
                let len = run.map_or(len, |run| run.len.min(len));
                Ok(Extent { len, kind })
            }
        }
    }
}

/// The part that contains a guest offset, and the offset within it.
///
/// # Errors
/// [`crate::ErrorKind::Internal`] past the last part.
pub(super) fn at(parts: &[Arc<Part>], offset: u64) -> Result<(&Part, u64)> {
    let index = parts.partition_point(|part| part.start <= offset);
    let part = index.checked_sub(1).and_then(|index| parts.get(index));
    part.map(|part| (&**part, offset - part.start))
        .filter(|(part, within)| *within < part.len())
        .ok_or_else(|| {
            Error::new(
                crate::ErrorKind::Internal,
                format!("Guest offset {offset} is in no extent"),
            )
        })
}
