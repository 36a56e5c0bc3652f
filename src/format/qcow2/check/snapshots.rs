//! The snapshot table: what is wrong with it, and what it should be.

use crate::error::{Error, Result};
use crate::format::qcow2::disk::{
    ImageHeader, MAX_L1_BYTES, MAX_SNAPSHOT_TABLE, MAX_SNAPSHOTS, SalvagedSnapshots, SnapshotEntry,
    overhanging_snapshots, read_damaged_snapshot_table, salvage_snapshot_table,
};
use crate::memory;
use crate::storage::Storage;

use super::report::Findings;
use super::walk::{Role, Walker};

/// The snapshots of an image.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// The entries, completed if they are repaired.
    pub entries: Vec<SnapshotEntry>,
    /// Length of the table in the file, in bytes.
    pub table_len: u64,
    /// The table in the file is damaged: it has to be rewritten.
    pub rewrite: bool,
}

impl Snapshots {
    /// Reads the table, with a finding for each entry that lacks what version 3 requires; with `repair`, those are
    /// completed.
    ///
    /// # Errors
    /// If there is no table at the offset, with the errno of QEMU's message; or if I/O fails.
    pub fn read(
        storage: &dyn Storage,
        header: &ImageHeader,
        repair: bool,
        findings: &mut Findings<'_>,
    ) -> Result<Self> {
        let fixed = &header.header;
        let found = match Self::read_as_is(storage, header) {
            // This is not damage.
            Err((_, error)) if error.os_errno() == Some(libc::ENOMEM) => Err(error),
            Err(_) if repair && fixed.snapshots == 0 => {
                // QEMU does not check such an image at all.
                findings.report.corruptions_fixed += 1;
                findings.note(|| "Repairing snapshot table offset invalid".to_owned());
                Ok(Self {
                    rewrite: true,
                    ..Self::default()
                })
            }
            Err(_) if repair => Self::salvage(storage, header, findings),
            Err((lines, error)) => {
                for line in lines {
                    findings.note(|| line);
                }
                Err(error)
            }
            Ok(found) => Ok(found),
        };
        let mut found = found?;
        for (snapshot, index) in found.entries.iter_mut().zip(0u32..) {
            if header.header.version < 3 || snapshot.is_complete() {
                continue;
            }
            let line = |what: &str| format!("{what} snapshot table entry {index} is incomplete");
            if !repair {
                findings.corruption(|| line("ERROR"));
                continue;
            }
            findings.report.corruptions_fixed += 1;
            findings.note(|| line("Repairing"));
            found.rewrite = true;
        }
        if header.has_data_file() && fixed.snapshots > 0 {
            // Their clusters cannot be distinguished from those of the guest.
            let count = fixed.snapshots;
            findings.corruption(|| format!("ERROR {count} snapshots in image with data file"));
        }
        if found.rewrite {
            found.entries.retain(|entry| !is_void(entry));
            for entry in &mut found.entries {
                entry.complete(header.header.size);
            }
            found.shorten(findings);
        }
        Ok(found)
    }

    /// Drops the last entries of a table that is too long once its entries are complete.
    fn shorten(&mut self, findings: &mut Findings<'_>) {
        let mut len = 0;
        let fit = self.entries.iter().take_while(|entry| {
            len += entry.padded_len() as u64;
            len <= MAX_SNAPSHOT_TABLE
        });
        let fit = fit.count();
        let over = self.entries.len() - fit;
        if over > 0 {
            self.entries.truncate(fit);
            findings.report.corruptions_fixed += over as u64;
            findings.note(|| discarding(over as u32));
        }
    }

    /// The table as other programs read it; otherwise the lines to report, and the error.
    fn read_as_is(
        storage: &dyn Storage,
        header: &ImageHeader,
    ) -> std::result::Result<Self, (Vec<String>, Error)> {
        let fixed = &header.header;
        if let Err(error) = fixed.validate_snapshot_table() {
            let mut words = error.message().chars();
            let first = words.next().unwrap_or_default().to_ascii_lowercase();
            let mut lines = vec![format!("ERROR {first}{}", words.as_str())];
            if fixed.snapshots > MAX_SNAPSHOTS {
                let over = fixed.snapshots - MAX_SNAPSHOTS;
                lines.push(overhanging(over));
            }
            return Err((lines, error));
        }
        match read_damaged_snapshot_table(storage, fixed) {
            Ok((entries, table_len)) => Ok(Self {
                entries,
                table_len,
                rewrite: false,
            }),
            Err(error) => {
                let mut lines = vec![format!("ERROR failed to read the snapshot table: {error}")];
                if error.kind() != crate::ErrorKind::Corrupt {
                    // An error of the disk or of memory.
                    return Err((lines, error));
                }
                if let Ok(over @ 1..) = overhanging_snapshots(storage, fixed) {
                    lines.push(overhanging(over));
                }
                if error.message().starts_with("Too much extra") {
                    lines.push("Repairing all removes this extra metadata".to_owned());
                }
                Err((lines, error.with_errno(libc::EFBIG)))
            }
        }
    }

