//! What happens to the name of an open file: another file replaces it atomically, or the name is removed.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::open::{FileOpen, Locking, wrap};
use super::opening::open_raw;
use super::{FileStorage, Kind, sync_name};
use crate::error::{Error, Result, ResultExt};
use crate::storage::Storage;
use crate::storage::locks::Reach;
use crate::storage::modes::{CacheMode, Durability};
use crate::sys::attr;

/// Permission bits, and set-user-ID, set-group-ID and sticky bits.
const MODE: u32 = 0o7777;

/// Maximum number of names to try for the new file.
const TRIES: usize = 16;

impl FileStorage {
    /// The path of the file if it was opened by name and has only that one.
    pub(super) fn only_path(&self) -> Option<PathBuf> {
        if !self.is_named || self.kind != Kind::Regular {
            return None;
        }
        let name = Path::new(OsStr::from_bytes(&self.name));
        let parent = name.parent().filter(|parent| *parent != Path::new(""));
        let directory = parent.unwrap_or(Path::new(".")).canonicalize().ok()?;
        if directory.starts_with("/proc") {
            // It is a descriptor of some process.
            return None;
        }
        let path = name.canonicalize().ok()?;
        self.stands_at(&path).then_some(path)
    }

    fn stands_at(&self, path: &Path) -> bool {
        let here = attr::stat(self.fd());
        let there = path.symlink_metadata();
        here.is_ok_and(|here| {
            there.is_ok_and(|there| {
                (there.dev(), there.ino()) == here.identity && there.nlink() == 1
            })
        })
    }

    /// See [`crate::storage::HostFile::remove`].
    pub(super) fn remove_name(&self) -> Result<bool> {
        let name = Path::new(OsStr::from_bytes(&self.name));
        let is_link = name.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
        let Some(path) = self.only_path().filter(|_| !is_link) else {
            return Ok(false);
        };
        let failed = |error: &io::Error| {
            Error::io(error).context(format!("Could not remove '{}'", self.name))
        };
        fs::remove_file(path).map_err(|error| failed(&error))?;
        Ok(true)
    }

    /// See [`crate::storage::HostFile::succeed`].
    pub(super) fn make_successor(&self, bytes: &[u8]) -> Result<Arc<dyn Storage>> {
        self.check_writable()?;
        let failed = |error: Error| error.context(format!("Could not replace '{}'", self.name));
        let path = self.only_path().ok_or_else(|| {
            failed(Error::unsupported(
                "it was not opened by its name, or has several",
            ))
        })?;
        let (aside, new) = self.make_aside(&path).map_err(failed)?;
        let made = self.take_place(&new, bytes, (&aside, &path));
        if made.is_err() {
            // The error to report is the first one.
            let _ = fs::remove_file(&aside);
        }
        made.map_err(failed)?;
        if self.cache != CacheMode::Unsafe {
            sync_name(&path).map_err(|error| failed(Error::io(&error)))?;
        }
        Ok(Arc::new(new))
    }

    /// Gives a file that was just created the owner and the permissions of another one.
    pub(super) fn take_after(&self, other: &Metadata) -> io::Result<()> {
        let file = File::from(self.fd().try_clone_to_owned()?);
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (other.uid(), other.gid()) {
            fchown(&file, Some(other.uid()), Some(other.gid()))?;
        }
        // After the owner, because changing that clears some bits.
        file.set_permissions(Permissions::from_mode(other.mode() & MODE))
    }

    /// Creates a new file beside this one, open in the same way.
    fn make_aside(&self, path: &Path) -> Result<(PathBuf, Self)> {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let mut how = OpenOptions::new();
        how.read(true).write(true).create_new(true).mode(0o600);
        let options = FileOpen {
            writable: true,
            cache: self.cache,
            locking: match self.locks.reach() {
                Reach::Nothing => Locking::Off,
                Reach::Process | Reach::Host => Locking::Auto,
            },
            driver: Some("file"),
            named_by_image: false,
        };
        for _ in 0..TRIES {
            let number = getrandom::u32()
                .map_err(|error| Error::os(error.raw_os_error().unwrap_or(libc::EIO)))?;
            let name = [b".", name, format!(".{number:08x}").as_bytes()].concat();
            let aside = path.with_file_name(std::ffi::OsString::from_vec(name));
            let fd = match open_raw(&aside, &how, self.cache) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => opened.map_err(|error| Error::io(&error))?,
            };
            let made = wrap(fd, self.name.clone(), &options);
            if made.is_err() {
                let _ = fs::remove_file(&aside);
            }
            let mut new = made?;
            new.is_named = true;
            return Ok((aside, new));
        }
        Err(Error::os(libc::EEXIST))
    }

    /// Fills the new file and gives it the name.
    fn take_place(&self, new: &Self, bytes: &[u8], (from, to): (&Path, &Path)) -> Result<()> {
        let os = |error: io::Error| Error::io(&error);
        let old = to.symlink_metadata().map_err(os)?;
        new.take_after(&old)
            .map_err(os)
            .context(|| "the new file cannot get its owner and permissions".into())?;
        new.write_at(bytes, 0)?;
        new.set_len(bytes.len() as u64, crate::storage::Preallocation::Off)?;
        new.sync(Durability::Synced)?;
        new.lock(self.locks.held())?;
        if !self.stands_at(to) {
            return Err(Error::os(libc::ESTALE));
        }
        fs::rename(from, to).map_err(os)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::{FileOpen, open, open_fd};
    use super::*;
    use crate::storage::modes::{LockRequest, Permissions as Locked};
    use crate::storage::traits::Storage as _;

    fn writable() -> FileOpen {
        FileOpen {
            writable: true,
            ..FileOpen::default()
        }
    }

    #[test]
    fn a_successor_has_the_name_the_mode_and_the_locks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.vmdk");
        fs::write(&path, b"old bytes").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("disk.vmdk", &link).unwrap();
        let old = open(&link, &writable()).unwrap();
        let request = LockRequest {
            uses: Locked::WRITE,
            denies: Locked::WRITE,
        };
        old.lock(request).unwrap();
        let new = old.make_successor(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & MODE, 0o640);
        assert!(link.is_symlink());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        let other = open(&path, &writable()).unwrap();
        assert!(other.lock(request).is_err());
        new.write_at(b"N", 0).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"New");
        drop((old, new));
        other.lock(request).unwrap();
    }

    #[test]
    fn what_has_no_name_of_its_own_has_no_successor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, b"old").unwrap();
        let file = fs::File::options().read(true).write(true).open(&path);
        let file = file.unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        let by_number = format!("/dev/fd/{number}");
        let by_number = open(Path::new(&by_number), &writable()).unwrap();
        assert!(by_number.only_path().is_none());
        let given = open_fd(file.as_fd().try_clone_to_owned().unwrap(), "a", &writable());
        assert!(given.unwrap().only_path().is_none());
        let named = open(&path, &writable()).unwrap();
        assert!(named.only_path().is_some());
        fs::hard_link(&path, dir.path().join("b")).unwrap();
        assert!(named.only_path().is_none());
        assert!(named.make_successor(b"new").is_err());
        fs::remove_file(&path).unwrap();
        assert!(named.only_path().is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
