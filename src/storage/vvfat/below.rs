//! Finds the files below a directory before a disk has been made of it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::scan::MAX_DEPTH;
use super::settings::{DIR, RW};
use super::tree::Node;
use crate::storage::Identity;
use crate::storage::driver::OpenContext;
use crate::sys::attr::Stat;

/// Visits every file below the directory, unless this open would be refused, including files that the disk would leave
/// out; links are not followed. Whatever cannot be read is skipped. The scan stops early if the directory has more
/// entries than the policy allows for a disk.
pub(super) fn stands_on(context: &OpenContext<'_>, visit: &mut dyn FnMut(Identity)) {
    let options = context.options;
    let is_refused = context.how.writable && !options.bool(RW).unwrap_or(false);
    let Some(directory) = options.name(DIR).filter(|_| !is_refused) else {
        return;
    };
    let mut bytes = 0;
    let mut directories = vec![(PathBuf::from(OsStr::from_bytes(directory)), 0)];
    while let Some((directory, depth)) = directories.pop() {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        for entry in entries {
            bytes += (size_of::<Node>() + entry.file_name().len()) as u64;
            let fits = context.policy.check_table("The list of files is", bytes);
            if fits.is_err() || context.control.check().is_err() {
                return;
            }
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if !found.is_dir() {
                Identity::of(&Stat::from(&found))
                    .into_iter()
                    .for_each(&mut *visit);
                continue;
            }
            if depth < MAX_DEPTH {
                directories.push((entry.path(), depth + 1));
            }
        }
    }
}
