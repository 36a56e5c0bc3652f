//! Virtual-machine disk images: create, open, read, write, convert, inspect and check them.
//!
//! The crate is built in layers, and imports run one way only:
//! `capi → ops → queue → image → format → storage → sys`; everything may use the vocabulary
//! ([`error`], [`size`], [`value`], [`options`], [`location`], [`policy`], [`job`], [`extent`]).
//! Names of files, snapshots and bitmaps are bytes there: [`bstr`] strings.
//!
//! * [`storage`] is the host side: byte stores such as a file, a block device or memory.
//! * [`mod@format`] is the guest side: one room per image format.
//! * [`image`] is an open image: a format over storage over a backing chain.
//! * [`queue`] submits requests on an image that complete later.
//! * [`ops`] holds one module per operation; [`capi`] is the C ABI over the public Rust API.

pub mod capi;
pub mod codec;
pub mod crypto;
pub mod driver_names;
pub mod error;
pub mod extent;
pub mod format;
pub mod image;
pub mod job;
pub mod location;
pub mod log;
pub mod memory;
pub mod ops;
pub mod options;
pub mod policy;
pub mod printable;
pub mod queue;
pub mod secret;
mod settle;
pub mod size;
pub mod storage;
mod sync;
#[allow(
    unsafe_code,
    reason = "the one room for system calls that std does not offer"
)]
mod sys;
pub mod trace;
pub mod value;
pub mod zero;

pub use bstr;
pub use error::{Error, ErrorKind, Result};
pub use image::{Image, OpenOptions};
pub use job::Job;
pub use location::Location;
pub use options::Options;
pub use policy::OpenPolicy;
