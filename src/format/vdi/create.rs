//! New images: dynamic, fixed with every block in its place, or differencing with a parent.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::blocks::{BlockBulk, ByteOrder, Finish, Layout, LinearBulk, Table};
use crate::format::driver::{file_preallocation, outlined_preallocation, own_file};
use crate::format::{
    BackingRef, Bulk, Contents, CreateParams, Measured, NewImage, Outline, ParentSearch,
    PlannedFile, PrepareContext,
};
use crate::job::JobControl;
use crate::memory;
use crate::options::{OptionKind, OptionSpec, Values};
use crate::storage::{Preallocation, Storage};

use super::DRIVER;
use super::disk::{DATA_ALIGNMENT, Header, ImageType, VdiLayout};
use super::overlay;

/// Bytes per block of a new image.
const BLOCK_SIZE: u32 = 1 << 20;

/// Number of entries in the pieces in which the table is written.
const ENTRIES: u32 = 1 << 16;

/// Creation options.
pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "backing_file",
        kind: OptionKind::Name,
        help: "File name of a parent, which is a VDI",
        default: None,
        allowed: &[],
    },
    OptionSpec {
        name: "backing_fmt",
        kind: OptionKind::Str,
        help: "Image format of the parent: vdi",
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
        name: "static",
        kind: OptionKind::Bool,
        help: "VDI static (pre-allocated) image",
        default: Some("off"),
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
    ("static", Some("off")),
];

fn is_fixed(values: &Values) -> bool {
    values.bool("static") == Some(true)
}

/// See [`Outline`].
pub(super) fn outline(values: &Values) -> Outline {
    Outline {
        preallocation: match is_fixed(values) {
            true => outlined_preallocation(values),
            false => Preallocation::Off,
        },
        records_parent: true,
        ..Outline::default()
    }
}

/// The header of a new image.
fn header(params: &CreateParams<'_>) -> Result<Header> {
    let most = Header::max_size(BLOCK_SIZE);
    if params.size > most {
        return Err(Error::unsupported(format!(
            "Unsupported VDI image size (size is {:#x}, max supported is {most:#x})",
            params.size
        )));
    }
    let image_type = match (params.backing, is_fixed(params.values)) {
        (None, true) => ImageType::Fixed,
        (None, false) => ImageType::Dynamic,
        (Some(_), true) => return Err(overlay::is_fixed()),
        (Some(backing), false) => {
            let format = backing.format.as_ref();
            if format.is_some_and(|format| format != DRIVER.name) {
                return Err(Error::unsupported(
                    "The parent of a VDI image is a VDI image",
                ));
            }
            ImageType::Differencing
        }
    };
    let blocks = params.size.div_ceil(u64::from(BLOCK_SIZE)) as u32;
    let mut header = Header::new(image_type, BLOCK_SIZE);
    header.disk_size = params.size;
    header.blocks = blocks;
    header.data_offset = header.table_end().next_multiple_of(DATA_ALIGNMENT) as u32;
    if image_type == ImageType::Fixed {
        header.allocated = blocks;
    }
    Ok(header)
}

/// See [`crate::format::FormatDriver::measure`].
pub(super) fn measure(params: &CreateParams<'_>, contents: &mut Contents<'_>) -> Result<Measured> {
    file_preallocation(params.values)?;
    let header = header(params)?;
    let layout = VdiLayout::of(&header);
    let data = match &mut contents.data_units {
        // Zeroes that hide data of the parent take up space too.
        Some(_) if header.image_type == ImageType::Differencing => u64::from(header.blocks),
        Some(count) => count(u64::from(BLOCK_SIZE))?,
        None => 0,
    };
    let whole = layout.end_of(u64::from(header.blocks));
    Ok(Measured {
        required: match header.image_type {
            ImageType::Fixed => whole,
            _ => layout.end_of(data),
        },
        fully_allocated: whole,
        bitmaps: None,
    })
}

/// Checks the options.
pub(super) fn plan(params: &CreateParams<'_>) -> Result<Box<dyn NewImage>> {
    Ok(Box::new(NewVdi {
        // Only a fixed image has space that could be preallocated.
        preallocation: file_preallocation(params.values)?,
        header: header(params)?,
        backing: params.backing.cloned(),
        table: None,
    }))
}

