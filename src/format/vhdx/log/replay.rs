//! Replays the log: into the file, or in memory on top of a file that is only read.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::storage::{Durability, Preallocation, Storage, ZeroFlags};

use super::super::disk::{Header, MIB};
use super::overlay::LogOverlay;
use super::scan::{Change, LogArea, Scan, Sequence};

/// Where the changes of a log went.
#[derive(Debug)]
pub(in super::super) enum Replayed {
    /// There were none.
    Nothing,
    /// Into the file, durably. The header still refers to the log.
    File,
    /// Into memory.
    Memory(Arc<LogOverlay>),
}

/// Replays the log that the header refers to, into the file if `into_file` is set, else into memory.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] for a truncated file, [`crate::ErrorKind::Os`] and others if I/O fails.
pub(in super::super) fn replay(
    storage: &Arc<dyn Storage>,
    header: &Header,
    into_file: bool,
    max_memory: u64,
) -> Result<Replayed> {
    let area = LogArea::of(header);
    if !header.has_log() || area.len == 0 {
        return Ok(Replayed::Nothing);
    }
    let mut scan = Scan::new(&**storage, area, header.log)?;
    let Some(sequence) = scan.find()? else {
        return Ok(Replayed::Nothing);
    };
    let file_len = storage.len()?;
    if file_len < sequence.flushed {
        return Err(Error::corrupt(format!(
            "The VHDX log is of a file of {} bytes, but the file has {file_len}: it was cut off",
            sequence.flushed
        )));
    }
    if into_file {
        let file = &**storage;
        into(file, &mut scan, sequence)?;
        return Ok(Replayed::File);
    }
    let mut overlay = LogOverlay::new(storage.clone(), file_len.max(sequence.file_len), max_memory);
    scan.changes(sequence, &mut |change| overlay.add(change))?;
    Ok(Replayed::Memory(Arc::new(overlay)))
}

fn into(file: &dyn Storage, scan: &mut Scan<'_>, sequence: Sequence) -> Result<()> {
    let wanted = sequence.file_len.checked_next_multiple_of(MIB);
    if let Some(wanted) = wanted
        && file.len()? < sequence.file_len
    {
        file.set_len(wanted, Preallocation::Off)?;
    }
    scan.changes(sequence, &mut |change| match change {
        Change::Page(offset, page) => file.write_at(page, offset),
        Change::Zero(offset, len) => file.write_zeroes(offset, len, ZeroFlags::empty()),
    })?;
    file.sync(Durability::Synced)
}
