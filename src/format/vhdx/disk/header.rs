//! The header (section 2.2.2), of which there are two copies: the one with the higher sequence number is current.

use uuid::Uuid;

use crate::bytes::{array, le16, le32, le64};
use crate::error::{Error, Result};

use super::{MIB, checksum};

/// Offsets of the copies.
pub(in super::super) const HEADERS: [u64; 2] = [64 << 10, 128 << 10];

const SIGNATURE: &[u8; 4] = b"head";

/// A header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Header {
    /// Increases with each header that is written.
    pub(in super::super) sequence: u64,
    /// Changed before the first modification of any kind after an open.
    pub(in super::super) file_write: Uuid,
    /// Changed before the first modification that the guest can see.
    pub(in super::super) data_write: Uuid,
    /// GUID of the log entries that are to be replayed; nil if there are none.
    pub(in super::super) log: Uuid,
    /// The version of the log.
    pub(in super::super) log_version: u16,
    /// The version of the format.
    pub(in super::super) version: u16,
    /// Length of the log in bytes.
    pub(in super::super) log_len: u32,
    /// Offset of the log.
    pub(in super::super) log_offset: u64,
}

impl Header {
    /// Length of a header in bytes.
    pub(in super::super) const LEN: usize = 4096;

    /// Parses a copy; `None` if it is not valid.
    pub(in super::super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..Self::LEN)?;
        if !bytes.starts_with(SIGNATURE) || !checksum::holds(bytes) {
            return None;
        }
        Some(Self {
            sequence: le64(bytes, 8)?,
            file_write: Uuid::from_bytes_le(array(bytes, 16)?),
            data_write: Uuid::from_bytes_le(array(bytes, 32)?),
            log: Uuid::from_bytes_le(array(bytes, 48)?),
            log_version: le16(bytes, 64)?,
            version: le16(bytes, 66)?,
            log_len: le32(bytes, 68)?,
            log_offset: le64(bytes, 72)?,
        })
    }

    /// The on-disk representation.
    pub(in super::super) fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let fields: [&[u8]; 9] = [
            SIGNATURE,
            &[0; 4],
            &self.sequence.to_le_bytes(),
            &self.file_write.to_bytes_le(),
            &self.data_write.to_bytes_le(),
            &self.log.to_bytes_le(),
            &self.log_version.to_le_bytes(),
            &self.version.to_le_bytes(),
            &self.log_len.to_le_bytes(),
        ];
        let fields = fields.concat();
        let last = self.log_offset.to_le_bytes();
        for (to, from) in bytes.iter_mut().zip(fields.iter().chain(&last)) {
            *to = *from;
        }
        checksum::seal(&mut bytes);
        bytes
    }

    /// Determines which of the two copies is current.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if neither is valid, or both claim to be current.
    pub(in super::super) fn current(copies: [Option<Self>; 2]) -> Result<(usize, Self)> {
        match copies {
            [Some(first), Some(second)] if first.sequence == second.sequence && first != second => {
                Err(
                    Error::corrupt("Both VHDX headers have the same sequence number")
                        .with_offset(HEADERS[0]),
                )
            }
            [Some(first), Some(second)] if second.sequence > first.sequence => Ok((1, second)),
            [Some(first), _] => Ok((0, first)),
            [None, Some(second)] => Ok((1, second)),
            [None, None] => {
                Err(Error::corrupt("No valid VHDX header found").with_offset(HEADERS[0]))
            }
        }
    }

    /// Rejects what a driver for version 1 does not understand.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] for other versions, [`crate::ErrorKind::Corrupt`] for a misplaced log.
    pub(in super::super) fn check(&self) -> Result<()> {
        if self.version != 1 {
            return Err(Error::unsupported(format!(
                "Unsupported VHDX version {}",
                self.version
            )));
        }
        if self.log_version != 0 {
            return Err(Error::unsupported(format!(
                "Unsupported version {} of the VHDX log",
                self.log_version
            )));
        }
        let len = u64::from(self.log_len);
        let placed = self.log_offset >= MIB && self.log_offset.is_multiple_of(MIB);
        if len != 0 && !placed
            || !len.is_multiple_of(MIB)
            || self.log_offset.checked_add(len).is_none()
        {
            return Err(Error::corrupt(format!(
                "The VHDX log of {len} bytes at offset {} is out of place",
                self.log_offset
            ))
            .with_offset(HEADERS[0]));
        }
        Ok(())
    }

    /// Whether the log has entries to be replayed.
    pub(in super::super) fn has_log(&self) -> bool {
        !self.log.is_nil()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(sequence: u64) -> Header {
        Header {
            sequence,
            file_write: Uuid::from_u128(1),
            data_write: Uuid::from_u128(2),
            log: Uuid::nil(),
            log_version: 0,
            version: 1,
            log_len: 1 << 20,
            log_offset: 1 << 20,
        }
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let written = header(7);
        let mut bytes = written.to_bytes();
        assert_eq!(Header::from_bytes(&bytes), Some(written));
        bytes[4000] = 1;
        assert_eq!(Header::from_bytes(&bytes), None);
        assert_eq!(Header::from_bytes(&bytes[..100]), None);
    }

    #[test]
    fn the_copy_with_the_higher_number_counts() {
        let pick = |a, b| Header::current([a, b]).map(|(which, _)| which);
        assert_eq!(pick(Some(header(1)), Some(header(2))).unwrap(), 1);
        assert_eq!(pick(Some(header(3)), Some(header(2))).unwrap(), 0);
        assert_eq!(pick(None, Some(header(2))).unwrap(), 1);
        assert_eq!(pick(Some(header(2)), None).unwrap(), 0);
        assert_eq!(pick(Some(header(2)), Some(header(2))).unwrap(), 0);
        let other = Header {
            log_len: 2 << 20,
            ..header(2)
        };
        pick(Some(header(2)), Some(other)).unwrap_err();
        pick(None, None).unwrap_err();
    }

    #[test]
    fn a_log_lies_at_whole_mebibytes() {
        header(1).check().unwrap();
        for (log_offset, log_len) in [(0, 1 << 20), (1 << 20, 4096), (u64::MAX << 20, 1 << 20)] {
            Header {
                log_offset,
                log_len,
                ..header(1)
            }
            .check()
            .unwrap_err();
        }
        Header {
            version: 2,
            ..header(1)
        }
        .check()
        .unwrap_err();
    }
}
