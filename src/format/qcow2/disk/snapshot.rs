//! The snapshot table (specification: "Snapshots").

use crate::bytes::{be16, be32, be64};
use crate::error::{Error, ErrorKind, Result};
use crate::memory;
use crate::storage::Storage;

use super::header::Header;

/// Length of an entry up to its extra data.
const FIXED_LEN: usize = 40;
/// Maximum length of the extra data, in bytes.
const MAX_EXTRA: u32 = 1024;
/// Length of the known extra data, in bytes.
const KNOWN_EXTRA: u32 = 24;
/// Maximum size of the snapshot table, in bytes; QEMU's tools refuse larger ones too.
pub const MAX_SNAPSHOT_TABLE: u64 = 64 << 20;
/// Tables with up to this many entries cannot be larger than that.
const FEW: u32 = 256;
/// Memory that an entry takes besides its names, in bytes.
const IN_MEMORY: u64 = 256;
/// Number of copies of a table's bytes that exist besides the entries: for a list of their names, or for the next
/// table.
const COPIES: u64 = 2;
/// The table is read in pieces of this many bytes.
const CHUNK: usize = 64 << 10;

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SnapshotEntry {
    /// Offset of its L1 table.
    pub l1_offset: u64,
    /// Number of entries of its L1 table.
    pub l1_entries: u32,
    /// Its ID.
    pub id: Vec<u8>,
    /// Its name.
    pub name: Vec<u8>,
    /// Seconds since the epoch.
    pub date_sec: u32,
    /// Additional nanoseconds.
    pub date_nsec: u32,
    /// Guest clock in nanoseconds.
    pub vm_clock_nsec: u64,
    /// Size of the VM state in bytes, from the 32-bit field.
    pub vm_state_size_32: u32,
    /// The extra data.
    pub extra: SnapshotExtra,
}

/// The contents of an entry's extra data; each field is present only if the extra data is long enough.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SnapshotExtra {
    /// Size of the VM state in bytes.
    pub vm_state_size: Option<u64>,
    /// Virtual size in bytes.
    pub disk_size: Option<u64>,
    /// Instruction count; the file holds -1 if there is none.
    pub icount: Option<u64>,
    /// Bytes beyond the known fields, kept as they are.
    pub rest: Vec<u8>,
}

impl SnapshotEntry {
    /// Size of the VM state in bytes, from the wider field if it is present.
    pub fn vm_state_size(&self) -> u64 {
        self.extra
            .vm_state_size
            .unwrap_or(u64::from(self.vm_state_size_32))
    }

    /// Whether it has the fields that version 3 requires.
    pub fn is_complete(&self) -> bool {
        self.extra.vm_state_size.is_some() && self.extra.disk_size.is_some()
    }

    /// Adds the missing fields, with the values that their absence implies; `size` is the virtual size of the image.
    pub fn complete(&mut self, size: u64) {
        let vm_state_size = self.vm_state_size();
        let extra = &mut self.extra;
        if extra.icount.is_none() {
            // Extra data that is shorter than the known fields has no unknown part.
            extra.rest.clear();
        }
        extra.vm_state_size = Some(vm_state_size);
        extra.disk_size.get_or_insert(size);
        extra.icount.get_or_insert(u64::MAX);
    }

    /// The instruction count, if one was recorded.
    pub fn icount(&self) -> Option<u64> {
        self.extra.icount.filter(|&n| n != u64::MAX)
    }

    /// The entry at the start of `bytes`, and its length with padding. If `bytes` ends before the entry does, the
    /// length needed instead, as far as it is known.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] for extra data that exceeds the limit.
    pub fn from_bytes(bytes: &[u8]) -> Result<std::result::Result<(Self, usize), usize>> {
        let (Some(id_len), Some(name_len), Some(extra_len)) =
            (be16(bytes, 12), be16(bytes, 14), be32(bytes, 36))
        else {
            return Ok(Err(FIXED_LEN));
        };
        if extra_len > MAX_EXTRA {
            return Err(Error::corrupt(
                "Too much extra metadata in snapshot table entry",
            ));
        }
        let id_at = FIXED_LEN + extra_len as usize;
        let name_at = id_at + usize::from(id_len);
        let end = name_at + usize::from(name_len);
        let padded = end.next_multiple_of(8);
        let fields = (
            be64(bytes, 0),
            be32(bytes, 8),
            be32(bytes, 16),
            be32(bytes, 20),
            be64(bytes, 24),
            be32(bytes, 32),
            bytes.get(FIXED_LEN..id_at),
            bytes.get(id_at..name_at),
            bytes.get(name_at..end),
        );
        let (
            Some(l1_offset),
            Some(l1_entries),
            Some(date_sec),
            Some(date_nsec),
            Some(vm_clock_nsec),
            Some(vm_state_size_32),
            Some(extra),
            Some(id),
            Some(name),
        ) = fields
        else {
            return Ok(Err(padded));
        };
        let entry = Self {
            l1_offset,
            l1_entries,
            id: memory::to_vec(id)?,
            name: memory::to_vec(name)?,
            date_sec,
            date_nsec,
            vm_clock_nsec,
            vm_state_size_32,
            extra: SnapshotExtra::from_bytes(extra)?,
        };
        Ok(Ok((entry, padded)))
    }

