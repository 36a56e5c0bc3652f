//! Compares the refcounts in the file with those that were counted, and checks the COPIED flags.

use crate::error::Result;
use crate::format::RepairMode;
use crate::format::qcow2::disk::{Geometry, Header, L1Entry, L2Entry, L2Kind};
use crate::memory::{self, IoBuf};

use super::reference_counts::ReferenceCounts;
use super::report::Findings;
use super::stored_refcounts::StoredRefcounts;
use super::walk::{CheckedFile, Walker};

/// Counts the refcount table and its blocks, and reports bad entries; returns what is wrong with them.
pub(super) fn refcount_structures(
    walker: &mut Walker<'_, '_>,
    stored: &StoredRefcounts<'_>,
    header: &Header,
) -> Structures {
    let geometry = walker.layout.geometry;
    let mut found = Structures::default();
    if let Err(error) = header.validate_reftable() {
        found.unusable = true;
        walker.findings.corruption(|| format!("ERROR {error}"));
        return found;
    }
    let (offset, clusters) = (header.reftable_offset, header.reftable_clusters);
    walker.refer(offset, u64::from(clusters) * geometry.cluster_size());
    for (entry, index) in stored.table().iter().zip(0u64..) {
        let block = entry.offset();
        if entry.has_reserved_bits() {
            found.unusable = true;
            walker
                .findings
                .corruption(|| format!("ERROR refcount table entry {index} has reserved bits set"));
        } else if geometry.in_cluster(block) != 0 {
            found.unusable = true;
            walker.findings.corruption(|| {
                format!(
                    "ERROR refcount block {index} is not cluster aligned; refcount table entry \
                     corrupted"
                )
            });
        } else if geometry.cluster_of(block) >= walker.end {
            found.outside = true;
            walker
                .findings
                .corruption(|| format!("ERROR refcount block {index} is outside image"));
        } else if block != 0 {
            walker.refer(block, geometry.cluster_size());
            let count = walker.counts.get(geometry.cluster_of(block));
            if count != 1 {
                found.unusable = true;
                walker
                    .findings
                    .corruption(|| format!("ERROR refcount block {index} refcount={count}"));
            }
        }
    }
    let first = geometry.cluster_of(offset);
    let shared = |cluster: u64| walker.counts.get(cluster) != 1;
    // Sharing shows only once everything is counted: with a block that came first, or with the table itself.
    found.table_shared = (first..first + u64::from(clusters)).any(shared);
    found.shared = stored
        .table()
        .iter()
        .any(|entry| entry.offset() != 0 && shared(geometry.cluster_of(entry.offset())));
    found
}

/// What is wrong with the refcount structures.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Structures {
    /// They must be rewritten.
    pub unusable: bool,
    /// A block lies past the end of the file.
    pub outside: bool,
    /// The clusters of blocks hold something else as well: nothing may be written to them.
    pub shared: bool,
    /// The same for the table.
    pub table_shared: bool,
    /// A cluster in use has a refcount of 0.
    pub zeroes: bool,
    /// A cluster in use has no refcount block.
    pub missing: bool,
    /// Number of corruptions among the findings about the structures.
    pub corruptions: u64,
    /// Number of refcounts that are too low, too high, and that cannot be read.
    pub errors: u64,
    pub leaks: u64,
    pub unread: u64,
}

impl Structures {
    /// Whether they are damaged in a way that QEMU repairs only by writing new ones.
    pub fn are_broken(self) -> bool {
        self.unusable || self.zeroes
    }

    /// Whether they cannot be repaired in place.
    pub fn need_rebuild(self) -> bool {
        self.unusable || self.outside || self.shared || self.table_shared || self.missing
    }
}

