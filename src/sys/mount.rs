//! Unmounting.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::check;

/// Unmounts what is mounted at `path`: `EBUSY` while a file in it is open. With `force`, requests to its server fail
/// from then on, and it is removed from the tree even if files are open.
pub(crate) fn unmount(path: &Path, force: bool) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::UMOUNT_NOFOLLOW
        | match force {
            true => libc::MNT_FORCE | libc::MNT_DETACH,
            false => 0,
        };
    // SAFETY: the path is NUL-terminated and lives until the call returns.
    check(unsafe { libc::umount2(path.as_ptr(), flags) }).map(drop)
}

/// The user and the group that this process runs as.
pub(crate) fn user() -> (u32, u32) {
    // SAFETY: plain system calls, which always succeed.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_mounted_is_refused() {
        let error = unmount(Path::new("/dev/null/nothing"), true).unwrap_err();
        assert!(matches!(
            error.raw_os_error(),
            Some(libc::ENOTDIR | libc::EPERM)
        ));
        assert!(unmount(Path::new("a\0b"), false).is_err());
    }
}
