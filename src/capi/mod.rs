//! The C ABI: the only module with exported symbols. It calls the public Rust API and nothing below.
//!
//! Each file is one object of the header; the doc comments here are the header's documentation.
//! Types carry their C names. Every export goes through `boundary`, which turns NULL handles,
//! failures and panics into a status.
#![allow(
    unsafe_code,
    non_camel_case_types,
    reason = "pointers from C; the types carry the names of the C header"
)]

mod boundary;
#[cfg(test)]
mod guards;
mod parameter;
#[cfg(test)]
mod rules;
mod text;
#[cfg(test)]
mod words;

// The header has the functions in this order.
pub mod error_object;

pub mod error;
pub mod status;
pub mod string;
pub mod version;

pub mod log;
pub mod size;

mod content;
pub mod control;
pub mod driver;
pub mod driver_name;
pub mod location;
pub mod nodes;
pub mod open;
pub mod options;
pub mod policy;
pub mod profile;
pub mod secret;

pub mod export;
pub mod extent;
pub mod image;
pub mod io;
pub mod queue;
pub mod server;
pub mod storage;
pub mod storages;

pub mod job;
mod layer_keys;
pub mod report;
mod report_fields;
pub mod report_write;

pub mod amend;
pub mod bench;
pub mod bitmap;
pub mod check;
pub mod commit;
pub mod compare;
pub mod convert;
pub mod create;
pub mod dd;
pub mod exports;
pub mod info;
pub mod inspect;
pub mod map;
pub mod measure;
pub mod rebase;
pub mod resize;
pub mod snapshot;
