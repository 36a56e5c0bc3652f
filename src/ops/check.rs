//! `check`: the consistency of an image's metadata.

use crate::error::Result;
use crate::format::{CheckReport, RepairMode};
use crate::image::Image;
use crate::job::Job;

/// The report of `check` on an image.
#[derive(Clone, Debug)]
pub struct CheckOutcome {
    /// `filename`.
    pub filename: String,
    /// `format`.
    pub format: String,
    /// The numbers.
    pub report: CheckReport,
}

/// Checks `image`, opened with `for_check`; each finding is a note of `job`.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] where the format has no check, or when it cannot be done.
pub fn check(image: &Image, repair: RepairMode, job: &mut Job) -> Result<CheckOutcome> {
    let _ = (image, repair, job);
    todo!()
}

impl CheckOutcome {
    /// The JSON that `qemu-img check --output=json` prints.
    pub fn json(&self) -> String {
        todo!()
    }

    /// The text that `qemu-img check` prints.
    pub fn text(&self) -> String {
        todo!()
    }

    /// The exit code of `qemu-img check`: 0, 2 (corruptions or check errors) or 3 (leaks).
    pub fn exit_code(&self) -> i32 {
        todo!()
    }
}
