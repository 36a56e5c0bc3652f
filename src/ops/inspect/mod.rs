//! `inspect`: what an untrusted file is and what it names, and whether it may be used. Opens nothing but the file, and
//! limits how much of it is read.

mod collect;
mod judge;
mod render;
mod signatures;

use bstr::BString;

use crate::format::inspect::{Finding, Reference};
use crate::format::{Objection, Profile};

pub use collect::{inspect, inspect_for, inspect_storage};

/// The findings. Every requirement has a verdict, whatever is wrong with the file.
#[derive(Clone, Debug)]
pub struct InspectReport {
    /// The name of the file.
    pub filename: BString,
    /// The requested format, otherwise the one that opening would guess.
    pub format: String,
    /// Whether the format was requested.
    pub format_named: bool,
    /// Length of the file in bytes.
    pub file_size: u64,
    /// The virtual size in bytes, as the file states it.
    pub virtual_size: Option<u64>,
    /// The cluster size in bytes.
    pub cluster_size: Option<u64>,
    /// Whether the guest data is encrypted.
    pub encrypted: bool,
    /// The number of internal snapshots, as the file states it.
    pub snapshots: Option<u64>,
    /// The formats whose signatures the file has, then what else it looks like.
    pub signatures: Vec<&'static str>,
    /// Every file that the image names.
    pub references: Vec<Reference>,
    /// The product that was asked about, and what it would object to.
    pub profile: Option<(&'static Profile, Vec<Objection>)>,
    /// One verdict per requirement, in the order of [`crate::format::inspect::Requirement::ALL`].
    pub requirements: Vec<Finding>,
}

impl InspectReport {
    /// Whether every requirement lets the image pass, and the product that was asked about, if any, would accept it.
    pub fn passed(&self) -> bool {
        self.requirements
            .iter()
            .all(|found| found.verdict.is_good())
            && self.objections().is_empty()
    }

    /// What the product that was asked about would object to.
    pub fn objections(&self) -> &[Objection] {
        self.profile
            .as_ref()
            .map_or(&[], |(_, objections)| objections)
    }

    /// 0 if it has [passed](Self::passed), otherwise 2.
    pub fn exit_code(&self) -> i32 {
        if self.passed() { 0 } else { 2 }
    }
}
