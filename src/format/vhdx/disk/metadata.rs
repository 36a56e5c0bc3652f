//! The metadata region (section 2.6): a table of items, and the items.

use uuid::{Uuid, uuid};

use crate::bytes::{array, le16, le32, le64};
use crate::error::{Error, Result};
use crate::memory;
use crate::storage::{Storage, read_exact_at};

use super::locator::Locator;
use super::region::Region;

/// Length of the table, which is followed by the items.
const METADATA_TABLE_LEN: usize = 64 << 10;

const SIGNATURE: &[u8; 8] = b"metadata";
const HEADER_LEN: usize = 32;
/// Offset in the table of its number of entries.
const COUNT_AT: usize = 10;
const ENTRY_LEN: usize = 32;
const MAX_ENTRIES: usize = 2047;
/// Maximum length of an item.
const MAX_ITEM: u32 = 1 << 20;

const FILE_PARAMETERS: Uuid = uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b");
const DISK_SIZE: Uuid = uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8");
const DISK_ID: Uuid = uuid!("beca12ab-b2e6-4523-93ef-c309e000c746");
const LOGICAL_SECTOR: Uuid = uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f");
const PHYSICAL_SECTOR: Uuid = uuid!("cda348c7-445d-4471-9cc9-e9885251c556");
const PARENT_LOCATOR: Uuid = uuid!("a8d35f2d-b30b-454d-abf7-d3d84834ab0c");

const IS_DISK: u32 = 2;
const IS_REQUIRED: u32 = 4;

const LEAVE_ALLOCATED: u32 = 1;
const HAS_PARENT: u32 = 2;

/// The contents of the items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Items {
    /// Size of a payload block in bytes.
    pub(in super::super) block_size: u32,
    /// Blocks stay allocated: a fixed disk.
    pub(in super::super) leave_allocated: bool,
    /// What is not in this file is in the parent.
    pub(in super::super) has_parent: bool,
    /// Size of the disk in bytes.
    pub(in super::super) size: u64,
    /// The identity of the disk; the parent has the same.
    pub(in super::super) disk_id: Uuid,
    /// Size of a logical sector in bytes.
    pub(in super::super) logical_sector: u32,
    /// Size of a physical sector in bytes, a hint for the guest.
    pub(in super::super) physical_sector: u32,
    /// Where to find the parent.
    pub(in super::super) locator: Option<Locator>,
}

/// An item, and its position relative to the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Item {
    id: Uuid,
    /// Its offset.
    pub(in super::super) offset: u32,
    /// Its length in bytes.
    pub(in super::super) len: u32,
    flags: u32,
}

impl Items {
    /// The second word of the file parameters.
    fn flags(&self) -> u32 {
        let leave = if self.leave_allocated {
            LEAVE_ALLOCATED
        } else {
            0
        };
        let parent = if self.has_parent { HAS_PARENT } else { 0 };
        leave | parent
    }
}

impl Item {
    /// Its entry in the table.
    fn to_bytes(self) -> [u8; ENTRY_LEN] {
        let mut entry = [0; ENTRY_LEN];
        entry[..16].copy_from_slice(&self.id.to_bytes_le());
        entry[16..20].copy_from_slice(&self.offset.to_le_bytes());
        entry[20..24].copy_from_slice(&self.len.to_le_bytes());
        entry[24..28].copy_from_slice(&self.flags.to_le_bytes());
        entry
    }
}

/// The region: its items and their positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Metadata {
    /// The contents of the items.
    pub(in super::super) items: Items,
    /// The entries of the table, in their order.
    table: Vec<Item>,
}

/// Offset in the region, and the bytes to write there.
pub(in super::super) type Patch = (u64, Vec<u8>);

