//! New images.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::blocks::{BlockBulk, Finish, Layout, Table};
use crate::format::driver::{check_no_preallocation, not_prepared, own_file};
use crate::format::{
    Bulk, Contents, CreateParams, Measured, NewImage, Outline, PlannedFile, PrepareContext,
};
use crate::job::JobControl;
use crate::options::{OptionKind, OptionSpec, Values};
use crate::storage::{Preallocation, Storage};

use super::disk::{CODING, HEADER_LEN, Header, ParallelsLayout};

const CLUSTER_SIZE: u64 = 1 << 20;

/// Creation options.
pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "cluster_size",
        kind: OptionKind::Size,
        help: "Parallels image cluster size",
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
];

/// Keys of the "Formatting" line.
pub(super) const SUMMARY: &[(&str, Option<&str>)] =
    &[("size", None), ("cluster_size", Some("1048576"))];

/// See [`Outline`].
pub(super) fn outline(_values: &Values) -> Outline {
    Outline::default()
}

/// The header of a new image, and where its clusters begin.
fn header(params: &CreateParams<'_>) -> Result<(Header, u64)> {
    check_no_preallocation(params.values)?;
    let cluster_size = params.values.num("cluster_size").unwrap_or(CLUSTER_SIZE);
    let header = Header::new(params.size, cluster_size)
        .ok_or_else(|| Error::invalid("Image size is too large for this cluster size"))?;
    let (start, _) = header.start(u64::MAX);
    Ok((header, start))
}

/// See [`crate::format::FormatDriver::measure`].
pub(super) fn measure(params: &CreateParams<'_>, contents: &mut Contents<'_>) -> Result<Measured> {
    let (header, start) = header(params)?;
    let cluster = header.cluster_size();
    let data = match &mut contents.data_units {
        Some(count) => count(cluster)?,
        None => 0,
    };
    let len = |clusters: u64| start.saturating_add(clusters.saturating_mul(cluster));
    Ok(Measured {
        required: len(data),
        fully_allocated: len(u64::from(header.entries)),
        bitmaps: None,
    })
}

/// Checks the options.
pub(super) fn plan(params: &CreateParams<'_>) -> Result<Box<dyn NewImage>> {
    let (header, start) = header(params)?;
    Ok(Box::new(NewParallels {
        header,
        start,
        table: None,
    }))
}

/// An image to be created.
#[derive(Debug)]
struct NewParallels {
    header: Header,
    start: u64,
    table: Option<Table>,
}

impl NewImage for NewParallels {
    fn files(&self) -> Vec<PlannedFile> {
        vec![PlannedFile::own(self.start)]
    }

    fn prepare(&mut self, _: &PrepareContext<'_>) -> Result<()> {
        let count = u64::from(self.header.entries);
        self.table = Some(Table::empty(count, HEADER_LEN as u64, CODING)?);
        Ok(())
    }

    fn start(
        mut self: Box<Self>,
        files: &[Arc<dyn Storage>],
        _control: &Arc<JobControl>,
    ) -> Result<Box<dyn Bulk>> {
        let storage = own_file(files)?;
        let table = self.table.take().ok_or_else(not_prepared)?;
        let layout = ParallelsLayout::of(&self.header, self.start);
        let size = self.header.size();
        let finish = Finisher {
            header: self.header,
        };
        let bulk = BlockBulk::new(storage, layout, table, (size, size), false, finish)?;
        Ok(Box::new(bulk))
    }
}

/// Completes a new image.
#[derive(Debug)]
struct Finisher {
    header: Header,
}

impl Finish<ParallelsLayout> for Finisher {
    fn first(&self, layout: &ParallelsLayout) -> u64 {
        layout.new_from()
    }

    fn begin_block(&self, _: &dyn Storage, _: &ParallelsLayout, _: u64) -> Result<()> {
        Ok(())
    }

    fn end(&self, storage: &dyn Storage, layout: &ParallelsLayout, end: u64) -> Result<()> {
        let end = end.max(layout.new_from());
        if !storage.limits().fixed_len && storage.len()? < end {
            storage.set_len(end, Preallocation::Off)?;
        }
        Ok(())
    }

    fn header(&self, storage: &dyn Storage, _: &ParallelsLayout, _: u64) -> Result<()> {
        storage.write_at(&self.header.to_bytes(), 0)
    }
}
