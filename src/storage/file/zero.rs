//! Zeroing and discarding ranges without writing them, where the host can.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{FileStorage, Kind};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::align::Parts;
use crate::storage::modes::ZeroFlags;
use crate::sys::blkdev;
use crate::sys::falloc::{self, Falloc};

/// Whether the host reports that it cannot do this for any range of the file.
fn refused(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY | libc::ENODEV)
    )
}

/// Whether another method may work: the host cannot do this at all, or not for this range.
fn try_other(error: &io::Error) -> bool {
    refused(error) || matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EBUSY))
}

fn slow_only() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "Zeroing without writing is not supported by the host",
    )
    .with_errno(libc::ENOTSUP)
}

impl FileStorage {
    pub(super) fn zero(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.check_writable()?;
        let end = self.end_to_write(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        if self.kind == Kind::Block && !flags.contains(ZeroFlags::NO_FALLBACK) {
            // The kernel zeroes whole sectors only, and little is left over at the ends.
            let sector = blkdev::logical_sector(self.fd()).map_err(|error| Error::io(&error))?;
            let parts = Parts::of(offset, end, u64::from(sector.max(512)), u64::MAX);
            let middle = parts.middle;
            if parts.edges().next().is_some() && middle.0 < middle.1 {
                self.zero(middle.0, middle.1 - middle.0, flags)?;
                return parts
                    .edges()
                    .try_for_each(|(start, end)| self.write_zero_bytes(start, end - start));
            }
        }
        let result = {
            let _range = self.direct.as_ref().map(|direct| direct.enter(offset, end));
            match self.kind {
                Kind::Regular => self.zero_file(offset, end, flags),
                Kind::Block => self.zero_device(offset, end, flags),
                Kind::Character => Ok(false),
            }
        };
        let result = match result {
            // The range lock has been released: writing takes it itself.
            Ok(false) if flags.contains(ZeroFlags::NO_FALLBACK) => Err(slow_only()),
            Ok(false) => self.write_zero_bytes(offset, len),
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        };
        let followed = self.wrote();
        result.and(followed)
    }

    /// True if done, false if the bytes must be written.
    fn zero_file(&self, offset: u64, end: u64, flags: ZeroFlags) -> Result<bool> {
        let may_unmap = flags.contains(ZeroFlags::MAY_UNMAP);
        if may_unmap && self.punch_and_grow(offset, end)? {
            return Ok(true);
        }
        let _no_truncate = self.growth.read();
        if self.attempt(&self.can.zero_range, Falloc::Zero, offset, end)? {
            return Ok(true);
        }
        // Where zeroing is not supported, punching a hole and allocating it again does the same.
        Ok(
            self.attempt(&self.can.punch_hole, Falloc::PunchHole, offset, end)?
                && self.attempt(&self.can.allocate, Falloc::Allocate, offset, end)?,
        )
    }

    /// Punches a hole in the part inside the file; a truncate makes the part beyond it a hole.
    fn punch_and_grow(&self, offset: u64, end: u64) -> Result<bool> {
        let inside = |len: u64| (offset < len).then(|| end.min(len));
        {
            let _no_truncate = self.growth.read();
            let len = self.raw_len().map_err(|error| Error::io(&error))?;
            if let Some(stop) = inside(len)
                && !self.attempt(&self.can.punch_hole, Falloc::PunchHole, offset, stop)?
            {
                return Ok(false);
            }
            if end <= len {
                return Ok(true);
            }
        }
        let _alone = self.growth.write();
        let len = self.raw_len().map_err(|error| Error::io(&error))?;
        if end > len {
            falloc::truncate(self.fd(), end).map_err(|error| Error::io(&error))?;
        }
        Ok(true)
    }

    /// One kind of `fallocate`, unless the file system has refused it before. False: not possible.
    fn attempt(&self, can: &AtomicBool, how: Falloc, offset: u64, end: u64) -> Result<bool> {
        if !can.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match falloc::fallocate(self.fd(), how, offset, end - offset) {
            Ok(()) => Ok(true),
            Err(error) if try_other(&error) => {
                if refused(&error) {
                    can.store(false, Ordering::Relaxed);
                }
                Ok(false)
            }
            Err(error) => Err(Error::io(&error)),
        }
    }

    fn zero_device(&self, offset: u64, end: u64, flags: ZeroFlags) -> Result<bool> {
        let may_unmap = flags.contains(ZeroFlags::MAY_UNMAP);
        // This call lets the device do the zeroing, or fails.
        if may_unmap && self.attempt(&self.can.punch_hole, Falloc::PunchHole, offset, end)? {
            return Ok(true);
        }
        if flags.contains(ZeroFlags::NO_FALLBACK) {
            return Ok(false);
        }
        // Either may write inside the kernel. Without a page cache, start with BLKZEROOUT, as QEMU's tools do.
        if self.direct.is_some() && self.zero_out(offset, end)? {
            return Ok(true);
        }
        if self.attempt(&self.can.zero_range, Falloc::ZeroKeepSize, offset, end)? {
            return Ok(true);
        }
        self.zero_out(offset, end)
    }

    fn zero_out(&self, offset: u64, end: u64) -> Result<bool> {
        match blkdev::zero_out(self.fd(), offset, end - offset) {
            Ok(()) => Ok(true),
            Err(error) if try_other(&error) => Ok(false),
            Err(error) => Err(Error::io(&error)),
        }
    }

    pub(super) fn discard_range(&self, offset: u64, len: u64) -> Result<()> {
        self.check_writable()?;
        let end = Self::end_of(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let result = {
            let _range = self.direct.as_ref().map(|direct| direct.enter(offset, end));
            match self.kind {
                Kind::Regular => falloc::fallocate(self.fd(), Falloc::PunchHole, offset, len),
                Kind::Block => self.discard_device(offset, end),
                Kind::Character => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
            }
        };
        let followed = self.wrote();
        match result {
            Ok(()) => followed,
            Err(error) if refused(&error) => Err(Error::new(
                ErrorKind::Unsupported,
                "Discarding is not supported by the host",
            )
            .with_errno(libc::ENOTSUP)),
            Err(error) => Err(Error::io(&error)),
        }
    }

    /// Whole sectors only: partial ones at the ends are left as they are.
    fn discard_device(&self, offset: u64, end: u64) -> io::Result<()> {
        let sector = u64::from(blkdev::logical_sector(self.fd())?.max(512));
        let first = offset.next_multiple_of(sector);
        let last = end.min(self.raw_len()?);
        let last = last - last % sector;
        if first >= last {
            return Ok(());
        }
        blkdev::discard(self.fd(), first, last - first)
    }
}