    /// Length of the entry in bytes, with padding.
    pub fn padded_len(&self) -> usize {
        let extra = &self.extra;
        let known = [extra.vm_state_size, extra.disk_size, extra.icount];
        let known = known.iter().map_while(|field| *field).count() * 8;
        let texts = self.id.len() + self.name.len();
        (FIXED_LEN + known + extra.rest.len() + texts).next_multiple_of(8)
    }

    /// Appends the entry, padded to a multiple of 8 bytes.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let extra = self.extra.to_bytes();
        out.extend_from_slice(&self.l1_offset.to_be_bytes());
        out.extend_from_slice(&self.l1_entries.to_be_bytes());
        out.extend_from_slice(&(self.id.len() as u16).to_be_bytes());
        out.extend_from_slice(&(self.name.len() as u16).to_be_bytes());
        out.extend_from_slice(&self.date_sec.to_be_bytes());
        out.extend_from_slice(&self.date_nsec.to_be_bytes());
        out.extend_from_slice(&self.vm_clock_nsec.to_be_bytes());
        out.extend_from_slice(&self.vm_state_size_32.to_be_bytes());
        out.extend_from_slice(&(extra.len() as u32).to_be_bytes());
        out.extend_from_slice(&extra);
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&self.name);
        out.resize(out.len().next_multiple_of(8), 0);
    }
}

