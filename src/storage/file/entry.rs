//! The name of a file that was created here: it is durable once its directory is synced as well.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use parking_lot::Mutex;

use crate::sys::{falloc, fd};

/// The directory entry of an open file, as far as it is still to be synced.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// The directory, until a sync of it has succeeded. Held open because it may be renamed in the meantime.
    unsynced: Mutex<Option<OwnedFd>>,
}

impl Entry {
    /// The entry of a file that was created at this path; for a link, the directory is that of its target.
    /// A directory that cannot be read cannot be synced either, and the file is usable without that.
    pub(super) fn made(path: &Path) -> Self {
        let directory = |path: &Path| {
            let mut how = OpenOptions::new();
            how.read(true)
                .custom_flags(libc::O_DIRECTORY | libc::O_NOCTTY);
            fd::open(path.canonicalize().ok()?.parent()?, &how).ok()
        };
        Self {
            unsynced: Mutex::new(directory(path)),
        }
    }

    /// Whether [`Entry::sync`] has something to do, or is in progress.
    pub(super) fn is_unsynced(&self) -> bool {
        self.unsynced
            .try_lock()
            .is_none_or(|directory| directory.is_some())
    }

    /// Makes the name durable. If another thread is doing so already, waits for it.
    pub(super) fn sync(&self) -> io::Result<()> {
        let mut unsynced = self.unsynced.lock();
        let Some(directory) = unsynced.as_ref() else {
            return Ok(());
        };
        match falloc::sync(directory.as_fd()) {
            // Some file systems cannot sync directories.
            Err(error) if !is_refusal(&error) => return Err(error),
            _ => *unsynced = None,
        }
        Ok(())
    }
}

/// Makes the name of a file or directory that was created at this path durable.
pub(crate) fn sync_name(path: &Path) -> io::Result<()> {
    Entry::made(path).sync()
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::EROFS)
    )
}

#[cfg(test)]
mod tests {
    use super::super::{FileCreate, FileStorage, claim};
    use super::*;
    use crate::storage::SyncPlan;
    use crate::storage::creation::NewStorage;
    use crate::storage::modes::{CacheMode, Durability};
    use crate::storage::traits::Storage;
    use crate::sys::attr;

    fn made(path: &Path, cache: CacheMode) -> std::sync::Arc<dyn Storage> {
        let options = FileCreate {
            cache,
            ..FileCreate::default()
        };
        let new = claim(path, &options).unwrap();
        new.empty().unwrap();
        new.storage().clone()
    }

    fn file(storage: &std::sync::Arc<dyn Storage>) -> &FileStorage {
        (storage.host().unwrap() as &dyn std::any::Any)
            .downcast_ref()
            .unwrap()
    }

    /// The directory that is still to be synced.
    fn directory(storage: &std::sync::Arc<dyn Storage>) -> Option<(u64, u64)> {
        let unsynced = file(storage).entry.unsynced.lock();
        unsynced
            .as_ref()
            .map(|fd| attr::stat(fd.as_fd()).unwrap().identity)
    }

    fn identity(path: &Path) -> Option<(u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        let there = path.metadata().unwrap();
        Some((there.dev(), there.ino()))
    }

    #[test]
    fn the_first_durable_sync_covers_the_name_of_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let new = made(&path, CacheMode::Writeback);
        assert_eq!(directory(&new), identity(dir.path()));
        // A sync that only orders writes does not cover the name.
        new.sync(Durability::Ordered).unwrap();
        assert_eq!(new.sync_plan(Durability::Synced), SyncPlan::Call);
        assert!(directory(&new).is_some());
        new.sync(Durability::Synced).unwrap();
        assert_eq!(directory(&new), None);
        assert_eq!(new.sync_plan(Durability::Synced), SyncPlan::Nothing);
        new.write_at(&[1], 0).unwrap();
        assert_eq!(new.sync_plan(Durability::Synced), SyncPlan::DataSync);
        // The name of a file that existed before is not ours to sync.
        assert_eq!(directory(&made(&path, CacheMode::Writeback)), None);
    }

    #[test]
    fn a_write_through_covers_the_name_and_nobody_asks_in_unsafe_mode() {
        let dir = tempfile::tempdir().unwrap();
        let through = made(&dir.path().join("through"), CacheMode::Writethrough);
        assert!(directory(&through).is_some());
        through.write_at(&[1], 0).unwrap();
        assert_eq!(directory(&through), None);
        let fast = made(&dir.path().join("fast"), CacheMode::Unsafe);
        assert_eq!(directory(&fast), None);
        assert_eq!(fast.sync_plan(Durability::Synced), SyncPlan::Nothing);
    }

    #[test]
    fn the_directory_is_that_of_the_file_whatever_the_way_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for path in [&a, &b] {
            std::fs::create_dir(path).unwrap();
        }
        // A dangling link, a link to that link, and a directory given by descriptor.
        std::os::unix::fs::symlink("../b/target", a.join("link")).unwrap();
        std::os::unix::fs::symlink("a/link", dir.path().join("link")).unwrap();
        let linked = made(&dir.path().join("link"), CacheMode::Writeback);
        assert!(b.join("target").exists());
        assert_eq!(directory(&linked), identity(&b));
        let open = std::fs::File::open(&a).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&open);
        let by_number = format!("/dev/fd/{number}/new");
        let new = made(Path::new(&by_number), CacheMode::Writeback);
        assert_eq!(directory(&new), identity(&a));
        // It is synced under whatever name it has by that time.
        std::fs::rename(&a, dir.path().join("c")).unwrap();
        assert_eq!(directory(&new), identity(&dir.path().join("c")));
        new.sync(Durability::Synced).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_read_or_synced_costs_nothing() {
        assert!(!Entry::made(Path::new("/nowhere/at/all")).is_unsynced());
        let (reader, _writer) = std::io::pipe().unwrap();
        let no_directory = Entry {
            unsynced: Mutex::new(Some(reader.into())),
        };
        assert!(no_directory.is_unsynced());
        no_directory.sync().unwrap();
        assert!(!no_directory.is_unsynced());
    }
}
