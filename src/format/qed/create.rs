//! New images.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::blocks::{BlockBulk, Directory, Finish, Table};
use crate::format::driver::{check_no_preallocation, not_prepared, own_file};
use crate::format::{
    BackingRef, Bulk, Contents, CreateParams, Measured, NewImage, Outline, PlannedFile,
    PrepareContext,
};
use crate::job::JobControl;
use crate::options::{OptionKind, OptionSpec, Values, option};
use crate::storage::{Preallocation, Storage, ZeroFlags};

use super::backing::record;
use super::disk::{
    FeatureBits, HEADER_LEN, Header, QedLayout, is_cluster_size, is_table_size, most_size,
};

const CLUSTER_SIZE: u64 = 1 << 16;
const TABLE_SIZE: u64 = 4;

/// Creation options.
pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "backing_file",
        OptionKind::Name,
        "File name of a base image",
    ),
    option(
        "backing_fmt",
        OptionKind::Str,
        "Image format of the base image",
    ),
    option("cluster_size", OptionKind::Size, "Cluster size (in bytes)"),
    option("size", OptionKind::Size, "Virtual disk size"),
    option(
        "table_size",
        OptionKind::Size,
        "L1/L2 table size (in clusters)",
    ),
];

/// Keys of the "Formatting" line.
pub(super) const SUMMARY: &[(&str, Option<&str>)] = &[
    ("size", None),
    ("backing_file", None),
    ("backing_fmt", None),
    ("cluster_size", Some("65536")),
    ("table_size", None),
];

/// See [`Outline`].
pub(super) fn outline(_values: &Values) -> Outline {
    Outline::default()
}

/// The header of a new image.
fn header(params: &CreateParams<'_>) -> Result<Header> {
    check_no_preallocation(params.values)?;
    let cluster_size = params.values.num("cluster_size").unwrap_or(CLUSTER_SIZE);
    if !is_cluster_size(cluster_size) {
        return Err(Error::invalid(
            "QED cluster size must be within range [4096, 67108864] and power of 2",
        ));
    }
    let table_size = params.values.num("table_size").unwrap_or(TABLE_SIZE);
    if !is_table_size(table_size) {
        return Err(Error::invalid(
            "QED table size must be within range [1, 16] and power of 2",
        ));
    }
    let mut header = Header {
        cluster_size: cluster_size as u32,
        table_size: table_size as u32,
        header_size: 1,
        features: FeatureBits::empty(),
        compatible: 0,
        autoclear: 0,
        table_offset: cluster_size,
        size: params.size,
        name_offset: 0,
        name_len: 0,
    };
    if !header.can_hold(params.size) {
        return Err(Error::invalid(format!(
            "QED image size must be a multiple of 512 and at most {} bytes",
            most_size(header.cluster_size, header.table_size)
        )));
    }
    if let Some(backing) = params.backing {
        record(&mut header, backing, HEADER_LEN as u32)?;
    }
    Ok(header)
}

/// See [`crate::format::FormatDriver::measure`].
pub(super) fn measure(params: &CreateParams<'_>, contents: &mut Contents<'_>) -> Result<Measured> {
    let header = header(params)?;
    let cluster = u64::from(header.cluster_size);
    let empty = header.table_offset + header.table_len();
    let covered = header.per_table() * cluster;
    let (data, tables) = match &mut contents.data_units {
        Some(count) => (count(cluster)?, count(covered)?),
        None => (0, 0),
    };
    let len = |clusters: u64, tables: u64| {
        let tables = tables.saturating_mul(header.table_len());
        let data = clusters.saturating_mul(cluster);
        empty.saturating_add(tables).saturating_add(data)
    };
    Ok(Measured {
        required: len(data, tables),
        fully_allocated: len(header.clusters(), header.size.div_ceil(covered)),
        bitmaps: None,
    })
}

/// Checks the options.
pub(super) fn plan(params: &CreateParams<'_>) -> Result<Box<dyn NewImage>> {
    Ok(Box::new(NewQed {
        header: header(params)?,
        backing: params.backing.cloned(),
        table: None,
    }))
}

/// An image to be created.
#[derive(Debug)]
struct NewQed {
    header: Header,
    backing: Option<BackingRef>,
    table: Option<Table>,
}

impl NewImage for NewQed {
    fn files(&self) -> Vec<PlannedFile> {
        let header = &self.header;
        vec![PlannedFile::own(header.table_offset + header.table_len())]
    }

    fn prepare(&mut self, _: &PrepareContext<'_>) -> Result<()> {
        let header = &self.header;
        let directory = Directory::new(
            header.table_offset,
            (header.table_len(), header.per_table()),
            header.cluster_size.trailing_zeros(),
            Vec::new(),
        )?;
        self.table = Some(Table::in_parts(
            header.clusters(),
            header.table_offset,
            header.coding(),
            directory,
        )?);
        Ok(())
    }

    fn start(
        mut self: Box<Self>,
        files: &[Arc<dyn Storage>],
        _control: &Arc<JobControl>,
    ) -> Result<Box<dyn Bulk>> {
        let storage = own_file(files)?;
        let table = self.table.take().ok_or_else(not_prepared)?;
        let (layout, size) = (QedLayout::of(&self.header), self.header.size);
        let fresh = storage.limits().grown_is_zero && storage.is_empty()?;
        let is_overlay = self.backing.is_some();
        let finish = Finisher {
            header: self.header,
            backing: self.backing,
            fresh,
        };
        let bulk = BlockBulk::new(storage, layout, table, (size, size), is_overlay, finish)?;
        Ok(Box::new(bulk))
    }
}

/// Completes a new image.
#[derive(Debug)]
struct Finisher {
    header: Header,
    backing: Option<BackingRef>,
    /// The file reads as zeroes where nothing has been written.
    fresh: bool,
}

impl Finish<QedLayout> for Finisher {
    fn first(&self, _: &QedLayout) -> u64 {
        self.header.table_offset + self.header.table_len()
    }

    fn begin_block(&self, _: &dyn Storage, _: &QedLayout, _: u64) -> Result<()> {
        Ok(())
    }

    fn end(&self, storage: &dyn Storage, layout: &QedLayout, end: u64) -> Result<()> {
        if !storage.limits().fixed_len && storage.len()? < end {
            storage.set_len(end, Preallocation::Off)?;
        }
        if !self.fresh {
            let first = self.first(layout);
            storage.write_zeroes(0, first, ZeroFlags::MAY_UNMAP)?;
        }
        match &self.backing {
            Some(backing) => storage.write_at(&backing.name, u64::from(self.header.name_offset)),
            None => Ok(()),
        }
    }

    fn header(&self, storage: &dyn Storage, _: &QedLayout, _: u64) -> Result<()> {
        storage.write_at(&self.header.to_bytes(), 0)
    }
}