/// An image to be created.
#[derive(Debug)]
struct NewVdi {
    header: Header,
    preallocation: Preallocation,
    /// The parent, of a differencing image.
    backing: Option<BackingRef>,
    table: Option<Table>,
}

impl NewImage for NewVdi {
    fn files(&self) -> Vec<PlannedFile> {
        let layout = VdiLayout::of(&self.header);
        vec![PlannedFile::own(
            layout.end_of(u64::from(self.header.allocated)),
        )]
    }

    fn parent_search(&self) -> Option<&'static ParentSearch> {
        self.backing.as_ref().map(|_| &overlay::SEARCH)
    }

    fn prepare(&mut self, context: &PrepareContext<'_>) -> Result<()> {
        let header = &mut self.header;
        if let Some(backing) = &self.backing {
            let id = context.parent.and_then(|parent| parent.id);
            (header.link, header.parent_modification) = overlay::link_to(backing, id)?;
        }
        let (count, offset) = (u64::from(header.blocks), u64::from(header.table_offset));
        self.table = Some(Table::empty(count, offset, ByteOrder::Little)?);
        Ok(())
    }

    fn start(
        mut self: Box<Self>,
        files: &[Arc<dyn Storage>],
        control: &Arc<JobControl>,
    ) -> Result<Box<dyn Bulk>> {
        let storage = own_file(files)?;
        let layout = VdiLayout::of(&self.header);
        let table = self
            .table
            .take()
            .ok_or_else(crate::format::driver::not_prepared)?;
        let size = self.header.disk_size;
        if self.header.image_type != ImageType::Fixed {
            let finish = Finisher {
                header: self.header,
            };
            let is_overlay = self.backing.is_some();
            let bulk = BlockBulk::new(storage, layout, table, (size, size), is_overlay, finish)?;
            return Ok(Box::new(bulk));
        }
        let place = (
            u64::from(self.header.data_offset),
            size,
            layout.end_of(u64::from(self.header.blocks)) - u64::from(self.header.data_offset),
        );
        let header = self.header.to_bytes();
        let table = self.header;
        let end = move |storage: &dyn Storage| write_fixed_table(storage, &table);
        let header = move |storage: &dyn Storage| storage.write_at(&header, 0);
        let bulk = LinearBulk::new(
            storage,
            place,
            self.preallocation,
            control,
            (Box::new(end), Box::new(header)),
        )?;
        Ok(Box::new(bulk))
    }
}

/// Writes a table that names the blocks in order.
fn write_fixed_table(storage: &dyn Storage, header: &Header) -> Result<()> {
    let mut first = 0;
    while first < header.blocks {
        let count = (header.blocks - first).min(ENTRIES);
        let mut bytes = memory::zeroed(count as usize * 4)?;
        for (place, index) in bytes.chunks_exact_mut(4).zip(first..) {
            place.copy_from_slice(&index.to_le_bytes());
        }
        storage.write_at(
            &bytes,
            u64::from(header.table_offset) + u64::from(first) * 4,
        )?;
        first += count;
    }
    Ok(())
}

/// Completes a new dynamic image.
#[derive(Debug)]
struct Finisher {
    header: Header,
}

impl Finish<VdiLayout> for Finisher {
    fn first(&self, layout: &VdiLayout) -> u64 {
        layout.start()
    }

    fn begin_block(&self, _: &dyn Storage, _: &VdiLayout, _: u64) -> Result<()> {
        Ok(())
    }

    fn end(&self, storage: &dyn Storage, _: &VdiLayout, end: u64) -> Result<()> {
        if !storage.limits().fixed_len && storage.len()? < end {
            storage.set_len(end, Preallocation::Off)?;
        }
        Ok(())
    }

    fn header(&self, storage: &dyn Storage, layout: &VdiLayout, end: u64) -> Result<()> {
        let mut header = self.header.clone();
        header.allocated = layout.blocks_up_to(end) as u32;
        storage.write_at(&header.to_bytes(), 0)
    }
}
