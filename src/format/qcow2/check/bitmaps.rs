//! Checking bitmaps: they are counted, and dropped if they cannot be trusted.
//!
//! A lost bitmap costs its user a full backup; a wrong one costs data.

use crate::error::{Error, ErrorKind, Result};
use crate::format::qcow2::disk::{
    Autoclear, BitmapEntry, BitmapTableEntry, BitmapsExtension, Extension, ImageHeader,
    read_bitmap_directory,
};
use crate::format::qcow2::header_change;
use crate::memory::{self, IoBuf};
use crate::storage::{Durability, Storage};

use super::report::Findings;
use super::walk::{CheckedFile, Walker};

/// Bitmap tables are read in pieces of this many bytes.
const PIECE: u64 = 1 << 20;
/// Offset of the autoclear features in the header.
const AUTOCLEAR_AT: u64 = 88;

/// What a repair does to the bitmaps.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum BitmapRepair {
    /// Nothing: they are sound, or not examined.
    #[default]
    AsTheyAre,
    /// Keeps these.
    Keep(Vec<BitmapEntry>),
    /// Drops all of them.
    DropAll,
}

impl BitmapRepair {
    /// Looks for bitmaps that cannot be used, and reports that they will be removed.
    ///
    /// # Errors
    /// If I/O fails.
    pub fn survey(
        layout: CheckedFile<'_>,
        header: &ImageHeader,
        findings: &mut Findings<'_>,
    ) -> Result<Self> {
        let Some(extension) = header.consistent_bitmaps() else {
            return Ok(Self::AsTheyAre);
        };
        let Some(entries) = read_directory(layout, &extension)? else {
            findings.report.corruptions_fixed += 1;
            findings.note(|| {
                "Repairing bitmap directory: it is damaged; all bitmaps are removed".to_owned()
            });
            return Ok(Self::DropAll);
        };
        let found = entries.len();
        let mut kept = Vec::new();
        for entry in entries {
            let why = match entry.validate(header.header.size, layout.geometry.cluster_size()) {
                Err(error) => Some(error.message().to_owned()),
                Ok(()) if !table_is_sound(layout, &entry)? => {
                    Some("its table is damaged".to_owned())
                }
                Ok(()) => None,
            };
            match why {
                None => kept.push(entry),
                Some(why) => {
                    findings.report.corruptions_fixed += 1;
                    findings.note(|| {
                        format!(
                            "Repairing bitmap '{}': {why}; the bitmap is removed",
                            entry.name_text()
                        )
                    });
                }
            }
        }
        let counted = extension.count as usize;
        if found != counted {
            findings.report.corruptions_fixed += 1;
            findings
                .note(|| format!("Repairing number of bitmaps: {counted}, but {found} were found"));
        }
        Ok(if kept.is_empty() {
            Self::DropAll
        } else if kept.len() == found && found == counted {
            Self::AsTheyAre
        } else {
            Self::Keep(kept)
        })
    }

    /// Counts the bitmap directory, the tables and their clusters.
    ///
    /// # Errors
    /// If they are damaged and not repaired, or if I/O fails.
    pub fn count(&self, walker: &mut Walker<'_, '_>, header: &ImageHeader) -> Result<()> {
        let Some(extension) = header.consistent_bitmaps() else {
            return Ok(());
        };
        match self {
            Self::DropAll => Ok(()),
            Self::Keep(entries) => {
                walker.refer(extension.directory_offset, directory(entries).len() as u64);
                count_tables(walker, entries)
            }
            Self::AsTheyAre => {
                walker.refer(extension.directory_offset, extension.directory_size);
                let cluster = walker.layout.geometry.cluster_size();
                let size = header.header.size;
                let entries =
                    read_bitmap_directory(walker.layout.storage, &extension, size, cluster)
                        .map_err(|error| match error.kind() {
                            ErrorKind::Os => error,
                            _ => damaged(error.message()),
                        })?;
                count_tables(walker, &entries)
            }
        }
    }

    /// Writes the change. The bitmaps are marked as inconsistent in the meantime, so that a crash leaks them at worst.
    /// `alone`: nothing else is stored where the directory is.
    ///
    /// # Errors
    /// If I/O fails.
    pub fn write(
        &self,
        storage: &dyn Storage,
        image: &mut ImageHeader,
        alone: bool,
        durability: Durability,
    ) -> Result<()> {
        let (Some(extension), false) = (image.consistent_bitmaps(), *self == Self::AsTheyAre)
        else {
            return Ok(());
        };
        let on = image.header.autoclear;
        write_autoclear(storage, image, on - Autoclear::BITMAPS)?;
        storage.sync(durability)?;
        let kept = match self {
            Self::Keep(entries) if alone => entries.as_slice(),
            _ => &[],
        };
        let mut bytes = directory(kept);
        let new = (!kept.is_empty()).then_some(BitmapsExtension {
            count: kept.len() as u32,
            directory_size: bytes.len() as u64,
            ..extension
        });
        if new.is_some() {
            bytes.resize(bytes.len().max(extension.directory_size as usize), 0);
            storage.write_at(&bytes, extension.directory_offset)?;
        }
        replace_extension(storage, image, new, durability)?;
        storage.sync(durability)?;
        if new.is_some() {
            write_autoclear(storage, image, on)?;
            storage.sync(durability)?;
        }
        Ok(())
    }

