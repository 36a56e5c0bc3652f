//! A temporary file without a name: what is read from the beginning to the end is kept there.

use std::path::PathBuf;
use std::sync::Arc;

use bstr::{BStr, BString};
use parking_lot::Mutex;

use crate::codec::container::Unpacker;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::extent::StorageExtent;
use crate::memory::{self, IoBuf};
use crate::policy::OpenPolicy;
use crate::storage::file::FileStorage;
use crate::storage::{Preallocation, Storage, spool};
use crate::zero::is_zero;

use super::GRAIN;

/// Bytes that are unpacked at once.
const STEP: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Spool {
    file: Arc<FileStorage>,
    directory: PathBuf,
    max_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    buf: IoBuf,
    /// Bytes that were written.
    written: u64,
}

impl Spool {
    /// An empty one, for what `name` holds; `shown` is the name of the file in messages.
    ///
    /// # Errors
    /// Of making the file.
    pub(super) fn new(name: &BStr, shown: BString, policy: &OpenPolicy) -> Result<Self> {
        let (file, directory) = spool::open(name, shown)?;
        Ok(Self {
            file: Arc::new(file),
            directory,
            max_bytes: policy.max_spool_bytes,
            state: Mutex::new(State {
                buf: memory::zeroed(STEP)?,
                written: 0,
            }),
        })
    }

    /// Takes in the next bytes at `offset`, which is the end; gives how many there were and whether they were the
    /// last.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] where the file would become larger than the policy allows; of unpacking and writing.
    pub(super) fn take(&self, offset: u64, unpacker: &mut Unpacker) -> Result<(u64, bool)> {
        let state = &mut *self.state.lock();
        let len = unpacker.read(&mut state.buf)?;
        let bytes = state.buf.get(..len).unwrap_or_default();
        self.put(bytes, offset, &mut state.written)?;
        let at = offset + len as u64;
        let ended = len < STEP;
        if ended && self.file.len()? < at {
            self.file.set_len(at, Preallocation::Off)?;
        }
        Ok((len as u64, ended))
    }

    /// Takes in bytes that were unpacked already.
    ///
    /// # Errors
    /// As [`Spool::take`].
    pub(super) fn begin(&self, bytes: &[u8]) -> Result<()> {
        self.put(bytes, 0, &mut self.state.lock().written)
    }

    fn put(&self, bytes: &[u8], mut at: u64, written: &mut u64) -> Result<()> {
        for grain in bytes.chunks(GRAIN) {
            if !is_zero(grain) {
                *written = written.saturating_add(grain.len() as u64);
                if *written > self.max_bytes {
                    return Err(self.too_large());
                }
                self.file.write_at(grain, at).context(|| {
                    format!("There is no more room in '{}'", self.directory.display())
                })?;
            }
            at += grain.len() as u64;
        }
        Ok(())
    }

    /// The file itself.
    pub(super) fn file(&self) -> &Arc<FileStorage> {
        &self.file
    }

    fn too_large(&self) -> Error {
        Error::new(
            ErrorKind::Limit,
            format!(
                "What it holds takes a temporary file larger than the open policy allows ({} bytes)",
                self.max_bytes
            ),
        )
        .with_hint("Decompress it first, or raise the limit on the temporary file")
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_at(buf, offset)
    }

    pub(super) fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        if offset >= self.file.len()? {
            // Zeroes that were left out so far.
            return Ok(StorageExtent {
                len,
                zero: true,
                allocated: false,
            });
        }
        self.file.extent(offset, len)
    }
}
