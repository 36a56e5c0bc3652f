//! What each section of a segment begins with.

use crate::bytes::{le64, text};
use crate::error::{Error, Result};

use super::checksum::is_whole;

/// Bytes before the data of a section.
pub(in super::super) const SECTION_LEN: u64 = 76;

/// What a section is, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Section {
    /// Its type: `volume`, `table`…
    pub(in super::super) kind: Vec<u8>,
    /// Where it begins in its segment.
    pub(in super::super) at: u64,
    /// Where the next one begins; the last one of a segment names itself.
    pub(in super::super) next: u64,
}

impl Section {
    /// From the bytes at the offset `at` of a segment.
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

    /// Where its data begins.
    pub(in super::super) fn data(&self) -> u64 {
        self.at + SECTION_LEN
    }

    /// Whether it ends its segment.
    pub(in super::super) fn is_last(&self) -> bool {
        matches!(&*self.kind, b"next" | b"done")
    }
}
