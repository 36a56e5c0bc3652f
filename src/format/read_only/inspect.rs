//! Inspecting images of read-only formats.

use crate::error::{Error, ErrorKind, Result};
use crate::format::inspect::{Inspection, Requirement, Verdict};

/// A file that is longer than its contents explain by more than this may be hiding something.
const SLACK: u64 = 64 << 10;

impl Inspection {
    /// Adds the finding for a header or a table that could not be parsed.
    ///
    /// # Errors
    /// The error itself if it says nothing about the image.
    pub(crate) fn refuse(&mut self, error: Error) -> Result<()> {
        let requirement = match error.kind() {
            ErrorKind::Corrupt | ErrorKind::NotAnImage => Requirement::HeaderConsistent,
            ErrorKind::Limit => Requirement::TableSizes,
            ErrorKind::Unsupported => Requirement::KnownFeatures,
            _ => return Err(error),
        };
        self.find(requirement, Verdict::Fail, error.to_string());
        Ok(())
    }

    /// As [`Inspection::refuse`], for a result: None if it is an error.
    ///
    /// # Errors
    /// As for [`Inspection::refuse`].
    pub(crate) fn taken<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(found) => Ok(Some(found)),
            Err(error) => self.refuse(error).map(|()| None),
        }
    }

    /// Judges the length of the file by the end of its last known part, described by `what`.
    pub(crate) fn explain_length(&mut self, file_len: u64, end: u64, what: &str) {
        self.judge(
            Requirement::FileSize,
            match file_len <= end.saturating_add(SLACK) {
                true => Ok(format!("{file_len} bytes, and {end} with {what}")),
                false => Err(format!(
                    "{file_len} bytes are more than the {end} that {what} explain"
                )),
            },
        );
    }

    /// Notes that the format has nothing to which these requirements apply.
    pub(crate) fn has_none(&mut self, format: &str, requirements: &[Requirement]) {
        for requirement in requirements {
            let reason = format!("{format} images have none");
            self.find(*requirement, Verdict::NotApplicable, reason);
        }
    }
}
