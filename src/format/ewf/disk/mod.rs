//! The structures on disk; see `docs/formats/ewf.md`.

mod checksum;
mod hashes;
mod header;
mod section;
mod table;
mod volume;

pub(super) use hashes::Hashes;
pub(super) use header::{FileHeader, HEADER_LEN, MAGIC};
pub(super) use section::{SECTION_LEN, Section};
pub(super) use table::{ENTRY_LEN, TABLE_HEADER_LEN, TableHeader, entries_fit, entry};
pub(super) use volume::Volume;
