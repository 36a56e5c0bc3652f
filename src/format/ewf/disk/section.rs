//! The descriptor at the beginning of each section of a segment.

use crate::bytes::{le64, text};
use crate::error::{Error, Result};

use super::checksum::is_whole;

/// Bytes before the data of a section.
pub(in super::super) const SECTION_LEN: u64 = 76;

/// The type and location of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Section {
    /// Its type: `volume`, `table`…
    pub(in super::super) kind: Vec<u8>,
    /// Its offset in its segment.
    pub(in super::super) at: u64,
    /// The offset of the next one; the last one of a segment points to itself.
    pub(in super::super) next: u64,
}

impl Section {
    /// Decodes the bytes at the offset `at` in a segment.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`].
    pub(in super::super) fn from_bytes(
        bytes: &[u8; SECTION_LEN as usize],
        at: u64,
    ) -> Result<Self> {
        if !is_whole(bytes) {
            let why = format!("The section at {at} does not have its checksum");
            return Err(Error::corrupt(why).with_offset(at));
        }
        Ok(Self {
            kind: text(bytes, 0, 16).unwrap_or_default().to_vec(),
            at,
            next: le64(bytes, 16).unwrap_or_default(),
        })
    }

    /// The offset of its data.
    pub(in super::super) fn data(&self) -> u64 {
        self.at + SECTION_LEN
    }

    /// Whether it ends its segment.
    pub(in super::super) fn is_last(&self) -> bool {
        matches!(&*self.kind, b"next" | b"done")
    }
}
