//! What a format offers that can be written.

use std::cell::Cell;
use std::sync::Arc;

use bstr::BString;

use crate::error::Result;
use crate::job::JobControl;
use crate::storage::{Compress, Durability, Preallocation, Storage, ZeroFlags};

/// Changing the guest contents of an image, reached through [`crate::format::Format::writer`].
///
/// All methods may be called from many threads at once. No lock is held across data I/O. A format that was
/// opened read-only refuses the changes.
pub trait FormatWrite: Send + Sync {
    /// Makes what changes once before the first change of an open image, in formats that have that: what tells
    /// the image from what it was before, which stays as it is from then on.
    ///
    /// # Errors
    /// As [`FormatWrite::write`].
    fn prepare(&self) -> Result<()> {
        Ok(())
    }

    /// Writes guest bytes; `below` supplies what a partly written new cluster lacks.
    ///
    /// # Errors
    /// [`crate::ErrorKind::ReadOnly`], [`crate::ErrorKind::NoSpace`], or of I/O; the guest bytes
    /// outside the range are unchanged then.
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

    /// Gives the range back. Whole clusters read afterwards as zeroes, or as the format defines;
    /// the parts of clusters at the ends are left alone. What [`crate::storage::Storage::discard`] leaves is
    /// not defined: where bytes keep their place, [`ZeroFlags::MAY_UNMAP`] with [`ZeroFlags::NO_FALLBACK`] gives
    /// it back.
    ///
    /// # Errors
    /// As [`FormatWrite::write`].
    fn discard(&self, offset: u64, len: u64) -> Result<()>;

    /// Writes out cached metadata and makes all completed writes durable.
    ///
    /// # Errors
    /// Of I/O.
    fn flush(&self, durability: Durability) -> Result<()>;

    /// Changing of the virtual size, where the format has it.
    fn resizer(&self) -> Option<&dyn Resize> {
        None
    }

    /// Writing of compressed clusters, where the format has it.
    fn compressor(&self) -> Option<&dyn Compress> {
        None
    }
}

/// Changing of the virtual size.
pub trait Resize: Send + Sync {
    /// Changes the virtual size. What is new reads as zeroes from the moment on at which the size
    /// is durable, whatever the layer below holds there. `control` ends the freeing of what is cut
    /// off and the filling of new space, which
    /// leaves the size as it was, and counts it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] where this image cannot, [`crate::ErrorKind::Cancelled`].
    fn resize_above(
        &self,
        len: u64,
        preallocation: Preallocation,
        below: &dyn Below,
        control: &JobControl,
    ) -> Result<()>;

    /// Whether what is new reads as zeroes in fact. Of formats in which what was never written is noise it does not;
    /// who needs zeroes writes them.
    fn grown_is_zero(&self) -> bool {
        true
    }

    /// Whether an image can become smaller at all.
    fn can_shrink(&self) -> bool {
        true
    }

    /// Changes of the size that take further files, or leave some unused; where the format has them.
    fn files(&self) -> Option<&dyn ResizeFiles> {
        None
    }
}

/// Files that were made for an image.
#[derive(Debug)]
pub struct AddedFiles<'a> {
    files: &'a [Arc<dyn Storage>],
    named: Cell<bool>,
}

impl<'a> AddedFiles<'a> {
    /// The image does not name them yet.
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

    /// From now on the image names them, or that cannot be known, and they stay whatever comes; or it certainly
    /// does not.
    pub fn set_named(&self, named: bool) {
        self.named.set(named);
    }

    /// Whether the image may name them.
    pub fn are_named(&self) -> bool {
        self.named.get()
    }
}

/// Another size of an image whose guest data lies in several files. Who calls it makes files and removes them.
pub trait ResizeFiles: Send + Sync {
    /// The files that the image has to get for that size, in their order, by the names that it will give them.
    ///
    /// # Errors
    /// As [`Resize::resize_above`]; nothing has changed.
    fn to_add(&self, len: u64) -> Result<Vec<BString>>;

    /// The files that the image does without at that size, each with the name that it gives it. They can be
    /// removed once it has the size.
    ///
    /// # Errors
    /// As [`Resize::resize_above`]; nothing has changed.
    fn to_drop(&self, len: u64) -> Result<Vec<(BString, Arc<dyn Storage>)>>;

    /// As [`Resize::resize_above`], with the files of [`ResizeFiles::to_add`], which are empty. They are named
    /// last, once everything in them is durable.
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
    /// As [`Resize::resize_above`], of an image with nothing below.
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
    /// Of reading the backing chain.
    fn read_below(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Whether the range is known to read as zeroes below, without reading data.
    ///
    /// # Errors
    /// Of mapping the backing chain.
    fn is_zero_below(&self, offset: u64, len: u64) -> Result<bool>;

    /// The bytes from here on are zero below; the largest number where that is not known.
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
