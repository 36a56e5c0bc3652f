//! Growing, shrinking and preallocating.

use super::direct::Direct;
use super::{FileStorage, Kind};
use crate::error::{Error, Result, ResultExt};
use crate::storage::grow::ZEROES_FAILED;
use crate::storage::modes::{CacheMode, Preallocation};
use crate::sys::falloc::{self, Falloc};
use crate::sys::{AlignedBuf, rw};

/// Zeroes are written in chunks of this size.
const CHUNK: usize = 1 << 20;
/// The first block of a new file is written so that its alignment for direct I/O can be probed.
const FIRST_BLOCK: u64 = 4096;

impl FileStorage {
    pub(super) fn resize(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.check_writable()?;
        Self::end_of(len, 0)?;
        if self.kind != Kind::Regular {
            return self.resize_device(len, preallocation);
        }
        let followed = self.resize_file(len, preallocation);
        self.extents.invalidate();
        followed
    }

    fn resize_device(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        if preallocation != Preallocation::Off {
            return Err(Error::no_preallocation(preallocation.name()));
        }
        let size = self.raw_len().map_err(|error| Error::io(&error))?;
        if len > size {
            return Err(Error::unsupported("Cannot grow device files"));
        }
        if len < size {
            return Err(Error::unsupported("Cannot resize device files"));
        }
        Ok(())
    }

    fn resize_file(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        if preallocation == Preallocation::Metadata {
            return Err(Error::no_metadata_preallocation());
        }
        if preallocation != Preallocation::Off {
            self.settle_len().map_err(|error| Error::io(&error))?;
            self.spare.is_wanted();
        }
        let (old, reserved) = {
            let _alone = self.growth.write();
            let old = self.raw_len().map_err(|error| Error::io(&error))?;
            if preallocation != Preallocation::Off && len < old {
                return Err(Error::invalid(
                    "Preallocation can only be used for growing images",
                ));
            }
            if len > old {
                self.writable_end(old, len - old)
                    .context(|| "Could not resize file".into())?;
            }
            let grows = preallocation == Preallocation::Falloc && len > old;
            let reserved = grows && self.reserve(old, len)?;
            if !reserved {
                self.truncate(len)
                    .map_err(|error| Error::io(&error))
                    .context(|| "Could not resize file".into())?;
            }
            if old == 0 && preallocation != Preallocation::Full {
                self.write_first_block(len)?;
            }
            (old, reserved)
        };
        if len <= old {
            return Ok(());
        }
        let filled = match preallocation {
            Preallocation::Full => self.fill(old, len),
            Preallocation::Falloc if !reserved => self.write_zero_bytes(old, len - old),
            _ => Ok(()),
        };
        if filled.is_err() {
            let _alone = self.growth.write();
            // Not if another thread has appended in the meantime. The error reported is the first one.
            if self.raw_len().is_ok_and(|now| now == len) {
                let _ = self.truncate(old);
            }
        }
        filled
    }

    /// Reserves space for `old..len`; false if the file system cannot.
    fn reserve(&self, old: u64, len: u64) -> Result<bool> {
        match falloc::fallocate(self.fd(), Falloc::Allocate, old, len - old) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                Ok(false)
            }
            Err(error) => {
                let _ = self.truncate(old);
                Err(Error::io(&error).context("Could not preallocate new data"))
            }
        }
    }

    /// The caller holds `growth` exclusively, so that no other write is undone.
    fn write_first_block(&self, len: u64) -> Result<()> {
        let zeroes = AlignedBuf::zeroed(FIRST_BLOCK as usize, FIRST_BLOCK as usize)
            .map_err(|error| Error::io(&error))?;
        let n = len.min(FIRST_BLOCK);
        let unit = u64::from(self.direct.as_ref().map_or(1, Direct::unit));
        if !n.is_multiple_of(unit) {
            return Ok(());
        }
        rw::write_full(self.fd(), &zeroes[..n as usize], 0).map_err(|error| Error::io(&error))
    }

    /// Writes zeroes to `old..len` and makes them durable.
    fn fill(&self, old: u64, len: u64) -> Result<()> {
        // In one piece if possible; a full disk is detected before any time is spent on writing.
        if let Err(error) = falloc::fallocate(self.fd(), Falloc::AllocateKeepSize, old, len - old)
            && error.raw_os_error() == Some(libc::ENOSPC)
        {
            return Err(Error::io(&error).context(ZEROES_FAILED));
        }
        self.write_zero_bytes(old, len - old)
            .context(|| ZEROES_FAILED.into())?;
        if self.cache == CacheMode::Unsafe {
            return Ok(());
        }
        self.datasync()
            .context(|| "Could not sync the preallocated file".into())
    }

    /// Writes zero bytes in chunks of limited size.
    pub(super) fn write_zero_bytes(&self, offset: u64, len: u64) -> Result<()> {
        let size = usize::try_from(len).map_or(CHUNK, |len| len.min(CHUNK));
        let zeroes = AlignedBuf::zeroed(size, 4096).map_err(|error| Error::io(&error))?;
        let mut done = 0;
        while done < len {
            let n = usize::try_from(len - done).map_or(size, |left| left.min(size));
            let result = match &self.direct {
                Some(direct) => direct.write(self, &zeroes[..n], offset + done),
                None => {
                    let _no_truncate = self.growth.read();
                    rw::write_full(self.fd(), &zeroes[..n], offset + done)
                }
            };
            result.map_err(|error| Error::io(&error))?;
            done += n as u64;
        }
        Ok(())
    }
}
