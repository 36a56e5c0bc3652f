//! The structures on disk, all numbers big-endian; see `docs/formats/qcow.md`.

mod entry;
mod header;

pub(super) use entry::{ClusterPlace, place_of, word_of, word_of_packed};
pub(super) use header::{Crypt, Geometry, HEADER_LEN, Header, MAGIC, MAX_NAME, most_tables};
