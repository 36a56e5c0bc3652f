//! The L2 tables and refcount blocks that the active tables point to: they must be inside the file, overlap nothing
//! else, and each be used once. A table that is used twice lets a small file claim endless data.

use crate::error::{Error, Result};
use crate::format::inspect::InspectContext;

use super::super::disk::{Geometry, ImageHeader, L1Entry, RefcountTableEntry};
use super::super::open::read_table;
use super::areas::Areas;

/// Checks them.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`], [`crate::ErrorKind::Limit`], or if reading fails.
pub(super) fn check(
    ctx: &InspectContext<'_>,
    image: &ImageHeader,
    geometry: Geometry,
    areas: &Areas,
) -> Result<()> {
    let header = &image.header;
    let cluster = geometry.cluster_size();
    let mut tables = Tables {
        file_len: ctx.file_len,
        cluster,
        most: ctx.file_len.div_ceil(cluster),
        areas,
        starts: Vec::new(),
    };
    let l1 = u64::from(header.l1_entries) * 8;
    let refcounts = u64::from(header.reftable_clusters) * cluster;
    ctx.policy.check_table("The active L1 table", l1)?;
    ctx.policy.check_table("The refcount table", refcounts)?;
    let mut bad = Ok(());
    read_table(&*ctx.storage, header.reftable_offset, refcounts, |entry| {
        if bad.is_ok() {
            bad = tables.add(RefcountTableEntry(entry).offset(), "refcount block");
        }
    })?;
    bad?;
    let mut bad = Ok(());
    read_table(&*ctx.storage, header.l1_offset, l1, |entry| {
        if bad.is_ok() {
            bad = tables.add(L1Entry(entry).offset(), "L2 table");
        }
    })?;
    bad?;
    tables.starts.sort_unstable();
    match tables.starts.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::corrupt(format!(
            "the table at {:#x} is used twice",
            pair[0]
        ))),
        None => Ok(()),
    }
}

/// What is known about them so far.
struct Tables<'a> {
    file_len: u64,
    cluster: u64,
    /// Maximum number of tables that the file can hold without overlaps.
    most: u64,
    areas: &'a Areas,
    starts: Vec<u64>,
}

impl Tables<'_> {
    fn add(&mut self, start: u64, name: &str) -> Result<()> {
        if start == 0 {
            return Ok(());
        }
        let corrupt = |why: &str| Err(Error::corrupt(format!("the {name} at {start:#x} {why}")));
        if !start.is_multiple_of(self.cluster) {
            return corrupt("does not begin at a cluster");
        }
        if start >= self.file_len {
            return corrupt("passes the end of the file");
        }
        if let Some(area) = self.areas.overlap(start, self.cluster) {
            return corrupt(&format!("overlaps with the {area}"));
        }
        if self.starts.len() as u64 >= self.most {
            return corrupt("is one of more than the file can hold");
        }
        self.starts.push(start);
        Ok(())
    }
}