impl SnapshotExtra {
    fn from_bytes(extra: &[u8]) -> Result<Self> {
        let rest = extra.get(extra.len().min(24) & !7..);
        Ok(Self {
            vm_state_size: be64(extra, 0),
            disk_size: be64(extra, 8),
            icount: be64(extra, 16),
            rest: memory::to_vec(rest.unwrap_or_default())?,
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for field in [self.vm_state_size, self.disk_size, self.icount] {
            let Some(value) = field else { break };
            out.extend_from_slice(&value.to_be_bytes());
        }
        out.extend_from_slice(&self.rest);
        out
    }
}

/// All snapshots of an image, in table order, and the length of the table in bytes.
///
/// Memory use follows the bytes that the file really holds, not the count in the header.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] if the table passes the end of the file or its limit, or if I/O fails.
pub fn read_snapshot_table(
    storage: &dyn Storage,
    header: &Header,
) -> Result<(Vec<SnapshotEntry>, u64)> {
    read_table(storage, header, false)
}

/// As [`read_snapshot_table`], for `check`: what lies past the end of the file reads as empty entries.
///
/// # Errors
/// As [`read_snapshot_table`].
pub fn read_damaged_snapshot_table(
    storage: &dyn Storage,
    header: &Header,
) -> Result<(Vec<SnapshotEntry>, u64)> {
    read_table(storage, header, true)
}

/// What was read from a snapshot table that may exceed its limits.
#[derive(Debug, Default)]
pub struct SalvagedSnapshots {
    /// The entries that exist; those with too much extra data have only the known fields.
    pub entries: Vec<SnapshotEntry>,
    /// Length of the table in bytes.
    pub table_len: u64,
    /// Indexes of entries with too much extra data, and its length.
    pub trimmed: Vec<(u32, u32)>,
    /// Number of entries that the header counts beyond the end of the file.
    pub missing: u32,
    /// Number of entries that the header counts beyond the limit.
    pub over: u32,
    /// Number of entries with which the table would exceed its size limit.
    pub too_big: u32,
}

/// Reads, for a repair, what is usable of a table with too many entries, too much extra data, or an end past that of
/// the file.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] if the table's offset is not usable, or if I/O fails.
pub fn salvage_snapshot_table(storage: &dyn Storage, header: &Header) -> Result<SalvagedSnapshots> {
    let mut header = header.clone();
    let limit = super::header::MAX_SNAPSHOTS;
    let mut found = SalvagedSnapshots {
        over: header.snapshots.saturating_sub(limit),
        ..SalvagedSnapshots::default()
    };
    header.snapshots = header.snapshots.min(limit);
    header.validate_snapshot_table()?;
    memory::headroom(u64::from(header.snapshots) * IN_MEMORY)?;
    let file_len = storage.len()?;
    let start = header.snapshots_offset;
    let mut kept_len = 0;
    for index in 0..header.snapshots {
        let at = start.saturating_add(found.table_len);
        if at >= file_len {
            found.missing = header.snapshots - index;
            break;
        }
        let mut bytes = vec![0; FIXED_LEN];
        storage.read_at(&mut bytes, at)?;
        let extra_len = be32(&bytes, 36).unwrap_or(0);
        let texts = be16(&bytes, 12).map_or(0, u64::from) + be16(&bytes, 14).map_or(0, u64::from);
        let trim = extra_len > MAX_EXTRA;
        let kept = if trim { KNOWN_EXTRA } else { extra_len };
        kept_len += (FIXED_LEN as u64 + u64::from(kept) + texts).next_multiple_of(8);
        if kept_len > MAX_SNAPSHOT_TABLE {
            found.too_big = header.snapshots - index;
            break;
        }
        if trim {
            memory::push(&mut found.trimmed, (index, extra_len))?;
        }
        if let Some(field) = bytes.get_mut(36..FIXED_LEN) {
            field.copy_from_slice(&kept.to_be_bytes());
        }
        let known = FIXED_LEN + kept as usize;
        memory::resize(&mut bytes, known + texts as usize, 0)?;
        let texts_at = FIXED_LEN as u64 + u64::from(extra_len);
        if let Some((extra, names)) = bytes
            .get_mut(FIXED_LEN..)
            .and_then(|rest| rest.split_at_mut_checked(kept as usize))
        {
            storage.read_at(extra, at.saturating_add(FIXED_LEN as u64))?;
            storage.read_at(names, at.saturating_add(texts_at))?;
        }
        if let Ok((entry, _)) = SnapshotEntry::from_bytes(&bytes)? {
            memory::push(&mut found.entries, entry)?;
        }
        found.table_len += (texts_at + texts).next_multiple_of(8);
    }
    memory::headroom(COPIES * kept_len)?;
    Ok(found)
}

fn read_table(
    storage: &dyn Storage,
    header: &Header,
    zeroes_follow: bool,
) -> Result<(Vec<SnapshotEntry>, u64)> {
    header.validate_snapshot_table()?;
    let file_len = storage.len()?;
    if header.snapshots > FEW {
        check_length(storage, header, file_len)?;
    }
    memory::headroom(u64::from(header.snapshots) * IN_MEMORY)?;
    let mut found = Vec::new();
    let mut window = Vec::new();
    let mut at = 0usize;
    let start = header.snapshots_offset;
    let mut next = start;
    for index in 0..header.snapshots {
        let used = next - (window.len() - at) as u64 - start;
        loop {
            let rest = window.get(at..).unwrap_or_default();
            match SnapshotEntry::from_bytes(rest).map_err(|error| match error.kind() {
                ErrorKind::Corrupt => Error::corrupt(format!("{error} {index}"))
                    .with_hint("Repairing all removes this extra metadata"),
                _ => error,
            })? {
                Ok((entry, len)) => {
                    memory::push(&mut found, entry)?;
                    at = at.saturating_add(len);
                    if at > window.len() {
                        // The padding of the last entry may extend past what was read.
                        next = next.saturating_add((at - window.len()) as u64);
                        window.clear();
                        at = 0;
                    }
                    break;
                }
                Err(_) if next >= file_len && !zeroes_follow => {
                    return Err(Error::corrupt(format!(
                        "Snapshot table entry {index} is outside the file"
                    ))
                    .with_offset(start + used));
                }
                Err(_) => {
                    window.drain(..at);
                    at = 0;
                    let there = file_len.saturating_sub(next);
                    let len = if there == 0 { CHUNK as u64 } else { there };
                    let len = len.min(CHUNK as u64) as usize;
                    let old = window.len();
                    memory::resize(&mut window, old + len, 0)?;
                    storage.read_at(&mut window[old..], next)?;
                    next += len as u64;
                }
            }
        }
    }
    let size = next - (window.len() - at) as u64 - start;
    memory::headroom(COPIES * size)?;
    Ok((found, size))
}

/// Refuses a table that is too long before memory is allocated for it.
fn check_length(storage: &dyn Storage, header: &Header, file_len: u64) -> Result<()> {
    match overhanging(storage, header, file_len)? {
        0 => Ok(()),
        over => Err(Error::corrupt("Snapshot table is too big")
            .with_errno(libc::EFBIG)
            .with_hint(format!("Repairing all removes the last {over} snapshots"))),
    }
}

/// How many entries at the end of a table lie beyond its size limit.
///
/// # Errors
/// If I/O fails.
pub fn overhanging_snapshots(storage: &dyn Storage, header: &Header) -> Result<u32> {
    if header.snapshots <= FEW {
        return Ok(0);
    }
    overhanging(storage, header, storage.len()?)
}

/// Walks over the entries without storing them.
fn overhanging(storage: &dyn Storage, header: &Header, file_len: u64) -> Result<u32> {
    let start = header.snapshots_offset;
    let mut at = start;
    for index in 0..header.snapshots {
        let mut fixed = [0; FIXED_LEN];
        if at < file_len {
            storage.read_at(&mut fixed, at)?;
        }
        let id = u64::from(be16(&fixed, 12).unwrap_or(0));
        let name = u64::from(be16(&fixed, 14).unwrap_or(0));
        let extra = u64::from(be32(&fixed, 36).unwrap_or(0));
        let len = (FIXED_LEN as u64 + id + name + extra).next_multiple_of(8);
        at = at.saturating_add(len);
        if at.saturating_sub(start) > MAX_SNAPSHOT_TABLE {
            return Ok(header.snapshots - index);
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(rest: usize) -> SnapshotEntry {
        SnapshotEntry {
            l1_offset: 0x50000,
            l1_entries: 3,
            id: b"1".to_vec(),
            name: b"before upgrade".to_vec(),
            date_sec: 1_700_000_000,
            date_nsec: 5,
            vm_clock_nsec: 12_307_089_000_000,
            vm_state_size_32: 7,
            extra: SnapshotExtra {
                vm_state_size: Some(1 << 33),
                disk_size: Some(1 << 30),
                icount: Some(u64::MAX),
                rest: vec![0xab; rest],
            },
        }
    }

    #[test]
    fn entries_round_trip_with_unknown_extra_data() {
        for rest in [0, 1, 8, 13] {
            let entry = sample(rest);
            let mut bytes = Vec::new();
            entry.write_to(&mut bytes);
            assert_eq!(bytes.len() % 8, 0);
            assert_eq!(bytes.len(), entry.padded_len());
            let (back, len) = SnapshotEntry::from_bytes(&bytes).unwrap().unwrap();
            assert_eq!((back.clone(), len), (entry, bytes.len()));
            assert_eq!(back.vm_state_size(), 1 << 33);
            assert_eq!(back.icount(), None);
        }
    }

    #[test]
    fn short_extra_data_of_old_images() {
        let mut entry = sample(0);
        entry.extra = SnapshotExtra {
            vm_state_size: Some(9),
            rest: vec![1, 2, 3],
            ..SnapshotExtra::default()
        };
        let mut bytes = Vec::new();
        entry.write_to(&mut bytes);
        let (back, _) = SnapshotEntry::from_bytes(&bytes).unwrap().unwrap();
        assert_eq!(back, entry);
        entry.extra = SnapshotExtra::default();
        bytes.clear();
        entry.write_to(&mut bytes);
        let (back, _) = SnapshotEntry::from_bytes(&bytes).unwrap().unwrap();
        assert_eq!(back.vm_state_size(), 7);
    }

    #[test]
    fn fields_that_are_missing_are_completed_and_others_kept() {
        for (extra, rest) in [(0, 0), (8, 0), (12, 0), (16, 0), (20, 0), (24, 0), (30, 6)] {
            let mut bytes = Vec::new();
            sample(6).write_to(&mut bytes);
            let names = bytes.split_off(FIXED_LEN + 30);
            bytes.truncate(FIXED_LEN + extra);
            bytes[36..40].copy_from_slice(&(extra as u32).to_be_bytes());
            bytes.extend_from_slice(&names);
            let (mut entry, _) = SnapshotEntry::from_bytes(&bytes).unwrap().unwrap();
            assert_eq!(entry.is_complete(), extra >= 16, "{extra}");
            entry.complete(1 << 40);
            let expected = SnapshotExtra {
                vm_state_size: Some(if extra >= 8 { 1 << 33 } else { 7 }),
                disk_size: Some(if extra >= 16 { 1 << 30 } else { 1 << 40 }),
                icount: Some(u64::MAX),
                rest: vec![0xab; rest],
            };
            assert_eq!(entry.extra, expected, "{extra}");
            assert_eq!(entry.name, b"before upgrade");
        }
    }

    #[test]
    fn a_cut_entry_says_how_much_it_needs() {
        let mut bytes = Vec::new();
        sample(0).write_to(&mut bytes);
        assert_eq!(
            SnapshotEntry::from_bytes(&bytes[..40]).unwrap(),
            Err(bytes.len())
        );
        assert_eq!(SnapshotEntry::from_bytes(&bytes[..9]).unwrap(), Err(40));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Ok((entry, len))) = SnapshotEntry::from_bytes(&bytes) {
                let mut out = Vec::new();
                entry.write_to(&mut out);
                prop_assert_eq!(out.len(), len);
            }
        }
    }
}
