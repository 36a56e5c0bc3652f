//! The part of the input that is copied.

use crate::error::{Error, Result};
use crate::format::Profile;
use crate::size::{human_size, round_up_sector};

/// The part of the input that is copied; all in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Bytes left out at the beginning.
    pub skip: u64,
    /// Maximum number of bytes copied after that.
    pub limit: Option<u64>,
    /// The size of the input. A stream must hold this much; of an image, no more is used.
    pub input_size: Option<u64>,
    /// The size of the output: what the input does not fill reads as zeroes.
    pub output_size: Option<u64>,
    /// The product whose permitted sizes the output must have: it is rounded up to the next one.
    pub product: Option<&'static Profile>,
}

/// The length of the output for this many bytes of input.
pub(super) fn output_len(data: u64, window: &Window) -> Result<u64> {
    if let Some(size) = window.output_size
        && size < data
    {
        return Err(longer_than_output(size));
    }
    let size = round_up_sector(window.output_size.unwrap_or(data))
        .filter(|size| *size <= i64::MAX as u64)
        .ok_or_else(|| Error::invalid("The image size is too large"))?;
    let Some(product) = window.product else {
        return Ok(size);
    };
    product.sizes.next(size).ok_or_else(|| {
        Error::invalid(format!(
            "{} takes disks of {} at most, and this one has {size} bytes",
            product.product,
            human_size(product.sizes.most)
        ))
    })
}

/// The message about a disk that was enlarged to `len` bytes because the product takes no smaller ones.
pub(super) fn grown_for_product(data: u64, len: u64, window: &Window) -> Option<String> {
    let product = window.product?;
    let size = window.output_size.unwrap_or(data);
    (size < product.sizes.least).then(|| {
        format!(
            "The disk has {len} bytes instead of {size}: {} takes none of less than {}",
            product.product,
            human_size(product.sizes.least)
        )
    })
}

/// The error of an input that does not fit.
pub(super) fn longer_than_output(size: u64) -> Error {
    Error::invalid(format!(
        "The input is longer than the {size} bytes that the output is to have"
    ))
}
