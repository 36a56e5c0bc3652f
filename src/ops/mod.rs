//! One module per operation.

pub mod amend;
pub mod bench;
pub mod bitmap;
pub mod check;
pub mod commit;
pub mod compare;
pub mod convert;
pub mod create;
pub mod dd;
mod error_text;
pub mod exports;
pub(crate) mod forecast;
pub mod help;
pub mod info;
pub mod inspect;
pub(crate) mod known;
pub mod map;
pub mod measure;
pub mod rebase;
pub mod render;
pub mod resize;
pub mod snapshot;
pub mod trace;
mod workers;