impl Metadata {
    /// Reads the region.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] for an unknown item that is required, [`crate::ErrorKind::Corrupt`] for
    /// invalid metadata; if I/O fails.
    pub(in super::super) fn read(storage: &dyn Storage, region: Region) -> Result<Self> {
        let table = read_table(storage, region)?;
        let read = |id: Uuid, what: &str, least: u32| -> Result<memory::IoBuf> {
            let item = table.iter().find(|item| item.id == id);
            let item = item.filter(|item| item.len >= least).ok_or_else(|| {
                Error::corrupt(format!("The VHDX metadata has no {what}"))
                    .with_offset(region.offset)
            })?;
            let mut bytes = memory::zeroed(item.len as usize)?;
            read_exact_at(
                storage,
                &mut bytes,
                region.offset.saturating_add(u64::from(item.offset)),
            )?;
            Ok(bytes)
        };
        let number = |id, what| read(id, what, 4).map(|bytes| le32(&bytes, 0).unwrap_or(0));
        let parameters = read(FILE_PARAMETERS, "file parameters", 8)?;
        let flags = le32(&parameters, 4).unwrap_or(0);
        let has_parent = flags & HAS_PARENT != 0;
        let id = read(DISK_ID, "disk identifier", 16)?;
        let items = Items {
            block_size: le32(&parameters, 0).unwrap_or(0),
            leave_allocated: flags & LEAVE_ALLOCATED != 0,
            has_parent,
            size: le64(&read(DISK_SIZE, "disk size", 8)?, 0).unwrap_or(0),
            disk_id: Uuid::from_bytes_le(array(&id, 0).unwrap_or_default()),
            logical_sector: number(LOGICAL_SECTOR, "logical sector size")?,
            physical_sector: number(PHYSICAL_SECTOR, "physical sector size")?,
            locator: match has_parent {
                true => Some(Locator::from_bytes(&read(
                    PARENT_LOCATOR,
                    "parent locator",
                    20,
                )?)?),
                false => None,
            },
        };
        Ok(Self { items, table })
    }

    /// The metadata of a new image.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if the name of the parent is too long.
    pub(in super::super) fn new(items: Items) -> Result<Self> {
        let mut table = Vec::new();
        let mut end = METADATA_TABLE_LEN as u32;
        let locator = items.locator.as_ref().map(Locator::to_bytes).transpose()?;
        let fixed = [
            (FILE_PARAMETERS, 8, IS_REQUIRED),
            (DISK_SIZE, 8, IS_REQUIRED | IS_DISK),
            (DISK_ID, 16, IS_REQUIRED | IS_DISK),
            (LOGICAL_SECTOR, 4, IS_REQUIRED | IS_DISK),
            (PHYSICAL_SECTOR, 4, IS_REQUIRED | IS_DISK),
        ];
        let locator = locator.map(|bytes| (PARENT_LOCATOR, bytes.len() as u32, IS_REQUIRED));
        for (id, len, flags) in fixed.into_iter().chain(locator) {
            if len > MAX_ITEM - METADATA_TABLE_LEN as u32 - 4096 {
                return Err(Error::backing_name_too_long());
            }
            table.push(Item {
                id,
                offset: end,
                len,
                flags,
            });
            end += len;
        }
        Ok(Self { items, table })
    }

    /// The bytes at the beginning of the region: the table, followed by the items in the order of the table. Only for a
    /// region that was created here.
    ///
    /// # Errors
    /// As [`Metadata::new`].
    pub(in super::super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let items = &self.items;
        let mut bytes = memory::filled(METADATA_TABLE_LEN, 0)?;
        bytes[..8].copy_from_slice(SIGNATURE);
        bytes[COUNT_AT..COUNT_AT + 2].copy_from_slice(&(self.table.len() as u16).to_le_bytes());
        for (place, item) in bytes[HEADER_LEN..]
            .chunks_exact_mut(ENTRY_LEN)
            .zip(&self.table)
        {
            place.copy_from_slice(&item.to_bytes());
        }
        bytes.extend_from_slice(&items.block_size.to_le_bytes());
        bytes.extend_from_slice(&items.flags().to_le_bytes());
        bytes.extend_from_slice(&items.size.to_le_bytes());
        bytes.extend_from_slice(&items.disk_id.to_bytes_le());
        bytes.extend_from_slice(&items.logical_sector.to_le_bytes());
        bytes.extend_from_slice(&items.physical_sector.to_le_bytes());
        if let Some(locator) = &items.locator {
            bytes.extend_from_slice(&locator.to_bytes()?);
        }
        Ok(bytes)
    }

