//! Optical disc drives.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

// From linux/cdrom.h.
const CDROM_DRIVE_STATUS: libc::Ioctl = 0x5326;
const CURRENT_SLOT: libc::c_int = libc::c_int::MAX;
const NO_DISC: libc::c_int = 1;
const TRAY_OPEN: libc::c_int = 2;

/// Whether there is a disc in the drive, as far as it reports; fails if it is not a drive.
pub(crate) fn has_disc(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the request's argument is a number.
    let status = check(unsafe { libc::ioctl(fd.as_raw_fd(), CDROM_DRIVE_STATUS, CURRENT_SLOT) })?;
    Ok(!matches!(status, NO_DISC | TRAY_OPEN))
}
