//! Descriptors that the library keeps open. All of them are created or taken over here.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use super::check;

/// 0 to 2 are the program's standard streams, even while they are closed: code that prints to them must not write to an
/// image.
const FIRST: RawFd = 3;

/// The descriptor itself, or a duplicate in its place if it is one of the standard streams.
pub(crate) fn keep(fd: OwnedFd) -> io::Result<OwnedFd> {
    keep_from(fd, FIRST)
}

fn keep_from(fd: OwnedFd, first: RawFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() >= first {
        return Ok(fd);
    }
    duplicate_from(fd.as_raw_fd(), first)
}

/// A duplicate, closed on exec.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    duplicate_number(fd.as_raw_fd())
}

/// A duplicate of the descriptor with this number, closed on exec. Fails if it is not open.
pub(crate) fn duplicate_number(number: RawFd) -> io::Result<OwnedFd> {
    duplicate_from(number, FIRST)
}

fn duplicate_from(number: RawFd, first: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers; fails if the number is not open.
    let fd = check(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, first) })?;
    // SAFETY: the descriptor is new and owned by nothing else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens a file, closed on exec.
pub(crate) fn open(path: &Path, how: &OpenOptions) -> io::Result<OwnedFd> {
    keep(how.open(path)?.into())
}

/// An eventfd, non-blocking and closed on exec.
pub(crate) fn event() -> io::Result<OwnedFd> {
    // SAFETY: a plain system call.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the descriptor is new and owned by nothing else.
    keep(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// For objects that create their own descriptor and do not give it away: creates them again until the descriptor has a
/// number that may be kept.
pub(crate) fn make<T: AsRawFd>(make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    make_from(make, FIRST)
}

fn make_from<T: AsRawFd>(mut make: impl FnMut() -> io::Result<T>, first: RawFd) -> io::Result<T> {
    // These occupy the low numbers until a higher one is returned.
    let mut low = Vec::new();
    loop {
        let made = make()?;
        if made.as_raw_fd() >= first {
            return Ok(made);
        }
        low.push(made);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// Above everything that this test process has open.
    const HIGH: RawFd = 500;

    #[test]
    fn a_low_descriptor_is_replaced_by_a_duplicate_and_closed() {
        let file = tempfile::tempfile().unwrap();
        let low = file.as_raw_fd();
        let identity = crate::sys::attr::stat(file.as_fd()).unwrap().identity;
        let kept = keep_from(file.into(), HIGH).unwrap();
        assert!(kept.as_raw_fd() >= HIGH, "{low} became {kept:?}");
        assert_eq!(
            crate::sys::attr::stat(kept.as_fd()).unwrap().identity,
            identity
        );
        let number = kept.as_raw_fd();
        assert_eq!(keep_from(kept, HIGH).unwrap().as_raw_fd(), number);
    }

    #[test]
    fn what_cannot_be_moved_is_made_until_its_number_is_high_enough() {
        // Other threads allocate numbers in the meantime: these are occupied in advance.
        let low = tempfile::tempfile().unwrap();
        let bound = low.as_raw_fd() + 1;
        let mut lower = Vec::new();
        let high = loop {
            let file = tempfile::tempfile().unwrap();
            match file.as_raw_fd() >= bound {
                true => break file,
                false => lower.push(file),
            }
        };
        let expected = high.as_raw_fd();
        let mut files = vec![high, low];
        let file = make_from(|| Ok(files.pop().unwrap()), bound).unwrap();
        assert_eq!((file.as_raw_fd(), files.len()), (expected, 0));
    }
}
