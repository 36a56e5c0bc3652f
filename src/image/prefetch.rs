//! Prefetching guest bytes before they are read.

use crate::error::Result;
use crate::extent::ExtentKind;
use crate::image::Image;
use crate::job::JobControl;
use crate::memory::IoBuf;

/// Maximum number of bytes to request between two checks of the control.
const STRIDE: u64 = 64 << 20;
/// Maximum number of bytes to read at once: longer reads bypass the caches of some storages.
const PIECE: u64 = 256 << 10;

impl Image {
    /// Prefetches the contents of a range, so that reading it soon takes less time: into the page cache, or into the
    /// memory of a server; data whose reading involves decoding, copying or caching is read and discarded. `control`
    /// can stop it.
    ///
    /// # Errors
    /// As [`Image::read_at`], and the errors of the control.
    pub fn prefetch(&self, offset: u64, len: u64, control: &JobControl) -> Result<()> {
        self.check_range(offset, len)?;
        let end = offset + len;
        let (mut at, mut buf) = (offset, IoBuf::new());
        while at < end {
            control.check()?;
            let found = self.of_its_file(self.map(at, (end - at).min(STRIDE)))?;
            let run = found.extent.len;
            match found.extent.kind {
                ExtentKind::Data { slot, host_offset } => {
                    let storage = found.layer.format.storage(slot)?;
                    match storage.prefetcher() {
                        Some(near) => self.of_its_file(near.prefetch(host_offset, run))?,
                        None => self.read_through(at, run, &mut buf, control)?,
                    }
                }
                ExtentKind::Encoded { .. } => self.read_through(at, run, &mut buf, control)?,
                ExtentKind::Zero { .. } | ExtentKind::Unallocated { .. } => {}
            }
            at += run;
        }
        Ok(())
    }

    /// Reads a range and discards the data.
    fn read_through(
        &self,
        offset: u64,
        len: u64,
        buf: &mut IoBuf,
        control: &JobControl,
    ) -> Result<()> {
        let end = offset + len;
        let mut at = offset;
        while at < end {
            control.check()?;
            // Up to an aligned offset, so that no unit is decoded for two pieces.
            let piece = (end - at).min(PIECE - at % PIECE);
            self.read_at(buf.room(piece as usize)?, at)?;
            at += piece;
        }
        Ok(())
    }
}
