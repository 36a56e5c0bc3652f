//! The structures on disk; see `docs/formats/dmg.md`.

mod checksum;
mod fork;
mod mish;
mod plist;
mod trailer;

pub(super) use checksum::Checksum;
pub(super) use fork::tables_of_fork;
pub(super) use mish::{Chunk, Coding, Table, TableReader, Tables};
pub(super) use plist::tables_of_plist;
pub(super) use trailer::{MAGIC, TRAILER_LEN, Trailer};
