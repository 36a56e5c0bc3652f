//! Any bytes of devices that read and write only whole blocks.

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::memory::{self, IoBuf};
use crate::storage::align::{Parts, around};
use crate::storage::traits::Storage;

/// A device of blocks. What it is asked for lies within it.
pub(super) trait Blocks: Storage {
    /// The length of a block.
    fn block(&self) -> u64;

    /// Its length.
    fn size(&self) -> u64;

    /// Held while a part of a block is changed.
    fn partial(&self) -> &Mutex<()>;

    /// Reads whole blocks.
    ///
    /// # Errors
    /// Of the device.
    fn read_whole(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Writes whole blocks.
    ///
    /// # Errors
    /// Of the device.
    fn write_whole(&self, buf: &[u8], offset: u64) -> Result<()>;

    /// Whether a range consists of whole blocks.
    fn is_whole(&self, offset: u64, len: u64) -> bool {
        let block = self.block();
        offset.is_multiple_of(block) && len.is_multiple_of(block)
    }

    /// How much of `len` bytes from `offset` on is on the device.
    fn inside(&self, offset: u64, len: u64) -> u64 {
        len.min(self.size().saturating_sub(offset))
    }

    /// Refuses a change that is not possible; else gives the end of its range.
    ///
    /// # Errors
    /// [`crate::ErrorKind::ReadOnly`], [`crate::ErrorKind::NoSpace`].
    fn check_write(&self, offset: u64, len: u64) -> Result<u64> {
        if self.read_only() {
            return Err(Error::open_read_only(self.name()));
        }
        match offset.checked_add(len) {
            Some(end) if end <= self.size() => Ok(end),
            _ => Err(Error::os(libc::ENOSPC)),
        }
    }

    /// Reads any bytes; those past the end are zeroes.
    ///
    /// # Errors
    /// Of the device.
    fn read_bytes(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let len = self.inside(offset, buf.len() as u64);
        let (buf, past) = buf.split_at_mut(usize::try_from(len).unwrap_or(usize::MAX));
        past.fill(0);
        if buf.is_empty() {
            return Ok(());
        }
        let parts = Parts::of(offset, offset + len, self.block(), self.size());
        let mut rest = buf;
        for (start, end) in [parts.head, parts.middle, parts.tail] {
            let len = usize::try_from(end - start).unwrap_or(usize::MAX);
            let (now, then) = rest.split_at_mut(len);
            rest = then;
            if now.is_empty() {
                continue;
            }
            if self.is_whole(start, end - start) {
                self.read_whole(now, start)?;
                continue;
            }
            let (from, to) = around(start, end, self.block(), self.size());
            let mut block = buffer(to - from)?;
            self.read_whole(&mut block, from)?;
            let at = usize::try_from(start - from).unwrap_or(usize::MAX);
            let part = block.get(at..).and_then(|rest| rest.get(..len));
            now.copy_from_slice(part.unwrap_or_default());
        }
        Ok(())
    }

    /// Writes any bytes.
    ///
    /// # Errors
    /// As [`Blocks::check_write`]; of the device.
    fn write_bytes(&self, buf: &[u8], offset: u64) -> Result<()> {
        let len = buf.len() as u64;
        let end = self.check_write(offset, len)?;
        if self.is_whole(offset, len) {
            return self.write_whole(buf, offset);
        }
        let parts = Parts::of(offset, end, self.block(), self.size());
        let of = |(start, end): (u64, u64)| {
            let at = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
            buf.get(at(start)..at(end)).unwrap_or_default()
        };
        self.write_whole(of(parts.middle), parts.middle.0)?;
        for edge in parts.edges() {
            self.change_partial(edge, &mut |bytes| bytes.copy_from_slice(of(edge)))?;
        }
        Ok(())
    }

    /// Changes a part of a block, by what `change` does to its bytes.
    ///
    /// # Errors
    /// Of the device.
    fn change_partial(
        &self,
        (start, end): (u64, u64),
        change: &mut dyn FnMut(&mut [u8]),
    ) -> Result<()> {
        let _alone = self.partial().lock();
        let (from, to) = around(start, end, self.block(), self.size());
        let mut block = buffer(to - from)?;
        self.read_whole(&mut block, from)?;
        let at = usize::try_from(start - from).unwrap_or(usize::MAX);
        let len = usize::try_from(end - start).unwrap_or(usize::MAX);
        if let Some(part) = block.get_mut(at..).and_then(|rest| rest.get_mut(..len)) {
            change(part);
        }
        self.write_whole(&block, from)
    }
}

/// This many zeroes.
///
/// # Errors
/// Where there is no memory.
pub(super) fn buffer(len: u64) -> Result<IoBuf> {
    memory::zeroed(usize::try_from(len).map_err(|_| Error::os(libc::ENOMEM))?)
}
