//! The refcounts that the file holds against those that were counted, and the COPIED flags.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::format::RepairMode;
use crate::format::qcow2::disk::{L1Entry, L2Entry, L2Kind};

use super::report::Findings;
use super::stored::StoredRefcounts;
use super::walk::{Layout, Walker};

/// Counts the refcount table and its blocks, and tells which entries are bad.
pub(super) fn refcount_structures(
    walker: &mut Walker<'_, '_>,
    stored: &StoredRefcounts<'_>,
    offset: u64,
    clusters: u32,
) {
    let geometry = walker.layout.geometry;
    walker.refer(offset, u64::from(clusters) * geometry.cluster_size());
    for (entry, index) in stored.table().iter().zip(0u64..) {
        let block = entry.offset();
        if entry.has_reserved_bits() {
            walker
                .findings
                .corruption(|| format!("ERROR refcount table entry {index} has reserved bits set"));
        } else if geometry.in_cluster(block) != 0 {
            walker.findings.corruption(|| {
                format!(
                    "ERROR refcount block {index} is not cluster aligned; refcount table entry \
                     corrupted"
                )
            });
        } else if geometry.cluster_of(block) >= walker.end {
            walker
                .findings
                .corruption(|| format!("ERROR refcount block {index} is outside image"));
        } else if block != 0 {
            walker.refer(block, geometry.cluster_size());
            let count = walker.counts.get(geometry.cluster_of(block));
            if count != 1 {
                walker
                    .findings
                    .corruption(|| format!("ERROR refcount block {index} refcount={count}"));
            }
        }
    }
}

/// Compares every cluster of the file; returns whether all refcounts are right.
///
/// # Errors
/// Of I/O, or cancelled.
pub(super) fn refcounts(
    walker: &mut Walker<'_, '_>,
    stored: &mut StoredRefcounts<'_>,
    plan: &mut Plan,
) -> Result<bool> {
    let geometry = walker.layout.geometry;
    let clusters = walker.end;
    let per_block = geometry.refcount_block_entries();
    let bits = geometry.refcount_block_bits();
    let (pages, page_len) = walker.counts.ranges();
    // Where neither a block nor a reference is, both counts are 0.
    let mut blocks: BTreeSet<u64> = (0u64..)
        .zip(stored.table())
        .filter(|(_, entry)| entry.offset() != 0)
        .map(|(index, _)| index)
        .collect();
    for start in pages {
        blocks.extend(start >> bits..=(start + page_len - 1) >> bits);
    }
    let mut clean = true;
    let mut highest = 0;
    let mut unaligned_told = false;
    let Walker {
        counts, findings, ..
    } = walker;
    let mut counted = counts.reader();
    for index in blocks {
        let first = index << bits;
        let end = first.saturating_add(per_block).min(clusters);
        if first >= clusters {
            break;
        }
        let width = geometry.refcount_width();
        let block = match stored.block(index) {
            Ok(block) => block,
            Err(error) => {
                if !unaligned_told && error.kind() == crate::ErrorKind::Corrupt {
                    unaligned_told = true;
                    findings.note(|| {
                        format!(
                            "qcow2: Image is corrupt: {error}; further non-fatal corruption events \
                             will be suppressed"
                        )
                    });
                }
                clean = false;
                for cluster in first..end {
                    findings.check_error(|| {
                        format!("Can't get refcount for cluster {cluster}: Input/output error")
                    });
                }
                continue;
            }
        };
        for cluster in first..end {
            let held = block
                .and_then(|block| width.get(block, (cluster - first) as usize))
                .unwrap_or(0);
            let counted = counted.get(cluster);
            if held | counted != 0 {
                highest = cluster;
            }
            if held == counted {
                continue;
            }
            clean = false;
            let line = move |what: &str| {
                format!("{what} cluster {cluster} refcount={held} reference={counted}")
            };
            if plan.mends(held > counted, block.is_some()) {
                plan.refcounts.push((cluster, counted));
                if held > counted {
                    findings.report.leaks_fixed += 1;
                } else {
                    findings.report.corruptions_fixed += 1;
                }
                findings.note(|| line("Repairing"));
            } else if held > counted {
                findings.report.leaks += 1;
                findings.note(|| line("Leaked"));
            } else {
                findings.corruption(|| line("ERROR"));
            }
        }
        findings.advance(geometry.cluster_size())?;
    }
    findings.report.image_end_offset = Some((highest + 1) * geometry.cluster_size());
    Ok(clean)
}

