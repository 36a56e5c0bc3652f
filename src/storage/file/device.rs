//! Devices that are not plain random-access byte stores: drives with removable discs, and streams.

use std::fs::{Metadata, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use bstr::BStr;

use super::FileOpen;
use super::opening::could_not_open;
use crate::error::{Error, Result};
use crate::sys::{attr, cdrom, fd};

// From linux/major.h.
const SCSI_TAPES: u32 = 9;
const SCSI_DISCS: u32 = 11;
const SCSI_GENERIC: u32 = 21;
const ONSTREAM_TAPES: u32 = 206;

/// Whether a file is an optical drive.
pub(crate) fn is_disc_drive(meta: &Metadata) -> bool {
    meta.file_type().is_block_device() && libc::major(meta.rdev()) == SCSI_DISCS
}

/// Refuses devices without random access, before they are opened, which would rewind a tape.
pub(super) fn refuse_streams(path: &Path, name: &BStr) -> Result<()> {
    let Ok(meta) = path.metadata() else {
        // Opening it will report the reason.
        return Ok(());
    };
    if !meta.file_type().is_char_device() {
        return Ok(());
    }
    let what = match libc::major(meta.rdev()) {
        SCSI_TAPES | ONSTREAM_TAPES => "a tape",
        SCSI_GENERIC => "a generic SCSI device, which takes commands and no reads and writes",
        _ => return Ok(()),
    };
    Err(Error::unsupported(format!(
        "Could not open '{name}': it is {what}"
    )))
}

/// Returns a descriptor that locks the disc of a drive in place; other files are returned unchanged. While a drive is
/// only open in non-blocking mode, its disc can be exchanged between two reads.
pub(super) fn hold_disc(open: OwnedFd, name: &BStr, options: &FileOpen) -> Result<OwnedFd> {
    let failed = |error: std::io::Error| could_not_open(name, &error);
    match cdrom::has_disc(open.as_fd()) {
        Err(_) if options.driver == Some(super::DISC_DRIVER) && is_device(&open) => {
            Err(Error::invalid(format!(
                "'{}' driver requires '{name}' to be a drive of discs",
                super::DISC_DRIVER
            )))
        }
        Err(_) => Ok(open),
        Ok(false) => Err(failed(std::io::Error::from_raw_os_error(libc::ENOMEDIUM))),
        Ok(true) => {
            let direct = if options.cache.direct() {
                libc::O_DIRECT
            } else {
                0
            };
            let mut how = OpenOptions::new();
            how.read(true)
                .write(options.writable)
                .custom_flags(libc::O_NOCTTY | direct);
            let same = format!("/proc/self/fd/{}", open.as_raw_fd());
            fd::open(Path::new(&same), &how).map_err(failed)
        }
    }
}

fn is_device(open: &OwnedFd) -> bool {
    let stat = attr::stat(open.as_fd());
    stat.is_ok_and(|stat| matches!(stat.mode & libc::S_IFMT, libc::S_IFBLK | libc::S_IFCHR))
}
