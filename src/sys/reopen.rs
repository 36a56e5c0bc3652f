//! Opening an open file once more.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Opens the file of a descriptor for reading and closes it. Locks of open file descriptions, the only ones
/// that we take, stay with the descriptor. Whether it worked does not matter.
pub(crate) fn open_and_close(fd: BorrowedFd<'_>) {
    drop(File::open(format!("/proc/self/fd/{}", fd.as_raw_fd())));
}
