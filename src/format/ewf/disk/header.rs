//! The header at the beginning of each segment.

use crate::bytes::le16;
use crate::error::{Error, Result};

/// Length of the header in bytes.
pub(in super::super) const HEADER_LEN: usize = 13;

/// The first bytes of disk images.
pub(in super::super) const MAGIC: &[u8; 8] = b"EVF\x09\x0d\x0a\xff\x00";

/// The first bytes of other files of the family: those of logical evidence, and those of the second version.
const LOGICAL: &[u8] = b"LVF\x09\x0d\x0a\xff\x00";
const SECOND: &[u8] = b"EVF2\x0d\x0a\x81\x00";

/// The contents of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct FileHeader {
    /// The number of the segment, from 1 on.
    pub(in super::super) segment: u16,
}

impl FileHeader {
    /// Decodes the first [`HEADER_LEN`] bytes of a file.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] for other files of the family, otherwise [`crate::ErrorKind::NotAnImage`].
    pub(in super::super) fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Result<Self> {
        if bytes.starts_with(MAGIC) {
            let segment = le16(bytes, 9).unwrap_or_default();
            return Ok(Self { segment });
        }
        if bytes.starts_with(LOGICAL) {
            return Err(Error::unsupported(
                "The file holds logical evidence: files, and no disk",
            ));
        }
        if bytes.starts_with(SECOND) {
            return Err(Error::unsupported(
                "The file is of the second version of the format (Ex01), which is not read",
            ));
        }
        Err(Error::new(
            crate::error::ErrorKind::NotAnImage,
            "The file is no segment of an EWF image",
        ))
    }
}
