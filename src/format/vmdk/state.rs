//! An open image.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::Mutex;

use crate::codec::Compression;
use crate::error::Result;
use crate::extent::Extent;
use crate::format::DecodeAhead;
use crate::format::decoded::DecodedUnits;
use crate::format::inflight::InFlight;
use crate::newest::Newest;
use crate::storage::{Durability, Storage};

use super::parts::{self, Part, PartKind};
use super::placed_descriptor::PlacedDescriptor;
use super::read::Kept;
use crate::format::table_cache::Cache;

/// An open image.
#[derive(Debug)]
pub(super) struct Vmdk {
    pub(super) storage: Arc<dyn Storage>,
    /// Virtual size.
    pub(super) len: AtomicU64,
    /// The extents in guest order; none is empty, except for the only one of an empty disk.
    pub(super) parts: Newest<Vec<Arc<Part>>>,
    /// The last slot that was given to a file.
    pub(super) slots: Mutex<u16>,
    pub(super) stored: Mutex<PlacedDescriptor>,
    pub(super) cache: Arc<Cache>,
    pub(super) decoded: DecodedUnits,
    pub(super) read_only: bool,
    pub(super) durability: Durability,
    /// How grains of streams are compressed.
    pub(super) compression: Compression,
    /// The content ID has been changed since the image was opened.
    pub(super) is_changed: AtomicBool,
    /// Held while tables are written.
    pub(super) flushing: Mutex<()>,
    pub(super) inflight: InFlight,
}

impl Vmdk {
    /// Whether grains are compressed.
    pub(super) fn is_stream(&self) -> bool {
        self.parts.iter().any(|part| match &part.kind {
            PartKind::Sparse(sparse) => sparse.compressed,
            PartKind::Flat { .. } | PartKind::Zero { .. } => false,
        })
    }

    /// Whether an extent was not closed by its last writer.
    pub(super) fn is_unclean(&self) -> bool {
        self.parts.iter().any(|part| match &part.kind {
            PartKind::Sparse(sparse) => sparse.changes.lock().was_unclean,
            PartKind::Flat { .. } | PartKind::Zero { .. } => false,
        })
    }

    pub(super) fn look_up(&self, offset: u64, len: u64, holes: bool) -> Result<Extent> {
        let (part, within) = parts::at(&self.parts, offset)?;
        part.map(within, len.min(part.len() - within), holes)
    }
}

impl DecodeAhead for Vmdk {
    fn decode_ahead(&self, offset: u64, most: u64) -> Result<u64> {
        let (part, within) = parts::at(&self.parts, offset)?;
        let start = offset - within;
        match &part.kind {
            PartKind::Sparse(sparse) if sparse.compressed && sparse.grain <= most => {
                let end = sparse.decode_ahead(Kept(&self.decoded), within)?;
                Ok(start.saturating_add(end.min(part.len())))
            }
            _ => Ok(start.saturating_add(part.len())),
        }
    }

    fn keep_more(&self, bytes: usize) {
        self.decoded.keep_more(bytes);
    }
}
