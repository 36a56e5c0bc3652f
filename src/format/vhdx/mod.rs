//! VHDX: the disks of Hyper-V, dynamic, fixed and differencing ([MS-VHDX]).

mod chain;
mod check;
mod create;
mod disk;
mod driver;
mod flush;
mod free;
mod headers;
mod inspect;
mod log;
mod map;
mod occupied;
mod open;
mod pages;
mod parent;
mod prepare;
mod profile;
mod resize;
mod space;
mod state;
mod write;
mod zero;

pub use driver::DRIVER;
pub use profile::HYPERV;
