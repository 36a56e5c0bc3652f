//! Entries of an open directory: names are resolved one at a time, relative to it, and no link is followed.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use super::{check, fd, retry};

/// Status of a file, by name or descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// Type and permission bits.
    pub(crate) mode: libc::mode_t,
    /// Length in bytes.
    pub(crate) len: u64,
    /// Device and inode.
    pub(crate) identity: (u64, u64),
    /// Last change of the contents: seconds and nanoseconds.
    pub(crate) modified: (i64, u32),
    /// Owner and group.
    pub(crate) owner: (u32, u32),
}

impl Status {
    /// Whether it is a directory.
    pub(crate) fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// Whether it is a regular file.
    pub(crate) fn is_regular(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }
}

fn status(stat: &libc::stat) -> Status {
    Status {
        mode: stat.st_mode,
        len: u64::try_from(stat.st_size).unwrap_or(0),
        identity: (stat.st_dev, stat.st_ino),
        modified: (
            stat.st_mtime,
            u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        ),
        owner: (stat.st_uid, stat.st_gid),
    }
}

/// `fstat(2)`.
pub(crate) fn stat(fd: BorrowedFd<'_>) -> io::Result<Status> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the call fills one stat, which lives through it.
    check(unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: zeroed is a valid stat, and the call filled it.
    Ok(status(&unsafe { stat.assume_init() }))
}

/// The status of the entry of that name in the directory; links are not followed.
pub(crate) fn stat_at(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Status> {
    let name = CString::new(name)?;
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the call reads the name and fills one stat; both live through it.
    check(unsafe {
        libc::fstatat(
            directory.as_raw_fd(),
            name.as_ptr(),
            stat.as_mut_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
        )
    })?;
    // SAFETY: zeroed is a valid stat, and the call filled it.
    Ok(status(&unsafe { stat.assume_init() }))
}

/// Opens the entry of that name in the directory; a link is refused (`ELOOP`), a FIFO does not block.
pub(crate) fn open_at(
    directory: BorrowedFd<'_>,
    name: &[u8],
    flags: libc::c_int,
    mode: libc::mode_t,
) -> io::Result<OwnedFd> {
    let name = CString::new(name)?;
    let always = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = retry(|| {
        // SAFETY: the call reads the name, which lives through it.
        check(unsafe {
            libc::openat(
                directory.as_raw_fd(),
                name.as_ptr(),
                flags | always,
                libc::c_uint::from(mode),
            )
        })
    })?;
    // SAFETY: the descriptor is new and owned by nothing else.
    fd::keep(unsafe { OwnedFd::from_raw_fd(opened) })
}

/// Opens a directory in the directory.
pub(crate) fn open_directory_at(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    open_at(directory, name, libc::O_RDONLY | libc::O_DIRECTORY, 0)
}

/// Creates a directory in the directory.
pub(crate) fn make_at(
    directory: BorrowedFd<'_>,
    name: &[u8],
    mode: libc::mode_t,
) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the call reads the name, which lives through it.
    check(unsafe { libc::mkdirat(directory.as_raw_fd(), name.as_ptr(), mode) }).map(drop)
}

/// Removes an entry from the directory: an empty directory if `is_directory`, otherwise anything else.
pub(crate) fn remove_at(
    directory: BorrowedFd<'_>,
    name: &[u8],
    is_directory: bool,
) -> io::Result<()> {
    let name = CString::new(name)?;
    let flags = if is_directory { libc::AT_REMOVEDIR } else { 0 };
    // SAFETY: the call reads the name, which lives through it.
    check(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), flags) }).map(drop)
}

