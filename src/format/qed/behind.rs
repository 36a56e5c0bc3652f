//! What the tables name past the end of the disk: the header may say too small a size.

use std::ops::Range;

use crate::error::Result;
use crate::format::nonzero::each_nonzero;
use crate::job::JobControl;
use crate::memory;
use crate::size::SECTOR;
use crate::storage::Storage;

use super::disk::{ENTRY, Header};

/// What lies past the end of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Behind {
    /// Entries name clusters, in the last table or in tables after it.
    pub(super) has_clusters: bool,
    /// Where the last of these clusters and tables ends.
    pub(super) end: u64,
}

/// Scans the entries past the end of the disk.
///
/// # Errors
/// If reading fails, or `control` ends the work.
pub(super) fn look_behind(
    storage: &dyn Storage,
    header: &Header,
    control: &JobControl,
) -> Result<Behind> {
    let cluster = u64::from(header.cluster_size);
    let file_len = storage.len()?.next_multiple_of(SECTOR);
    let mut tables = Vec::new();
    each_l1_behind(storage, header, |_, words| {
        control.checkpoint()?;
        for (_, host) in words {
            if header.is_table_place(*host, file_len) {
                memory::push(&mut tables, *host..*host + header.table_len())?;
            }
        }
        Ok(())
    })?;
    // A damaged directory may name a table many times.
    tables.sort_unstable_by_key(|table: &Range<u64>| table.start);
    tables.dedup();
    let mut behind = Behind {
        has_clusters: false,
        end: tables.last().map_or(0, |table| table.end),
    };
    let within = header.clusters() % header.per_table() * ENTRY;
    if within > 0 {
        let place = header.table_offset + header.clusters() / header.per_table() * ENTRY;
        each_nonzero(storage, place..place + ENTRY, |_, words| {
            for (_, host) in words {
                if header.is_table_place(*host, file_len) {
                    memory::push(&mut tables, host + within..host + header.table_len())?;
                }
            }
            Ok(())
        })?;
    }
    for table in tables {
        control.checkpoint()?;
        each_nonzero(storage, table, |_, words| {
            let is_place = |host: u64| host.is_multiple_of(cluster) && host < file_len;
            for (_, host) in words.iter().filter(|(_, host)| is_place(*host)) {
                behind.has_clusters = true;
                behind.end = behind.end.max(host + cluster);
            }
            Ok(())
        })?;
    }
    Ok(behind)
}

/// Calls `visit` with the nonzero entries of the L1 table past those that the disk needs, and with the range of the
/// piece that holds them.
///
/// # Errors
/// If reading fails, or `visit` returns an error.
pub(super) fn each_l1_behind(
    storage: &dyn Storage,
    header: &Header,
    visit: impl FnMut(Range<u64>, &[(u64, u64)]) -> Result<()>,
) -> Result<()> {
    let needed = header.clusters().div_ceil(header.per_table()) * ENTRY;
    let start = header.table_offset;
    each_nonzero(storage, start + needed..start + header.table_len(), visit)
}
