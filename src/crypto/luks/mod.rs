//! LUKS version 1 volumes, whether in a file of their own or inside a qcow2 image.

mod create;
mod derivation;
mod disk;
mod keyslot;
mod volume;

pub use create::{CreateOptions, NewVolume, required_header_len};
pub use disk::{Header, KeySlot, SLOTS, STRIPES};
pub use keyslot::{AmendState, KeyslotChange};
pub use volume::{HeaderIo, Volume};
