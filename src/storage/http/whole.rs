//! The whole image from a server without byte ranges, in a temporary file.

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::memory;
use crate::storage::file::FileStorage;
use crate::storage::remote::Source as _;
use crate::storage::{Preallocation, Storage, spool};
use crate::zero::is_zero;

use super::source::Source;

/// Bytes to write at a time.
const STEP: usize = 1 << 20;

/// Fetches all that the server sends.
///
/// # Errors
/// Errors of the server; [`ErrorKind::Limit`] if the policy does not allow as much; errors of the file.
pub(super) fn keep(source: &Source, control: &JobControl) -> Result<FileStorage> {
    let (file, directory) = spool::open(source.name(), source.name().to_owned())?;
    let most = source.policy().max_spool_bytes;
    let too_much = || {
        Error::new(
            ErrorKind::Limit,
            format!(
                "What the server sends takes more of a temporary file than the open policy allows ({most} bytes)"
            ),
        )
    };
    let step = Mutex::new(memory::zeroed(STEP)?);
    let len = source.opening(control, || {
        let _lane = source.lanes().take(control)?;
        let mut flow = source.ask_all(control)?;
        if flow.len().is_some_and(|told| told > most) {
            return Err(too_much().into());
        }
        file.set_len(0, Preallocation::Off)?;
        let mut step = step.lock();
        let mut at: u64 = 0;
        loop {
            let filled = flow.fill(&mut step, source.terms(), control)?;
            if filled == 0 {
                return Ok(at);
            }
            let end = at + filled as u64;
            if end > most {
                return Err(too_much().into());
            }
            let bytes = step.get(..filled).unwrap_or_default();
            if !is_zero(bytes) {
                file.write_at(bytes, at).map_err(|error| {
                    let directory = directory.display();
                    error.context(format!("Could not write a temporary file in '{directory}'"))
                })?;
            }
            at = end;
        }
    })?;
    file.set_len(len, Preallocation::Off)?;
    Ok(file)
}
