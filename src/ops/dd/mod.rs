//! `dd`: copies part of an image or stream, in blocks; a conversion with a window.

mod request;

pub(crate) use request::check_block_size;
pub use request::{DdEnd, DdRequest};

use crate::error::Result;
use crate::job::Job;
use crate::ops::convert::{ConvertReport, convert};

pub use crate::ops::convert::NamedFd;

/// Copies. A target that it created is removed if it fails or is cancelled; what was written to a pipe is gone.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for numbers out of range, a skip past the end of the input and an input that is also
/// the output; otherwise as [`convert`].
pub fn dd(request: &DdRequest, job: &mut Job) -> Result<ConvertReport> {
    convert(&request.conversion()?, job)
}
