//! The external data file: opening it, and its length.
//!
//! It holds each guest byte at its guest offset, and ends where the image ends. A device may be longer, because its
//! length is fixed.

use std::sync::Arc;

use bstr::ByteSlice;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageSlot;
use crate::format::{ChildSpec, OpenContext};
use crate::job::JobControl;
use crate::policy::ImplicitRole;
use crate::storage::{Limits, Preallocation, Storage, ZeroFlags, grow, shorten, zero};

use super::disk::{Autoclear, ImageHeader};
use super::state::Qcow2;

/// The storage slot of the data file.
pub(super) const DATA: StorageSlot = StorageSlot(1);

/// Opens the data file of an image that has one.
pub(super) fn open(image: &ImageHeader, ctx: &OpenContext<'_>) -> Result<Option<Arc<dyn Storage>>> {
    if ctx.metadata_only {
        return Ok(None);
    }
    if !image.has_data_file() {
        if image.header.autoclear.contains(Autoclear::RAW_DATA_FILE) {
            let error = Error::corrupt("data-file-raw requires a data file");
            return Err(error.with_offset(88));
        }
        if ctx.opener.has_child(ChildSpec::DATA_FILE.name) {
            return Err(Error::invalid(
                "'data-file' can only be set for images with an external data file",
            ));
        }
        return Ok(None);
    }
    let (opener, writable) = (ctx.opener, !ctx.read_only);
    let file = match opener.child(ChildSpec::DATA_FILE.name, writable)? {
        Some(file) => file,
        None => match image.data_file_name() {
            Some(name) => opener.open_named(ImplicitRole::DataFile, name.as_bstr(), writable)?,
            // The name was removed: the user must specify the file.
            None => return Err(Error::corrupt("'data-file' is required for this image")),
        },
    };
    if !ctx.read_only && !ctx.for_check {
        check_holds(&*file, image.header.size)?;
    }
    Ok(Some(file))
}

/// Refuses a device that is too small for an image of this size.
fn check_holds(data: &dyn Storage, size: u64) -> Result<()> {
    if !data.limits().fixed_len {
        return Ok(());
    }
    let len = data.len()?;
    if len >= size {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!(
            "The data file '{}' has {len} bytes, fewer than the {size} of the image, and cannot grow",
            data.name()
        ),
    )
    .with_errno(libc::ENOSPC))
}

/// Sets the length of the data file of a new image.
pub(super) fn prepare(
    data: &dyn Storage,
    size: u64,
    preallocation: Preallocation,
    control: &JobControl,
) -> Result<()> {
    if !data.limits().fixed_len {
        return grow(data, size, without_metadata(preallocation), control);
    }
    if data.len()? < size {
        return Err(cannot_grow(&data.limits()).context("Could not resize image"));
    }
    match preallocation {
        Preallocation::Off | Preallocation::Metadata => Ok(()),
        Preallocation::Falloc | Preallocation::Full => {
            control.expect(size);
            zero(data, 0, size, ZeroFlags::empty(), control)
        }
    }
}

fn cannot_grow(limits: &Limits) -> Error {
    Error::unsupported(format!("Cannot grow {}", limits.fixed_kind))
}

/// A plain file has no metadata that could be preallocated.
fn without_metadata(preallocation: Preallocation) -> Preallocation {
    match preallocation {
        Preallocation::Metadata => Preallocation::Off,
        other => other,
    }
}

impl Qcow2 {
    /// Refuses a size that the data file cannot hold.
    pub(super) fn check_data_file(&self, size: u64) -> Result<()> {
        match &self.data_file {
            Some(data) if data.limits().fixed_len && data.len()? < size => {
                Err(cannot_grow(&data.limits()))
            }
            _ => Ok(()),
        }
    }

    /// Whether there is a data file whose length follows the image's.
    pub(super) fn data_file_grows(&self) -> bool {
        let data = self.data_file.as_ref();
        data.is_some_and(|data| !data.limits().fixed_len)
    }

    /// Where guest data that begins in the image has to end in its storage: a data file ends with the image, even
    /// within a cluster.
    pub(super) fn end_of_data(&self, end: u64) -> u64 {
        if self.has_data_file {
            end.min(self.virtual_size())
        } else {
            end
        }
    }

    /// Extends the data file of an image that grows from `old` bytes to the new size of the image: the new part reads
    /// as zeroes. Returns its previous length within the image; a failure leaves it at that.
    pub(super) fn lengthen_data_file(
        &self,
        old: u64,
        len: u64,
        preallocation: Preallocation,
        control: &JobControl,
    ) -> Result<u64> {
        let Some(data) = self.data_file.as_ref().filter(|_| self.data_file_grows()) else {
            return Ok(old);
        };
        let now = data.len()?;
        // Left by an interrupted shrink, or by another program.
        shorten::cut(&**data, old)?;
        let left = data.len()?.min(len);
        if left > old {
            zero(&**data, old, left, ZeroFlags::empty(), control)?;
        }
        if data.len()? <= len {
            grow(&**data, len, without_metadata(preallocation), control)?;
        }
        Ok(now.min(old))
    }

    /// Truncates the data file to `len` if its length follows the image's.
    pub(super) fn cut_data_file(&self, len: u64) -> Result<()> {
        match &self.data_file {
            Some(data) if self.data_file_grows() => shorten::end_at(&**data, len),
            _ => Ok(()),
        }
    }
}
