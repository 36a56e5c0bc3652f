//! New disks: dynamic, or fixed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};
use crate::format::blocks::{BlockBulk, ByteOrder, Finish, Layout, LinearBulk, Table};
use crate::format::driver::{not_prepared, own_file};
use crate::format::{
    Bulk, Contents, CreateParams, Measured, NewImage, Outline, PlannedFile, PrepareContext,
};
use crate::job::JobControl;
use crate::options::{OptionKind, OptionSpec, Values};
use crate::storage::{Preallocation, Storage};

use super::disk::{DiskType, DynamicHeader, FOOTER_LEN, Footer, Geometry, HEADER_LEN, VpcLayout};
use super::records::write_bitmap;
use super::{MAX_SIZE, too_large};

/// Guest bytes of a block of a new disk, as all programs make them.
const BLOCK_SIZE: u32 = 2 << 20;

/// Where the headers of a new dynamic disk end, and the table of blocks begins.
const TABLE_OFFSET: u64 = (FOOTER_LEN + HEADER_LEN) as u64;

/// Time in footers counts from the beginning of the year 2000.
const EPOCH: u64 = 946_684_800;

/// Options of creation.
pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "force_size",
        kind: OptionKind::Bool,
        help: "Force disk size calculation to use the actual size specified, rather than using the nearest CHS-based calculation",
        default: None,
        allowed: &[],
    },
    OptionSpec {
        name: "size",
        kind: OptionKind::Size,
        help: "Virtual disk size",
        default: None,
        allowed: &[],
    },
    OptionSpec {
        name: "subformat",
        kind: OptionKind::Str,
        help: "Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed} ",
        default: None,
        allowed: &[],
    },
];

/// Keys of the "Formatting" line.
pub(super) const SUMMARY: &[(&str, Option<&str>)] =
    &[("size", None), ("subformat", None), ("force_size", None)];

/// What the options ask for.
#[derive(Debug)]
struct Spec {
    disk_type: DiskType,
    /// The virtual size, which may be larger than what was asked for.
    size: u64,
    geometry: Geometry,
    preallocation: Preallocation,
}

impl Spec {
    fn new(params: &CreateParams<'_>) -> Result<Self> {
        let disk_type = match params.values.str("subformat") {
            None | Some("dynamic") => DiskType::Dynamic,
            Some("fixed") => DiskType::Fixed,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "Parameter 'subformat' does not accept value '{other}'"
                )));
            }
        };
        let preallocation = match params.values.str("preallocation") {
            None | Some("off") => Preallocation::Off,
            Some("falloc") => Preallocation::Falloc,
            Some("full") => Preallocation::Full,
            Some("metadata") => {
                return Err(Error::unsupported(
                    "Unsupported preallocation mode: metadata",
                ));
            }
            Some(other) => {
                return Err(Error::invalid(format!("invalid parameter value: {other}")));
            }
        };
        if params.size > MAX_SIZE {
            return Err(too_large());
        }
        // A disk with the largest geometry is as large as its footer says.
        let geometry = match params.values.bool("force_size") {
            Some(true) => Geometry::MAX,
            _ => Geometry::at_least(params.size / 512),
        };
        let size = match geometry {
            Geometry::MAX => params.size,
            geometry => geometry.total() * 512,
        };
        Ok(Self {
            disk_type,
            size,
            geometry,
            preallocation,
        })
    }

    fn header(&self) -> DynamicHeader {
        let entries = self.size.div_ceil(u64::from(BLOCK_SIZE));
        DynamicHeader::new(TABLE_OFFSET, entries as u32, BLOCK_SIZE)
    }

    /// Bytes of the file with so many blocks.
    fn len_with(&self, blocks: u64) -> u64 {
        let footer = FOOTER_LEN as u64;
        if self.disk_type == DiskType::Fixed {
            return self.size + footer;
        }
        let layout = VpcLayout::of(&self.header(), TABLE_OFFSET);
        let first = layout.next(layout.table().end);
        let next = layout.next(first + layout.block_size());
        match blocks {
            0 => layout.table().end + footer,
            blocks => first + (blocks - 1) * (next - first) + layout.block_size() + footer,
        }
    }
}

