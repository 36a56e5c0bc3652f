//! The structures of a VDI file.

mod header;
mod layout;

pub(super) use header::{HEAD_LEN, Header, ImageType, LINK_AT, SIGNATURE, SIGNATURE_AT, Version};
pub(super) use layout::{DATA_ALIGNMENT, DISCARDED, VdiLayout};
