//! The on-disk structures, one file each.

pub(super) mod cowd_header;
pub(super) mod create_type;
pub(super) mod descriptor;
mod descriptor_text;
pub(super) mod marker;
pub(super) mod se_sparse;
pub(super) mod sparse_header;

pub(super) use cowd_header::CowdHeader;
pub(super) use descriptor::{Access, Descriptor, ExtentLine, ExtentType};
pub(super) use sparse_header::{Flags, SparseHeader, not_vmdk};
