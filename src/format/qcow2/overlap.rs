//! Where the metadata of an image is, so that guest data is never written over it.

use std::collections::HashSet;
use std::ops::Range;

use parking_lot::RwLock;

use crate::error::Result;
use crate::memory;

/// The metadata in the file, in units of host clusters.
#[derive(Debug, Default)]
pub(super) struct MetaMap {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Structures of many clusters: few, so a linear search will do.
    areas: Vec<(Area, Range<u64>)>,
    /// L2 tables and refcount blocks, one cluster each.
    tables: HashSet<u64>,
    /// Bitmap tables and bitmap data.
    bitmaps: HashSet<u64>,
}

/// A structure that occupies a run of clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Area {
    /// The header, with its extensions and the backing file name.
    Header,
    /// The active L1 table.
    L1,
    /// The refcount table.
    RefcountTable,
    /// The snapshot table.
    SnapshotTable,
    /// The L1 table of a snapshot.
    InactiveL1,
    /// The bitmap directory.
    BitmapDirectory,
    /// The LUKS header.
    EncryptionHeader,
}

impl Area {
    /// Its name in messages.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Header => "qcow2_header",
            Self::L1 => "active L1 table",
            Self::RefcountTable => "refcount table",
            Self::SnapshotTable => "snapshot table",
            Self::InactiveL1 => "inactive L1 table",
            Self::BitmapDirectory => "bitmap directory",
            Self::EncryptionHeader => "encryption header",
        }
    }
}

impl MetaMap {
    /// Sets where an area is. There may be several of [`Area::InactiveL1`].
    pub(super) fn set_area(&self, area: Area, clusters: Range<u64>) {
        let mut state = self.state.write();
        if area != Area::InactiveL1 {
            state.areas.retain(|(other, _)| *other != area);
        }
        if !clusters.is_empty() {
            state.areas.push((area, clusters));
        }
    }

    /// Forgets all areas of a kind.
    pub(super) fn clear_areas(&self, area: Area) {
        self.state.write().areas.retain(|(other, _)| *other != area);
    }

    /// Reserves capacity for this many more tables.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub(super) fn reserve_tables(&self, more: usize) -> Result<()> {
        let reserved = self.state.write().tables.try_reserve(more);
        reserved.map_err(|_| memory::lack())
    }

    /// Adds an L2 table or refcount block.
    pub(super) fn add_table(&self, cluster: u64) {
        self.state.write().tables.insert(cluster);
    }

    /// Removes a cluster that is now free, whatever it held.
    pub(super) fn remove_table(&self, cluster: u64) {
        let mut state = self.state.write();
        state.tables.remove(&cluster);
        state.bitmaps.remove(&cluster);
    }

    /// Adds a bitmap's table or data.
    pub(super) fn add_bitmap(&self, clusters: Range<u64>) {
        self.state.write().bitmaps.extend(clusters);
    }

    /// The name of a structure that overlaps the run of clusters.
    pub(super) fn overlap(&self, clusters: Range<u64>) -> Option<&'static str> {
        let state = self.state.read();
        let bitmap = |state: &State| {
            let mut clusters = clusters.clone();
            let touched = !state.bitmaps.is_empty()
                && clusters.any(|cluster| state.bitmaps.contains(&cluster));
            touched.then_some("bitmap")
        };
        overlap_tables(&state, &clusters).or_else(|| bitmap(&state))
    }

    /// As [`MetaMap::overlap`], without the bitmaps: for clusters that bitmap tables refer to.
    pub(super) fn overlap_other(&self, cluster: u64) -> Option<&'static str> {
        overlap_tables(&self.state.read(), &(cluster..cluster + 1))
    }

    /// As [`MetaMap::overlap`], without tables and bitmaps: for a table itself.
    pub(super) fn overlap_areas(&self, clusters: Range<u64>) -> Option<&'static str> {
        overlap_area(&self.state.read(), &clusters)
    }
}

fn overlap_tables(state: &State, clusters: &Range<u64>) -> Option<&'static str> {
    overlap_area(state, clusters).or_else(|| {
        clusters
            .clone()
            .any(|cluster| state.tables.contains(&cluster))
            .then_some("L2 table or refcount block")
    })
}

fn overlap_area(state: &State, clusters: &Range<u64>) -> Option<&'static str> {
    state
        .areas
        .iter()
        .find(|(_, area)| area.start < clusters.end && clusters.start < area.end)
        .map(|(area, _)| area.describe())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_and_tables_are_found() {
        let map = MetaMap::default();
        map.set_area(Area::Header, 0..1);
        map.set_area(Area::L1, 4..6);
        map.add_table(9);
        assert_eq!(map.overlap(1..4), None);
        assert_eq!(map.overlap(3..5), Some("active L1 table"));
        assert_eq!(map.overlap(8..12), Some("L2 table or refcount block"));
        assert_eq!(map.overlap_areas(8..12), None);
        map.set_area(Area::L1, 20..22);
        map.add_bitmap(10..12);
        assert_eq!(map.overlap(11..12), Some("bitmap"));
        assert_eq!(map.overlap_other(11), None);
        assert_eq!(map.overlap_other(9), Some("L2 table or refcount block"));
        for cluster in 9..12 {
            map.remove_table(cluster);
        }
        assert_eq!(map.overlap(4..12), None);
    }
}
