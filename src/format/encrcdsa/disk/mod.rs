//! The structures on disk; see `docs/formats/dmg.md`.

mod footer;
mod header;
mod volume;

pub(super) use footer::FOOTER_LEN;
pub(crate) use footer::FOOTER_MAGIC;
pub(crate) use header::HEADER_MAGIC;
pub(super) use volume::{KeyCipher, Lock, Volume, Wrapped};
