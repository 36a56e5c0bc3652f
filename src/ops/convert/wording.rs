//! The wording of errors for callers whose users know a conversion by another name.

use crate::driver_names::unknown_format;
use crate::error::Error;
use crate::ops::create::Reason;

/// The wording of a caller.
#[derive(Debug)]
pub struct Wording {
    /// What failed if an image of this format could not be created.
    pub(in crate::ops) creating: fn(format: &str) -> String,
    /// The error of an unknown format.
    pub(in crate::ops) unknown_format: fn(format: &str) -> Error,
    /// Where to give the size that a stream does not state.
    pub(in crate::ops) size: &'static str,
    /// What a source is called.
    pub(in crate::ops) source: Reason,
    /// Whether the target is named in front when it is refused because of the files of a source.
    pub(in crate::ops) names_target: bool,
}

impl Wording {
    /// The wording of `convert`.
    pub const CONVERT: Self = Self {
        creating: |format| format!("error while converting {format}"),
        unknown_format,
        size: "the option 'size'",
        source: Reason::Source,
        names_target: true,
    };
}
