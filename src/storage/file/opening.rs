//! Opening a path itself, and the errors for failures to do so.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bstr::BStr;

use crate::error::{Error, Stage};
use crate::storage::modes::CacheMode;
use crate::sys::fd;

/// Opens without blocking on a FIFO, but still waits for a lease to be broken.
pub(super) fn open_raw(path: &Path, how: &OpenOptions, cache: CacheMode) -> io::Result<OwnedFd> {
    let direct = if cache.direct() { libc::O_DIRECT } else { 0 };
    let common = libc::O_NOCTTY | direct;
    let open = |flags| fd::open(path, how.clone().custom_flags(flags));
    match open(common | libc::O_NONBLOCK) {
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => open(common),
        other => other,
    }
}

pub(super) fn could_not_open(name: &BStr, error: &io::Error) -> Error {
    Error::io(error)
        .with_stage(Stage::Open)
        .could_not_open(name)
}

pub(super) fn no_direct(name: &BStr) -> Error {
    Error::os(libc::EINVAL)
        .with_message("filesystem does not support O_DIRECT")
        .with_stage(Stage::Open)
        .could_not_open(name)
}

pub(super) fn not_regular(name: &BStr) -> Error {
    Error::invalid(format!(
        "'file' driver requires '{name}' to be a regular file"
    ))
}
