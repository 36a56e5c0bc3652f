//! New disks: dynamic, or fixed.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bstr::ByteSlice;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::format::blocks::{BlockBulk, ByteOrder, Finish, Layout, LinearBulk, Table};
use crate::format::driver::{file_preallocation, not_prepared, outlined_preallocation, own_file};
use crate::format::{
    BackingRef, Bulk, Contents, CreateParams, Measured, NewImage, Outline, PlannedFile,
    PrepareContext,
};
use crate::job::JobControl;
use crate::memory;
use crate::options::{OptionKind, OptionSpec, Values};
use crate::size::SECTOR;
use crate::storage::{Preallocation, Storage};

use super::disk::{
    DiskType, DynamicHeader, FOOTER_LEN, Footer, Geometry, HEADER_LEN, Locator, VpcLayout, seconds,
};
use super::fixed::last_footer;
use super::parent::{self, NAME_SPACE};
use super::records::{ALL_SECTORS, write_bitmap};
use super::{DRIVER, MAX_FIXED, MAX_SIZE, too_large};

/// Guest bytes per block of a new disk; all programs create blocks of this size.
const BLOCK_SIZE: u32 = 2 << 20;

/// The smallest part of a block that a child owns: sectors would be possible, but this is a page.
const OWN_PART: u32 = 4096;

/// Where the headers of a new dynamic disk end, and the table of blocks begins.
const TABLE_OFFSET: u64 = (FOOTER_LEN + HEADER_LEN) as u64;

/// Creation options.
pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "backing_file",
        kind: OptionKind::Name,
        help: "File name of a parent, which is a VHD",
        default: None,
        allowed: &[],
    },
    OptionSpec {
        name: "backing_fmt",
        kind: OptionKind::Str,
        help: "Image format of the parent: vpc",
        default: None,
        allowed: &[],
    },
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

/// Options that QEMU does not have.
pub(super) const OWN: &[&str] = &["backing_file", "backing_fmt"];

/// Keys of the "Formatting" line.
pub(super) const SUMMARY: &[(&str, Option<&str>)] = &[
    ("size", None),
    ("backing_file", None),
    ("backing_fmt", None),
    ("subformat", None),
    ("force_size", None),
];

/// What the options request.
#[derive(Debug)]
struct Spec {
    disk_type: DiskType,
    /// The virtual size, which may be larger than the requested one.
    size: u64,
    geometry: Geometry,
    preallocation: Preallocation,
    /// The names of the parent, with their locations.
    names: Vec<(Locator, Vec<u8>)>,
    backing: Option<BackingRef>,
}

impl Spec {
    fn new(params: &CreateParams<'_>) -> Result<Self> {
        let disk_type = match params.values.str("subformat") {
            None | Some("dynamic") => DiskType::Dynamic,
            Some("fixed") => DiskType::Fixed,
            Some(other) => {
                return Err(Error::refused_value("subformat", other));
            }
        };
        let disk_type = match (params.backing, disk_type) {
            (None, disk_type) => disk_type,
            (Some(_), DiskType::Fixed) => {
                return Err(Error::unsupported("A fixed VPC image has no parent"));
            }
            (Some(backing), _) => {
                let format = backing.format.as_ref();
                if format.is_some_and(|format| format != DRIVER.name) {
                    return Err(Error::unsupported(
                        "The parent of a VPC image is a VPC image",
                    ));
                }
                DiskType::Differencing
            }
        };
        let preallocation = file_preallocation(params.values)?;
        let by_number = params.values.bool("force_size") == Some(true);
        let most = match disk_type {
            DiskType::Fixed if by_number => MAX_FIXED,
            _ => MAX_SIZE,
        };
        if params.size > most {
            return Err(too_large());
        }
        // A disk with the largest geometry is as large as its footer says.
        let nearest = Geometry::at_least(params.size / 512);
        let geometry = match by_number {
            true => Geometry::MAX,
            // A child is exactly as large as its parent.
            false if params.backing.is_some() && nearest.total() * 512 != params.size => {
                Geometry::MAX
            }
            false => nearest,
        };
        let size = match geometry {
            Geometry::MAX => params.size,
            geometry => geometry.total() * 512,
        };
        let mut spec = Self {
            disk_type,
            size,
            geometry,
            preallocation,
            names: Vec::new(),
            backing: params.backing.cloned(),
        };
        if let Some(backing) = params.backing {
            let offset = spec.layout().table().end;
            spec.names = parent::names(backing, offset)?;
        }
        Ok(spec)
    }

