//! `resize`: changes the virtual size of an image.

use crate::error::{Error, Result};
use crate::format::Features;
use crate::image::Image;
use crate::job::Job;
use crate::size::{MAX_SIZE, round_up_sector};
use crate::storage::Preallocation;

/// The size that an image is to get, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewSize {
    /// This size.
    Exactly(u64),
    /// The current size plus this many bytes.
    More(u64),
    /// The current size minus this many bytes.
    Less(u64),
}

impl NewSize {
    /// Refuses what cannot be the size of any image, whatever its current size.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Exactly(size) if !(1..=MAX_SIZE).contains(&size) => {
                Err(Error::new_size_not_positive())
            }
            _ => Ok(()),
        }
    }
}

/// How an image is to be resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResizeRequest {
    /// The new size; rounded up to 512 bytes.
    pub size: NewSize,
    /// How space for the grown part is reserved.
    pub preallocation: Preallocation,
    /// Allow the image to shrink, which deletes what is beyond the new end.
    pub shrink: bool,
}

/// Changes the virtual size of `image`, which is open for writing, and makes that durable. Returns the new size. If it
/// is cancelled while new space is filled, the size stays unchanged; nothing else takes long.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for a size out of range and if shrinking is not allowed,
/// [`crate::ErrorKind::Unsupported`] if the format cannot resize, or if I/O fails.
pub fn resize(image: &Image, request: &ResizeRequest, job: &mut Job) -> Result<u64> {
    let _locks = image.lock_size()?;
    let now = image.len();
    let size = match request.size {
        NewSize::Exactly(size) => Some(size),
        NewSize::More(bytes) => now.checked_add(bytes),
        NewSize::Less(bytes) => now.checked_sub(bytes),
    };
    let size = size
        .filter(|size| (1..=MAX_SIZE).contains(size))
        .ok_or_else(Error::new_size_not_positive)?;
    if size <= now && request.preallocation != Preallocation::Off {
        return Err(Error::invalid(
            "Preallocation can only be used for growing images",
        ));
    }
    if size < now && !request.shrink {
        return Err(
            Error::invalid("The new size is smaller, and shrinking was not asked for").with_hint(
                "Shrinking an image will delete all data beyond the shrunken image's end. \
                 Before performing such an operation, make sure there is no important data there.",
            ),
        );
    }
    if !image.format().features().contains(Features::RESIZE) {
        return Err(Error::no_resize());
    }
    let rounded = round_up_sector(size).ok_or_else(|| Error::os(libc::EFBIG))?;
    // A file that is the disk itself ends exactly where requested, regardless of sectors.
    let size = match image.driver().is_transparent {
        true => size,
        false => rounded,
    };
    job.control().checkpoint()?;
    image
        .resize_under(job.control(), size, request.preallocation)
        .and_then(|()| image.flush())
        .map_err(|error| {
            error.context_if_bare(|| format!("Could not resize '{}'", image.filename()))
        })?;
    job.finish()?;
    Ok(image.len())
}

/// The preallocation mode with that name.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for any other name.
pub fn preallocation_from_name(name: &str) -> Result<Preallocation> {
    Preallocation::from_name(name)
        .ok_or_else(|| Error::invalid(format!("Invalid preallocation mode '{name}'")))
}
