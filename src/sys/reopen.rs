//! Opening an open file again.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Opens the file of a descriptor for reading and closes it. Open-file-description locks, the only ones that we take,
/// stay with the original descriptor. Whether it succeeds does not matter.
pub(crate) fn open_and_close(fd: BorrowedFd<'_>) {
    drop(File::open(format!("/proc/self/fd/{}", fd.as_raw_fd())));
}
