//! Opening by name without following magic links.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::retry;

/// As `open(2)` with these flags, except that no magic link of procfs is followed (`ELOOP`), because it leads to
/// whatever a process has open. None if the kernel does not support that.
pub(crate) fn without_magic_links(path: &Path, flags: i32) -> io::Result<Option<OwnedFd>> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: open_how consists of numbers, all of which may be 0.
    let mut how = unsafe { MaybeUninit::<libc::open_how>::zeroed().assume_init() };
    how.flags = u64::try_from(flags).unwrap_or(0);
    how.resolve = libc::RESOLVE_NO_MAGICLINKS;
    let opened = retry(|| {
        // SAFETY: the call reads the name and one open_how of the size given; both live through it.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                libc::AT_FDCWD,
                name.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        };
        super::check(fd as libc::c_int)
    });
    match opened {
        // SAFETY: the descriptor is new and owned by nothing else.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        // A sandbox that does not know the call may reject it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(None),
        Err(error) => Err(error),
    }
}
