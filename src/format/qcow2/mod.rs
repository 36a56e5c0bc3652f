//! qcow2: QEMU's copy-on-write format, versions 2 and 3.

pub mod bulk;
pub mod check;
pub mod create;
pub mod disk;
pub mod info;
mod inspect;

mod ahead;
mod alloc;
mod allocator;
mod amend;
mod backing;
mod bitmaps;
mod cache;
mod compressed;
mod crypt;
mod data_file;
mod driver;
mod events;
mod first_write;
mod header_change;
mod header_io;
mod hex;
mod l2;
mod layout;
mod map;
mod measure;
mod open;
mod open_options;
mod ordering;
mod overlap;
mod partial;
mod read;
mod refcount;
mod resize;
mod snapshot;
mod spec;
mod state;
mod table_place;
mod trim;
mod write;
mod zero_discard;

pub use driver::DRIVER;
pub use state::Qcow2;