    /// The usable part of the table.
    fn salvage(
        storage: &dyn Storage,
        header: &ImageHeader,
        findings: &mut Findings<'_>,
    ) -> Result<Self> {
        let SalvagedSnapshots {
            entries,
            table_len,
            trimmed,
            missing,
            over,
            too_big,
        } = salvage_snapshot_table(storage, &header.header).inspect_err(|error| {
            let message = error.message().to_owned();
            findings.note(|| format!("ERROR failed to read the snapshot table: {message}"));
        })?;
        if over > 0 {
            findings.note(|| format!("Discarding {over} overhanging snapshots"));
        }
        for (index, len) in &trimmed {
            findings.note(|| {
                format!(
                    "Discarding too much extra metadata in snapshot table entry {index} ({len} > \
                     1024)"
                )
            });
        }
        if missing > 0 {
            findings.note(|| {
                format!("Discarding {missing} snapshots that lie past the end of the file")
            });
        }
        if too_big > 0 {
            findings.note(|| discarding(too_big));
        }
        findings.report.corruptions_fixed +=
            u64::from(over) + trimmed.len() as u64 + u64::from(missing) + u64::from(too_big);
        Ok(Self {
            entries,
            table_len,
            rewrite: true,
        })
    }

    /// The bytes of the table.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        memory::reserve(&mut bytes, self.bytes())?;
        for entry in &self.entries {
            entry.write_to(&mut bytes);
        }
        Ok(bytes)
    }

    fn bytes(&self) -> usize {
        self.entries.iter().map(SnapshotEntry::padded_len).sum()
    }

    /// A copy for counting references, in which a table to be rewritten has no length.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn copied(&self) -> Result<Self> {
        let records = self
            .entries
            .len()
            .saturating_mul(size_of::<SnapshotEntry>());
        memory::headroom((self.bytes() as u64).saturating_add(2 * records as u64))?;
        Ok(Self {
            entries: self.entries.clone(),
            table_len: if self.rewrite { 0 } else { self.table_len },
            rewrite: false,
        })
    }
}

/// What can be done about snapshots beyond a limit.
fn overhanging(over: u32) -> String {
    format!("Repairing all removes the last {over} snapshots")
}

fn discarding(over: u32) -> String {
    format!("Discarding {over} overhanging snapshots (snapshot table is too big)")
}

/// Whether an entry is nothing but zeroes: the header counts more than there are.
fn is_void(entry: &SnapshotEntry) -> bool {
    entry.l1_offset == 0 && entry.l1_entries == 0 && entry.id.is_empty() && entry.name.is_empty()
}

/// Counts what a snapshot refers to.
pub(super) fn count(walker: &mut Walker<'_, '_>, snapshot: &SnapshotEntry) -> Result<()> {
    let name = || {
        format!(
            "ERROR snapshot {} ({})",
            String::from_utf8_lossy(&snapshot.id),
            String::from_utf8_lossy(&snapshot.name)
        )
    };
    if walker.layout.geometry.in_cluster(snapshot.l1_offset) != 0 {
        walker.findings.lost(|| {
            format!(
                "{} l1_offset={:#x}: L1 table is not cluster aligned; snapshot table entry \
                 corrupted",
                name(),
                snapshot.l1_offset
            )
        });
        return Ok(());
    }
    if u64::from(snapshot.l1_entries) > MAX_L1_BYTES / 8 {
        walker.findings.lost(|| {
            format!(
                "{} l1_size={:#x}: L1 table is too large; snapshot table entry corrupted",
                name(),
                snapshot.l1_entries
            )
        });
        return Ok(());
    }
    walker.l1_table(snapshot.l1_offset, snapshot.l1_entries, Role::Snapshot)
}
