//! `inspect`: what an untrusted file is and names, and whether it may be used. Opens nothing but the
//! file, and bounds what it reads of it.

mod collect;
mod judge;
mod render;
mod signatures;

use bstr::BString;

use crate::format::inspect::{Finding, Reference};

pub use collect::{inspect, inspect_storage};

/// What was found. Every guard has a verdict, whatever is wrong with the file.
#[derive(Clone, Debug)]
pub struct InspectReport {
    /// The name of the file.
    pub filename: BString,
    /// The format that was asked for, else the one that opening would guess.
    pub format: String,
    /// Whether it was asked for.
    pub format_named: bool,
    /// Length of the file in bytes.
    pub file_size: u64,
    /// The virtual size in bytes, as the file claims it.
    pub virtual_size: Option<u64>,
    /// The cluster size in bytes.
    pub cluster_size: Option<u64>,
    /// Whether the guest data is encrypted.
    pub encrypted: bool,
    /// Internal snapshots, as many as the file claims.
    pub snapshots: Option<u64>,
    /// The formats whose signatures the file bears, then what else it looks like.
    pub signatures: Vec<&'static str>,
    /// Every file that the image names.
    pub references: Vec<Reference>,
    /// One verdict per guard, in the order of [`crate::format::inspect::Guard::ALL`].
    pub guards: Vec<Finding>,
}

impl InspectReport {
    /// Whether every guard lets the image pass.
    pub fn passed(&self) -> bool {
        self.guards.iter().all(|found| found.verdict.is_good())
    }

    /// 0 where every guard passes, else 2.
    pub fn exit_code(&self) -> i32 {
        if self.passed() { 0 } else { 2 }
    }
}
