//! The structures on disk; see `docs/formats/cloop.md`.

mod header;
mod table;

pub(super) use header::{HEADER_LEN, Header, SCRIPT};
pub(super) use table::Table;
