//! `blklogwrites`: every change of a storage is recorded in a log, from which it can be replayed.

mod disk;
mod log;
mod storage;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::filter::{FilterContext, FilterDriver};
use crate::format::{ChildSpec, FileRole};
use crate::options::{OptionKind, OptionSpec};
use crate::storage::Storage;

use log::Log;
use storage::Logged;

/// The filter.
pub static DRIVER: FilterDriver = FilterDriver {
    name: "blklogwrites",
    children: &[
        ChildSpec::FILE,
        ChildSpec {
            role: FileRole::Log,
            ..ChildSpec::required(LOG)
        },
    ],
    shows: Some(ChildSpec::FILE.name),
    contents: None,
    holds_file: false,
    // They would not be recorded.
    passes_compressed: false,
    keeps_writers_out: false,
    open_options: OPEN,
    weak_options: &[INTERVAL],
    events: &[],
    open,
    file_names: None,
    file_name: None,
};

const LOG: &str = "log";
const APPEND: &str = "log-append";
const SECTOR: &str = "log-sector-size";
const INTERVAL: &str = "log-super-update-interval";

const OPEN: &[OptionSpec] = &[
    OptionSpec {
        name: APPEND,
        kind: OptionKind::Bool,
        help: "Go on behind the entries of the log",
        default: Some("off"),
        allowed: &[],
    },
    OptionSpec {
        name: SECTOR,
        kind: OptionKind::Size,
        help: "Length of the sectors of a new log",
        default: Some("512"),
        allowed: &[],
    },
    OptionSpec {
        name: INTERVAL,
        kind: OptionKind::Num,
        help: "Entries after which the number of entries is written",
        default: Some("4096"),
        allowed: &[],
    },
];

const DEFAULT_SECTOR: u64 = 512;
const DEFAULT_INTERVAL: u64 = 4096;

fn open(mut context: FilterContext<'_>) -> Result<Arc<dyn Storage>> {
    let values = context.options;
    let sector = values.num(SECTOR);
    let append = values.bool(APPEND).unwrap_or(false);
    if append && sector.is_some() {
        return Err(Error::invalid(
            "log-append and log-sector-size are mutually exclusive",
        ));
    }
    let sector = disk::check_sector(sector.unwrap_or(DEFAULT_SECTOR))?;
    let interval = values.num(INTERVAL).unwrap_or(DEFAULT_INTERVAL);
    if interval == 0 {
        return Err(Error::invalid(format!(
            "Invalid log superblock update interval {interval}"
        )));
    }
    let file = context.take(ChildSpec::FILE.name)?.storage;
    let storage = context.take(LOG)?.storage;
    let log = match append && !storage.is_empty()? {
        true => Log::append(storage, interval, context.control)?,
        false => Log::new(storage, sector, interval),
    };
    Ok(Arc::new(Logged::new(file, log)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_sorted_by_name() {
        assert!(OPEN.is_sorted_by_key(|spec| spec.name));
    }
}
