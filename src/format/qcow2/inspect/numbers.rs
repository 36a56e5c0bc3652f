//! The fields of a header as stored, whatever their values are.

use crate::bytes::{be32, be64};
use crate::format::inspect::{Inspection, Requirement, Verdict};
use crate::policy::OpenPolicy;
use crate::size::human_size;

use super::super::disk::{Incompatible, V2_LEN};

/// Length of the fields that are examined.
pub(super) const FIXED_LEN: usize = 112;

/// Fields of the header; 0 past the end of the file.
pub(super) struct Numbers {
    pub(super) backing_offset: u64,
    pub(super) backing_len: u32,
    cluster_bits: u32,
    pub(super) size: u64,
    pub(super) crypt_method: u32,
    l1_entries: u32,
    reftable_clusters: u32,
    pub(super) snapshots: u32,
    pub(super) incompatible: Incompatible,
    pub(super) header_len: u32,
}

impl Numbers {
    pub(super) fn read(head: &[u8]) -> Self {
        let word = |at| be32(head, at).unwrap_or(0);
        let long = |at| be64(head, at).unwrap_or(0);
        let later = word(4) >= 3;
        Self {
            backing_offset: long(8),
            backing_len: word(16),
            cluster_bits: word(20),
            size: long(24),
            crypt_method: word(32),
            l1_entries: word(36),
            reftable_clusters: word(56),
            snapshots: word(60),
            incompatible: Incompatible::from_bits_retain(if later { long(72) } else { 0 }),
            header_len: if later { word(100) } else { V2_LEN },
        }
    }

    /// The cluster size, if it is valid.
    pub(super) fn cluster_size(&self) -> Option<u64> {
        (9..=21)
            .contains(&self.cluster_bits)
            .then(|| 1 << self.cluster_bits)
    }

    /// Judges what depends only on these fields.
    pub(super) fn judge(&self, found: &mut Inspection, policy: &OpenPolicy) {
        let Some(cluster) = self.cluster_size() else {
            let reason = format!("the cluster size is 2^{}", self.cluster_bits);
            for requirement in [Requirement::TableSizes, Requirement::DecompressedSize] {
                found.find(requirement, Verdict::Unknown, reason.clone());
            }
            self.judge_rest(found);
            return;
        };
        found.judge(
            Requirement::DecompressedSize,
            match policy.check_decompressed(cluster) {
                Ok(()) => Ok(format!("{cluster} bytes at most")),
                Err(error) => Err(error.to_string()),
            },
        );
        found.judge(Requirement::TableSizes, self.check_tables(cluster, policy));
        self.judge_rest(found);
    }

    fn check_tables(&self, cluster: u64, policy: &OpenPolicy) -> Result<String, String> {
        let l1 = u64::from(self.l1_entries) * 8;
        let refcounts = u64::from(self.reftable_clusters) * cluster;
        for (bytes, name) in [(l1, "L1 table"), (refcounts, "refcount table")] {
            if bytes > policy.max_table_bytes {
                return Err(format!(
                    "the {name} takes {bytes} bytes, more than {}",
                    policy.max_table_bytes
                ));
            }
        }
        Ok(format!(
            "L1 table {}, refcount table {}",
            human_size(l1),
            human_size(refcounts)
        ))
    }

    fn judge_rest(&self, found: &mut Inspection) {
        let count = self.snapshots;
        let most = super::MAX_PLAUSIBLE_SNAPSHOTS;
        found.judge(
            Requirement::SnapshotCount,
            if count <= most {
                Ok(format!("{count} snapshots"))
            } else {
                Err(format!("{count} snapshots are more than {most}"))
            },
        );
        let corrupt = self.incompatible.contains(Incompatible::CORRUPT);
        let dirty = self.incompatible.contains(Incompatible::DIRTY);
        found.judge(
            Requirement::Clean,
            match (corrupt, dirty) {
                (true, _) => Err("the image is marked corrupt".to_owned()),
                (false, true) => Err("the image was not closed properly".to_owned()),
                (false, false) => Ok("not marked dirty or corrupt".to_owned()),
            },
        );
    }
}
