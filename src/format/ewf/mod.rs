//! EWF, the format of forensic images that EnCase and FTK Imager write (E01), and of SMART (s01): individually
//! compressed chunks, in one or more segments. Read-only.
//!
//! See `docs/formats/ewf.md`.

mod check;
mod disk;
mod inspect;
mod names;
mod segments;

use std::sync::Arc;

use bstr::{BString, ByteSlice};

use crate::codec::Packing;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::format::decoded::DecodedUnits;
use crate::format::read_only::{
    Contents, EncodedUnit, GuestRun, Held, Joined, ReadOnly, SizedStorage, Verify,
};
use crate::format::{ChildSpec, Features, FileRole, Format, FormatDriver, OpenContext, Signature};
use crate::memory::IoBuf;
use crate::policy::ImplicitRole;

use disk::{ENTRY_LEN, Hashes, MAGIC, Volume};
use segments::{End, Limits, Sections, Table};

/// The EWF format.
pub static DRIVER: FormatDriver = FormatDriver {
    of_images: Features::CHECK,
    signature: Some(Signature {
        rank: 130,
        fits: |file| file.starts(MAGIC),
        footer: None,
    }),
    children: &[ChildSpec::FILE, ChildSpec::EXTENTS],
    ..FormatDriver::read_only("ewf", open, inspect::inspect)
};

/// The state of an open image.
#[derive(Debug)]
struct Ewf {
    volume: Volume,
    tables: Vec<Table>,
    hashes: Hashes,
    /// The most recently used table entries, by their offsets.
    entries: DecodedUnits,
}

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    let limits = Limits {
        policy: context.opener.policy(),
        control: context.control,
    };
    let file = context.storage.clone();
    let mut joined = Joined::new(file.clone())?;
    let mut sections = Sections::default();
    let mut closed = Vec::new();
    let mut number = 1;
    let mut part = SizedStorage::new(file.clone())?;
    let mut start = 0;
    loop {
        // Sections are read from the segment, but record their offsets in the whole image.
        let end = sections.take(&part, start, number, &limits)?;
        if end == End::Done {
            break;
        }
        number = number.checked_add(1).ok_or_else(too_many)?;
        if context.metadata_only {
            closed.extend(names::segment(file.name(), number).map(|name| (FileRole::Extent, name)));
            break;
        }
        let next = open_segment(&context, number)?;
        start = joined.push(next.clone())?;
        part = SizedStorage::new(next)?;
    }
    let volume = sections
        .volume
        .ok_or_else(|| Error::corrupt("No section of the image describes the disk"))?;
    limits.policy.check_decompressed(volume.chunk)?;
    let contents = Ewf {
        volume,
        tables: sections.tables,
        hashes: sections.hashes,
        entries: DecodedUnits::default(),
    };
    let others: Vec<_> = joined.others().cloned().collect();
    let source = SizedStorage::new(Arc::new(joined))?;
    let image = ReadOnly::new(&DRIVER, source, contents);
    Ok(Box::new(image.in_files(file, others, closed)))
}

fn too_many() -> Error {
    Error::corrupt("The image has more segments than can be numbered")
}

/// Opens the segment of that number: as specified, or next to the first one.
fn open_segment(
    context: &OpenContext<'_>,
    number: u16,
) -> Result<Arc<dyn crate::storage::Storage>> {
    let child = format!("extents.{}", number - 2);
    if let Some(file) = context.opener.child(&child, false)? {
        return Ok(file);
    }
    let first = context.storage.name();
    let name: BString = names::segment(first, number).ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!(
                "The image goes on in segment {number}, whose name does not follow from '{first}': the first segment ends in .E01"
            ),
        )
    })?;
    context
        .opener
        .open_named(ImplicitRole::Extent, name.as_bstr(), false)
        .context(|| format!("Could not open segment {number}, '{name}'"))
}

impl Ewf {
    /// The entries of a table, from its copy if the table itself is damaged.
    fn entries(&self, source: &SizedStorage, table: &Table) -> Result<Arc<IoBuf>> {
        let len = table.count() * ENTRY_LEN;
        self.entries.get_or_decode(table.entries, len, |bytes| {
            // Those of SMART have no checksum.
            let sum = if self.volume.is_short { 0 } else { 4 };
            for at in [Some(table.entries), table.copy].into_iter().flatten() {
                let bytes = bytes.room((len + sum) as usize)?;
                source.storage.read_at(bytes, at)?;
                if self.volume.is_short || disk::entries_fit(bytes) {
                    return Ok(());
                }
            }
            let why = format!(
                "neither the table of chunk {} nor its copy has its checksum",
                table.first
            );
            Err(source.damaged(&why).with_offset(table.entries))
        })
    }

    /// The chunk of that number; None if no table has it.
    fn chunk(&self, source: &SizedStorage, number: u64) -> Result<Option<EncodedUnit>> {
        let at = self.tables.partition_point(|table| table.end <= number);
        let Some(table) = self.tables.get(at) else {
            return Ok(None);
        };
        let entries = self.entries(source, table)?;
        let index = number - table.first;
        let Some((offset, is_compressed)) = disk::entry(&entries, index) else {
            return Ok(None);
        };
        let host = table.base.saturating_add(offset);
        let next = match index + 1 < table.count() {
            true => disk::entry(&entries, index + 1),
            false => None,
        };
        let end = next.map_or(table.data_end, |(next, _)| table.base.saturating_add(next));
        let guest = number * self.volume.chunk;
        Ok(Some(EncodedUnit {
            guest,
            len: self.volume.chunk.min(self.volume.len - guest),
            host,
            // A chunk that ends before it begins does not decode.
            encoded: end.saturating_sub(host),
            packing: match is_compressed {
                true => Packing::Zlib,
                false => Packing::Stored,
            },
        }))
    }
}

impl Contents for Ewf {
    fn len(&self) -> u64 {
        self.volume.len
    }

    /// The chunk that contains the offset.
    fn run(&self, source: &SizedStorage, offset: u64, _: u64) -> Result<GuestRun> {
        let number = offset / self.volume.chunk;
        let end = (number + 1).saturating_mul(self.volume.chunk);
        let held = match self.chunk(source, number) {
            Ok(Some(unit)) => Held::Unit(unit),
            Ok(None) => {
                let why = format!("no table of the image has its chunk {number}");
                Held::Lost(source.damaged(&why))
            }
            Err(error) => Held::Lost(error),
        };
        Ok(GuestRun { held, end })
    }

    fn verifier(&self) -> Option<&dyn Verify> {
        Some(self)
    }
}