/// Renames, possibly to another directory. Without `replace`, fails with `EEXIST` if the new name exists.
pub(crate) fn rename_at(
    from: (BorrowedFd<'_>, &[u8]),
    to: (BorrowedFd<'_>, &[u8]),
    replace: bool,
) -> io::Result<()> {
    let (old, new) = (CString::new(from.1)?, CString::new(to.1)?);
    let (from, to) = (from.0.as_raw_fd(), to.0.as_raw_fd());
    if replace {
        // SAFETY: the call reads both names, which live through it.
        return check(unsafe { libc::renameat(from, old.as_ptr(), to, new.as_ptr()) }).map(drop);
    }
    // SAFETY: the call reads both names, which live through it.
    let renamed = check(unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            from,
            old.as_ptr(),
            to,
            new.as_ptr(),
            libc::RENAME_NOREPLACE,
        ) as libc::c_int
    });
    match renamed {
        // The file system does not support the flag.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP)
            ) =>
        {
            // SAFETY: `to` is open for as long as the caller's borrow lasts.
            let there = stat_at(unsafe { BorrowedFd::borrow_raw(to) }, new.as_bytes());
            match there {
                Ok(_) => Err(io::Error::from_raw_os_error(libc::EEXIST)),
                Err(_) => {
                    // SAFETY: the call reads both names, which live through it.
                    check(unsafe { libc::renameat(from, old.as_ptr(), to, new.as_ptr()) }).map(drop)
                }
            }
        }
        other => other.map(drop),
    }
}

/// Sets the owner and permission bits of an open file.
pub(crate) fn set_owner_and_mode(
    fd: BorrowedFd<'_>,
    owner: Option<(u32, u32)>,
    mode: libc::mode_t,
) -> io::Result<()> {
    if let Some((user, group)) = owner {
        // Before the mode, some bits of which it may clear. A user who may not change the owner keeps the old one.
        // SAFETY: a plain system call.
        let _ = check(unsafe { libc::fchown(fd.as_raw_fd(), user, group) });
    }
    // SAFETY: a plain system call.
    check(unsafe { libc::fchmod(fd.as_raw_fd(), mode & 0o7777) }).map(drop)
}

/// Calls `visit` with each name in a directory, except for `.` and `..`; in unspecified order.
pub(crate) fn names<E: From<io::Error>>(
    directory: OwnedFd,
    mut visit: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    /// Closes the stream on drop.
    struct Stream(*mut libc::DIR);
    impl Drop for Stream {
        fn drop(&mut self) {
            // SAFETY: the stream is open and used by nothing else.
            unsafe { libc::closedir(self.0) };
        }
    }
    let number = directory.into_raw_fd();
    // SAFETY: the descriptor is open and owned by nothing else; the stream takes ownership of it.
    let stream = unsafe { libc::fdopendir(number) };
    if stream.is_null() {
        let error = io::Error::last_os_error();
        // SAFETY: the stream did not take ownership of it.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
        return Err(error.into());
    }
    let stream = Stream(stream);
    loop {
        // SAFETY: errno is thread-local.
        unsafe { *libc::__errno_location() = 0 };
        // SAFETY: the stream is open; the entry is used before the next call.
        let entry = unsafe { libc::readdir64(stream.0) };
        if entry.is_null() {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(0) | None => Ok(()),
                Some(_) => Err(error.into()),
            };
        }
        // SAFETY: the name ends in a NUL within the entry, which is valid until the next call.
        let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) }.to_bytes();
        if name != b"." && name != b".." {
            visit(name)?;
        }
    }
}

/// How a directory is locked against others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Not locked.
    Free,
    /// Others may hold a shared lock as well.
    Shared,
    /// Exclusively.
    Alone,
}

/// `flock(2)`; `EWOULDBLOCK` if another opener holds a conflicting lock.
pub(crate) fn hold(fd: BorrowedFd<'_>, how: Hold) -> io::Result<()> {
    let operation = match how {
        Hold::Free => libc::LOCK_UN,
        Hold::Shared => libc::LOCK_SH,
        Hold::Alone => libc::LOCK_EX,
    };
    // SAFETY: a plain system call.
    retry(|| check(unsafe { libc::flock(fd.as_raw_fd(), operation | libc::LOCK_NB) })).map(drop)
}
