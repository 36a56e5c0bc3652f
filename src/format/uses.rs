//! Which clusters of a file are in use, for checks of formats in which each has only one use.

use std::ops::Range;

use crate::error::Result;
use crate::format::marks::Marks;

/// Which clusters of a file are in use.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    marks: Marks,
    /// Number of clusters in the file.
    clusters: u64,
    used: u64,
    /// The end of the last one in use.
    end: u64,
}

impl Uses {
    /// For a file of this many clusters, none of them in use yet.
    pub(crate) fn of(clusters: u64) -> Self {
        Self {
            clusters,
            ..Self::default()
        }
    }

    /// How many clusters of the file are unused.
    pub(crate) fn unused(&self) -> u64 {
        self.clusters.saturating_sub(self.used)
    }

    /// The same, counting only those before the last one in use: on a device, whose length is fixed, the rest is not
    /// part of the image.
    pub(crate) fn unused_within(&self) -> u64 {
        self.end.saturating_sub(self.used)
    }

    /// Whether a cluster is in use.
    pub(crate) fn has(&self, cluster: u64) -> bool {
        self.marks.has(cluster)
    }

    /// Marks a cluster as in use; false if it was in use already.
    ///
    /// # Errors
    /// If memory is exhausted.
    pub(crate) fn mark(&mut self, cluster: u64) -> Result<bool> {
        let is_new = self.marks.mark(cluster)?;
        if cluster < self.clusters {
            self.used += u64::from(is_new);
            self.end = self.end.max(cluster + 1);
        }
        Ok(is_new)
    }

    /// As [`Uses::mark`], for many clusters; returns how many of them were in use already.
    ///
    /// # Errors
    /// If memory is exhausted.
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
        // Past the end of the file: recorded, but not counted.
        assert!(uses.mark(1 << 40).unwrap() && !uses.mark(1 << 40).unwrap());
        assert!(uses.has(1 << 40) && uses.has(9) && !uses.has(10) && !uses.has(1 << 50));
        assert_eq!(uses.unused(), 100_000 - 6);
    }
}
