//! Layers of a chain: emptying this one, and naming another parent.

use bstr::ByteSlice;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::format::{BackingChange, BackingRef, ParentId};

use super::disk::{BatEntry, Locator};
use super::parent;
use super::state::Vhdx;

impl BackingChange for Vhdx {
    fn set_backing(&self, backing: Option<&BackingRef>, id: Option<ParentId>) -> Result<()> {
        self.check_writable()?;
        let _one = self.reshaping.lock();
        let Some(backing) = backing else {
            return Err(Error::unsupported(
                "A differencing VHDX stays one: convert the chain instead, to have an image without a backing file",
            ));
        };
        if backing
            .format
            .as_ref()
            .is_some_and(|format| *format != super::DRIVER.name)
        {
            return Err(Error::unsupported(
                "The backing file of a VHDX has to be a VHDX",
            ));
        }
        let linkage = match id {
            None => None,
            Some(ParentId::DataWriteGuid(guid)) => Some(guid),
            Some(_) => {
                return Err(Error::unsupported(
                    "The backing file of a VHDX has to be a VHDX",
                ));
            }
        };
        let locator = parent::locator(&parent::to_record(backing.name.as_bstr())?, linkage);
        self.set_locator(locator)
    }

    fn set_parent_id(&self, id: ParentId) -> Result<()> {
        self.check_writable()?;
        let _one = self.reshaping.lock();
        let old = self.metadata.lock().items.locator.clone();
        match (id, old) {
            (ParentId::DataWriteGuid(guid), Some(old)) => {
                self.set_locator(parent::with_linkage(&old, guid))
            }
            _ => Ok(()),
        }
    }

    fn make_empty(&self) -> Result<()> {
        self.prepare_write()?;
        self.flush_all(self.durability)?;
        {
            let _all = self.inflight.reserve(0..u64::MAX);
            for block in 0..self.geometry.blocks(self.virtual_size()) {
                let entry = self.block_entry(block)?;
                if entry != BatEntry::NOT_PRESENT {
                    self.set_entry(self.geometry.entry(block), BatEntry::NOT_PRESENT)?;
                    self.give_up(entry);
                }
            }
        }
        self.flush_all(self.durability)?;
        self.reclaim()
    }
}

impl Vhdx {
    /// Records another locator. What the guest sees above the new parent is made durable before.
    fn set_locator(&self, locator: Locator) -> Result<()> {
        let (patches, metadata) = {
            let region = self.regions.lock().metadata;
            self.metadata.lock().with_locator(region.len, locator)?
        };
        // The guest sees the same: layers above this one go on knowing it.
        let file = Uuid::new_v4();
        self.change_header(|header| header.file_write = file)?;
        self.flush_all(self.durability)?;
        let patches: Vec<(u64, &[u8])> = patches
            .iter()
            .map(|(at, bytes)| (*at, &bytes[..]))
            .collect();
        self.patch_metadata(&patches)?;
        *self.metadata.lock() = metadata;
        self.sync(self.durability)
    }
}
