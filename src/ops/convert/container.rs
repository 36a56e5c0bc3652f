//! The checksum of compressed files that are read in parts, or kept in a temporary file: they are read once more, from
//! their first byte to their last.

use std::sync::Arc;

use crate::error::{Result, ResultExt};
use crate::image::open_file;
use crate::job::JobControl;
use crate::memory;

use super::checksum::Checksum;
use super::request::ConvertRequest;

/// Bytes that are read at once.
const STEP: u64 = 1 << 20;

/// That of all sources, one behind the other, where they are compressed and a checksum is asked for. They are open, so
/// that nobody changes them who keeps to locks.
///
/// # Errors
/// Of opening or reading them.
pub(super) fn checksum(
    request: &ConvertRequest,
    control: &JobControl,
) -> Result<Option<Arc<Checksum>>> {
    let options = &request.source.options;
    if !request.tuning.checksum || options.decompress.is_none() {
        return Ok(None);
    }
    let sum = Checksum::default();
    let mut buf = memory::zeroed(STEP as usize)?;
    for location in &request.source.images {
        let (file, _) = open_file(location, options)?;
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
