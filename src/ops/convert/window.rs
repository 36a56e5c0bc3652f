//! The part of the input that is copied.

use crate::error::{Error, Result};
use crate::size::round_up_sector;

/// The part of the input that is copied; all in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Left out at the beginning.
    pub skip: u64,
    /// The most that is copied behind that.
    pub limit: Option<u64>,
    /// The size of the input. A stream must hold so much, of an image no more is looked at.
    pub input_size: Option<u64>,
    /// The size of the output: what the input does not fill reads as zeroes.
    pub output_size: Option<u64>,
    /// The size of the output is rounded up to a multiple of this.
    pub output_multiple: Option<u64>,
}

/// The length of the output for so many bytes of input.
pub(super) fn output_len(data: u64, window: &Window) -> Result<u64> {
    if let Some(size) = window.output_size
        && size < data
    {
        return Err(longer_than_output(size));
    }
    let size = round_up_sector(window.output_size.unwrap_or(data));
    let rounded = size.and_then(|size| match window.output_multiple {
        Some(multiple) => size.checked_next_multiple_of(multiple),
        None => Some(size),
    });
    rounded
        .filter(|size| *size <= i64::MAX as u64)
        .ok_or_else(|| Error::invalid("The image size is too large"))
}

/// The error of an input that does not fit.
pub(super) fn longer_than_output(size: u64) -> Error {
    Error::invalid(format!(
        "The input is longer than the {size} bytes that the output is to have"
    ))
}