    fn layout(&self) -> VpcLayout {
        VpcLayout::of(&self.header(), FOOTER_LEN as u64)
    }

    /// The lowest offset for the first block.
    fn first(&self) -> u64 {
        let names = self.names.len() as u64 * u64::from(NAME_SPACE);
        self.layout().table().end + names
    }

    fn header(&self) -> DynamicHeader {
        let entries = self.size.div_ceil(u64::from(BLOCK_SIZE));
        DynamicHeader::new(TABLE_OFFSET, entries as u32, BLOCK_SIZE)
    }

    /// Length of the file with that many blocks.
    fn len_with(&self, blocks: u64) -> u64 {
        let footer = FOOTER_LEN as u64;
        if self.disk_type == DiskType::Fixed {
            return self.size + footer;
        }
        let layout = self.layout();
        let first = layout.next(self.first());
        let next = layout.next(first + layout.block_size());
        match blocks {
            0 => self.first() + footer,
            blocks => first + (blocks - 1) * (next - first) + layout.block_size() + footer,
        }
    }
}

/// See [`Outline`].
pub(super) fn outline(values: &Values) -> Outline {
    Outline {
        preallocation: match values.str("subformat") {
            Some("fixed") => outlined_preallocation(values),
            _ => Preallocation::Off,
        },
        records_parent: true,
        ..Outline::default()
    }
}

/// See [`crate::format::FormatDriver::measure`].
pub(super) fn measure(params: &CreateParams<'_>, contents: &mut Contents<'_>) -> Result<Measured> {
    let spec = Spec::new(params)?;
    let all = spec.size.div_ceil(u64::from(BLOCK_SIZE));
    let data = match &mut contents.data_units {
        // Zeroes that hide data of the parent take up space too.
        Some(_) if spec.backing.is_some() => all,
        Some(count) => count(u64::from(BLOCK_SIZE))?,
        None => 0,
    };
    Ok(Measured {
        required: spec.len_with(data),
        fully_allocated: spec.len_with(all),
        bitmaps: None,
    })
}

/// Checks the options.
pub(super) fn plan(params: &CreateParams<'_>) -> Result<Box<dyn NewImage>> {
    Ok(Box::new(NewVpc {
        spec: Spec::new(params)?,
        asked: params.size,
        table: None,
        parent: Uuid::nil(),
        parent_time: 0,
    }))
}

/// A disk to be created.
#[derive(Debug)]
struct NewVpc {
    spec: Spec,
    asked: u64,
    table: Option<Table>,
    parent: Uuid,
    parent_time: u32,
}

impl NewImage for NewVpc {
    fn files(&self) -> Vec<PlannedFile> {
        vec![PlannedFile::own(self.spec.len_with(0))]
    }

