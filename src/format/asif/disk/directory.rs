//! The directory: which chunk of the file each table is in. It has two copies, of which the one written last counts.

use crate::bytes::be64;
use crate::error::{Error, Result};
use crate::memory::{self, IoBuf};
use crate::policy::OpenPolicy;
use crate::storage::Storage;

use super::HEADER_LEN;
use super::entry::chunk_of_table;
use super::header::Header;

/// The entries as stored in the file.
#[derive(Debug)]
pub(in super::super) struct Directory(IoBuf);

impl Directory {
    /// Reads the first `count` entries of the copy that counts.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`], [`crate::ErrorKind::Unsupported`], [`crate::ErrorKind::Limit`] under the policy,
    /// or if reading fails.
    pub(in super::super) fn read(
        (storage, file_len): (&dyn Storage, u64),
        header: &Header,
        count: u64,
        policy: &OpenPolicy,
    ) -> Result<Self> {
        let len = count.saturating_mul(8);
        policy.check_table("Directory", len)?;
        let mut live = None;
        for offset in header.directories {
            let end = header
                .max_tables()
                .checked_add(1)
                .and_then(|words| words.checked_mul(8))
                .and_then(|len| len.checked_add(offset));
            if offset < HEADER_LEN as u64 || end.is_none_or(|end| end > file_len) {
                let why = format!("A directory of the image is said to be at {offset:#x}");
                return Err(Error::corrupt(why).with_offset(16));
            }
            let mut version = [0; 8];
            storage.read_at(&mut version, offset)?;
            live = live.max(Some((u64::from_be_bytes(version), offset)));
        }
        let (_, offset) = live.unwrap_or_default();
        let mut bytes = memory::zeroed(usize::try_from(len).map_err(|_| memory::lack())?)?;
        storage.read_at(&mut bytes, offset + 8)?;
        let directory = Self(bytes);
        for table in 0..count {
            if let Err(reason) = chunk_of_table(directory.word(table)) {
                let why = format!("The directory entry of table {table} {reason}");
                return Err(Error::unsupported(why).with_offset(offset + 8 + table * 8));
            }
        }
        Ok(directory)
    }

    fn word(&self, table: u64) -> u64 {
        let at = usize::try_from(table.saturating_mul(8));
        at.ok().and_then(|at| be64(&self.0, at)).unwrap_or_default()
    }

    /// The chunk that a table is in; None if there is no such table.
    pub(in super::super) fn table(&self, index: u64) -> Option<u64> {
        chunk_of_table(self.word(index)).ok().flatten()
    }

    /// All tables, with the chunks that they are in.
    pub(in super::super) fn tables(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let count = self.0.len() as u64 / 8;
        (0..count).filter_map(|index| Some((index, self.table(index)?)))
    }
}
