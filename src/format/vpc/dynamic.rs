//! A dynamic disk: blocks are allocated when they are first written.

use parking_lot::Mutex;

use crate::error::Result;
use crate::format::blocks::{BlockFormat, BlockImage, BlockParts, Blocks, Layout};
use crate::format::{BackingChange, Check, ParentId, ParentRef, Resize};
use crate::storage::Storage;

use super::DRIVER;
use super::disk::DynamicHeader;
use super::open::Damage;
use super::records::Records;
use super::sectors::Sectors;

/// An open dynamic disk.
pub(super) type Dynamic = BlockImage<DynamicFormat>;

/// The state of an open dynamic disk besides its blocks.
#[derive(Debug)]
pub(super) struct DynamicFormat {
    pub(super) header: Mutex<DynamicHeader>,
    /// What matters while there is a parent.
    pub(super) differencing: Differencing,
}

/// What a differencing disk has in addition to a dynamic one.
#[derive(Debug)]
pub(super) struct Differencing {
    pub(super) parent: Mutex<Option<ParentRef>>,
    pub(super) sectors: Sectors,
    /// Held while bitmaps are written.
    pub(super) pass: Mutex<()>,
}

impl Differencing {
    /// For bitmaps of that many bytes in a storage.
    fn new(parent: Option<ParentRef>, storage: &dyn Storage, bitmap: u64) -> Self {
        Self {
            parent: Mutex::new(parent),
            sectors: Sectors::new(storage, bitmap),
            pass: Mutex::default(),
        }
    }
}

impl Dynamic {
    pub(super) fn with_header(
        blocks: Blocks<Records>,
        header: DynamicHeader,
        parent: Option<ParentRef>,
    ) -> Self {
        let is_whole = blocks.keeper.damage() == Damage::None;
        let own = DynamicFormat {
            header: Mutex::new(header),
            differencing: Differencing::new(parent, &*blocks.storage, blocks.layout().lead()),
        };
        Self::new(blocks, own, is_whole)
    }

    /// Which sectors are the disk's own; None if all are.
    pub(super) fn sectors(&self) -> Option<&Differencing> {
        self.blocks.is_overlay().then_some(&self.own.differencing)
    }

    /// Replaces or removes the parent; discards what was known of sectors.
    pub(super) fn set_parent(&self, parent: Option<ParentRef>) {
        let is_overlay = parent.is_some();
        self.own.differencing.sectors.clear();
        *self.own.differencing.parent.lock() = parent;
        self.blocks.keeper.set_differencing(is_overlay);
        self.blocks.set_overlay(is_overlay);
    }
}

impl BlockFormat for DynamicFormat {
    type Keeper = Records;

    fn driver() -> &'static str {
        DRIVER.name
    }

    /// Repairs both footers.
    fn note_first_change(image: &Dynamic) -> Result<()> {
        let end = image.blocks.used()?;
        image.blocks.keeper.repair(&*image.blocks.storage, end)
    }

    fn parts(image: &Dynamic) -> Option<&dyn BlockParts> {
        image.sectors().map(|_| image as &dyn BlockParts)
    }

    fn parent(image: &Dynamic) -> Option<ParentRef> {
        image.sectors()?.parent.lock().clone()
    }

    fn parent_id(image: &Dynamic) -> Option<ParentId> {
        Some(ParentId::Uuid(image.blocks.keeper.footer().uuid))
    }

    fn checker(image: &Dynamic) -> Option<&dyn Check> {
        Some(image)
    }

    fn resizer(image: &Dynamic) -> Option<&dyn Resize> {
        Some(image)
    }

    fn backing_change(image: &Dynamic) -> Option<&dyn BackingChange> {
        Some(image)
    }
}
