//! Copies from file to file inside the kernel.

use std::any::Any;
use std::sync::atomic::Ordering;

use super::{FileStorage, Kind};
use crate::error::{Error, Result};
use crate::storage::{CopyOutcome, HostFile, ZeroFlags};
use crate::sys::copy;

/// Maximum copied by one call, so that a signal or a cancelled job does not have to wait.
const CHUNK: u64 = 64 << 20;

/// Whether a refusal by the kernel is for good; None if the error is not a refusal.
fn refusal(error: &std::io::Error) -> Option<bool> {
    match error.raw_os_error()? {
        // It will never work for these two files.
        libc::EXDEV
        | libc::EOPNOTSUPP
        | libc::ENOSYS
        | libc::ENOTTY
        | libc::EBADF
        | libc::EPERM => Some(true),
        // It does not work for this range.
        libc::EINVAL | libc::ETXTBSY => Some(false),
        _ => None,
    }
}

/// The target, if it is a file that this module has opened.
fn own(target: &dyn HostFile) -> Option<&FileStorage> {
    (target as &dyn Any).downcast_ref()
}

impl FileStorage {
    pub(super) fn copy_to(
        &self,
        offset: u64,
        target: &dyn HostFile,
        target_offset: u64,
        len: u64,
    ) -> Result<CopyOutcome> {
        let Some(target) = own(target) else {
            return Ok(CopyOutcome::NotPossible);
        };
        // The copy goes through the page cache, which direct I/O must avoid.
        let cached = self.direct.is_none() && target.direct.is_none();
        let regular = self.kind == Kind::Regular && target.kind == Kind::Regular && !self.made_up;
        if !cached || !regular || self.no_copy_to.load(Ordering::Relaxed) == target.id {
            return Ok(CopyOutcome::NotPossible);
        }
        target.check_writable()?;
        Self::end_of(offset, len)?;
        target.end_to_write(target_offset, len)?;
        let copied = self.copy_chunks(offset, target, target_offset, len);
        let followed = target.wrote();
        match copied {
            Ok(done) if done < len => {
                // The source ends here; the rest reads as zeroes.
                let (at, rest) = (target_offset + done, len - done);
                target.zero(at, rest, ZeroFlags::MAY_UNMAP)?;
                followed.map(|()| CopyOutcome::Done)
            }
            Ok(_) => followed.map(|()| CopyOutcome::Done),
            Err(error) => match refusal(&error) {
                Some(for_good) => {
                    if for_good {
                        self.no_copy_to.store(target.id, Ordering::Relaxed);
                    }
                    Ok(CopyOutcome::NotPossible)
                }
                None => Err(Error::io(&error)),
            },
        }
    }

    /// Copies up to the end of the source; returns the number of bytes copied.
    fn copy_chunks(
        &self,
        offset: u64,
        target: &FileStorage,
        target_offset: u64,
        len: u64,
    ) -> std::io::Result<u64> {
        let mut done = 0;
        while done < len {
            let want = (len - done).min(CHUNK) as usize;
            let _no_truncate = target.growth.read();
            let n = copy::copy_file_range(
                self.fd(),
                offset + done,
                target.fd(),
                target_offset + done,
                want,
            )?;
            if n == 0 {
                // Some kernels copy nothing and return 0: then the caller does the work.
                if offset + done < self.raw_len()? {
                    return Err(std::io::Error::from_raw_os_error(libc::EINVAL));
                }
                break;
            }
            done += n as u64;
        }
        Ok(done)
    }

    pub(super) fn reflink_to(
        &self,
        offset: u64,
        target: &dyn HostFile,
        target_offset: u64,
        len: u64,
    ) -> Result<CopyOutcome> {
        let Some(target) = own(target) else {
            return Ok(CopyOutcome::NotPossible);
        };
        let regular = self.kind == Kind::Regular && target.kind == Kind::Regular;
        if !regular || self.no_reflink_to.load(Ordering::Relaxed) == target.id {
            return Ok(CopyOutcome::NotPossible);
        }
        if len == 0 {
            // To the kernel, 0 means up to the end.
            return Ok(CopyOutcome::Done);
        }
        target.check_writable()?;
        let Ok(end) = target.writable_end(target_offset, len) else {
            // Whether that is an error is for the write that replaces this call to say.
            return Ok(CopyOutcome::NotPossible);
        };
        Self::end_of(offset, len)?;
        let shared = {
            let _range = target
                .direct
                .as_ref()
                .map(|direct| direct.enter(target_offset, end));
            let _no_truncate = target.growth.read();
            // Only after success: a failed attempt must not make the file longer.
            copy::clone_range(self.fd(), offset, target.fd(), target_offset, len)
                .inspect(|()| target.spare.reach(end))
        };
        // Also after a failure: part of the range may have been shared.
        target.extents.invalidate();
        match shared {
            Ok(()) => target.wrote().map(|()| CopyOutcome::Done),
            Err(error) => match refusal(&error) {
                Some(for_good) => {
                    if for_good {
                        self.no_reflink_to.store(target.id, Ordering::Relaxed);
                    }
                    Ok(CopyOutcome::NotPossible)
                }
                None => Err(Error::io(&error)),
            },
        }
    }
}