/// Compares the refcounts of all clusters of the file; returns whether all are right. Wrong ones are counted, and
/// planned to be repaired, if `plan` is given; otherwise they are only reported.
///
/// # Errors
/// If I/O fails, or when cancelled.
pub(super) fn refcounts(
    walker: &mut Walker<'_, '_>,
    stored: &mut StoredRefcounts<'_>,
    structures: &mut Structures,
    mut plan: Option<&mut RepairPlan>,
) -> Result<bool> {
    let geometry = walker.layout.geometry;
    let clusters = walker.end;
    let per_block = geometry.refcount_block_entries();
    let bits = geometry.refcount_block_bits();
    let (pages, page_len) = walker.counts.ranges()?;
    // Where there is neither a block nor a reference, both counts are 0.
    let mut blocks = Vec::new();
    for (index, entry) in (0u64..).zip(stored.table()) {
        if entry.offset() != 0 {
            memory::reserve(&mut blocks, 1)?;
            blocks.push(index);
        }
    }
    for start in pages {
        for index in start >> bits..=(start + page_len - 1) >> bits {
            memory::reserve(&mut blocks, 1)?;
            blocks.push(index);
        }
    }
    blocks.sort_unstable();
    blocks.dedup();
    let mut clean = true;
    let mut highest = 0;
    let mut unaligned_told = false;
    for index in blocks {
        let first = index << bits;
        let end = first.saturating_add(per_block).min(clusters);
        if first >= clusters || walker.given_up() {
            break;
        }
        walker.visit_bytes(geometry.cluster_size());
        let Walker {
            counts, findings, ..
        } = &mut *walker;
        let mut counted = counts.reader();
        let width = geometry.refcount_width();
        let block = match stored.block(index) {
            Ok(block) => block,
            Err(error) if !error.is_of_one_place() => return Err(error),
            Err(error) => {
                structures.unusable = true;
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
                    let line =
                        || format!("Can't get refcount for cluster {cluster}: Input/output error");
                    if plan.is_some() {
                        findings.check_error(line);
                    } else {
                        structures.unread += 1;
                        findings.note(line);
                    }
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
            structures.zeroes |= held == 0;
            structures.missing |= block.is_none();
            let line = move |what: &str| {
                format!("{what} cluster {cluster} refcount={held} reference={counted}")
            };
            let Some(plan) = plan.as_deref_mut() else {
                if held > counted {
                    structures.leaks += 1;
                    findings.note(|| line("Leaked"));
                } else {
                    structures.errors += 1;
                    findings.note(|| line("ERROR"));
                }
                continue;
            };
            if plan.repairs(held > counted, block.is_some()) {
                memory::push(&mut plan.refcounts, (cluster, counted))?;
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
    walker.findings.report.image_end_offset = Some((highest + 1) * geometry.cluster_size());
    Ok(clean)
}

/// The changes of a repair.
#[derive(Debug, Default)]
pub(super) struct RepairPlan {
    pub(super) repair: RepairMode,
    /// Clusters and their new refcounts, in ascending order.
    pub(super) refcounts: Vec<(u64, u64)>,
    /// Something else is wrong: the counts may be too low.
    pub(super) doubtful: bool,
}

impl RepairPlan {
    /// Whether a wrong refcount is repaired: if it lies in a block, and is raised or no reference can have been missed.
    fn repairs(&self, leak: bool, block: bool) -> bool {
        match self.repair {
            RepairMode::Report => false,
            RepairMode::Leaks => leak && !self.doubtful,
            RepairMode::All => block && !(leak && self.doubtful),
        }
    }

    /// The refcount that a cluster will have, if it changes.
    fn planned(&self, cluster: u64) -> Option<u64> {
        let at = self
            .refcounts
            .binary_search_by_key(&cluster, |(cluster, _)| *cluster)
            .ok()?;
        self.refcounts.get(at).map(|(_, count)| *count)
    }
}

/// The refcounts that the file will have.
pub(super) struct Planned<'p, 's, 'a>(pub &'p RepairPlan, pub &'s mut StoredRefcounts<'a>);

impl Refcount for Planned<'_, '_, '_> {
    fn of(&mut self, cluster: u64, _copied: bool) -> Result<u64> {
        match self.0.planned(cluster) {
            Some(count) => Ok(count),
            None => self.1.get(cluster),
        }
    }
}

/// The COPIED flags that a repair changes.
#[derive(Debug)]
pub(super) struct Flags<'a> {
    counts: &'a ReferenceCounts,
    tables: &'a ReferenceCounts,
    geometry: Geometry,
    /// Entries by offset: to be written before a refcount is lowered, and after.
    pub clear: Vec<(u64, u64)>,
    pub set: Vec<(u64, u64)>,
}

impl<'a> Flags<'a> {
    /// Starts without any.
    pub fn new(
        counts: &'a ReferenceCounts,
        tables: &'a ReferenceCounts,
        geometry: Geometry,
    ) -> Self {
        Self {
            counts,
            tables,
            geometry,
            clear: Vec::new(),
            set: Vec::new(),
        }
    }

    /// Whether the cluster of the L2 table holds nothing else.
    fn owns(&self, table: u64) -> bool {
        let cluster = self.geometry.cluster_of(table);
        self.geometry.in_cluster(table) == 0 && self.counts.get(cluster) == self.tables.get(cluster)
    }

    /// Whether the cluster of that part of the L1 table holds nothing else.
    fn owns_l1(&self, place: u64) -> bool {
        self.counts.get(self.geometry.cluster_of(place)) == 1
    }

    fn repair(&mut self, place: u64, word: u64) -> Result<()> {
        let flags = match word & L2Entry::COPIED {
            0 => &mut self.clear,
            _ => &mut self.set,
        };
        memory::push(flags, (place, word))
    }
}

/// Counts a wrong flag, and adds it to `flags` if it is to be repaired; returns the first word of the finding.
fn repair_flag(
    findings: &mut Findings<'_>,
    flags: Option<&mut Flags<'_>>,
    (place, word): (u64, u64),
) -> Result<&'static str> {
    Ok(match flags {
        Some(flags) => {
            flags.repair(place, word)?;
            findings.report.corruptions_fixed += 1;
            "Repairing"
        }
        None => {
            findings.report.corruptions += 1;
            "ERROR"
        }
    })
}

