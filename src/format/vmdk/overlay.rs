//! Changes to the chain: recording another parent, and emptying this layer.

use bstr::ByteSlice;

use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::format::{BackingChange, BackingRef, Format, NewParent, ParentId};

use super::NAME;
use super::disk::Descriptor;
use super::disk::descriptor::NO_PARENT;
use super::parts::PartKind;
use super::state::Vmdk;

impl Vmdk {
    /// The descriptor with another parent.
    fn descriptor_over(
        descriptor: &Descriptor,
        backing: Option<&BackingRef>,
        parent: Option<&NewParent>,
    ) -> Result<Descriptor> {
        let recorded = descriptor.parent_cid;
        let parent = match (backing, parent.and_then(|parent| parent.id)) {
            (None, _) => None,
            (Some(backing), _) if backing.format.as_ref().is_none_or(|f| *f != NAME) => {
                return Err(Error::invalid(format!(
                    "The parent '{}' must be a vmdk image",
                    backing.name
                )));
            }
            (Some(backing), Some(ParentId::ContentId(cid))) => Some((backing.name.as_bstr(), cid)),
            // The file was not opened: it may be the recorded parent under another name.
            (Some(backing), None) if recorded != NO_PARENT => {
                Some((backing.name.as_bstr(), recorded))
            }
            (Some(backing), _) => {
                return Err(Error::parent_not_known("content ID", &backing.name));
            }
        };
        descriptor.with_parent(parent)
    }
}

impl BackingChange for Vmdk {
    fn check_backing(
        &self,
        backing: Option<&BackingRef>,
        parent: Option<&NewParent>,
    ) -> Result<()> {
        self.check_writable()?;
        let stored = self.stored.lock();
        let new = Self::descriptor_over(&stored.descriptor, backing, parent)?;
        stored.check(&new)
    }

    fn set_backing(&self, backing: Option<&BackingRef>, parent: Option<&NewParent>) -> Result<()> {
        self.check_backing(backing, parent)?;
        // What the guest sees above the new parent must be on disk before its name is.
        self.flush_all(self.durability)?;
        let mut stored = self.stored.lock();
        let new = Self::descriptor_over(&stored.descriptor, backing, parent)?;
        stored.replace(new, self.durability)
    }

    fn note_parent(&self, parent: &NewParent) -> Result<()> {
        let Some(ParentId::ContentId(cid)) = parent.id else {
            return Err(Error::invalid("The parent has no content ID"));
        };
        let name = {
            let descriptor = &self.stored.lock().descriptor;
            if descriptor.parent_cid == cid {
                return Ok(());
            }
            descriptor.parent.clone()
        };
        let Some(name) = name else {
            return Err(Error::corrupt("The descriptor does not name the parent"));
        };
        let format = Some(NAME.into());
        self.set_backing(Some(&BackingRef { name, format }), Some(parent))
    }

    fn map_held(&self, offset: u64, len: u64) -> Result<Extent> {
        Format::map(self, offset, len)
    }

    fn make_empty(&self) -> Result<()> {
        self.check_writable()?;
        let _all = self.inflight.reserve(0..u64::MAX);
        let _one = self.flushing.lock();
        for part in self.parts.iter() {
            if let PartKind::Sparse(sparse) = &part.kind {
                sparse.make_empty(self.durability)?;
            }
        }
        // Other grains will be stored in the places of those that are gone.
        self.decoded.forget(0, u64::MAX);
        Ok(())
    }
}
