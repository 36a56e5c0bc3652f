//! The catalog: which extent of the file holds each extent of the guest.

use crate::bytes::le32;
use crate::error::{Error, Result};
use crate::memory::{self, IoBuf};
use crate::policy::OpenPolicy;
use crate::storage::Storage;

use super::header::Header;

/// The entry of an extent that was never written.
const ABSENT: u32 = u32::MAX;

/// The entries as stored in the file.
#[derive(Debug)]
pub(in super::super) struct Catalog(IoBuf);

impl Catalog {
    /// Reads the catalog.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`], [`crate::ErrorKind::Limit`] under the policy, or if reading fails.
    pub(in super::super) fn read(
        storage: &dyn Storage,
        file_len: u64,
        header: &Header,
        policy: &OpenPolicy,
    ) -> Result<Self> {
        let len = u64::from(header.catalog) * 4;
        policy.check_table("Catalog", len)?;
        if header.catalog_end() > file_len {
            let error = Error::corrupt("The file ends within the catalog");
            return Err(error.with_offset(file_len));
        }
        let mut bytes = memory::zeroed(len as usize)?;
        storage.read_at(&mut bytes, header.catalog_at)?;
        Ok(Self(bytes))
    }

    /// The number of the extent of the file that holds an extent of the guest, if one does.
    pub(in super::super) fn get(&self, index: u64) -> Option<u32> {
        let at = usize::try_from(index.checked_mul(4)?).ok()?;
        le32(&self.0, at).filter(|number| *number != ABSENT)
    }

    /// The numbers of all extents of the guest that are present.
    pub(in super::super) fn present(&self) -> impl Iterator<Item = (u64, u32)> {
        let entries = (self.0.len() / 4) as u64;
        (0..entries).filter_map(|index| Some((index, self.get(index)?)))
    }
}
