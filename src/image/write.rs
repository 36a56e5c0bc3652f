//! Writing: guest bytes, zeroes, discards and flushes.

use std::io::IoSlice;

use crate::error::{Error, Result};
use crate::format::{Compress, Format, FormatWrite, Resize};
use crate::image::detect_zeroes::DetectZeroes;
use crate::image::{Image, align};
use crate::job::JobControl;
use crate::storage::{Durability, ZeroFlags};

bitflags::bitflags! {
    /// Modifies how an image is changed; see [`Image::change`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct WriteFlags: u32 {
        /// The changes are durable when the call returns, as far as the cache mode promises (force unit access).
        const FUA = 1;
    }
}

/// Long operations are carried out in pieces of about this size if they can be cancelled.
const PIECE: u64 = 64 << 20;

/// Refuses to open an image of a read-only format for writing, with QEMU's message.
///
/// # Errors
/// [`crate::ErrorKind::ReadOnly`].
pub(super) fn check_writer(format: &dyn Format) -> Result<()> {
    match format.writer() {
        Some(_) => Ok(()),
        None => Err(Error::read_only_image()),
    }
}

impl Image {
    /// Writes the guest bytes at `offset`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::ReadOnly`], [`crate::ErrorKind::Invalid`] outside the image, or if I/O fails.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_writable(offset, buf.len() as u64)?;
        if buf.is_empty() {
            return Ok(());
        }
        let change = self.begin_write(offset, buf.len() as u64)?;
        self.of_its_file(self.write_layer(buf, offset))?;
        drop(change);
        self.written()
    }

    /// As [`Image::write_at`], from several buffers in turn.
    ///
    /// # Errors
    /// As [`Image::write_at`]; buffers before the one that failed may have been written.
    pub fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        let total = bufs
            .iter()
            .try_fold(0u64, |sum, buf| sum.checked_add(buf.len() as u64))
            .ok_or_else(|| Error::invalid("The buffers are too long"))?;
        self.check_writable(offset, total)?;
        let change = self.begin_write(offset, total)?;
        let mut at = offset;
        for buf in bufs.iter().filter(|buf| !buf.is_empty()) {
            self.of_its_file(self.write_layer(buf, at))?;
            at += buf.len() as u64;
        }
        drop(change);
        self.written()
    }

    /// Makes the guest range read as zeroes.
    ///
    /// # Errors
    /// As [`Image::write_at`].
    pub fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.write_zeroes_under(&JobControl::default(), offset, len, flags)
    }

    /// As [`Image::write_zeroes`]; `control` can cancel it between two pieces.
    ///
    /// # Errors
    /// As [`Image::write_at`], and [`crate::ErrorKind::Cancelled`]: a part may already read as zeroes then.
    pub fn write_zeroes_under(
        &self,
        control: &JobControl,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
    ) -> Result<()> {
        self.check_writable(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let mut flags = flags;
        if self.settings.ignore_discard {
            flags.remove(ZeroFlags::MAY_UNMAP);
        }
        self.in_pieces(control, offset, len, |offset, len| {
            self.of_its_file(align::write_zeroes(self, offset, len, flags))
        })?;
        self.written()
    }

    /// Discards the guest range; the format defines what whole clusters then read as.
    ///
    /// # Errors
    /// As [`Image::write_at`].
    pub fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.discard_under(&JobControl::default(), offset, len)
    }

    /// As [`Image::discard`]; `control` can cancel it between two pieces.
    ///
    /// # Errors
    /// As [`Image::write_at`], and [`crate::ErrorKind::Cancelled`]: a part may already be discarded then.
    pub fn discard_under(&self, control: &JobControl, offset: u64, len: u64) -> Result<()> {
        self.check_writable(offset, len)?;
        if len == 0 || self.settings.ignore_discard {
            return Ok(());
        }
        let writer = self.writer()?;
        self.in_pieces(control, offset, len, |offset, len| {
            self.of_its_file(writer.discard(offset, len))
        })?;
        self.written()
    }

    /// Applies a change that takes time proportional to its range, in pieces of whole clusters if `control` may cancel
    /// it.
    fn in_pieces(
        &self,
        control: &JobControl,
        offset: u64,
        len: u64,
        mut change: impl FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        let end = offset.saturating_add(len);
        let cluster = u64::from(self.format.cluster_size().unwrap_or(1)).max(1);
        let unit = match control.is_idle() {
            true => u64::MAX,
            false => PIECE.next_multiple_of(cluster),
        };
        let mut at = offset;
        while at < end {
            control.check()?;
            let next = (at / unit + 1).saturating_mul(unit).min(end);
            let under_way = self.begin_change()?;
            change(at, next - at)?;
            drop(under_way);
            at = next;
        }
        Ok(())
    }

    /// Makes a change as `flags` specify; `change` calls the methods that write.
    ///
    /// # Errors
    /// Those of `change`, or as [`Image::flush`].
    pub fn change<T>(
        &self,
        flags: WriteFlags,
        change: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        let done = change(self)?;
        if flags.contains(WriteFlags::FUA) {
            self.flush()?;
        }
        Ok(done)
    }

    /// Makes all completed writes durable, as far as the cache mode promises.
    ///
    /// # Errors
    /// If I/O fails; data may be lost then.
    pub fn flush(&self) -> Result<()> {
        self.flush_beside_changes(self.settings.cache.durability())
    }

    /// As [`Image::flush_as`], while others may need the image in one state.
    pub(super) fn flush_beside_changes(&self, durability: Durability) -> Result<()> {
        // What it writes belongs to changes that have already been recorded.
        let _under_way = self.changes.begin(|| true)?;
        self.flush_as(durability)
    }

    /// Passes all completed writes to the files, and makes them as durable as requested.
    pub(super) fn flush_as(&self, durability: Durability) -> Result<()> {
        if self.writable {
            self.of_its_file(self.writer()?.flush(durability))?;
        }
        Ok(())
    }

    fn write_layer(&self, buf: &[u8], offset: u64) -> Result<()> {
        let flags = match self.settings.detect_zeroes {
            DetectZeroes::Off => None,
            DetectZeroes::On => Some(ZeroFlags::empty()),
            DetectZeroes::Unmap => Some(ZeroFlags::MAY_UNMAP),
        };
        if let Some(flags) = flags
            && crate::zero::is_zero(buf)
        {
            return align::write_zeroes(self, offset, buf.len() as u64, flags);
        }
        align::write(self, buf, offset)
    }

    /// The interface for writing compressed clusters, if there is one: the format's, or that of a filter in its place.
    pub fn compressor(&self) -> Option<&dyn Compress> {
        self.own_compressor().map(|_| self as _)
    }

    fn own_compressor(&self) -> Option<&dyn Compress> {
        match self.is_filter() {
            true => self.storage.compressor(),
            false => self.format.writer()?.compressor(),
        }
    }

    /// The format's interface for writing, if the image is open for writing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::ReadOnly`].
    pub(super) fn writer(&self) -> Result<&dyn FormatWrite> {
        self.format.writer().ok_or_else(|| self.read_only())
    }

    /// The format's interface for resizing, if it has one and the image is open for writing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::ReadOnly`], [`crate::ErrorKind::Unsupported`].
    pub(super) fn resizer(&self) -> Result<&dyn Resize> {
        self.writer()?.resizer().ok_or_else(Error::no_resize)
    }

    /// Refuses an image whose place in its chain cannot be changed: it is open read-only or for a check, or, if that
    /// matters, without what lies below.
    ///
    /// # Errors
    /// [`crate::ErrorKind::ReadOnly`], [`crate::ErrorKind::Invalid`].
    pub(crate) fn check_changeable(&self, below_counts: bool) -> Result<()> {
        if !self.writable {
            return Err(self.read_only());
        }
        if self.settings.for_check {
            let message = format!("'{}' is open for a check", self.filename);
            return Err(Error::invalid(message));
        }
        match below_counts && self.layers().any(Self::backing_missing) {
            true => Err(self.unknown_contents()),
            false => Ok(()),
        }
    }

    fn read_only(&self) -> Error {
        Error::open_read_only(&self.filename)
    }

    pub(super) fn check_writable(&self, offset: u64, len: u64) -> Result<()> {
        if !self.writable {
            return Err(self.read_only());
        }
        self.check_range(offset, len)
    }

    /// In the write-through modes a change is durable before the call returns.
    pub(super) fn written(&self) -> Result<()> {
        if self.settings.cache.write_through() {
            self.flush()
        } else {
            Ok(())
        }
    }
}

impl Compress for Image {
    fn encode_unit(&self) -> u32 {
        self.own_compressor().map_or(1, Compress::encode_unit)
    }

    fn is_required(&self) -> bool {
        self.own_compressor().is_some_and(Compress::is_required)
    }

    fn is_ordered(&self) -> bool {
        self.own_compressor().is_some_and(Compress::is_ordered)
    }

    fn write_compressed(&self, buf: &[u8], offset: u64) -> Result<()> {
        let compressor = self.own_compressor().ok_or_else(Error::no_compression)?;
        let _under_way = self.begin_change()?;
        compressor.write_compressed(buf, offset)
    }
}
