//! What a file name inside an image may refer to: a regular file or a block device.
//!
//! The author of the image chose the name, so it must not lead to the process's own state (its memory,
//! environment, descriptors), nor to anything that is changed by being opened or read.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use bstr::BStr;

use super::opening::{could_not_open, no_direct, not_regular, open_raw};
use crate::error::{Error, Result};
use crate::storage::modes::CacheMode;
use crate::sys::{attr, open};

/// Opens a file that an image names; [`check`] is left to the caller.
pub(super) fn open_named(path: &Path, writable: bool, cache: CacheMode) -> Result<OwnedFd> {
    let name = BStr::new(path.as_os_str().as_bytes());
    let failed = |error: io::Error| match error.raw_os_error() {
        Some(libc::EISDIR) => not_regular(name),
        Some(libc::EINVAL) if cache.direct() => no_direct(name),
        _ => could_not_open(name, &error),
    };
    // A preliminary check, because opening some devices has side effects. The open file is what counts.
    let kind = path.metadata().map_err(failed)?.file_type();
    if kind.is_char_device() {
        return Err(refused(name, "a character device"));
    }
    if !kind.is_file() && !kind.is_block_device() {
        return Err(not_regular(name));
    }
    let access = if writable {
        libc::O_RDWR
    } else {
        libc::O_RDONLY
    };
    let direct = if cache.direct() { libc::O_DIRECT } else { 0 };
    let flags = access | direct | libc::O_CLOEXEC | libc::O_NOCTTY;
    let opened = match open::without_magic_links(path, flags | libc::O_NONBLOCK) {
        // A lease is being broken, which is worth waiting for.
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
            open::without_magic_links(path, flags)
        }
        other => other,
    };
    match opened {
        Ok(Some(fd)) => Ok(fd),
        Ok(None) => {
            let mut how = OpenOptions::new();
            how.read(true).write(writable);
            open_raw(path, &how, cache).map_err(failed)
        }
        // Not a loop of links, because there is a file at the end.
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            Err(refused(name, "a way to what a process has open"))
        }
        Err(error) => Err(failed(error)),
    }
}

/// Refuses an open file of a kind that no image may name.
pub(super) fn check(fd: BorrowedFd<'_>, name: &BStr) -> Result<()> {
    let failed = |error: io::Error| could_not_open(name, &error);
    match attr::stat(fd).map_err(failed)?.mode & libc::S_IFMT {
        libc::S_IFREG if attr::is_made_up(fd).map_err(failed)? => {
            Err(refused(name, "made up by the kernel"))
        }
        libc::S_IFREG | libc::S_IFBLK => Ok(()),
        libc::S_IFCHR => Err(refused(name, "a character device")),
        _ => Err(not_regular(name)),
    }
}

fn refused(name: &BStr, what: &str) -> Error {
    Error::invalid(format!(
        "'{name}' is {what}; what an image names must be a regular file or a block device"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::{FileOpen, open, open_fd};
    use super::*;

    fn named() -> FileOpen {
        FileOpen {
            named_by_image: true,
            ..FileOpen::default()
        }
    }

    #[test]
    fn files_and_links_to_them_open() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, b"abc").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [&file, &link] {
            let options = FileOpen {
                writable: true,
                ..named()
            };
            open(path, &options).unwrap();
            open_fd(std::fs::File::open(path).unwrap().into(), "fd", &named()).unwrap();
        }
        let missing = open(&dir.path().join("none"), &named()).unwrap_err();
        assert_eq!(missing.kind(), crate::ErrorKind::NotFound);
        assert!(missing.to_string().starts_with("Could not open '"));
    }

    #[test]
    fn what_is_no_disk_does_not_open() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        let socket = dir.path().join("socket");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let kept = std::fs::File::create_new(dir.path().join("kept")).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&kept);
        let text = |path: &Path| open(path, &named()).unwrap_err().to_string();
        for path in [&fifo, &socket, &dir.path().to_owned()] {
            assert!(text(path).contains("requires"), "{}", text(path));
        }
        for (path, why) in [
            ("/dev/null".to_owned(), "a character device"),
            ("/proc/self/environ".to_owned(), "made up by the kernel"),
            ("/proc/self/mem".to_owned(), "made up by the kernel"),
            ("/proc/version".to_owned(), "made up by the kernel"),
            (format!("/dev/fd/{number}"), "what a process has open"),
            (format!("/proc/self/fd/{number}"), "what a process has open"),
            (
                format!(
                    "/proc/self/cwd/../../../../{}",
                    dir.path().join("kept").display()
                ),
                "what a process has open",
            ),
        ] {
            let text = text(Path::new(&path));
            assert!(text.contains(why), "{text}");
            // Users know what they name, so they may open all of these.
            open(Path::new(&path), &FileOpen::default()).unwrap();
        }
        // A callback that returns a descriptor does not get around the check.
        for path in ["/dev/null", "/proc/version"] {
            let fd = std::fs::File::open(path).unwrap().into();
            assert!(open_fd(fd, "fd", &named()).is_err());
        }
    }
}
