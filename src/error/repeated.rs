//! Errors that more than one module returns, with the wording of each in one place.

use std::fmt::Display;

use super::{Error, ErrorKind};

/// Errors of drivers that cannot do what is requested.
impl Error {
    /// A format that cannot create images.
    pub fn no_creation(driver: &str) -> Self {
        Self::unsupported(format!(
            "Format driver '{driver}' does not support image creation"
        ))
    }

    /// A protocol that cannot create anything that could hold an image.
    pub fn no_protocol_creation(driver: &str) -> Self {
        Self::unsupported(format!(
            "Protocol driver '{driver}' does not support image creation"
        ))
    }

    /// A format without compression.
    pub fn no_compression() -> Self {
        Self::unsupported("Compression not supported for this file format")
    }

    /// An encrypted image for which the option that names the secret is missing.
    pub fn needs_secret(option: &str) -> Self {
        Self::new(
            ErrorKind::NeedsSecret,
            format!("Parameter '{option}' is required for cipher"),
        )
    }

    /// A format whose images cannot be resized.
    pub fn no_resize() -> Self {
        Self::unsupported("Image format driver does not support resize")
    }

    /// A format whose images only grow.
    pub fn no_shrink() -> Self {
        Self::unsupported("Shrinking images is currently not supported")
    }

    /// A part of an image, such as its backing file, that the format cannot record.
    pub fn not_recorded(what: &str, format: &str) -> Self {
        Self::unsupported(format!("{what} not supported for file format '{format}'"))
    }

    /// A format without persistent bitmaps, or without them in the requested variant.
    pub fn no_bitmaps(driver: &str) -> Self {
        Self::unsupported(format!("Format driver '{driver}' does not support bitmaps"))
    }

    /// A storage that cannot discard.
    pub(crate) fn no_discard() -> Self {
        Self::unsupported("Discarding is not supported")
    }

    /// A preallocation mode, by name, that a driver does not support.
    pub(crate) fn no_preallocation(mode: &str) -> Self {
        Self::unsupported(format!("Unsupported preallocation mode '{mode}'"))
    }

    /// A write to an image that is open read-only.
    pub(crate) fn read_only_image() -> Self {
        Self::new(ErrorKind::ReadOnly, "Image is read-only")
    }

    /// Preallocation of metadata for something that has none.
    pub(crate) fn no_metadata_preallocation() -> Self {
        Self::unsupported("Unsupported preallocation mode: metadata")
    }
}

/// Errors of options.
impl Error {
    /// An option that is required.
    pub(crate) fn missing_parameter(name: impl Display) -> Self {
        Self::invalid(format!("Parameter '{name}' is missing"))
    }

    /// An option that cannot be combined with the others, or that does not exist.
    pub(crate) fn unexpected_parameter(name: impl Display) -> Self {
        Self::invalid(format!("Parameter '{name}' is unexpected"))
    }

    /// A value that an option does not accept.
    pub(crate) fn refused_value(name: impl Display, value: impl Display) -> Self {
        Self::invalid(format!(
            "Parameter '{name}' does not accept value '{value}'"
        ))
    }

    /// A word that is not one of the values of an option.
    pub(crate) fn invalid_value(value: impl Display) -> Self {
        Self::invalid(format!("invalid parameter value: {value}"))
    }
}

/// Errors of sizes.
impl Error {
    /// A new image that is too large for the format.
    pub(crate) fn size_too_large_for(format: &str) -> Self {
        Self::new(
            ErrorKind::Limit,
            format!("The image size is too large for file format '{format}'"),
        )
    }

    /// A new size of zero bytes, or of more than is possible.
    pub(crate) fn new_size_not_positive() -> Self {
        Self::invalid("New image size must be positive")
    }

    /// A new size that is not a whole number of sectors.
    pub(crate) fn odd_new_size() -> Self {
        Self::invalid("The new size must be a multiple of 512")
    }

    /// Preallocation when an image is shrunk.
    pub(crate) fn no_preallocated_shrink() -> Self {
        Self::invalid("Preallocation can't be used for shrinking an image")
    }
}

/// Errors of images and storages.
impl Error {
    /// A change to something that is open read-only.
    pub(crate) fn open_read_only(name: impl Display) -> Self {
        Self::new(ErrorKind::ReadOnly, format!("'{name}' is open read-only"))
    }

    /// A bitmap that an image does not have.
    pub(crate) fn no_such_bitmap(name: impl Display) -> Self {
        Self::new(
            ErrorKind::NotFound,
            format!("Dirty bitmap '{name}' not found"),
        )
    }

    /// A parent whose identity the image records, if the parent's file was not opened and the image has not recorded
    /// anything yet.
    pub(crate) fn parent_not_known(what: &str, name: impl Display) -> Self {
        Self::invalid(format!(
            "The {what} of '{name}' has to be recorded, for which the file has to be opened"
        ))
    }

    /// A name that is too long for its place in the image.
    pub(crate) fn backing_name_too_long() -> Self {
        Self::invalid("Backing file name too long")
    }

    /// A new image that would exceed what its file, or its format, can hold.
    pub(crate) fn image_too_large() -> Self {
        Self::new(ErrorKind::Limit, "The image would grow too large")
    }

    /// Bytes past the end of a new disk.
    pub(crate) fn past_new_disk() -> Self {
        Self::new(ErrorKind::Limit, "A write past the end of the new disk")
    }

    /// Bytes of a new disk that do not follow the previous ones.
    pub(crate) fn out_of_order(guest: u64, len: u64) -> Self {
        Self::new(
            ErrorKind::Internal,
            format!("Guest range {guest} + {len} of a new image is out of order"),
        )
    }

    /// A backing file that is already part of the chain.
    pub(crate) fn backing_loop(name: impl Display) -> Self {
        Self::invalid(format!("Backing file '{name}' creates an infinite loop."))
    }

    /// A write to a node that is open read-only.
    pub(crate) fn node_read_only() -> Self {
        Self::new(ErrorKind::ReadOnly, "Block node is read-only")
    }

    /// Any use of an image after a flush of it has failed.
    pub(crate) fn writes_lost(name: impl Display) -> Self {
        let text = format!("'{name}': an earlier flush failed; written data may be lost");
        Self::new(ErrorKind::Os, text).with_errno(libc::EIO)
    }

    /// A compressed write of part of a cluster.
    pub(crate) fn partial_compressed_write() -> Self {
        Self::invalid("a compressed write must be one whole cluster")
    }

    /// Names what could not be opened.
    #[must_use]
    pub(crate) fn could_not_open(self, name: impl Display) -> Self {
        self.context(format!("Could not open '{name}'"))
    }
}
