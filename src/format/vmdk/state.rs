//! An open image.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bstr::BString;
use parking_lot::Mutex;

use crate::codec::Compression;
use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Extent, StorageSlot};
use crate::format::decoded::DecodedUnits;
use crate::format::inflight::InFlight;
use crate::format::{
    BackingChange, Check, DecodeAhead, ExpectedParent, FileRole, Format, FormatFile, FormatInfo,
    FormatWrite, IoGuard, Mismatch, NameStyle, ParentId, ParentName, ParentRef,
};
use crate::newest::Newest;
use crate::storage::{Durability, Storage};

use super::driver::NAME;
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
    /// The extents in guest order; none is empty.
    pub(super) parts: Newest<Vec<Arc<Part>>>,
    /// The last slot that a file has got.
    pub(super) slots: Mutex<u16>,
    pub(super) stored: Mutex<PlacedDescriptor>,
    pub(super) cache: Arc<Cache>,
    pub(super) decoded: DecodedUnits,
    pub(super) read_only: bool,
    pub(super) durability: Durability,
    /// How grains of streams are compressed.
    pub(super) compression: Compression,
    /// The content ID is no longer the one that was there when the image was opened.
    pub(super) is_changed: AtomicBool,
    /// Held by whoever writes tables.
    pub(super) flushing: Mutex<()>,
    pub(super) inflight: InFlight,
}

impl Format for Vmdk {
    fn driver(&self) -> &'static str {
        NAME
    }

    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn cluster_size(&self) -> Option<u32> {
        let grain = self.parts.iter().find_map(|part| match &part.kind {
            PartKind::Sparse(sparse) => Some(sparse.grain),
            PartKind::Flat { .. } | PartKind::Zero { .. } => None,
        });
        grain.and_then(|grain| u32::try_from(grain).ok())
    }

    fn request_alignment(&self) -> u32 {
        1
    }

    fn map(&self, offset: u64, len: u64) -> Result<Extent> {
        self.look_up(offset, len, true)
    }

    fn locate(&self, offset: u64, len: u64) -> Result<Extent> {
        self.look_up(offset, len, false)
    }

    fn has_fixed_places(&self) -> bool {
        let sparse = |part: &Arc<Part>| matches!(part.kind, PartKind::Sparse(_));
        !self.parts.iter().any(sparse)
    }

    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        if slot == StorageSlot::MAIN {
            return Ok(&self.storage);
        }
        let mut parts = self.parts.iter();
        let found = parts.find_map(|part| part.storage().filter(|_| part.slot() == Some(slot)));
        found.ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                format!("The image has no extent {}", slot.0),
            )
        })
    }

    fn visit_files<'a>(&'a self, visit: &mut dyn FnMut(FormatFile<'a>)) {
        visit(FormatFile::own(&self.storage));
        for part in self.parts.iter() {
            if let (Some(slot), Some(storage)) = (part.slot(), part.storage())
                && slot != StorageSlot::MAIN
            {
                visit(FormatFile::extent(slot, storage));
            }
        }
    }

    fn closed_files(&self) -> Vec<(FileRole, BString)> {
        Vec::new()
    }

    fn read_encoded(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let (part, within) = parts::at(&self.parts, at)?;
            let len = (part.len() - within).min(rest.len() as u64);
            let (piece, tail) = rest.split_at_mut(len as usize);
            let PartKind::Sparse(sparse) = &part.kind else {
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!("Guest offset {at} is not compressed"),
                ));
            };
            sparse.read_compressed(Kept(&self.decoded), piece, within)?;
            (rest, at) = (tail, at + len);
        }
        Ok(())
    }

    fn begin_io(&self) -> IoGuard<'_> {
        // The bytes at a place stay: a grain keeps its own, or gets another one and leaves the old as it is.
        IoGuard::UNGUARDED
    }

    fn info(&self) -> Result<FormatInfo> {
        super::info::info(self)
    }

    fn decode_ahead(&self) -> Option<&dyn DecodeAhead> {
        Some(self)
    }

    fn parent(&self) -> Option<ParentRef> {
        let stored = self.stored.lock();
        let descriptor = &stored.descriptor;
        if !descriptor.has_parent() {
            return None;
        }
        let names = descriptor.parent.clone().into_iter().map(|name| {
            let here = name.contains(&b'/') || !name.contains(&b'\\');
            let style = match here {
                true => NameStyle::Posix,
                false => NameStyle::Windows,
            };
            ParentName { name, style }
        });
        Some(ParentRef {
            names: names.collect(),
            format: Some(NAME.into()),
            expected: Some(ExpectedParent {
                ids: vec![ParentId::ContentId(descriptor.parent_cid)],
                if_changed: Mismatch::Refuse,
                if_other: Mismatch::Refuse,
            }),
        })
    }

    fn parent_id(&self) -> Option<ParentId> {
        Some(ParentId::ContentId(self.stored.lock().descriptor.cid))
    }

    fn close(&self) -> Result<()> {
        self.end_use()
    }

    fn writer(&self) -> Option<&dyn FormatWrite> {
        let takes = self.parts.iter().all(|part| match &part.kind {
            PartKind::Flat { .. } | PartKind::Zero { .. } => true,
            PartKind::Sparse(sparse) => sparse.takes_writes(),
        });
        takes.then_some(self)
    }

    fn checker(&self) -> Option<&dyn Check> {
        Some(self)
    }

    fn backing_change(&self) -> Option<&dyn BackingChange> {
        let flat = |part: &Arc<Part>| matches!(part.kind, PartKind::Flat { .. });
        self.writer()?;
        (!self.parts.iter().any(flat)).then_some(self)
    }
}

impl Vmdk {
    /// Whether grains are compressed.
    pub(super) fn is_stream(&self) -> bool {
        self.parts.iter().any(|part| match &part.kind {
            PartKind::Sparse(sparse) => sparse.compressed,
            PartKind::Flat { .. } | PartKind::Zero { .. } => false,
        })
    }

    /// Whether an extent was not closed by whoever wrote to it before.
    pub(super) fn is_unclean(&self) -> bool {
        self.parts.iter().any(|part| match &part.kind {
            PartKind::Sparse(sparse) => sparse.changes.lock().was_unclean,
            PartKind::Flat { .. } | PartKind::Zero { .. } => false,
        })
    }

    fn look_up(&self, offset: u64, len: u64, holes: bool) -> Result<Extent> {
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
