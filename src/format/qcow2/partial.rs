//! Host clusters that are partly filled with compressed data.

/// Maximum number of tracked clusters: threads that compress concurrently break up each other's runs.
const MAX: usize = 8;

/// Where the next compressed bytes may go: behind the last ones in their host cluster, which has space left. The
/// default tracks none.
#[derive(Debug, Default)]
pub(super) struct PartialClusters {
    cluster_bits: u32,
    /// Host offsets of free space, each in a different cluster; the newest last.
    room: Vec<u64>,
}

impl PartialClusters {
    pub(super) fn new(cluster_bits: u32) -> Self {
        Self {
            cluster_bits,
            room: Vec::with_capacity(MAX + 1),
        }
    }

    fn left(&self, at: u64) -> u64 {
        let cluster = 1 << self.cluster_bits;
        cluster - (at & (cluster - 1))
    }

    /// Adds the free space from `at` on, in a cluster that has no entry yet; the start of a cluster is ignored.
    pub(super) fn note(&mut self, at: u64) {
        if self.left(at) == 1 << self.cluster_bits {
            return;
        }
        self.room.push(at);
        if self.room.len() > MAX {
            let least = (0..MAX).min_by_key(|&i| self.room.get(i).map(|&at| self.left(at)));
            self.room.remove(least.unwrap_or(0));
        }
    }

    /// The smallest free space that holds `len` bytes.
    pub(super) fn fitting(&self, len: u64) -> Option<u64> {
        let rooms = self.room.iter().copied().filter(|&at| self.left(at) >= len);
        rooms.min_by_key(|&at| self.left(at))
    }

    /// The free space in the cluster that was started last.
    pub(super) fn newest(&self) -> Option<u64> {
        self.room.last().copied()
    }

    /// Uses `len` bytes from `at` on, which may extend into the next cluster.
    pub(super) fn take(&mut self, at: u64, len: u64) {
        let Some(index) = self.room.iter().position(|&room| room == at) else {
            return;
        };
        if len < self.left(at) {
            self.room[index] += len;
        } else {
            self.room.remove(index);
            self.note(at + len);
        }
    }

    /// Stops using the free space in `cluster`.
    pub(super) fn forget(&mut self, cluster: u64) {
        let bits = self.cluster_bits;
        self.room.retain(|at| at >> bits != cluster);
    }

    /// Where the free space in `cluster` begins, if there is any.
    pub(super) fn room_in(&self, cluster: u64) -> Option<u64> {
        let bits = self.cluster_bits;
        self.room.iter().copied().find(|at| at >> bits == cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_room_that_suffices_is_found() {
        let mut clusters = PartialClusters::new(12);
        for at in [0x1100, 0x2f00, 0x3800, 0x5000] {
            clusters.note(at);
        }
        assert_eq!(clusters.fitting(0x400), Some(0x3800));
        assert_eq!(clusters.fitting(0x1000), None);
        clusters.take(0x1100, 0x100);
        // Using an entry does not make it newer, and the start of a cluster does not become an entry.
        assert_eq!(clusters.newest(), Some(0x3800));
        clusters.take(0x3800, 0x900);
        assert_eq!(clusters.room_in(3), None);
        assert_eq!(clusters.newest(), Some(0x4100));
        clusters.take(0x4100, 0xf00);
        assert_eq!(clusters.newest(), Some(0x2f00));
        clusters.forget(2);
        assert_eq!(clusters.newest(), Some(0x1200));
    }

    #[test]
    fn where_there_are_too_many_the_fullest_goes() {
        let mut clusters = PartialClusters::new(12);
        for cluster in 1..=9 {
            clusters.note(cluster * 0x1000 + 0x100 * ((cluster ^ 1) + 1));
        }
        let kept: Vec<_> = (1..=9).filter(|&c| clusters.room_in(c).is_some()).collect();
        assert_eq!(kept, [1, 2, 3, 4, 5, 6, 7, 9]);
    }
}
