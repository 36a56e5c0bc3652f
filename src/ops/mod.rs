//! One module per operation.

pub mod check;
pub mod compare;
pub mod convert;
pub mod create;
mod failure;
pub mod help;
pub mod info;
pub mod map;
pub mod measure;
pub mod render;
pub mod snapshot;
mod status;
pub use crate::zero;
