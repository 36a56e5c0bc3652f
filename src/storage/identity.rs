//! What tells one byte store from another, whatever names it goes by.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bstr::BString;

use crate::sys::attr::{self, Stat};
use crate::sys::fd;
use crate::sys::loop_device::{self, Shown};

/// Two storages with the same identity are the same bytes: what is written to one shows in the other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// A regular file.
    File {
        /// The device of its file system.
        device: u64,
        /// Its number there.
        inode: u64,
    },
    /// A block device, whichever node leads to it, except a loop device that shows a whole file.
    Device(u64),
    /// What a server keeps, by its canonical URI; the export is part of it.
    Remote(BString),
    /// Bytes that this process keeps, by a number that no other storage of the process gets.
    Own(u64),
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Identity {
    /// That of a new storage whose bytes this process keeps.
    pub fn own() -> Self {
        Self::Own(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// That of the regular file or block device that is open; None for others.
    pub(crate) fn of_fd(fd: BorrowedFd<'_>) -> Option<Self> {
        Self::of_open(fd, &attr::stat(fd).ok()?)
    }

    /// As [`Identity::of`] of what is open. A loop device that shows a file from its first byte on is
    /// that file.
    pub(crate) fn of_open(fd: BorrowedFd<'_>, stat: &Stat) -> Option<Self> {
        let own = Self::of(stat)?;
        match own {
            Self::Device(device) if loop_device::is_loop(device) => {
                Some(match loop_device::shown(fd) {
                    Ok(Some(Shown::File(device, inode))) => Self::File { device, inode },
                    Ok(Some(Shown::Device(device))) => Self::Device(device),
                    // It shows nothing, or something that has no name of its own.
                    Ok(None) | Err(_) => own,
                })
            }
            _ => Some(own),
        }
    }

    /// That of the regular file or block device at a path, if there is one.
    pub(crate) fn of_path(path: &Path) -> Option<Self> {
        match Self::of(&Stat::from(&path.metadata().ok()?))? {
            Self::Device(device) if loop_device::is_loop(device) => {
                let mut how = OpenOptions::new();
                how.read(true)
                    .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
                match fd::open(path, &how) {
                    Ok(open) => Self::of_fd(open.as_fd()),
                    Err(_) => Some(Self::Device(device)),
                }
            }
            other => Some(other),
        }
    }

    /// That of the regular file or block device which `stat` describes; None for others.
    pub(crate) fn of(stat: &Stat) -> Option<Self> {
        match stat.mode & libc::S_IFMT {
            libc::S_IFREG => {
                let (device, inode) = stat.identity;
                Some(Self::File { device, inode })
            }
            // Every node of a device leads to the same device.
            libc::S_IFBLK => Some(Self::Device(stat.device)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::{MemoryStorage, NullStorage, SliceStorage, Storage};

    #[test]
    fn every_name_of_a_file_leads_to_one_identity() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("a"), "a").unwrap();
        std::fs::write(at("b"), "a").unwrap();
        std::fs::hard_link(at("a"), at("hard")).unwrap();
        std::os::unix::fs::symlink("a", at("soft")).unwrap();
        let a = Identity::of_path(&at("a"));
        assert!(matches!(a, Some(Identity::File { .. })));
        for same in ["hard", "soft", "./a"] {
            assert_eq!(Identity::of_path(&at(same)), a, "{same}");
        }
        for other in ["b", ".", "missing"] {
            assert_ne!(Identity::of_path(&at(other)), a, "{other}");
        }
    }

    #[test]
    fn a_window_is_the_storage_that_it_shows() {
        let memory = Arc::new(MemoryStorage::with_bytes("m", vec![0; 10]));
        let window = SliceStorage::new(memory.clone(), 5, None).unwrap();
        assert_eq!(window.identity(), memory.identity());
        assert_ne!(MemoryStorage::new("m").identity(), memory.identity());
        let null = || NullStorage::new("null-co", 1, false, true);
        assert_eq!(null().identity(), None);
    }
}
