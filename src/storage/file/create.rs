//! Creating files: an existing one keeps its mode, links and identity.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bstr::{BStr, BString};

use super::entry::Entry;
use super::open::{self, FileOpen, wrap};
use super::opening::open_raw;
use super::{FileStorage, Kind, Locking};
use crate::error::{Error, Result, ResultExt};
use crate::storage::creation::{NewStorage, cannot_grow, no_new_images};
use crate::storage::modes::CacheMode;
use crate::storage::traits::Storage;
use crate::sys::{attr, seek};

/// The extent size hint for new files: fragments of this size are large enough.
const DEFAULT_EXTENT_SIZE: u64 = 1 << 20;

/// How to create a file.
#[derive(Clone, Copy, Debug)]
pub struct FileCreate {
    /// Page cache use and flush guarantees.
    pub cache: CacheMode,
    /// Whether locks are taken.
    pub locking: Locking,
    /// Turn copy-on-write off (btrfs).
    pub nocow: bool,
    /// Allocation unit to request from the file system, in bytes; 0 for none.
    pub extent_size_hint: u64,
    /// The whole file is written right away, so the space of its earlier contents is worth keeping.
    pub is_filled: bool,
}

impl FileCreate {
    fn open(&self, driver: Option<&'static str>) -> FileOpen {
        FileOpen {
            writable: true,
            cache: self.cache,
            locking: self.locking,
            driver,
            named_by_image: false,
        }
    }
}

impl Default for FileCreate {
    fn default() -> Self {
        Self {
            cache: CacheMode::default(),
            locking: Locking::default(),
            nocow: false,
            extent_size_hint: DEFAULT_EXTENT_SIZE,
            is_filled: false,
        }
    }
}

/// A file to be filled: open, created if it did not exist, otherwise unchanged so far.
#[derive(Debug)]
pub struct NewFile {
    file: Arc<FileStorage>,
    storage: Arc<dyn Storage>,
    /// Where it was created; None if it already existed.
    made: Option<PathBuf>,
    options: FileCreate,
}

impl NewFile {
    fn new(mut file: FileStorage, made: Option<PathBuf>, options: &FileCreate) -> Self {
        if let Some(path) = &made
            && options.cache != CacheMode::Unsafe
        {
            file.entry = Entry::made(path);
        }
        let file = Arc::new(file);
        Self {
            storage: file.clone(),
            file,
            made,
            options: *options,
        }
    }

    /// Whether the file did not exist before.
    pub fn is_made(&self) -> bool {
        self.made.is_some()
    }
}

/// Opens the file at `path` to be filled, creating it if it does not exist. Existing contents are kept
/// until [`NewStorage::empty`]. No lock is taken.
///
/// # Errors
/// `Could not create 'X': …`, and nothing is left behind.
pub fn claim(path: &Path, options: &FileCreate) -> Result<NewFile> {
    let name = BString::from(path.as_os_str().as_bytes());
    if u32::try_from(options.extent_size_hint).is_err() {
        return Err(Error::invalid("Extent size hint is too large"));
    }
    let (fd, new) =
        open_or_create(path, options.cache).map_err(|error| could_not_create(path, &error))?;
    if !new {
        let file = wrap(fd, name, &options.open(Some("file")))?;
        return Ok(NewFile::new(file, None, options));
    }
    made(fd, path, options)
}

fn could_not_create(path: &Path, error: &io::Error) -> Error {
    let name = BStr::new(path.as_os_str().as_bytes());
    Error::io(error).context(format!("Could not create '{name}'"))
}

/// Wraps a file that was just created.
fn made(fd: OwnedFd, path: &Path, options: &FileCreate) -> Result<NewFile> {
    let name = BString::from(path.as_os_str().as_bytes());
    // A duplicate, because a failure consumes the original descriptor.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let held = match fd.try_clone() {
        Ok(held) => held,
        Err(error) => {
            let _ = remove_same(fd.as_fd(), &path);
            return Err(could_not_create(&path, &error));
        }
    };
    match open::by_name(fd, name, &options.open(Some("file"))) {
        Ok(file) => Ok(NewFile::new(file, Some(path), options)),
        Err(error) => {
            let _ = remove_same(held.as_fd(), &path);
            Err(error)
        }
    }
}