    /// Offset and length of the directory, if it is rewritten to keep some bitmaps.
    pub fn rewritten(&self, header: &ImageHeader) -> Option<(u64, u64)> {
        let extension = header.consistent_bitmaps()?;
        matches!(self, Self::Keep(_))
            .then_some((extension.directory_offset, extension.directory_size))
    }
}

/// The error if the check cannot continue; with the errno of QEMU's message.
fn damaged(what: &str) -> Error {
    Error::corrupt(what).with_errno(libc::EINVAL)
}

fn directory(entries: &[BitmapEntry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        entry.write_to(&mut bytes);
    }
    bytes
}

fn write_autoclear(storage: &dyn Storage, image: &mut ImageHeader, bits: Autoclear) -> Result<()> {
    storage.write_at(&bits.bits().to_be_bytes(), AUTOCLEAR_AT)?;
    image.header.autoclear = bits;
    Ok(())
}

/// Writes the header with another bitmaps extension, or without one.
fn replace_extension(
    storage: &dyn Storage,
    image: &mut ImageHeader,
    new: Option<BitmapsExtension>,
    durability: Durability,
) -> Result<()> {
    let mut changed = image.clone();
    changed
        .extensions
        .retain_mut(|extension| match (extension, new) {
            (Extension::Bitmaps(held), Some(new)) => {
                *held = new;
                true
            }
            (Extension::Bitmaps(_), None) => false,
            _ => true,
        });
    header_change::replace(storage, image, changed, &|| storage.sync(durability))
}

/// The entries of the directory; None if it is not a valid one.
fn read_directory(
    layout: CheckedFile<'_>,
    extension: &BitmapsExtension,
) -> Result<Option<Vec<BitmapEntry>>> {
    let (offset, len) = (extension.directory_offset, extension.directory_size);
    let there = layout.file_len.saturating_sub(offset);
    if len == 0 || len > there.next_multiple_of(8) {
        return Ok(None);
    }
    let mut bytes = memory::zeroed(len as usize)?;
    layout.storage.read_at(&mut bytes, offset)?;
    BitmapEntry::check_headroom(len)?;
    let mut entries = Vec::new();
    let mut rest: &[u8] = &bytes;
    while !rest.is_empty() {
        let Some((entry, len)) = BitmapEntry::from_bytes(rest) else {
            return Ok(None);
        };
        memory::push(&mut entries, entry)?;
        rest = rest.get(len..).unwrap_or_default();
    }
    Ok(Some(entries))
}

/// Calls `visit` with the entries of a bitmap's table that lie in the file, piece by piece.
fn for_table(
    layout: CheckedFile<'_>,
    bitmap: &BitmapEntry,
    mut visit: impl FnMut(&[BitmapTableEntry]) -> Result<bool>,
) -> Result<()> {
    let bytes = u64::from(bitmap.table_entries) * 8;
    let there = layout.file_len.saturating_sub(bitmap.table_offset);
    let bytes = bytes.min(there.next_multiple_of(8));
    let mut piece = IoBuf::new();
    let mut at = 0;
    while at < bytes {
        let len = (bytes - at).min(PIECE);
        piece.room(len as usize)?;
        layout
            .storage
            .read_at(&mut piece, bitmap.table_offset + at)?;
        let entries: Vec<_> = piece
            .chunks_exact(8)
            .filter_map(|word| word.try_into().ok())
            .map(BitmapTableEntry::from_bytes)
            .collect();
        if !visit(&entries)? {
            break;
        }
        at += len;
    }
    Ok(())
}

fn is_damaged(entry: BitmapTableEntry, layout: CheckedFile<'_>) -> bool {
    entry.has_reserved_bits() || layout.geometry.in_cluster(entry.offset()) != 0
}

/// Whether a bitmap's table and everything that it refers to lie in the file.
fn table_is_sound(layout: CheckedFile<'_>, bitmap: &BitmapEntry) -> Result<bool> {
    let cluster = layout.geometry.cluster_size();
    let end = layout.file_len.next_multiple_of(cluster);
    let len = u64::from(bitmap.table_entries) * 8;
    let mut sound = bitmap
        .table_offset
        .checked_add(len)
        .is_some_and(|table_end| table_end <= end);
    if sound {
        for_table(layout, bitmap, |entries| {
            sound = !entries
                .iter()
                .any(|entry| is_damaged(*entry, layout) || entry.offset() >= end);
            Ok(sound)
        })?;
    }
    Ok(sound)
}

fn count_tables(walker: &mut Walker<'_, '_>, entries: &[BitmapEntry]) -> Result<()> {
    let layout = walker.layout;
    let cluster = layout.geometry.cluster_size();
    for bitmap in entries {
        walker.refer(bitmap.table_offset, u64::from(bitmap.table_entries) * 8);
        for_table(layout, bitmap, |entries| {
            for entry in entries {
                if is_damaged(*entry, layout) {
                    return Err(damaged(&format!(
                        "The table of bitmap '{}' is damaged",
                        bitmap.name_text()
                    )));
                }
                if entry.offset() != 0 {
                    walker.refer(entry.offset(), cluster);
                }
            }
            walker.findings.advance(entries.len() as u64 * 8)?;
            Ok(!walker.given_up())
        })?;
    }
    Ok(())
}