/// What a repair is to change.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) repair: RepairMode,
    /// Clusters and the refcounts that they are to have.
    pub(super) refcounts: Vec<(u64, u64)>,
    /// Something else is wrong: what was counted may be too little.
    pub(super) doubtful: bool,
}

impl Plan {
    /// Whether a wrong refcount is mended: it lies in a block, and is raised, or no reference can
    /// have been missed.
    fn mends(&self, leak: bool, block: bool) -> bool {
        match self.repair {
            RepairMode::Report => false,
            RepairMode::Leaks => leak && !self.doubtful,
            RepairMode::All => block && !(leak && self.doubtful),
        }
    }
}

/// Notes a wrong flag, in `words` where it is to be mended; the first word of the finding.
fn mend_flag(
    findings: &mut Findings<'_>,
    words: &mut Option<&mut Vec<(u64, u64)>>,
    place: (u64, u64),
) -> &'static str {
    match words {
        Some(words) => {
            words.push(place);
            findings.report.corruptions_fixed += 1;
            "Repairing"
        }
        None => {
            findings.report.corruptions += 1;
            "ERROR"
        }
    }
}

/// The refcount that a COPIED flag is held against.
pub(super) trait Refcount {
    /// Of one cluster, whose flag is `copied`.
    fn of(&mut self, cluster: u64, copied: bool) -> Result<u64>;
}

impl Refcount for &mut StoredRefcounts<'_> {
    fn of(&mut self, cluster: u64, _copied: bool) -> Result<u64> {
        self.get(cluster)
    }
}

impl Refcount for super::counts::Reader<'_> {
    fn of(&mut self, cluster: u64, _copied: bool) -> Result<u64> {
        Ok(self.get(cluster))
    }
}

/// Checks that a COPIED flag is set exactly where the refcount is one (active L1 table).
///
/// # Errors
/// Of I/O, or cancelled.
pub(super) fn copied_flags(
    layout: Layout<'_>,
    findings: &mut Findings<'_>,
    mut refcount: impl Refcount,
    (l1_offset, l1_entries): (u64, u32),
    mut words: Option<&mut Vec<(u64, u64)>>,
) -> Result<()> {
    let geometry = layout.geometry;
    let mut buffer = Vec::new();
    // Without a refcount that can be read there is nothing to hold the flags against.
    let mut blind = false;
    layout.for_l1(l1_offset, l1_entries, |found| {
        let found: Vec<(u32, L1Entry)> = found
            .iter()
            .filter(|(_, entry)| entry.offset() != 0)
            .copied()
            .collect();
        layout.for_l2(&found, &mut buffer, |index, l1, table| {
            if blind {
                return Ok(());
            }
            let Ok(count) = refcount.of(geometry.cluster_of(l1.offset()), l1.copied()) else {
                blind = true;
                return Ok(());
            };
            if (count == 1) != l1.copied() {
                let place = (l1_offset + u64::from(index) * 8, l1.0 ^ L1Entry::COPIED);
                let what = mend_flag(findings, &mut words, place);
                findings.note(|| {
                    format!(
                        "{what} OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={:x} \
                         refcount={count}",
                        l1.0
                    )
                });
            }
            let places = (l1.offset()..).step_by(geometry.l2_entry_size());
            for (slot, at) in table.chunks_exact(geometry.l2_entry_size()).zip(places) {
                let Some(word) = slot.first_chunk::<8>() else {
                    continue;
                };
                let entry = L2Entry::from_bytes(*word);
                if entry.0 == 0 {
                    continue;
                }
                let (L2Kind::Data(offset) | L2Kind::ZeroAllocated(offset)) =
                    entry.kind(&geometry, layout.data_file)
                else {
                    continue;
                };
                let count = if layout.data_file {
                    1
                } else {
                    match refcount.of(geometry.cluster_of(offset), entry.copied()) {
                        Ok(count) => count,
                        Err(_) => {
                            blind = true;
                            return Ok(());
                        }
                    }
                };
                if (count == 1) != entry.copied() {
                    let place = (at, entry.0 ^ L2Entry::COPIED);
                    let what = mend_flag(findings, &mut words, place);
                    findings.note(|| {
                        format!(
                            "{what} OFLAG_COPIED data cluster: l2_entry={:x} refcount={count}",
                            entry.0
                        )
                    });
                }
            }
            findings.advance(geometry.cluster_size())
        })
    })
}
