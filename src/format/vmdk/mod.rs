//! VMDK: VMware's disks, in one file or many.
//!
//! Specification: VMware Virtual Disk Format 5.0; for what it leaves out, libyal's "VMware Virtual Disk (VMDK) format".

mod alloc;
mod append;
mod check;
mod create;
mod disk;
mod division;
mod driver;
mod encode;
mod info;
mod inspect;
mod open;
mod ova;
mod overlay;
mod parts;
mod passing;
mod placed_descriptor;
mod profile;
mod read;
mod resize;
mod source;
mod sparse;
mod state;
mod survey;
mod write;

pub use driver::DRIVER;
pub use ova::OVA;
pub use profile::{ESXI, ESXI_DATASTORE};

/// The driver's name.
const NAME: &str = "vmdk";
