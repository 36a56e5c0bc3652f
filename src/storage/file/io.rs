//! Reads and writes through the page cache, and the choice between it and direct I/O.

use std::io::{IoSlice, IoSliceMut};
use std::sync::atomic::Ordering;

use super::FileStorage;
use crate::error::{Error, Result};
use crate::sys::rw;

impl FileStorage {
    pub(super) fn read_one(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if self.made_up {
            return self.read_made_up(buf, offset);
        }
        let done = match &self.direct {
            Some(direct) => direct.read(self, buf, offset),
            None => rw::read_full(self.fd(), buf, offset),
        };
        let done = done.map_err(|error| Error::io(&error))?;
        self.check_short(offset, buf.len() as u64, done as u64)?;
        buf[done..].fill(0);
        Ok(())
    }

    /// Bytes past the reported length read as zeroes, whatever the kernel would generate there.
    fn read_made_up(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let failed = |error| Error::io(&error);
        let len = self.raw_len().map_err(failed)?.saturating_sub(offset);
        let there = usize::try_from(len).map_or(buf.len(), |len| len.min(buf.len()));
        let (inside, past) = buf.split_at_mut(there);
        let done = rw::read_full(self.fd(), inside, offset).map_err(failed)?;
        inside[done..].fill(0);
        past.fill(0);
        Ok(())
    }

    pub(super) fn read_many(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        if self.made_up {
            let mut at = offset;
            for buf in bufs {
                self.read_made_up(buf, at)?;
                at += buf.len() as u64;
            }
            return Ok(());
        }
        let done = match &self.direct {
            Some(direct) => direct.read_vectored(self, bufs, offset),
            None => rw::readv_full(self.fd(), bufs, offset),
        };
        let mut done = done.map_err(|error| Error::io(&error))?;
        let len = bufs.iter().map(|buf| buf.len() as u64).sum();
        self.check_short(offset, len, done as u64)?;
        for buf in bufs {
            let filled = done.min(buf.len());
            buf[filled..].fill(0);
            done -= filled;
        }
        Ok(())
    }

    /// Reads from the page cache only; false if it does not hold the whole range, or if that cannot
    /// be determined.
    pub(super) fn read_cached(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<bool> {
        if self.direct.is_some() || self.made_up || !self.can.cached_reads.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let want: usize = bufs.iter().map(|buf| buf.len()).sum();
        match rw::try_preadv(self.fd(), bufs, offset) {
            Ok(done) => Ok(done == want),
            Err(error) => {
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)
                ) {
                    self.can.cached_reads.store(false, Ordering::Relaxed);
                }
                // If there is a real error, the blocking read will report it.
                Ok(false)
            }
        }
    }

    pub(super) fn write_one(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_writable()?;
        self.end_to_write(offset, buf.len() as u64)?;
        if buf.is_empty() {
            return Ok(());
        }
        let result = match &self.direct {
            Some(direct) => direct.write(self, buf, offset),
            None => {
                let _no_truncate = self.growth.read();
                rw::write_full(self.fd(), buf, offset)
            }
        };
        // Also after a failure: part of it may have been written.
        let followed = self.wrote();
        result.map_err(|error| Error::io(&error)).and(followed)
    }

    pub(super) fn write_many(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        self.check_writable()?;
        let len = bufs.iter().map(|buf| buf.len() as u64).sum();
        self.end_to_write(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let result = match &self.direct {
            Some(direct) => direct.write_vectored(self, bufs, offset),
            None => {
                let _no_truncate = self.growth.read();
                rw::writev_full(self.fd(), bufs, offset)
            }
        };
        let followed = self.wrote();
        result.map_err(|error| Error::io(&error)).and(followed)
    }
}
