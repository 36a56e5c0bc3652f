//! The parent of a differencing image, which is identified by its UUID alone.

use bstr::BString;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::format::{
    BackingChange, BackingRef, ExpectedParent, Format, Mismatch, NewParent, ParentId, ParentRef,
    ParentSearch,
};
use crate::job::JobControl;

use super::disk::{HEAD_LEN, Header, ImageType};
use super::{DRIVER, Vdi};

/// VirtualBox stores the first image in the directory of the machine, and the others in a subdirectory.
pub(super) static SEARCH: ParentSearch = ParentSearch {
    children: "Snapshots",
    head_len: HEAD_LEN,
    identify: |head| Header::from_bytes(head).ok().map(|header| id_of(&header)),
};

/// What children record about their parent.
pub(super) fn id_of(header: &Header) -> ParentId {
    ParentId::UuidAndModification {
        uuid: header.image,
        modification: header.modification,
    }
}

impl Vdi {
    /// The parent according to the header.
    pub(super) fn parent_ref(&self) -> Option<ParentRef> {
        let header = self.blocks.keeper.header();
        if header.link.is_nil() {
            return None;
        }
        Some(ParentRef {
            names: Vec::new(),
            format: Some(DRIVER.name.into()),
            expected: Some(ExpectedParent {
                ids: vec![ParentId::UuidAndModification {
                    uuid: header.link,
                    modification: header.parent_modification,
                }],
                if_changed: Mismatch::Warn,
                if_other: Mismatch::Refuse,
            }),
        })
    }
}

/// The UUIDs of its parent that a differencing image records: that of the image and that of its last modification.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] if it has none.
pub(super) fn link_to(backing: &BackingRef, id: Option<ParentId>) -> Result<(Uuid, Uuid)> {
    let is_vdi = |format: &BString| *format == DRIVER.name;
    let why = match id {
        Some(ParentId::UuidAndModification { uuid, modification }) if !uuid.is_nil() => {
            return Ok((uuid, modification));
        }
        Some(ParentId::UuidAndModification { .. }) => "has no UUID",
        // The image records no name that could be changed without reading the parent.
        None if backing.format.as_ref().is_none_or(is_vdi) => {
            return Err(Error::parent_not_known("UUID", &backing.name));
        }
        _ => "is no VDI",
    };
    Err(Error::unsupported(format!(
        "'{}' {why}: a differencing VDI image knows its parent by the UUID",
        backing.name
    )))
}

/// The error for a parent of a fixed image.
pub(super) fn is_fixed() -> Error {
    Error::unsupported("A fixed VDI image has no parent")
}

impl Vdi {
    /// The UUIDs to record for another parent.
    fn new_link(
        &self,
        backing: Option<&BackingRef>,
        parent: Option<&NewParent>,
    ) -> Result<(Uuid, Uuid)> {
        self.blocks.check_writable()?;
        match backing {
            None => Ok((Uuid::nil(), Uuid::nil())),
            Some(_) if self.own.is_fixed => Err(is_fixed()),
            Some(backing) => link_to(backing, parent.and_then(|parent| parent.id)),
        }
    }
}

impl BackingChange for Vdi {
    fn check_backing(
        &self,
        backing: Option<&BackingRef>,
        parent: Option<&NewParent>,
    ) -> Result<()> {
        self.new_link(backing, parent).map(drop)
    }

    fn set_backing(&self, backing: Option<&BackingRef>, parent: Option<&NewParent>) -> Result<()> {
        let (link, parent_modification) = self.new_link(backing, parent)?;
        let image_type = match (link.is_nil(), self.own.is_fixed) {
            (_, true) => ImageType::Fixed,
            (true, false) => ImageType::Dynamic,
            (false, false) => ImageType::Differencing,
        };
        // What the guest sees above the new parent must be on disk before the parent is named.
        self.blocks.flush(self.blocks.durability())?;
        self.blocks.keeper.change(&*self.blocks.storage, |header| {
            header.image_type = image_type;
            header.link = link;
            header.parent_modification = parent_modification;
        })?;
        self.blocks.set_overlay(!link.is_nil());
        self.blocks.barrier()
    }

    fn note_parent(&self, parent: &NewParent) -> Result<()> {
        self.blocks.check_writable()?;
        let Some(ParentId::UuidAndModification { uuid, modification }) = parent.id else {
            return Ok(());
        };
        self.blocks.keeper.change(&*self.blocks.storage, |header| {
            if header.link == uuid {
                header.parent_modification = modification;
            }
        })?;
        self.blocks.barrier()
    }

    fn map_held(&self, offset: u64, len: u64) -> Result<Extent> {
        match self.blocks.is_overlay() {
            true => Format::map(self, offset, len),
            false => self.blocks.map_held(offset, len),
        }
    }

    fn make_empty(&self) -> Result<()> {
        self.note_change()?;
        let alone = self.blocks.exclusive();
        let forever = JobControl::default();
        alone.free_from(0, &forever)?;
        alone.pack(&forever)
    }
}