/// The refcount with which a COPIED flag is compared.
pub(super) trait Refcount {
    /// The refcount of a cluster, whose flag is `copied`.
    fn of(&mut self, cluster: u64, copied: bool) -> Result<u64>;
}

impl Refcount for &mut StoredRefcounts<'_> {
    fn of(&mut self, cluster: u64, _copied: bool) -> Result<u64> {
        self.get(cluster)
    }
}

impl Refcount for super::reference_counts::Reader<'_> {
    fn of(&mut self, cluster: u64, _copied: bool) -> Result<u64> {
        Ok(self.get(cluster))
    }
}

/// A refcount, if its block can be read.
fn where_known(count: Result<u64>) -> Result<Option<u64>> {
    match count {
        Err(error) if error.is_of_one_place() => Ok(None),
        count => count.map(Some),
    }
}

/// Checks that a COPIED flag is set exactly where the refcount is one (active L1 table).
///
/// # Errors
/// If I/O fails, or when cancelled.
pub(super) fn copied_flags(
    layout: CheckedFile<'_>,
    findings: &mut Findings<'_>,
    mut refcount: impl Refcount,
    (l1_offset, l1_entries): (u64, u32),
    mut flags: Option<&mut Flags<'_>>,
) -> Result<()> {
    let geometry = layout.geometry;
    let mut buffer = IoBuf::new();
    // Without a readable refcount there is nothing to compare the flags with.
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
            let count = refcount.of(geometry.cluster_of(l1.offset()), l1.copied());
            let Some(count) = where_known(count)? else {
                blind = true;
                return Ok(());
            };
            if (count == 1) != l1.copied() {
                let place = (l1_offset + u64::from(index) * 8, l1.0 ^ L1Entry::COPIED);
                let own = flags.as_deref_mut().filter(|flags| flags.owns_l1(place.0));
                let what = repair_flag(findings, own, place)?;
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
                let count = match layout.data_file {
                    true => Ok(1),
                    false => refcount.of(geometry.cluster_of(offset), entry.copied()),
                };
                let Some(count) = where_known(count)? else {
                    blind = true;
                    return Ok(());
                };
                if (count == 1) != entry.copied() {
                    let place = (at, entry.0 ^ L2Entry::COPIED);
                    let own = flags.as_deref_mut().filter(|flags| flags.owns(l1.offset()));
                    let what = repair_flag(findings, own, place)?;
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
