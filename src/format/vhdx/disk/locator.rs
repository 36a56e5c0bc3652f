//! The parent locator (section 2.6.2.6): names under which the parent may be found, and its identity.

use uuid::{Uuid, uuid};

use crate::bytes::{array, le16, le32};
use crate::error::{Error, Result};

const HEADER_LEN: usize = 20;
const ENTRY_LEN: usize = 12;

/// The type of a locator whose parent is a VHDX.
pub(in super::super) const VHDX_PARENT: Uuid = uuid!("b04aefb7-d19e-4a81-b789-25b8e9445913");

/// The pairs of a locator, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Locator {
    /// The kind of parent that it locates.
    pub(in super::super) kind: Uuid,
    /// Keys and values.
    pub(in super::super) pairs: Vec<(String, String)>,
}

impl Locator {
    /// Parses a locator from the metadata.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if it is truncated, or a text lies outside of it.
    pub(in super::super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let bad = || Error::corrupt("The VHDX parent locator is damaged");
        let kind = Uuid::from_bytes_le(array(bytes, 0).ok_or_else(bad)?);
        let count = usize::from(le16(bytes, 18).ok_or_else(bad)?);
        let entries = bytes.get(HEADER_LEN..).unwrap_or_default();
        if entries.len() / ENTRY_LEN < count {
            return Err(bad());
        }
        let mut pairs = Vec::new();
        // Entries may refer to the same bytes repeatedly: in total, their text must not be longer than the locator.
        let mut left = bytes.len();
        for entry in entries.chunks_exact(ENTRY_LEN).take(count) {
            let mut text = |offset: usize, len: usize| {
                let start = le32(entry, offset)? as usize;
                let len = usize::from(le16(entry, len)?);
                left = left.checked_sub(len)?;
                let units = bytes.get(start..start.checked_add(len)?)?.chunks_exact(2);
                let units = units.map(|unit| le16(unit, 0).unwrap_or(0));
                Some(String::from_utf16_lossy(&units.collect::<Vec<_>>()))
            };
            let pair = text(0, 8).zip(text(4, 10));
            pairs.push(pair.ok_or_else(bad)?);
        }
        Ok(Self { kind, pairs })
    }

    /// The on-disk representation.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for a name that is too long.
    pub(in super::super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let long = || Error::backing_name_too_long();
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.kind.to_bytes_le());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&(self.pairs.len() as u16).to_le_bytes());
        let mut texts: Vec<u8> = Vec::new();
        let base = HEADER_LEN + self.pairs.len() * ENTRY_LEN;
        for pair in &self.pairs {
            let mut place = |text: &str| {
                let at = base + texts.len();
                texts.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
                let len = u16::try_from(base + texts.len() - at);
                len.map(|len| (at as u32, len)).map_err(|_| long())
            };
            let (key, value) = (place(&pair.0)?, place(&pair.1)?);
            bytes.extend_from_slice(&key.0.to_le_bytes());
            bytes.extend_from_slice(&value.0.to_le_bytes());
            bytes.extend_from_slice(&key.1.to_le_bytes());
            bytes.extend_from_slice(&value.1.to_le_bytes());
        }
        bytes.extend_from_slice(&texts);
        Ok(bytes)
    }

    /// The value of a key.
    pub(in super::super) fn get(&self, key: &str) -> Option<&str> {
        let mut pairs = self.pairs.iter();
        pairs
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_as_they_were_written() {
        let locator = Locator {
            kind: VHDX_PARENT,
            pairs: vec![
                ("relative_path".into(), r".\dir\é𝄞.vhdx".into()),
                ("parent_linkage".into(), "{0}".into()),
            ],
        };
        let bytes = locator.to_bytes().unwrap();
        assert_eq!(Locator::from_bytes(&bytes).unwrap(), locator);
        assert_eq!(locator.get("parent_linkage"), Some("{0}"));
        for len in 0..bytes.len() {
            Locator::from_bytes(&bytes[..len]).unwrap_err();
        }
        let long = Locator {
            pairs: vec![("k".into(), "x".repeat(40_000))],
            ..locator
        };
        long.to_bytes().unwrap_err();
    }

    #[test]
    fn a_text_that_is_named_many_times_is_not_read_many_times() {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[18..20].copy_from_slice(&4000u16.to_le_bytes());
        for _ in 0..4000 {
            bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        }
        bytes.resize(1 << 20, 0);
        Locator::from_bytes(&bytes).unwrap_err();
    }
}
