//! The structures of a VHDX file, one file each. Section numbers are those of [MS-VHDX]. All numbers are little-endian.

mod bat;
mod checksum;
mod file_id;
mod header;
mod locator;
mod log_entry;
mod metadata;
mod region;

pub(super) use bat::{BatEntry, BitmapState, Geometry, State};
pub(super) use checksum::seal;
pub(super) use file_id::{SIGNATURE, file_id};
pub(super) use header::{HEADERS, Header};
pub(super) use locator::{Locator, VHDX_PARENT};
pub(super) use log_entry::{
    DATA_SECTOR, DESCRIPTOR_LEN, Descriptor, ENTRY_HEADER_LEN, EntryHeader, data_sector,
    descriptors_len, page_of,
};
pub(super) use metadata::{Items, Metadata};
pub(super) use region::{REGION_TABLE_LEN, REGION_TABLES, Region, RegionTable};

/// Alignment of regions, blocks and the log.
pub(super) const MIB: u64 = 1 << 20;
