//! The bytes before the first block of a new image.

use uuid::Uuid;

use crate::error::Result;
use crate::storage::{Durability, Storage};

use super::super::disk::{HEADERS, Header, Items, Metadata, REGION_TABLES, RegionTable, file_id};
use super::super::parent;
use super::spec::Spec;

/// Everything but the block allocation table.
#[derive(Debug)]
pub(super) struct Front {
    header: Header,
    regions: RegionTable,
    metadata: Vec<u8>,
}

impl Front {
    /// For an image with this disk identifier and parent, as far as they are known.
    pub(super) fn new(spec: &Spec, disk_id: Option<Uuid>, linkage: Option<Uuid>) -> Result<Self> {
        let locator = spec
            .parent
            .as_deref()
            .map(|name| parent::locator(name, linkage));
        let items = Items {
            block_size: spec.geometry.block_size() as u32,
            leave_allocated: spec.fixed,
            has_parent: spec.parent.is_some(),
            size: spec.size,
            disk_id: disk_id.unwrap_or_else(Uuid::new_v4),
            logical_sector: spec.geometry.sector() as u32,
            physical_sector: spec.physical_sector,
            locator,
        };
        Ok(Self {
            header: Header {
                sequence: 1,
                file_write: Uuid::new_v4(),
                data_write: Uuid::new_v4(),
                log: Uuid::nil(),
                log_version: 0,
                version: 1,
                log_len: spec.log_len,
                log_offset: spec.log_offset(),
            },
            regions: RegionTable {
                bat: spec.bat(),
                metadata: spec.metadata(),
                others: Vec::new(),
            },
            metadata: Metadata::new(items)?.to_bytes()?,
        })
    }

    /// Writes all of it; the identifier that marks the file as a VHDX comes last.
    pub(super) fn write(&self, storage: &dyn Storage, durability: Durability) -> Result<()> {
        storage.write_at(&self.metadata, self.regions.metadata.offset)?;
        let table = self.regions.to_bytes()?;
        for at in REGION_TABLES {
            storage.write_at(&table, at)?;
        }
        let mut header = self.header.clone();
        for at in HEADERS {
            storage.write_at(&header.to_bytes(), at)?;
            header.sequence += 1;
        }
        if durability == Durability::Synced {
            // The identifier must not reach the disk before the rest.
            storage.sync(durability)?;
        }
        storage.write_at(&file_id(), 0)?;
        storage.sync(durability)
    }
}
