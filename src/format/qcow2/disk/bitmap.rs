//! Persistent dirty bitmaps (specification: "Bitmaps").

use crate::bytes::{be16, be32, be64};
use crate::error::{Error, Result};
use crate::memory;
use crate::storage::Storage;

use super::extension::BitmapsExtension;

/// Length of a directory entry up to its extra data.
const FIXED_LEN: usize = 24;
/// Memory that a directory takes, as a multiple of its length, for two copies: a record of fields for each 32 bytes,
/// and an allocation for a name.
const IN_MEMORY: u64 = 10;
/// The only type of bitmap.
pub const DIRTY_BITMAP: u8 = 1;
/// Maximum length of a name, in bytes.
pub const MAX_BITMAP_NAME: usize = 1023;
/// Maximum number of entries of a bitmap table.
pub const MAX_BITMAP_TABLE_ENTRIES: u32 = 0x800_0000;

bitflags::bitflags! {
    /// Flags of a bitmap.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct BitmapFlags: u32 {
        /// Was not saved properly: the bits cannot be trusted.
        const IN_USE = 1;
        /// Records writes from the moment the image is opened.
        const AUTO = 1 << 1;
        /// Unknown extra data may be ignored.
        const EXTRA_DATA_COMPATIBLE = 1 << 2;
        /// Every other bit is kept as it is.
        const _ = !0;
    }
}

/// An entry of the bitmap directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitmapEntry {
    /// Offset of the bitmap table.
    pub table_offset: u64,
    /// Number of its entries.
    pub table_entries: u32,
    /// Flags.
    pub flags: BitmapFlags,
    /// 1 for a dirty bitmap.
    pub kind: u8,
    /// log2 of the number of guest bytes per bit.
    pub granularity_bits: u8,
    /// The name.
    pub name: Vec<u8>,
    /// Extra data, kept as it is.
    pub extra: Vec<u8>,
}

impl BitmapEntry {
    /// The entries of a whole directory.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if they do not fill it exactly, or if there are not `count` of them.
    pub fn parse_directory(bytes: &[u8], count: u32) -> Result<Vec<Self>> {
        Self::check_headroom(bytes.len() as u64)?;
        let mut entries = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (entry, len) =
                Self::from_bytes(rest).ok_or_else(|| Error::corrupt("Broken bitmap directory"))?;
            memory::push(&mut entries, entry)?;
            rest = rest.get(len..).unwrap_or_default();
        }
        let less_or_more = match (entries.len() as u64).cmp(&u64::from(count)) {
            std::cmp::Ordering::Equal => return Ok(entries),
            std::cmp::Ordering::Less => "Less",
            std::cmp::Ordering::Greater => "More",
        };
        Err(Error::corrupt(format!(
            "{less_or_more} bitmaps found than specified in header extension"
        )))
    }

    /// Checks that there is memory for the entries of a directory of this many bytes.
    ///
    /// # Errors
    /// If there is not.
    pub fn check_headroom(directory: u64) -> Result<()> {
        memory::headroom(directory.saturating_mul(IN_MEMORY))
    }

    /// The entry at the start of `bytes`, and its length with padding; None if it is truncated.
    pub fn from_bytes(bytes: &[u8]) -> Option<(Self, usize)> {
        let name_len = usize::from(be16(bytes, 18)?);
        let extra_len = be32(bytes, 20)? as usize;
        let name_at = FIXED_LEN.checked_add(extra_len)?;
        let end = name_at.checked_add(name_len)?;
        let padded = end.checked_add(7)? & !7;
        if padded > bytes.len() {
            return None;
        }
        let entry = Self {
            table_offset: be64(bytes, 0)?,
            table_entries: be32(bytes, 8)?,
            flags: BitmapFlags::from_bits_retain(be32(bytes, 12)?),
            kind: *bytes.get(16)?,
            granularity_bits: *bytes.get(17)?,
            extra: bytes.get(FIXED_LEN..name_at)?.to_vec(),
            name: bytes.get(name_at..end)?.to_vec(),
        };
        Some((entry, padded))
    }

    /// Appends the entry, padded to a multiple of 8 bytes.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.table_offset.to_be_bytes());
        out.extend_from_slice(&self.table_entries.to_be_bytes());
        out.extend_from_slice(&self.flags.bits().to_be_bytes());
        out.push(self.kind);
        out.push(self.granularity_bits);
        out.extend_from_slice(&(self.name.len() as u16).to_be_bytes());
        out.extend_from_slice(&(self.extra.len() as u32).to_be_bytes());
        out.extend_from_slice(&self.extra);
        out.extend_from_slice(&self.name);
        out.resize(out.len().next_multiple_of(8), 0);
    }

    /// The name as text.
    pub fn name_text(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }

    /// Checks the entry's own fields, for an image of `size` bytes with clusters of `cluster` bytes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] with the bitmap's name; extra data is not supported.
    pub fn validate(&self, size: u64, cluster: u64) -> Result<()> {
        let granularity = u32::from(self.granularity_bits);
        let known = BitmapFlags::IN_USE | BitmapFlags::AUTO;
        let fits = self.table_entries != 0
            && self.table_offset != 0
            && self.table_offset.is_multiple_of(cluster)
            && self.table_entries <= MAX_BITMAP_TABLE_ENTRIES
            && (9..=31).contains(&granularity)
            && self.kind == DIRTY_BITMAP
            && (self.flags - known - BitmapFlags::EXTRA_DATA_COMPATIBLE).is_empty()
            && !self.name.is_empty()
            && self.name.len() <= MAX_BITMAP_NAME;
        // A table that covers less than the image would leave bits without a place.
        let clusters = size
            .div_ceil(1 << granularity.min(63))
            .div_ceil(8)
            .div_ceil(cluster);
        let in_use = self.flags.contains(BitmapFlags::IN_USE);
        if !self.extra.is_empty() {
            return Err(Error::unsupported("Bitmap extra data is not supported"));
        }
        if fits && (in_use || u64::from(self.table_entries) == clusters) {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "Bitmap '{}' doesn't satisfy the constraints",
            self.name_text()
        )))
    }
}

