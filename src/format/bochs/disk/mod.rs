//! The structures on disk; see `docs/formats/bochs.md`.

mod catalog;
mod header;

pub(super) use catalog::Catalog;
pub(super) use header::{HEADER_LEN, Header, is_growing};
