//! All of an image from a server that knows no ranges, in a temporary file.

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::memory;
use crate::storage::file::FileStorage;
use crate::storage::{Preallocation, Storage, spool};
use crate::zero::is_zero;

use super::source::Source;

/// Bytes that are written at once.
const STEP: usize = 1 << 20;

/// Takes all that the server sends.
///
/// # Errors
/// Of the server; [`ErrorKind::Limit`] where the policy does not allow as much; of the file.
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
    let mut step = memory::zeroed(STEP)?;
    let step = parking_lot::Mutex::new(&mut step);
    let len = source.whole(control, |read, told| {
        if told.is_some_and(|told| told > most) {
            return Err(too_much());
        }
        file.set_len(0, Preallocation::Off)?;
        let mut step = step.lock();
        let mut at: u64 = 0;
        loop {
            let mut filled = 0;
            while let Some(room) = step.get_mut(filled..).filter(|room| !room.is_empty()) {
                match read(room)? {
                    0 => break,
                    n => filled += n,
                }
            }
            if filled == 0 {
                return Ok(at);
            }
            let end = at + filled as u64;
            if end > most {
                return Err(too_much());
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
