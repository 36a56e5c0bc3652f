//! `Info.plist`: the description of the disk of a sparse bundle.

use crate::error::{Error, ErrorKind, Result};
use crate::format::property_list::PropertyList;
use crate::memory;
use crate::size::SECTOR;
use crate::storage::Storage;

/// Maximum length of the list.
const MAX_LEN: u64 = 64 << 10;

const TYPE: &str = "com.apple.diskimage.sparsebundle";
const VERSION: u64 = 1;

/// The relevant values of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Info {
    /// Guest bytes per band.
    pub(super) band: u64,
    /// The virtual size in bytes.
    pub(super) len: u64,
}

impl Info {
    /// Reads them from the file.
    ///
    /// # Errors
    /// [`ErrorKind::NotAnImage`], [`ErrorKind::Corrupt`], [`ErrorKind::Unsupported`], or if reading fails.
    pub(super) fn read(storage: &dyn Storage, file_len: u64) -> Result<Self> {
        if file_len > MAX_LEN {
            return Err(Error::corrupt(
                "The property list of a sparse bundle is too long",
            ));
        }
        let mut bytes = memory::zeroed(file_len as usize)?;
        storage.read_at(&mut bytes, 0)?;
        let list = PropertyList::parse(&bytes)?;
        let text = |key| list.every(key).find_map(|value| value.text());
        let number = |key| text(key).and_then(|text| text.trim().parse::<u64>().ok());
        if text("diskimage-bundle-type") != Some(TYPE) {
            return Err(Error::new(
                ErrorKind::NotAnImage,
                "Image not in sparsebundle format",
            ));
        }
        let version = number("bundle-backingstore-version");
        if version != Some(VERSION) {
            return Err(Error::unsupported(
                "The sparse bundle is of a version that is not known",
            ));
        }
        let lacks = |what: &str| Error::corrupt(format!("The sparse bundle does not say {what}"));
        let band = number("band-size").filter(|band| *band > 0);
        let len = number("size").filter(|len| *len <= i64::MAX as u64);
        let band = band.ok_or_else(|| lacks("how long its bands are"))?;
        if !band.is_multiple_of(SECTOR) {
            return Err(Error::corrupt(format!(
                "The bands of the sparse bundle have {band} bytes, which are no whole sectors"
            )));
        }
        Ok(Self {
            band,
            len: len.ok_or_else(|| lacks("how large its disk is"))?,
        })
    }
}
