//! The interface of formats that can be written.

use std::cell::Cell;
use std::sync::Arc;

use bstr::BString;

use crate::error::Result;
use crate::job::JobControl;
use crate::storage::{Compress, Durability, Preallocation, Storage, ZeroFlags};

/// Changing the guest contents of an image, reached through [`crate::format::Format::writer`].
///
/// All methods may be called from many threads at once. No lock is held across data I/O. A format that was opened
/// read-only refuses changes.
pub trait FormatWrite: Send + Sync {
    /// Makes the changes that precede the first write to an open image, in formats that have them: those that
    /// distinguish the image from its earlier state, and are made only once.
    ///
    /// # Errors
    /// As [`FormatWrite::write`].
    fn prepare(&self) -> Result<()> {
        Ok(())
    }

    /// Writes guest bytes; `below` supplies the rest of a new cluster that is only partly written.
    ///
    /// # Errors
    /// [`crate::ErrorKind::ReadOnly`], [`crate::ErrorKind::NoSpace`], or if I/O fails; guest bytes outside the range
    /// are unchanged then.
    fn write(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()>;

    /// Makes the range read as zeroes.
    ///
    /// # Errors
    /// As [`FormatWrite::write`].
    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()>;

    /// Discards the range. Whole clusters then read as zeroes, or as the format defines; partial clusters at the ends
    /// are left unchanged. What [`crate::storage::Storage::discard`] leaves is undefined: if bytes have fixed places,
    /// [`ZeroFlags::MAY_UNMAP`] with [`ZeroFlags::NO_FALLBACK`] is used to release them.
    ///
    /// # Errors
    /// As [`FormatWrite::write`].
    fn discard(&self, offset: u64, len: u64) -> Result<()>;

    /// Writes out cached metadata and makes all completed writes durable.
    ///
    /// # Errors
    /// If I/O fails.
    fn flush(&self, durability: Durability) -> Result<()>;

    /// Changing the virtual size, if the format supports it.
    fn resizer(&self) -> Option<&dyn Resize> {
        None
    }

    /// Writing compressed clusters, if the format supports it.
    fn compressor(&self) -> Option<&dyn Compress> {
        None
    }
}

/// Changing the virtual size.
pub trait Resize: Send + Sync {
    /// Changes the virtual size. New space reads as zeroes as soon as the size is durable, whatever the layer below
    /// contains there. `control` counts and can cancel the freeing of space that is cut off and the filling of new
    /// space; cancelling leaves the size unchanged.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] if this image cannot be resized, [`crate::ErrorKind::Cancelled`].
    fn resize_above(
        &self,
        len: u64,
        preallocation: Preallocation,
        below: &dyn Below,
        control: &JobControl,
    ) -> Result<()>;

    /// Whether new space really reads as zeroes. It does not in formats in which unwritten data reads as noise; there,
    /// callers that need zeroes must write them.
    fn grown_is_zero(&self) -> bool {
        true
    }

    /// Whether an image can become smaller.
    fn can_shrink(&self) -> bool {
        true
    }

    /// Size changes that add files or leave some unused, if the format has them.
    fn files(&self) -> Option<&dyn ResizeFiles> {
        None
    }
}

/// Files that were created for an image.
#[derive(Debug)]
pub struct AddedFiles<'a> {
    files: &'a [Arc<dyn Storage>],
    named: Cell<bool>,
}

impl<'a> AddedFiles<'a> {
    /// Files that the image does not reference yet.
    pub fn new(files: &'a [Arc<dyn Storage>]) -> Self {
        Self {
            files,
            named: Cell::new(false),
        }
    }

    /// The files.
    pub fn files(&self) -> &'a [Arc<dyn Storage>] {
        self.files
    }

    /// Records whether the image references them: if it does, or that cannot be determined, they are kept whatever
    /// happens.
    pub fn set_named(&self, named: bool) {
        self.named.set(named);
    }

    /// Whether the image may reference them.
    pub fn are_named(&self) -> bool {
        self.named.get()
    }
}

/// Resizing an image whose guest data is in several files. The caller creates and removes the files.
pub trait ResizeFiles: Send + Sync {
    /// The files that the image needs in addition at that size, in order, by the names under which it will reference
    /// them.
    ///
    /// # Errors
    /// As [`Resize::resize_above`]; nothing has changed then.
    fn to_add(&self, len: u64) -> Result<Vec<BString>>;

    /// The files that the image does not need at that size, each with the name under which it is referenced. They can
    /// be removed once the image has been resized.
    ///
    /// # Errors
    /// As [`Resize::resize_above`]; nothing has changed then.
    fn to_drop(&self, len: u64) -> Result<Vec<(BString, Arc<dyn Storage>)>>;

    /// As [`Resize::resize_above`], with the files of [`ResizeFiles::to_add`], which are empty. They are referenced
    /// last, once their contents are durable.
    ///
    /// # Errors
    /// As [`Resize::resize_above`].
    fn resize_with(
        &self,
        added: &AddedFiles<'_>,
        len: u64,
        preallocation: Preallocation,
        below: &dyn Below,
        control: &JobControl,
    ) -> Result<()>;
}

impl dyn Resize + '_ {
    /// As [`Resize::resize_above`], for an image with nothing below it.
    ///
    /// # Errors
    /// As [`Resize::resize_above`].
    pub fn resize(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.resize_above(len, preallocation, &ZeroBelow, &JobControl::default())
    }
}

/// The guest bytes below a layer: its backing chain, or zeroes.
pub trait Below: Sync {
    /// Fills `buf` with the guest bytes below; zeroes past the end of the layer below.
    ///
    /// # Errors
    /// If reading the backing chain fails.
    fn read_below(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Whether the range is known to read as zeroes below, without reading data.
    ///
    /// # Errors
    /// If mapping the backing chain fails.
    fn is_zero_below(&self, offset: u64, len: u64) -> Result<bool>;

    /// Bytes from this offset on are zero below; the maximum value if that is not known.
    fn len_below(&self) -> u64 {
        u64::MAX
    }
}

/// Nothing below: zeroes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ZeroBelow;

impl Below for ZeroBelow {
    fn read_below(&self, buf: &mut [u8], _offset: u64) -> Result<()> {
        buf.fill(0);
        Ok(())
    }

    fn is_zero_below(&self, _offset: u64, _len: u64) -> Result<bool> {
        Ok(true)
    }

    fn len_below(&self) -> u64 {
        0
    }
}
