//! What errors are called by those whose users know a conversion under another name.

use crate::driver_names::unknown_format;
use crate::error::Error;
use crate::ops::create::Reason;

/// The words of a caller.
#[derive(Debug)]
pub struct Wording {
    /// What failed where an image of this format could not be made; stands behind its name.
    pub(in crate::ops) creating: fn(format: &str) -> String,
    /// The error of an unknown format.
    pub(in crate::ops) unknown_format: fn(format: &str) -> Error,
    /// Where the size is given that a stream does not tell.
    pub(in crate::ops) size: &'static str,
    /// What a source is to the user.
    pub(in crate::ops) source: Reason,
    /// A target that is refused for the files of a source is named in front.
    pub(in crate::ops) names_target: bool,
}

impl Wording {
    /// Those of `convert`.
    pub const CONVERT: Self = Self {
        creating: |format| format!("error while converting {format}"),
        unknown_format,
        size: "the option 'size'",
        source: Reason::Source,
        names_target: true,
    };
}