    /// The same items with another parent or none, and what to write where in a region of this length. The new locator
    /// does not overwrite anything that is still valid; the other patches have to be applied atomically.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if there is no space.
    pub(in super::super) fn with_parent(
        &self,
        region_len: u32,
        locator: Option<Locator>,
    ) -> Result<(Vec<Patch>, Self)> {
        let mut new = self.clone();
        let mut patches = Vec::new();
        let bytes = locator.as_ref().map(Locator::to_bytes).transpose()?;
        let index = self.table.iter().position(|item| item.id == PARENT_LOCATOR);
        match (bytes, index) {
            (None, None) => {}
            (None, Some(index)) => {
                new.table.swap_remove(index);
            }
            (Some(bytes), index) => {
                let item = Item {
                    id: PARENT_LOCATOR,
                    offset: self.room_for(bytes.len() as u64, region_len)?,
                    len: bytes.len() as u32,
                    flags: IS_REQUIRED,
                };
                patches.push((u64::from(item.offset), bytes));
                if index.is_none() && new.table.len() >= MAX_ENTRIES {
                    return Err(Error::invalid("The VHDX metadata table is full"));
                }
                match index.and_then(|index| new.table.get_mut(index)) {
                    Some(old) => *old = item,
                    None => new.table.push(item),
                }
            }
        }
        let old = self.table.iter().map(Some).chain(std::iter::repeat(None));
        let places = new.table.iter().map(Some).chain(std::iter::repeat(None));
        let count = self.table.len().max(new.table.len());
        for ((index, old), item) in (0..count).zip(old).zip(places) {
            if old != item {
                let entry = item.map_or([0; ENTRY_LEN], |item| item.to_bytes());
                patches.push(((HEADER_LEN + index * ENTRY_LEN) as u64, entry.to_vec()));
            }
        }
        patches.push((
            COUNT_AT as u64,
            (new.table.len() as u16).to_le_bytes().to_vec(),
        ));
        if self.items.has_parent != locator.is_some() {
            new.items.has_parent = locator.is_some();
            // A fixed disk has no parent, and a disk that had one is not fixed.
            new.items.leave_allocated = false;
            let place = self.place(FILE_PARAMETERS);
            let place = place.ok_or_else(|| Error::corrupt("A VHDX without file parameters"))?;
            let flags = new.items.flags().to_le_bytes().to_vec();
            patches.push((u64::from(place.offset) + 4, flags));
        }
        new.items.locator = locator;
        Ok((patches, new))
    }

    /// Finds space after the table for an item of this length.
    fn room_for(&self, len: u64, region_len: u32) -> Result<u32> {
        let items = self.table.iter().map(|item| (item.offset, item.len));
        let mut used: Vec<(u32, u32)> = items.collect();
        used.sort_unstable();
        let mut offset = METADATA_TABLE_LEN as u32;
        for (start, used_len) in used {
            if u64::from(start) >= u64::from(offset) + len {
                break;
            }
            offset = offset.max(start.saturating_add(used_len));
        }
        match u64::from(offset) + len <= u64::from(region_len) {
            true => Ok(offset),
            false => Err(Error::backing_name_too_long()),
        }
    }

    /// Offset of the disk size in the region.
    pub(in super::super) fn size_place(&self) -> Option<u32> {
        self.place(DISK_SIZE).map(|item| item.offset)
    }

    /// The parent locator's position.
    pub(in super::super) fn locator_place(&self) -> Option<Item> {
        self.place(PARENT_LOCATOR)
    }

    fn place(&self, id: Uuid) -> Option<Item> {
        self.table.iter().copied().find(|item| item.id == id)
    }
}