/// Creates a file at `path`, which must not exist yet, with the owner and the permissions of another one. No lock
/// is taken.
///
/// # Errors
/// `Could not create 'X': …`, and nothing is left behind.
pub fn make_like(
    path: &Path,
    model: Option<BorrowedFd<'_>>,
    options: &FileCreate,
) -> Result<NewFile> {
    let failed = |error: io::Error| could_not_create(path, &error);
    let model = match model {
        Some(fd) => Some(File::from(fd.try_clone_to_owned().map_err(failed)?)),
        None => None,
    };
    let like = model.map(|file| file.metadata()).transpose();
    let like = like.map_err(failed)?;
    let mut how = OpenOptions::new();
    how.read(true).write(true).create_new(true).mode(0o600);
    let fd = open_raw(path, &how, options.cache).map_err(failed)?;
    let new = made(fd, path, options)?;
    if let Some(like) = like
        && let Err(error) = new.file.take_after(&like)
    {
        // The error to report is the first one.
        let _ = new.remove();
        return Err(failed(error));
    }
    Ok(new)
}

/// Opens the device at `path` to be filled. It is left unchanged until [`NewStorage::empty`].
///
/// # Errors
/// If there is no such device.
pub fn claim_device(path: &Path, options: &FileCreate) -> Result<NewFile> {
    claim_by("host_device", path, options)
}

/// As [`claim_device`], for the named driver.
pub(super) fn claim_by(driver: &'static str, path: &Path, options: &FileCreate) -> Result<NewFile> {
    let file = open::open(path, &options.open(Some(driver)))
        .map_err(|error| no_new_images(driver, error))?;
    Ok(NewFile::new(file, None, options))
}

impl NewStorage for NewFile {
    fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    fn check_room(&self, len: u64) -> Result<()> {
        if self.file.kind != Kind::Regular {
            return match self.file.len()? < len {
                true => Err(cannot_grow(&self.file.limits())),
                false => Ok(()),
            };
        }
        let too_large = || Error::os(libc::EFBIG);
        let fits = match seek::to(self.file.fd(), len) {
            // The offset exceeds the maximum of the file system.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Err(too_large()),
            Err(error) => Err(Error::io(&error)),
            Ok(()) => self.file.writable_end(0, len).map(drop),
        };
        fits.context(|| "Could not resize file".into())
    }

    fn empty(&self) -> Result<Option<String>> {
        empty(&self.file, &self.options)
    }

    fn is_made(&self) -> bool {
        self.made.is_some()
    }

    fn remove(&self) -> Result<bool> {
        match &self.made {
            None => Ok(false),
            Some(path) => remove_same(self.file.fd(), path)
                .map(|()| true)
                .map_err(|error| Error::io(&error)),
        }
    }
}

/// Opens the file, creating it if it does not exist. The flag is true if it was created.
fn open_or_create(path: &Path, cache: CacheMode) -> io::Result<(OwnedFd, bool)> {
    let mut how = OpenOptions::new();
    how.read(true).write(true).mode(0o644);
    // The file may appear or vanish between the two calls; for a dangling link, both of them fail.
    for _ in 0..8 {
        match open_raw(path, &how, cache) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return Ok((other?, false)),
        }
        match open_raw(path, how.clone().create_new(true), cache) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if path.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
                    return Ok((open_raw(path, how.clone().create(true), cache)?, true));
                }
            }
            other => return Ok((other?, true)),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

/// Empties the file. May return a warning.
fn empty(file: &FileStorage, options: &FileCreate) -> Result<Option<String>> {
    if file.kind != Kind::Regular {
        return clear_first_sector(file).map(|()| None);
    }
    let resized = |error: io::Error| Error::io(&error).context("Could not resize file");
    let keeps = options.is_filled && file.empty_but_keep_space();
    if !keeps && file.raw_len().map_err(resized)? != 0 {
        file.truncate(0).map_err(resized)?;
    }
    file.extents.invalidate();
    if options.nocow {
        // Only btrfs supports it, and the file is usable without it.
        let _ = attr::set_nocow(file.fd());
    }
    if options.extent_size_hint == 0 {
        return Ok(None);
    }
    let hinted = attr::set_extent_size_hint(file.fd(), options.extent_size_hint as u32);
    Ok(hinted.err().and_then(|error| match error.raw_os_error() {
        // Most file systems have no such hint.
        Some(libc::ENOTTY | libc::EOPNOTSUPP | libc::ENOSYS) => None,
        _ => Some(format!(
            "Failed to set extent size hint: {}",
            Error::io(&error)
        )),
    }))
}

/// Earlier contents of a device must not be mistaken for the new image.
fn clear_first_sector(file: &FileStorage) -> Result<()> {
    let len = file.len()?.min(512);
    file.write_zero_bytes(0, len)
}

/// Removes the file at `path` if it is still the one that is open.
fn remove_same(open: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let real: PathBuf = path.canonicalize()?;
    let there = real.symlink_metadata()?;
    if there.is_file() && (there.dev(), there.ino()) == attr::stat(open)?.identity {
        std::fs::remove_file(real)?;
    }
    Ok(())
}
