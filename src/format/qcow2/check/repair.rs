//! Mending refcounts and COPIED flags in place.

use crate::error::{Error, Result};
use crate::format::qcow2::disk::{Geometry, Header, ImageHeader};
use crate::format::{CheckReport, RepairMode};
use crate::job::Job;
use crate::storage::{Durability, Storage};

use super::compare::Plan;
use super::counts::Counts;
use super::stored::StoredRefcounts;

impl Plan {
    /// Takes back the repair where a refcount block is not alone in its cluster: writing to it
    /// would change something else.
    pub(super) fn guard_blocks(
        &mut self,
        counts: &Counts,
        stored: &StoredRefcounts<'_>,
        geometry: Geometry,
    ) {
        let shared = stored.table().iter().any(|entry| {
            entry.offset() != 0 && counts.get(geometry.cluster_of(entry.offset())) != 1
        });
        if shared {
            self.repair = RepairMode::Report;
        }
    }
}

/// Checks, then writes what was planned: raised refcounts, flags, lowered refcounts, with a barrier
/// in between, so that at no time a refcount is too low.
pub(super) fn check(
    storage: &dyn Storage,
    header: &ImageHeader,
    mut plan: Plan,
    durability: Durability,
    job: &mut Job,
) -> Result<CheckReport> {
    let mut words = Vec::new();
    let report = super::check_with(storage, header, &mut plan, &mut words, job)?;
    if plan.refcounts.is_empty() && words.is_empty() {
        return Ok(report);
    }
    let geometry = header.header.geometry()?;
    let mut writer = Blocks::new(storage, &header.header, geometry)?;
    for (cluster, count) in &plan.refcounts {
        writer.set(*cluster, *count, true)?;
    }
    writer.finish()?;
    storage.sync(durability)?;
    for (offset, word) in words {
        storage.write_at(&word.to_be_bytes(), offset)?;
    }
    storage.sync(durability)?;
    for (cluster, count) in &plan.refcounts {
        writer.set(*cluster, *count, false)?;
    }
    writer.finish()?;
    storage.sync(durability)?;
    Ok(report)
}

/// Writes refcounts, block by block.
struct Blocks<'a> {
    storage: &'a dyn Storage,
    stored: StoredRefcounts<'a>,
    geometry: Geometry,
    held: Option<(u64, Vec<u8>)>,
}

impl<'a> Blocks<'a> {
    fn new(storage: &'a dyn Storage, header: &Header, geometry: Geometry) -> Result<Self> {
        Ok(Self {
            storage,
            stored: StoredRefcounts::read(storage, header, geometry)?,
            geometry,
            held: None,
        })
    }

    /// Sets a refcount where that raises it, or where it does not.
    fn set(&mut self, cluster: u64, count: u64, raise: bool) -> Result<()> {
        let geometry = self.geometry;
        let index = cluster >> geometry.refcount_block_bits();
        let entry = self.stored.table().get(index as usize);
        let offset = entry.map_or(0, |entry| entry.offset());
        if offset == 0 || geometry.in_cluster(offset) != 0 {
            return Err(Error::corrupt(format!("Refcount block {index} is missing")));
        }
        if self.held.as_ref().is_none_or(|(held, _)| *held != offset) {
            self.finish()?;
            let mut block = vec![0; geometry.cluster_size() as usize];
            self.storage.read_at(&mut block, offset)?;
            self.held = Some((offset, block));
        }
        let Some((_, block)) = &mut self.held else {
            return Ok(());
        };
        let within = (cluster & (geometry.refcount_block_entries() - 1)) as usize;
        let width = geometry.refcount_width();
        let now = width.get(block, within).unwrap_or(0);
        if (count > now) == raise && !width.set(block, within, count) {
            return Err(Error::corrupt("A refcount does not fit into its width"));
        }
        Ok(())
    }

    /// Writes the block at hand.
    fn finish(&mut self) -> Result<()> {
        if let Some((offset, block)) = self.held.take() {
            self.storage.write_at(&block, offset)?;
        }
        Ok(())
    }
}
