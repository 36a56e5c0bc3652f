//! The table of offsets: where each block begins in the file, and where the last one ends.

use crate::bytes::be64;
use crate::error::{Error, Result};
use crate::memory::{self, IoBuf};
use crate::policy::OpenPolicy;
use crate::storage::Storage;

use super::header::{HEADER_LEN, Header, MAX_BLOCK};

/// Maximum length of a compressed block.
const MAX_ENCODED: u64 = 2 * MAX_BLOCK as u64;

/// The offsets as stored in the file.
#[derive(Debug)]
pub(in super::super) struct Table(IoBuf);

impl Table {
    /// Reads the table, and checks that the blocks follow each other.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`], [`crate::ErrorKind::Limit`] under the policy, or if reading fails.
    pub(in super::super) fn read(
        storage: &dyn Storage,
        file_len: u64,
        header: &Header,
        policy: &OpenPolicy,
    ) -> Result<Self> {
        let len = header.table_len();
        policy.check_table("Table of offsets", len)?;
        if HEADER_LEN as u64 + len > file_len {
            let error = Error::corrupt("The file ends within the table of offsets");
            return Err(error.with_offset(file_len));
        }
        let mut bytes = memory::zeroed(usize::try_from(len).map_err(|_| memory::lack())?)?;
        storage.read_at(&mut bytes, HEADER_LEN as u64)?;
        let table = Self(bytes);
        let mut before = table.get(0).unwrap_or_default();
        for index in 1..=u64::from(header.blocks) {
            let offset = table.get(index).unwrap_or_default();
            let why = match offset.checked_sub(before) {
                None => "offsets not monotonically increasing",
                Some(encoded) if encoded > MAX_ENCODED => "invalid compressed block size",
                Some(_) => {
                    before = offset;
                    continue;
                }
            };
            let error = Error::corrupt(format!("{why} at index {index}, image file is corrupt"));
            return Err(error.with_offset(HEADER_LEN as u64 + index * 8));
        }
        Ok(table)
    }

    fn get(&self, index: u64) -> Option<u64> {
        be64(&self.0, usize::try_from(index.checked_mul(8)?).ok()?)
    }

    /// Where a block begins and ends in the file; None if there is no such block.
    pub(in super::super) fn block(&self, index: u64) -> Option<(u64, u64)> {
        Some((self.get(index)?, self.get(index.checked_add(1)?)?))
    }

    /// The end of the last block.
    pub(in super::super) fn end(&self) -> u64 {
        let last = (self.0.len() / 8).saturating_sub(1);
        self.get(last as u64).unwrap_or_default()
    }
}