/// See [`Outline`].
pub(super) fn outline(values: &Values) -> Outline {
    Outline {
        preallocated: values.str("subformat") == Some("fixed"),
        ..Outline::default()
    }
}

/// See [`crate::format::FormatDriver::measure`].
pub(super) fn measure(params: &CreateParams<'_>, contents: &mut Contents<'_>) -> Result<Measured> {
    let spec = Spec::new(params)?;
    let data = match &mut contents.data_units {
        Some(count) => count(u64::from(BLOCK_SIZE))?,
        None => 0,
    };
    Ok(Measured {
        required: spec.len_with(data),
        fully_allocated: spec.len_with(spec.size.div_ceil(u64::from(BLOCK_SIZE))),
        bitmaps: None,
    })
}

/// Checks the options.
pub(super) fn plan(params: &CreateParams<'_>) -> Result<Box<dyn NewImage>> {
    Ok(Box::new(NewVpc {
        spec: Spec::new(params)?,
        asked: params.size,
        table: None,
    }))
}

/// A disk that is to be made.
#[derive(Debug)]
struct NewVpc {
    spec: Spec,
    asked: u64,
    table: Option<Table>,
}

impl NewImage for NewVpc {
    fn files(&self) -> Vec<PlannedFile> {
        vec![PlannedFile::own(self.spec.len_with(0))]
    }

    fn prepare(&mut self, _: &PrepareContext<'_>) -> Result<()> {
        let entries = u64::from(self.spec.header().entries);
        self.table = Some(Table::empty(entries, TABLE_OFFSET, ByteOrder::Big)?);
        Ok(())
    }

    fn start(
        self: Box<Self>,
        files: &[Arc<dyn Storage>],
        control: &Arc<JobControl>,
    ) -> Result<Box<dyn Bulk>> {
        let storage = own_file(files)?;
        let spec = self.spec;
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH))
            .map_or(0, |time| time.as_secs() as u32);
        let footer = Footer::new(spec.disk_type, spec.size, spec.geometry, now);
        if spec.disk_type == DiskType::Fixed {
            let at = spec.size;
            let finish = move |storage: &dyn Storage| storage.write_at(&footer.to_bytes(), at);
            let place = (0, spec.size, spec.size);
            let bulk = LinearBulk::new(
                storage,
                place,
                spec.preallocation,
                control,
                Box::new(finish),
            )?;
            return Ok(Box::new(bulk));
        }
        let header = spec.header();
        let layout = VpcLayout::of(&header, TABLE_OFFSET);
        let table = self.table.ok_or_else(not_prepared)?;
        let finish = Finisher { footer, header };
        let sizes = (spec.size, self.asked);
        let bulk = BlockBulk::new(storage, layout, table, sizes, false, finish)?;
        Ok(Box::new(bulk))
    }
}

/// Ends a new dynamic disk.
#[derive(Debug)]
struct Finisher {
    footer: Footer,
    header: DynamicHeader,
}

impl Finish<VpcLayout> for Finisher {
    fn first(&self, layout: &VpcLayout) -> u64 {
        layout.table().end
    }

    fn begin_block(&self, storage: &dyn Storage, layout: &VpcLayout, host: u64) -> Result<()> {
        write_bitmap(storage, layout.lead(), host)
    }

    fn end(&self, storage: &dyn Storage, layout: &VpcLayout, end: u64) -> Result<()> {
        // The table ends with a whole sector, and entries that nothing uses are free too.
        let table = layout.table();
        let last = table.end.saturating_sub(FOOTER_LEN as u64).max(table.start);
        if last < table.end {
            storage.write_at(&[0xff; FOOTER_LEN], last)?;
        }
        storage.write_at(&self.footer.to_bytes(), end)
    }

    fn header(&self, storage: &dyn Storage, _: &VpcLayout, _: u64) -> Result<()> {
        storage.write_at(&self.header.to_bytes(), FOOTER_LEN as u64)?;
        storage.write_at(&self.footer.to_bytes(), 0)
    }
}