/// All bitmaps of an image, in the order of the directory, each checked by
/// [`BitmapEntry::validate`]; `size` is the virtual size and `cluster` the cluster size.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`], or if I/O fails.
pub fn read_bitmap_directory(
    storage: &dyn Storage,
    extension: &BitmapsExtension,
    size: u64,
    cluster: u64,
) -> Result<Vec<BitmapEntry>> {
    let len = extension.directory_size;
    if len == 0 {
        return Err(Error::corrupt("Requested bitmap directory size is zero"));
    }
    // No allocation beyond what the file holds: past its end there is no valid entry.
    let there = storage.len()?.saturating_sub(extension.directory_offset);
    if len > there.next_multiple_of(8) {
        return Err(Error::corrupt("Bitmap '' doesn't satisfy the constraints")
            .with_offset(extension.directory_offset));
    }
    let mut bytes = memory::zeroed(len as usize)?;
    storage.read_at(&mut bytes, extension.directory_offset)?;
    let entries = BitmapEntry::parse_directory(&bytes, extension.count)?;
    for entry in &entries {
        entry.validate(size, cluster)?;
    }
    Ok(entries)
}

/// An entry of a bitmap table: a cluster of bits, or bits that are all equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BitmapTableEntry(pub u64);

impl BitmapTableEntry {
    /// All bits are ones.
    pub const ONES: Self = Self(1);
    /// The offset of the cluster.
    pub const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
    /// Bits that must be 0; bit 0 as well if there is an offset.
    pub const RESERVED_MASK: u64 = 0xff00_0000_0000_01fe;

    /// From the bytes of the table.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }

    /// The bytes for the table.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// The offset of the cluster of bits; 0 if all bits are equal.
    pub fn offset(self) -> u64 {
        self.0 & Self::OFFSET_MASK
    }

    /// Without an offset: whether all bits are ones rather than zeroes.
    pub fn all_ones(self) -> bool {
        self.offset() == 0 && self.0 & 1 != 0
    }

    /// Whether a bit is set that must be 0.
    pub fn has_reserved_bits(self) -> bool {
        self.0 & Self::RESERVED_MASK != 0 || (self.offset() != 0 && self.0 & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> BitmapEntry {
        BitmapEntry {
            table_offset: 0x50000,
            table_entries: 1,
            flags: BitmapFlags::AUTO,
            kind: 1,
            granularity_bits: 16,
            name: b"bitmap0".to_vec(),
            extra: Vec::new(),
        }
    }

    #[test]
    fn directories_round_trip() {
        let mut second = sample();
        second.extra = vec![1, 2, 3];
        second.name = b"x".to_vec();
        let mut bytes = Vec::new();
        sample().write_to(&mut bytes);
        second.write_to(&mut bytes);
        assert_eq!(
            BitmapEntry::parse_directory(&bytes, 2).unwrap(),
            [sample(), second]
        );
        assert!(BitmapEntry::parse_directory(&bytes, 3).is_err());
        assert!(BitmapEntry::parse_directory(&bytes[..40], 1).is_err());
    }

    #[test]
    fn constraints() {
        let size = 64 << 20;
        assert!(sample().validate(size, 65536).is_ok());
        let mut bad = sample();
        bad.granularity_bits = 200;
        assert_eq!(
            bad.validate(size, 65536).unwrap_err().to_string(),
            "Bitmap 'bitmap0' doesn't satisfy the constraints"
        );
        let mut bad = sample();
        bad.table_entries = 2;
        assert!(bad.validate(size, 65536).is_err());
        bad.flags |= BitmapFlags::IN_USE;
        assert!(bad.validate(size, 65536).is_ok());
    }

    #[test]
    fn table_entries() {
        assert!(BitmapTableEntry(1).all_ones());
        assert!(!BitmapTableEntry(1).has_reserved_bits());
        assert!(BitmapTableEntry(0x50001).has_reserved_bits());
        assert_eq!(BitmapTableEntry(0x50000).offset(), 0x50000);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), count: u32, size: u64) {
            if let Ok(entries) = BitmapEntry::parse_directory(&bytes, count) {
                for entry in entries {
                    let _ = entry.validate(size, 65536);
                }
            }
            if let Some((entry, len)) = BitmapEntry::from_bytes(&bytes) {
                let _ = entry.validate(size, 512);
                prop_assert!(len <= bytes.len());
            }
        }
    }
}
