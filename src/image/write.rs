//! Writing: guest bytes, zeroes, discards and flushes.

use std::io::IoSlice;

use crate::error::{Error, Result};
use crate::format::{Compress, Format, FormatWrite, Resize};
use crate::image::detect_zeroes::DetectZeroes;
use crate::image::{Image, align};
use crate::job::JobControl;
use crate::storage::{Durability, ZeroFlags};

bitflags::bitflags! {
    /// Modifies a change of an image; see [`Image::change`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct WriteFlags: u32 {
        /// What is changed is durable, as the cache mode says, when the call returns (force unit access).
        const FUA = 1;
    }
}

/// What takes long is done in pieces of about this size where it can be ended.
const PIECE: u64 = 64 << 20;

/// Refuses to open an image for writing whose format can only be read, in QEMU's words.
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
    /// [`crate::ErrorKind::ReadOnly`], [`crate::ErrorKind::Invalid`] outside the image, or of I/O.
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

    /// As [`Image::write_zeroes`]; `control` ends it between two pieces.
    ///
    /// # Errors
    /// As [`Image::write_at`], and [`crate::ErrorKind::Cancelled`]: a part may read as zeroes then.
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

    /// Gives the guest range back; what whole clusters read as is defined by the format.
    ///
    /// # Errors
    /// As [`Image::write_at`].
    pub fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.discard_under(&JobControl::default(), offset, len)
    }

    /// As [`Image::discard`]; `control` ends it between two pieces.
    ///
    /// # Errors
    /// As [`Image::write_at`], and [`crate::ErrorKind::Cancelled`]: a part may be given back then.
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

    /// Does something to a range, which takes as long as that is, in pieces of whole clusters where `control`
    /// can end it.
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

    /// Makes a change as `flags` say; `change` calls the methods that write.
    ///
    /// # Errors
    /// Of `change`, or as [`Image::flush`].
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

    /// Makes all completed writes durable as the cache mode says.
    ///
    /// # Errors
    /// Of I/O; data may be lost then.
    pub fn flush(&self) -> Result<()> {
        self.flush_beside_changes(self.settings.cache.durability())
    }

    /// As [`Image::flush_as`], where others may need the image in one state.
    pub(super) fn flush_beside_changes(&self, durability: Durability) -> Result<()> {
        // What it writes belongs to changes that were noted.
        let _under_way = self.changes.begin(|| true)?;
        self.flush_as(durability)
    }

    /// Hands all completed writes to the files, and makes them as durable as asked.
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

    /// The way to write compressed clusters, where there is one: the format's, or that of a filter in its place.
    pub fn compressor(&self) -> Option<&dyn Compress> {
        self.own_compressor().map(|_| self as _)
    }

    fn own_compressor(&self) -> Option<&dyn Compress> {
        match self.is_filter() {
            true => self.storage.compressor(),
            false => self.format.writer()?.compressor(),
        }
    }

    /// The format's way to write, where the image is open for that.
    ///
    /// # Errors
    /// [`crate::ErrorKind::ReadOnly`].
    pub(super) fn writer(&self) -> Result<&dyn FormatWrite> {
        self.format.writer().ok_or_else(|| self.read_only())
    }

    /// The format's way to change the virtual size, where it has one and the image is open for writing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::ReadOnly`], [`crate::ErrorKind::Unsupported`].
    pub(super) fn resizer(&self) -> Result<&dyn Resize> {
        self.writer()?.resizer().ok_or_else(Error::no_resize)
    }

    /// Refuses an image whose place in its chain cannot be changed: it is open to read alone or for a check, or
    /// without what lies below, where that counts.
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
