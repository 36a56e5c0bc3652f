//! Which clusters of a file have a use, for checks of what has one alone.

use std::ops::Range;

use crate::error::Result;
use crate::format::marks::Marks;

/// Which clusters of a file have a use.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    marks: Marks,
    /// Clusters of the file.
    clusters: u64,
    used: u64,
    /// Behind the last one that has a use.
    end: u64,
}

impl Uses {
    /// Of a file of so many clusters; none has a use yet.
    pub(crate) fn of(clusters: u64) -> Self {
        Self {
            clusters,
            ..Self::default()
        }
    }

    /// How many clusters of the file have no use.
    pub(crate) fn unused(&self) -> u64 {
        self.clusters.saturating_sub(self.used)
    }

    /// The same in front of the last one that has a use: of a device, which keeps its length, the rest is no part of
    /// the image.
    pub(crate) fn unused_within(&self) -> u64 {
        self.end.saturating_sub(self.used)
    }

    /// Whether a cluster has a use.
    pub(crate) fn has(&self, cluster: u64) -> bool {
        self.marks.has(cluster)
    }

    /// Gives a cluster a use; false where it has one.
    ///
    /// # Errors
    /// Where there is no memory.
    pub(crate) fn mark(&mut self, cluster: u64) -> Result<bool> {
        let is_new = self.marks.mark(cluster)?;
        if cluster < self.clusters {
            self.used += u64::from(is_new);
            self.end = self.end.max(cluster + 1);
        }
        Ok(is_new)
    }

    /// As [`Uses::mark`], of many; how many of them have a use already.
    ///
    /// # Errors
    /// Where there is no memory.
    pub(crate) fn mark_all(&mut self, clusters: Range<u64>) -> Result<u64> {
        let mut shared = 0;
        for cluster in clusters {
            shared += u64::from(!self.mark(cluster)?);
        }
        Ok(shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_has_one_use() {
        let mut uses = Uses::of(100_000);
        assert!(uses.mark(7).unwrap() && uses.mark(99_999).unwrap());
        assert!(!uses.mark(7).unwrap());
        assert_eq!(uses.mark_all(5..10).unwrap(), 1);
        // Behind the file: known, and not counted.
        assert!(uses.mark(1 << 40).unwrap() && !uses.mark(1 << 40).unwrap());
        assert!(uses.has(1 << 40) && uses.has(9) && !uses.has(10) && !uses.has(1 << 50));
        assert_eq!(uses.unused(), 100_000 - 6);
    }
}
