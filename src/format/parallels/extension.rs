//! The format extension ("Format Extension"): its contents, its location, and what becomes of it when the image
//! changes. It is not kept up to date.

use std::ops::Range;

use bstr::BString;
use md5::{Digest, Md5};
use uuid::Uuid;

use crate::bytes::{array, le32, le64};
use crate::error::{Error, Result};
use crate::memory;
use crate::policy::OpenPolicy;
use crate::size::SECTOR;
use crate::storage::{Storage, read_exact_at};

use super::disk::Header;

const MAGIC: u64 = 0xab23_4cef_23dc_ea87;
/// Bytes before the sections: the magic and the checksum.
const HEAD: usize = 24;
/// Length of the head of a section.
const SECTION: usize = 24;
/// The type of the section of a dirty bitmap, and where in its data the table of places begins.
const DIRTY_BITMAP: u64 = 0x2038_5fae_252c_b34a;
const BITMAP_TABLE: usize = 32;
/// A program that cannot keep the section up to date must not change the image.
const NECESSARY: u64 = 1;
/// A program that does not know the section leaves it as it is.
const TRANSIT: u64 = 2;

/// The contents of the extension.
#[derive(Debug, Default)]
pub(super) struct Extension {
    /// The ranges of it, and of what is known to belong to it.
    pub(super) places: Vec<Range<u64>>,
    /// The image must not be changed without keeping it up to date.
    pub(super) is_necessary: bool,
    /// It survives changes to the image; otherwise the first change drops it. What belongs to it is not known.
    pub(super) outlasts: bool,
    /// Its dirty bitmaps.
    pub(super) bitmaps: Vec<DirtyBitmap>,
}

/// A dirty bitmap.
#[derive(Debug)]
pub(super) struct DirtyBitmap {
    /// Its ID, as text.
    pub(super) name: BString,
    /// Guest bytes per bit: a power of two.
    pub(super) granularity: u64,
    /// The locations of its bits, by cluster.
    pub(super) table: Vec<Bits>,
}

/// The bits in a cluster of a bitmap.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bits {
    /// None is set.
    Clear,
    /// All are set.
    Set,
    /// They are at this offset in the file.
    At(u64),
}

impl Bits {
    /// Decodes an entry of the table.
    pub(super) fn of(sector: u64) -> Self {
        match sector {
            0 => Self::Clear,
            1 => Self::Set,
            // What lies past the end of any file cannot be read.
            _ => Self::At(sector.saturating_mul(SECTOR)),
        }
    }
}

/// Reads the extension, if there is one.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`], in QEMU's words, or if I/O fails.
pub(super) fn read(
    storage: &dyn Storage,
    header: &Header,
    policy: &OpenPolicy,
) -> Result<Option<Extension>> {
    if header.extension == 0 {
        return Ok(None);
    }
    let cluster = header.cluster_size();
    policy.check_table("format extension", cluster)?;
    let offset = header.extension.checked_mul(SECTOR);
    let place = offset.and_then(|start| Some(start..start.checked_add(cluster)?));
    let file_len = storage.len()?;
    let place = place.filter(|place| place.start >= header.table_end() && place.end <= file_len);
    let Some(place) = place else {
        return Err(Error::corrupt(
            "The format extension stands outside of the data",
        ));
    };
    let mut bytes = memory::zeroed(cluster as usize)?;
    read_exact_at(storage, &mut bytes, place.start)?;
    let bad = |text: String| Error::corrupt(text).with_offset(place.start);
    let magic = le64(&bytes, 0).unwrap_or(0);
    if magic != MAGIC {
        return Err(bad(format!(
            "Wrong parallels Format Extension magic: {magic:#x}, expected: {MAGIC:#x}"
        )));
    }
    let sum: [u8; 16] = Md5::digest(bytes.get(HEAD..).unwrap_or_default()).into();
    if array(&bytes, 8) != Some(sum) {
        return Err(bad(
            "Wrong checksum in Format Extension header. Format extension is corrupted.".to_owned(),
        ));
    }
    let mut found = Extension {
        places: vec![place.clone()],
        ..Extension::default()
    };
    let mut rest = bytes.get(HEAD..).unwrap_or_default();
    loop {
        let short = || bad("The format extension ends within a section".to_owned());
        let long = |at| le64(rest, at).ok_or_else(short);
        let (kind, flags) = (long(0)?, long(8)?);
        if kind == 0 {
            return Ok(Some(found));
        }
        let len = le32(rest, 16).ok_or_else(short)? as usize;
        let end = SECTION.checked_add(len).ok_or_else(short)?;
        let data = rest.get(SECTION..end).ok_or_else(short)?;
        found.is_necessary |= flags & NECESSARY != 0;
        match kind {
            DIRTY_BITMAP => {
                add_bitmap(&mut found, data, header)
                    .map_err(|error| error.with_offset(place.start))?;
            }
            _ => found.outlasts |= flags & TRANSIT != 0,
        }
        rest = rest.get(end.next_multiple_of(8)..).ok_or_else(short)?;
    }
}

/// Adds a dirty bitmap ("Dirty bitmaps feature") and its clusters.
fn add_bitmap(found: &mut Extension, data: &[u8], header: &Header) -> Result<()> {
    let size = le64(data, 0).unwrap_or(0);
    if size != header.sectors {
        return Err(Error::corrupt(format!(
            "Bitmap size (in sectors) {size} differs from disk size in sectors {}",
            header.sectors
        )));
    }
    let granularity = le32(data, 24).unwrap_or(0);
    if !granularity.is_power_of_two() {
        return Err(Error::corrupt(format!(
            "The granularity of a bitmap is {granularity} sectors, which is no power of two"
        )));
    }
    let cluster = header.cluster_size();
    let count = le32(data, 28).unwrap_or(0);
    let bits = size.div_ceil(u64::from(granularity));
    let expected = bits.div_ceil(8).div_ceil(cluster);
    if u64::from(count) != expected {
        return Err(Error::corrupt(format!(
            "Bitmap table size {count} does not correspond to bitmap size and cluster size. Expected {expected}"
        )));
    }
    let (table, _) = data
        .get(BITMAP_TABLE..)
        .unwrap_or_default()
        .as_chunks::<8>();
    let table = table.get(..count as usize).ok_or_else(|| {
        Error::corrupt("The table of a bitmap does not fit in the format extension")
    })?;
    let table = memory::collect(
        table
            .iter()
            .map(|entry| Bits::of(u64::from_le_bytes(*entry))),
    )?;
    for bits in &table {
        if let Bits::At(start) = bits {
            memory::push(&mut found.places, *start..start.saturating_add(cluster))?;
        }
    }
    let id = Uuid::from_bytes(array(data, 8).unwrap_or_default());
    let bitmap = DirtyBitmap {
        name: id.to_string().into(),
        granularity: u64::from(granularity) * SECTOR,
        table,
    };
    if found.bitmaps.iter().any(|known| known.name == bitmap.name) {
        let text = format!("Bitmap already exists: {}", bitmap.name);
        return Err(Error::corrupt(text));
    }
    memory::push(&mut found.bitmaps, bitmap)
}