    fn prepare(&mut self, context: &PrepareContext<'_>) -> Result<()> {
        if let Some(backing) = &self.spec.backing {
            let id = context.parent.and_then(|parent| parent.id);
            self.parent = parent::uuid_of(backing, id, None)?;
            let modified = context.parent.and_then(|parent| parent.modified);
            self.parent_time = modified.map_or(0, seconds);
        }
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
        let now = seconds(SystemTime::now());
        let footer = Footer::new(spec.disk_type, spec.size, spec.geometry, now);
        if spec.disk_type == DiskType::Fixed {
            let at = footer_place(&**storage, spec.size)?;
            let end = |_: &dyn Storage| Ok(());
            let header = move |storage: &dyn Storage| storage.write_at(&footer.to_bytes(), at);
            let place = (0, spec.size, spec.size);
            let bulk = LinearBulk::new(
                storage,
                place,
                spec.preallocation,
                control,
                (Box::new(end), Box::new(header)),
            )?;
            return Ok(Box::new(bulk));
        }
        let mut header = spec.header();
        let layout = spec.layout();
        if let Some(backing) = &spec.backing {
            let locators: Vec<Locator> = spec.names.iter().map(|(locator, _)| *locator).collect();
            header.parent = self.parent;
            header.parent_time = self.parent_time;
            header.set_locators(&locators, NAME_SPACE);
            header.set_parent_name(backing.name.as_bstr());
        }
        let table = self.table.ok_or_else(not_prepared)?;
        let is_overlay = spec.backing.is_some();
        let sizes = (spec.size, self.asked);
        let finish = Finisher {
            footer,
            header,
            first: spec.first(),
            names: spec.names,
        };
        let bulk = BlockBulk::new(storage, layout, table, sizes, is_overlay, finish)?;
        Ok(Box::new(bulk))
    }
}

/// Completes a new dynamic disk.
#[derive(Debug)]
struct Finisher {
    footer: Footer,
    header: DynamicHeader,
    first: u64,
    names: Vec<(Locator, Vec<u8>)>,
}

impl Finish<VpcLayout> for Finisher {
    fn first(&self, _: &VpcLayout) -> u64 {
        self.first
    }

    fn part(&self) -> Option<u32> {
        Some(OWN_PART)
    }

    fn end_block(
        &self,
        storage: &dyn Storage,
        layout: &VpcLayout,
        host: u64,
        parts: &[Range<u64>],
    ) -> Result<()> {
        let mut bitmap = memory::zeroed(layout.lead() as usize)?;
        for sector in parts
            .iter()
            .flat_map(|part| part.start / SECTOR..part.end.div_ceil(SECTOR))
        {
            if let Some(byte) = bitmap.get_mut((sector / 8) as usize) {
                *byte |= 0x80 >> (sector % 8);
            }
        }
        storage.write_at(&bitmap, host - layout.lead())
    }

    fn begin_block(&self, storage: &dyn Storage, layout: &VpcLayout, host: u64) -> Result<()> {
        write_bitmap(storage, (layout.lead(), ALL_SECTORS), host)
    }

    fn end(&self, storage: &dyn Storage, layout: &VpcLayout, end: u64) -> Result<()> {
        // The table ends with a whole sector, and the unused entries in it are free too.
        let table = layout.table();
        let last = table.end.saturating_sub(FOOTER_LEN as u64).max(table.start);
        if last < table.end {
            storage.write_at(&[0xff; FOOTER_LEN], last)?;
        }
        for (locator, bytes) in &self.names {
            let mut name = memory::zeroed(NAME_SPACE as usize)?;
            if let Some(start) = name.get_mut(..bytes.len()) {
                start.copy_from_slice(bytes);
            }
            storage.write_at(&name, locator.offset)?;
        }
        if !storage.limits().fixed_len && storage.len()? < end {
            storage.set_len(end, Preallocation::Off)?;
        }
        storage.write_at(&self.header.to_bytes(), FOOTER_LEN as u64)
    }

    fn header(&self, storage: &dyn Storage, _: &VpcLayout, _: u64) -> Result<()> {
        storage.write_at(&self.footer.to_bytes(), 0)
    }

    /// Other programs read the footer at the end first, or only that one.
    fn repeat(&self, storage: &dyn Storage, _: &VpcLayout, end: u64) -> Result<()> {
        let at = footer_place(storage, end)?;
        storage.write_at(&self.footer.to_bytes(), at)
    }
}

/// Where the footer at the end goes: after the contents of the file, or at the end of a device, as expected there.
fn footer_place(storage: &dyn Storage, end: u64) -> Result<u64> {
    Ok(match storage.limits().fixed_len {
        true => last_footer(storage.len()?).max(end),
        false => end,
    })
}
