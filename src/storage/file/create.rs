//! Creating files: an existing one keeps its mode, its links and its identity.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::open::{FileOpen, not_regular, open_raw, wrap};
use super::{FileStorage, Kind, Locking};
use crate::error::{Error, Result};
use crate::storage::traits::{CacheMode, LockRequest, Permissions, Storage};
use crate::sys::attr;

/// The hint set on new files: fragments of this size are long enough.
const DEFAULT_EXTENT_SIZE: u64 = 1 << 20;

/// How to create a file.
#[derive(Clone, Copy, Debug)]
pub struct FileCreate {
    /// Page cache use and flush guarantees.
    pub cache: CacheMode,
    /// Whether locks are taken.
    pub locking: Locking,
    /// Fail, changing nothing, where another process has the file open for writing.
    pub deny_writers: bool,
    /// Turn copy-on-write off (btrfs).
    pub nocow: bool,
    /// Allocation unit to ask the file system for, in bytes; 0 asks for none.
    pub extent_size_hint: u64,
}

impl Default for FileCreate {
    fn default() -> Self {
        Self {
            cache: CacheMode::default(),
            locking: Locking::default(),
            deny_writers: false,
            nocow: false,
            extent_size_hint: DEFAULT_EXTENT_SIZE,
        }
    }
}

/// A file made or emptied by [`create`].
#[derive(Debug)]
pub struct NewFile {
    /// The open storage. It holds the locks of a creator.
    pub file: FileStorage,
    /// It did not exist before.
    pub new: bool,
    /// What was asked for and could not be had, though the file is good without.
    pub warning: Option<String>,
}

/// Creates an empty file at `path`, or empties the one that is there once its locks are had;
/// a device is opened and its first sector zeroed.
///
/// # Errors
/// `Could not create 'X': …`, or [`crate::ErrorKind::Locked`]: nothing has changed then.
pub fn create(path: &Path, options: &FileCreate) -> Result<NewFile> {
    let name = path.to_string_lossy().into_owned();
    if u32::try_from(options.extent_size_hint).is_err() {
        return Err(Error::invalid("Extent size hint is too large"));
    }
    let failed = |error: io::Error| Error::io(&error).context(format!("Could not create '{name}'"));
    let (fd, new) = open_or_create(path, options.cache).map_err(failed)?;
    let how = FileOpen {
        writable: true,
        cache: options.cache,
        locking: options.locking,
        driver: None,
        named_by_image: false,
    };
    let file = wrap(fd, name.clone(), &how)?;
    if file.kind == Kind::Regular && path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(not_regular(&name));
    }
    let taken = empty(&file, options);
    if taken.is_err() && new {
        let _ = remove_same(&file, path);
    }
    let warning = taken?;
    Ok(NewFile { file, new, warning })
}

/// Opens the file, or makes it where there is none. The flag tells which it was.
fn open_or_create(path: &Path, cache: CacheMode) -> io::Result<(std::os::fd::OwnedFd, bool)> {
    let mut how = OpenOptions::new();
    how.read(true).write(true).mode(0o644);
    // A file may appear or vanish in between; a link to nothing is neither there nor to be made.
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

/// Empties the file once its locks are had. Returns a warning.
fn empty(file: &FileStorage, options: &FileCreate) -> Result<Option<String>> {
    let mut denies = Permissions::RESIZE;
    denies.set(Permissions::WRITE, options.deny_writers);
    file.lock(LockRequest {
        uses: Permissions::WRITE | Permissions::RESIZE,
        denies,
    })?;
    if file.kind != Kind::Regular {
        return clear_first_sector(file).map(|()| None);
    }
    let resized = |error: io::Error| Error::io(&error).context("Could not resize file");
    if file.raw_len().map_err(resized)? != 0 {
        file.truncate(0).map_err(resized)?;
    }
    file.extents.invalidate();
    if options.nocow {
        // Only btrfs knows it, and a file works without.
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

/// What was on a device must not be taken for the new image.
fn clear_first_sector(file: &FileStorage) -> Result<()> {
    let len = file.len()?.min(512);
    file.write_zero_bytes(0, len)
}

/// Removes the file at `path` if it still is the one that `file` has open.
///
/// # Errors
/// The operating system's. A path that names another file by now is left alone.
pub fn remove_same(file: &FileStorage, path: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let real: PathBuf = path.canonicalize()?;
    let there = real.symlink_metadata()?;
    let open = attr::stat(file.fd.as_fd())?;
    if there.is_file() && (there.dev(), there.ino()) == open.identity {
        std::fs::remove_file(real)?;
    }
    Ok(())
}
