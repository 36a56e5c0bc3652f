//! The checksum of compressed files that are read in parts, or spooled to a temporary file: they are read once more,
//! from the first byte to the last.

use std::sync::Arc;

use crate::error::{Result, ResultExt};
use crate::image::Image;
use crate::job::JobControl;
use crate::memory;

use super::checksum::Checksum;
use super::request::ConvertRequest;

/// Bytes read at once.
const STEP: u64 = 1 << 20;

/// The checksum of the compressed files below these layers, concatenated, if requested. They are open, so that no one
/// who respects the locks changes them.
///
/// # Errors
/// If reading them fails.
pub(super) fn checksum<'a>(
    request: &ConvertRequest,
    layers: impl Iterator<Item = &'a Image>,
    control: &JobControl,
) -> Result<Option<Arc<Checksum>>> {
    if !request.tuning.checksum {
        return Ok(None);
    }
    let files: Vec<_> = layers.flat_map(Image::compressed_files).collect();
    if files.is_empty() {
        return Ok(None);
    }
    let sum = Checksum::default();
    let mut buf = memory::zeroed(STEP as usize)?;
    for file in files {
        let end = file.len()?;
        let mut at = 0;
        while at < end {
            control.checkpoint()?;
            let len = STEP.min(end - at);
            let bytes = buf.get_mut(..len as usize).unwrap_or_default();
            let read = file.read_at(bytes, at);
            read.context(|| format!("'{}'", file.name()))?;
            sum.update(bytes);
            at += len;
        }
    }
    Ok(Some(Arc::new(sum)))
}
