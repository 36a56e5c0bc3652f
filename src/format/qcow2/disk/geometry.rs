//! The sizes that follow from the header's cluster bits, refcount order and L2 entry size.

use crate::error::{Error, Result};

use super::refcount::RefcountWidth;

/// Maximum size of an L1 table, in bytes.
pub const MAX_L1_BYTES: u64 = 32 << 20;
/// Maximum size of a refcount table, in bytes.
pub const MAX_REFTABLE_BYTES: u64 = 8 << 20;

/// Cluster, table and refcount sizes of an image (specification: "General" and "Cluster mapping"). The fields are
/// checked on construction, so no method overflows for guest or host offsets below 2^63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    cluster_bits: u32,
    extended_l2: bool,
    width: RefcountWidth,
}

impl Geometry {
    /// Minimum log2 of the cluster size.
    pub const MIN_CLUSTER_BITS: u32 = 9;
    /// Maximum log2 of the cluster size.
    pub const MAX_CLUSTER_BITS: u32 = 21;
    /// Number of subclusters per cluster with extended L2 entries.
    pub const SUBCLUSTERS: u32 = 32;

    /// Checks the values from a header.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] with the message for the value that is out of range.
    pub fn new(cluster_bits: u32, extended_l2: bool, refcount_order: u32) -> Result<Self> {
        if !(Self::MIN_CLUSTER_BITS..=Self::MAX_CLUSTER_BITS).contains(&cluster_bits) {
            return Err(Error::invalid(format!(
                "Unsupported cluster size: 2^{cluster_bits}"
            )));
        }
        if extended_l2 && cluster_bits < 14 {
            return Err(Error::invalid(format!(
                "Unsupported subcluster size: {}",
                (1u32 << cluster_bits) / Self::SUBCLUSTERS
            )));
        }
        let width = RefcountWidth::from_order(refcount_order).ok_or_else(|| {
            Error::invalid("Reference count entry width too large; may not exceed 64 bits")
        })?;
        Ok(Self {
            cluster_bits,
            extended_l2,
            width,
        })
    }

    /// The same sizes with refcounts of another width.
    pub fn with_refcount_width(&self, width: RefcountWidth) -> Self {
        Self { width, ..*self }
    }

    /// log2 of the cluster size.
    pub fn cluster_bits(&self) -> u32 {
        self.cluster_bits
    }

    /// Cluster size in bytes.
    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The part of `offset` within its cluster.
    pub fn in_cluster(&self, offset: u64) -> u64 {
        offset & (self.cluster_size() - 1)
    }

    /// The index of the cluster that contains `offset`.
    pub fn cluster_of(&self, offset: u64) -> u64 {
        offset >> self.cluster_bits
    }

    /// Number of clusters that `bytes` bytes need.
    pub fn clusters_for(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster_size())
    }

    /// Whether L2 entries have 128 bits, with a bit pair per subcluster.
    pub fn extended_l2(&self) -> bool {
        self.extended_l2
    }

    /// Number of subclusters per cluster: 32, or 1 without extended L2 entries.
    pub fn subclusters(&self) -> u32 {
        if self.extended_l2 {
            Self::SUBCLUSTERS
        } else {
            1
        }
    }

    /// Subcluster size in bytes; the cluster size without extended L2 entries.
    pub fn subcluster_size(&self) -> u64 {
        self.cluster_size() / u64::from(self.subclusters())
    }

    /// Size of an L2 entry in bytes: 8 or 16.
    pub fn l2_entry_size(&self) -> usize {
        if self.extended_l2 { 16 } else { 8 }
    }

    /// log2 of the number of entries per L2 table.
    pub fn l2_bits(&self) -> u32 {
        self.cluster_bits - if self.extended_l2 { 4 } else { 3 }
    }

    /// Number of entries per L2 table.
    pub fn l2_entries(&self) -> u64 {
        1 << self.l2_bits()
    }

    /// log2 of the number of guest bytes that one L2 table maps.
    pub fn l1_shift(&self) -> u32 {
        self.cluster_bits + self.l2_bits()
    }

    /// The L1 index of a guest offset.
    pub fn l1_index(&self, guest: u64) -> u64 {
        guest >> self.l1_shift()
    }

    /// The L2 index of a guest offset.
    pub fn l2_index(&self, guest: u64) -> u64 {
        (guest >> self.cluster_bits) & (self.l2_entries() - 1)
    }

    /// Number of L1 entries that a virtual size needs.
    pub fn l1_entries(&self, size: u64) -> u64 {
        size.div_ceil(1 << self.l1_shift())
    }

    /// Number of guest clusters of a virtual size.
    pub fn guest_clusters(&self, size: u64) -> u64 {
        size.div_ceil(self.cluster_size())
    }

    /// The width of refcounts.
    pub fn refcount_width(&self) -> RefcountWidth {
        self.width
    }

    /// Number of refcounts per refcount block.
    pub fn refcount_block_entries(&self) -> u64 {
        (self.cluster_size() * 8) >> self.width.order()
    }

    /// log2 of the number of refcounts per refcount block.
    pub fn refcount_block_bits(&self) -> u32 {
        self.cluster_bits + 3 - self.width.order()
    }

    /// Number of entries per cluster of the refcount table or the L1 table.
    pub fn table_entries_per_cluster(&self) -> u64 {
        self.cluster_size() / 8
    }

    /// Position of the lowest bit of the sector count in a compressed entry.
    pub fn compressed_shift(&self) -> u32 {
        62 - (self.cluster_bits - 8)
    }

    /// The first host offset that a compressed entry cannot hold.
    pub fn compressed_limit(&self) -> u64 {
        (1u64 << self.compressed_shift()).min(1 << 56)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_the_default_image() {
        let g = Geometry::new(16, false, 4).unwrap();
        assert_eq!(g.cluster_size(), 65536);
        assert_eq!(g.l2_entries(), 8192);
        assert_eq!(g.l1_shift(), 29);
        assert_eq!(g.l1_entries((1 << 29) + 1), 2);
        assert_eq!(g.l1_entries(u64::MAX), 1 << 35);
        assert_eq!(g.refcount_block_entries(), 32768);
        assert_eq!(g.subcluster_size(), 65536);
        assert_eq!(g.compressed_shift(), 54);
        assert_eq!(g.clusters_for(u64::MAX), 1 << 48);
    }

    #[test]
    fn sizes_with_subclusters_and_narrow_refcounts() {
        let g = Geometry::new(14, true, 0).unwrap();
        assert_eq!(g.subcluster_size(), 512);
        assert_eq!(g.l2_entries(), 1024);
        assert_eq!(g.l2_entry_size(), 16);
        assert_eq!(g.refcount_block_entries(), 131_072);
        assert_eq!(g.refcount_block_bits(), 17);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for (bits, extended, order, text) in [
            (8, false, 4, "Unsupported cluster size: 2^8"),
            (22, false, 4, "Unsupported cluster size: 2^22"),
            (u32::MAX, false, 4, "Unsupported cluster size: 2^4294967295"),
            (13, true, 4, "Unsupported subcluster size: 256"),
            (
                16,
                false,
                7,
                "Reference count entry width too large; may not exceed 64 bits",
            ),
        ] {
            let error = Geometry::new(bits, extended, order).unwrap_err();
            assert_eq!(error.to_string(), text);
        }
    }
}
