//! Reading through the chain.

use std::io::IoSliceMut;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::ExtentKind;
use crate::format::Below;
use crate::image::{Backing, Image, align};
use crate::storage::{Step, steps};

/// So often a read looks again where the mapping changes under it.
const MAX_REMAPS: u32 = 100;

impl Image {
    /// Fills `buf` with the guest bytes at `offset`. Never short: the range must lie in the image.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] outside the image, else of the formats and I/O.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        self.read_layer(buf, offset)
    }

    /// As [`Image::read_at`], into several buffers in turn.
    ///
    /// # Errors
    /// As [`Image::read_at`].
    pub fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        let total = bufs
            .iter()
            .try_fold(0u64, |sum, buf| sum.checked_add(buf.len() as u64))
            .ok_or_else(|| Error::invalid("The buffers are too long"))?;
        self.check_range(offset, total)?;
        if total == 0 {
            return Ok(());
        }
        let _held = self.format.begin_io();
        let extent = self.format.locate(offset, total)?;
        if let ExtentKind::Data { slot, host_offset } = extent.kind
            && extent.len >= total
        {
            let storage = self.format.storage(slot)?;
            steps::announce(&**storage, Step::ReadAio);
            return storage.read_vectored_at(bufs, host_offset);
        }
        let mut at = offset;
        for buf in bufs {
            self.read_layer(buf, at)?;
            at += buf.len() as u64;
        }
        Ok(())
    }

    /// Reads a range that is known to lie in this layer.
    pub(super) fn read_layer(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        // Until the I/O is done, the host clusters that the mapping names keep their contents.
        let _held = self.format.begin_io();
        let mut remapped = 0;
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            let extent = self.format.locate(at, rest.len() as u64)?;
            let len = usize::try_from(extent.len).map_or(rest.len(), |len| len.min(rest.len()));
            if len == 0 {
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!("'{}' has an empty extent at {at}", self.filename),
                ));
            }
            let (part, _) = rest.split_at_mut(len);
            match extent.kind {
                ExtentKind::Data { slot, host_offset } => {
                    let storage = self.format.storage(slot)?;
                    steps::announce(&**storage, Step::ReadAio);
                    storage.read_at(part, host_offset)?;
                }
                ExtentKind::Zero { .. } => part.fill(0),
                ExtentKind::Unallocated { .. } => self.read_below(part, at)?,
                ExtentKind::Encoded { .. } => {
                    match align::read_encoded(&*self.format, part, at) {
                        Err(error) if error.kind() == ErrorKind::Busy && remapped < MAX_REMAPS => {
                            // This layer does not hold it any more: what does, now?
                            remapped += 1;
                            continue;
                        }
                        read => read?,
                    }
                }
            }
            done += len;
        }
        Ok(())
    }
}

/// What lies below a layer is the image itself to its format: the chain, or zeroes.
impl Below for Image {
    fn read_below(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let base = match &self.backing {
            Backing::Open(base) => base,
            Backing::None => {
                buf.fill(0);
                return Ok(());
            }
            Backing::Closed => return Err(self.backing_closed()),
        };
        let left = base.len().saturating_sub(offset);
        let len = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let (held, beyond) = buf.split_at_mut(len);
        beyond.fill(0);
        if held.is_empty() {
            return Ok(());
        }
        base.read_layer(held, offset)
    }

    fn is_zero_below(&self, offset: u64, len: u64) -> Result<bool> {
        match &self.backing {
            Backing::Open(base) => base.is_known_zero(offset, len),
            Backing::None => Ok(true),
            Backing::Closed => Ok(false),
        }
    }

    fn len_below(&self) -> u64 {
        match &self.backing {
            Backing::Open(base) => base.len(),
            Backing::None => 0,
            Backing::Closed => u64::MAX,
        }
    }
}
