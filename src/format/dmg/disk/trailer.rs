//! The trailer ("koly") at the end of the file.

use crate::bytes::{be32, be64};
use crate::error::{Error, Result};
use crate::size::SECTOR;

use super::checksum::Checksum;

/// Length of the trailer in bytes.
pub(in super::super) const TRAILER_LEN: usize = 512;

/// The first bytes of the trailer.
pub(in super::super) const MAGIC: &[u8; 4] = b"koly";

/// The contents of the trailer; offsets and lengths in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Trailer {
    pub(in super::super) version: u32,
    /// The data fork, which holds the data of chunks.
    pub(in super::super) data: (u64, u64),
    /// The checksum of the data fork as stored in the file.
    pub(in super::super) data_sum: Checksum,
    /// The checksum of the checksums of all tables.
    pub(in super::super) master: Checksum,
    /// The resource fork.
    pub(in super::super) fork: (u64, u64),
    /// The property list.
    pub(in super::super) plist: (u64, u64),
    /// The number of files of the image.
    pub(in super::super) segments: u32,
    /// Virtual size in bytes.
    pub(in super::super) len: u64,
}

impl Trailer {
    /// Decodes the [`TRAILER_LEN`] bytes at `offset` in the file.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`], or [`crate::ErrorKind::Unsupported`] if it is one of several files.
    pub(in super::super) fn from_bytes(bytes: &[u8], offset: u64) -> Result<Self> {
        let short = |at| be32(bytes, at).unwrap_or_default();
        let long = |at| be64(bytes, at).unwrap_or_default();
        let sectors = long(492);
        let len = sectors.checked_mul(SECTOR);
        let Some(len) = len.filter(|len| *len <= i64::MAX as u64) else {
            let why = format!("A disk of {sectors} sectors is too large");
            return Err(Error::corrupt(why).with_offset(offset + 492));
        };
        let trailer = Self {
            version: short(4),
            data: (long(24), long(32)),
            data_sum: Checksum::from_bytes(bytes, 80),
            master: Checksum::from_bytes(bytes, 352),
            fork: (long(40), long(48)),
            plist: (long(216), long(224)),
            segments: short(60),
            len,
        };
        if trailer.segments > 1 {
            return Err(Error::unsupported(format!(
                "The image is one of {} files, of which one alone is not read",
                trailer.segments
            )));
        }
        for (what, (at, len)) in [
            ("resource fork", trailer.fork),
            ("property list", trailer.plist),
        ] {
            if len > 0 && at.checked_add(len).is_none_or(|end| end > offset) {
                let why = format!("The {what} is said to be at {at} + {len}, outside of the file");
                return Err(Error::corrupt(why).with_offset(offset));
            }
        }
        Ok(trailer)
    }
}
