//! Growing disks of Bochs: a header, a catalog, and for each extent a bitmap of its sectors followed by its data.
//! Read-only.
//!
//! See `docs/formats/bochs.md`.

mod disk;
mod inspect;

use std::sync::Arc;

use crate::error::Result;
use crate::format::decoded::DecodedUnits;
use crate::format::read_only::{Contents, GuestRun, Held, ReadOnly, SizedStorage};
use crate::format::{Format, FormatDriver, OpenContext, Signature};
use crate::memory::IoBuf;
use crate::size::SECTOR;

use disk::{Catalog, HEADER_LEN, Header, is_growing};

/// The Bochs format.
pub static DRIVER: FormatDriver = FormatDriver {
    signature: Some(Signature {
        rank: 100,
        fits: |file| is_growing(file.head),
        footer: None,
    }),
    ..FormatDriver::read_only("bochs", open, inspect::inspect)
};

/// The state of an open image.
#[derive(Debug)]
struct Bochs {
    header: Header,
    catalog: Catalog,
    /// By their offsets in the file.
    bitmaps: DecodedUnits,
}

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    let source = SizedStorage::new(context.storage)?;
    let mut head = [0; HEADER_LEN];
    source.storage.read_at(&mut head, 0)?;
    let header = Header::from_bytes(&head)?;
    let policy = context.opener.policy();
    let catalog = Catalog::read(&*source.storage, source.len, &header, policy)?;
    let contents = Bochs {
        header,
        catalog,
        bitmaps: DecodedUnits::default(),
    };
    Ok(Box::new(ReadOnly::new(&DRIVER, source, contents)))
}

impl Bochs {
    /// The bitmap at an offset in the file: a bit for each sector of an extent, from the lowest bit on.
    fn bitmap(&self, source: &SizedStorage, at: u64) -> Result<Arc<IoBuf>> {
        let len = self.header.bits();
        self.bitmaps.get_or_decode(at, len, |bytes| {
            check_within(source, at, len)?;
            source.storage.read_at(bytes.room(len as usize)?, at)
        })
    }
}

fn check_within(source: &SizedStorage, at: u64, len: u64) -> Result<()> {
    if at.saturating_add(len) <= source.len {
        return Ok(());
    }
    let why = format!("it ends before what its catalog says is at {at}");
    Err(source.damaged(&why).with_offset(at))
}

impl Contents for Bochs {
    fn len(&self) -> u64 {
        self.header.len
    }

    /// A run stays within its extent, because there is a bitmap between the data of two extents.
    fn run(&self, source: &SizedStorage, offset: u64, end: u64) -> Result<GuestRun> {
        let extent = self.header.extent;
        let start = offset - offset % extent;
        let end = end.min(start.saturating_add(extent));
        let zero = |end| GuestRun {
            held: Held::Zero,
            end,
        };
        let Some(number) = self.catalog.get(offset / extent) else {
            return Ok(zero(end));
        };
        let at = self.header.extent_at(number);
        let bitmap = self.bitmap(source, at)?;
        let is_held = |sector: u64| {
            let byte = bitmap.get((sector / 8) as usize).copied();
            byte.is_some_and(|byte| byte >> (sector % 8) & 1 == 1)
        };
        let first = (offset - start) / SECTOR;
        let held = is_held(first);
        let last = (end - start).div_ceil(SECTOR);
        let differs = (first + 1..last).find(|sector| is_held(*sector) != held);
        let end = differs.map_or(end, |sector| start + sector * SECTOR);
        if !held {
            return Ok(zero(end));
        }
        let host = at + self.header.bitmap + (offset - start);
        check_within(source, host, end - offset)?;
        Ok(GuestRun {
            held: Held::Plain(host),
            end,
        })
    }
}