fn read_table(storage: &dyn Storage, region: Region) -> Result<Vec<Item>> {
    let bad = |what: &str| {
        Error::corrupt(format!("The VHDX metadata table {what}")).with_offset(region.offset)
    };
    let mut bytes = memory::filled(METADATA_TABLE_LEN, 0)?;
    read_exact_at(storage, &mut bytes, region.offset)?;
    if !bytes.starts_with(SIGNATURE) {
        return Err(bad("has no signature"));
    }
    let count = usize::from(le16(&bytes, COUNT_AT).unwrap_or(0));
    if count > MAX_ENTRIES {
        return Err(bad("has too many entries"));
    }
    let mut table = Vec::new();
    let known = [
        FILE_PARAMETERS,
        DISK_SIZE,
        DISK_ID,
        LOGICAL_SECTOR,
        PHYSICAL_SECTOR,
        PARENT_LOCATOR,
    ];
    let entries = bytes
        .get(HEADER_LEN..)
        .unwrap_or_default()
        .chunks_exact(ENTRY_LEN);
    for entry in entries.take(count) {
        let (Some(id), Some(offset), Some(len), Some(flags)) = (
            array(entry, 0),
            le32(entry, 16),
            le32(entry, 20),
            le32(entry, 24),
        ) else {
            return Err(bad("is cut off"));
        };
        let item = Item {
            id: Uuid::from_bytes_le(id),
            offset,
            len,
            flags,
        };
        let id = item.id;
        let is_known = known.contains(&id);
        if !is_known && flags & IS_REQUIRED != 0 {
            return Err(Error::unsupported(format!(
                "Unknown VHDX metadata item {id} that is required"
            )));
        }
        if is_known && table.iter().any(|other: &Item| other.id == id) {
            return Err(bad(&format!("has the item {id} twice")));
        }
        let behind_table = offset as usize >= METADATA_TABLE_LEN;
        let inside = u64::from(offset) + u64::from(len) <= u64::from(region.len);
        if (!behind_table && len > 0) || !inside || is_known && len > MAX_ITEM {
            return Err(bad(&format!(
                "places the item {id} at {offset}, {len} bytes long"
            )));
        }
        table.push(item);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    fn items() -> Items {
        Items {
            block_size: 1 << 20,
            leave_allocated: false,
            has_parent: true,
            size: 5 << 20,
            disk_id: Uuid::from_u128(5),
            logical_sector: 512,
            physical_sector: 4096,
            locator: Some(Locator {
                kind: super::super::VHDX_PARENT,
                pairs: vec![("relative_path".into(), "base".into())],
            }),
        }
    }

    fn read(mut bytes: Vec<u8>) -> Result<Metadata> {
        bytes.resize(1 << 20, 0);
        let region = Region {
            offset: 0,
            len: 1 << 20,
        };
        Metadata::read(&MemoryStorage::with_bytes("m", bytes), region)
    }

    #[test]
    fn items_are_read_as_they_were_written() {
        let new = Metadata::new(items()).unwrap();
        assert_eq!(read(new.to_bytes().unwrap()).unwrap(), new);
        let alone = Items {
            has_parent: false,
            locator: None,
            ..items()
        };
        let new = Metadata::new(alone).unwrap();
        assert_eq!(read(new.to_bytes().unwrap()).unwrap(), new);
    }

    #[test]
    fn a_parent_comes_and_goes_and_comes_back() {
        let mut bytes = Metadata::new(items()).unwrap().to_bytes().unwrap();
        bytes.resize(1 << 20, 0);
        let mut metadata = read(bytes.clone()).unwrap();
        let name = |name: &str| Locator {
            kind: super::super::VHDX_PARENT,
            pairs: vec![("relative_path".into(), name.into())],
        };
        for locator in [
            Some(name("other")),
            None,
            None,
            Some(name("a longer name")),
            Some(name("b")),
        ] {
            let (patches, new) = metadata.with_parent(1 << 20, locator.clone()).unwrap();
            for (at, patch) in patches {
                bytes[at as usize..][..patch.len()].copy_from_slice(&patch);
            }
            metadata = read(bytes.clone()).unwrap();
            assert_eq!(metadata, new);
            assert_eq!(metadata.items.has_parent, locator.is_some());
            assert_eq!(metadata.items.locator, locator);
        }
        let long = name(&"x".repeat(500_000));
        metadata.with_parent(1 << 20, Some(long)).unwrap_err();
    }

    #[test]
    fn what_is_missing_unknown_and_required_or_out_of_place_is_refused() {
        let good = Metadata::new(items()).unwrap().to_bytes().unwrap();
        for index in 0..6 {
            let at = HEADER_LEN + index * ENTRY_LEN;
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            assert_eq!(
                read(bytes).unwrap_err().kind(),
                crate::ErrorKind::Unsupported
            );
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes[at + 24] = 0;
            read(bytes).unwrap_err();
            let mut bytes = good.clone();
            bytes[at + 18] = 0;
            read(bytes).unwrap_err();
            let mut bytes = good.clone();
            bytes[at + 23] = 0xff;
            read(bytes).unwrap_err();
        }
        let mut bytes = good.clone();
        bytes[10] = 0xff;
        bytes[11] = 0xff;
        read(bytes).unwrap_err();
        let mut bytes = good;
        bytes[0] = 0;
        read(bytes).unwrap_err();
    }
}
