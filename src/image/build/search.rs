//! Looks for a parent that an image knows by its identity alone, among the files beside the image.

use std::ffi::{OsStr, OsString};
use std::fs::{DirEntry, File, OpenOptions as FileOptions};
use std::io::{ErrorKind as IoKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bstr::{BStr, BString};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{ParentId, ParentRef, ParentSearch};
use crate::location::{protocol_of, resolve_plain_name};
use crate::memory;
use crate::policy::OpenPolicy;

/// So many entries of directories are looked at.
const MOST_ENTRIES: usize = 10_000;

/// What the user can do about a parent that is not found.
pub(super) const REMEDY: &str =
    "Give the file of the parent as 'backing' in the options of the image.";

/// What is looked for, and from where.
pub(super) struct Search<'a> {
    /// The name of the image, for messages.
    pub(super) image: &'a BStr,
    /// The file to which names are relative.
    pub(super) base: &'a OsStr,
    pub(super) parent: &'a ParentRef,
    /// What the parent is, for messages.
    pub(super) id: ParentId,
    pub(super) places: &'a ParentSearch,
    pub(super) policy: &'a OpenPolicy,
}

/// A file that is the parent by what its beginning says.
struct Candidate {
    file: (u64, u64),
    /// As the image would name it.
    name: OsString,
}

/// What was seen on the way.
#[derive(Default)]
struct Seen {
    entries: usize,
    candidates: Vec<Candidate>,
    /// Where it was looked.
    directories: Vec<PathBuf>,
    /// What could not be looked at, the first of it.
    closed: Option<(PathBuf, std::io::Error)>,
    /// What may not be looked at, the first of it.
    denied: Option<PathBuf>,
}

impl Search<'_> {
    /// The name of the parent as seen from the image.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or [`ErrorKind::Denied`] where the policy kept it from being looked for
    /// everywhere, [`ErrorKind::Invalid`] where there are several, [`ErrorKind::Limit`] where
    /// there are too many files.
    pub(super) fn find(&self) -> Result<BString> {
        let mut seen = Seen::default();
        if !self.base.is_empty() && protocol_of(self.base).is_none() {
            self.look_around(&mut seen)?;
        }
        let wanted = self.id;
        let image = self.image;
        let mut candidates = seen.candidates.into_iter();
        let shown = |name: &OsStr| resolve_plain_name(self.base, name).display().to_string();
        match (candidates.next(), candidates.next()) {
            (Some(one), None) => Ok(one.name.into_vec().into()),
            (Some(one), Some(other)) => Err(Error::invalid(format!(
                "'{image}' has the parent with the {wanted}, and both '{}' and '{}' have it",
                shown(&one.name),
                shown(&other.name)
            ))
            .with_hint(REMEDY)),
            (None, _) => {
                let places: Vec<String> = seen
                    .directories
                    .iter()
                    .map(|directory| format!("'{}'", directory.display()))
                    .collect();
                let mut text = format!("'{image}' has the parent with the {wanted}, ");
                match places.is_empty() {
                    true => text.push_str("and there is no directory to look for it"),
                    false => {
                        text.push_str("which no image has in ");
                        text.push_str(&places.join(" or "));
                    }
                }
                if let Some((path, error)) = seen.closed {
                    text.push_str(&format!("; '{}' cannot be read: {error}", path.display()));
                }
                let mut kind = ErrorKind::NotFound;
                if let Some(path) = seen.denied {
                    kind = ErrorKind::Denied;
                    text.push_str(&format!(
                        "; the open policy does not allow it to be looked for in '{}'",
                        path.display()
                    ));
                }
                Err(Error::new(kind, text).with_hint(REMEDY))
            }
        }
    }

    /// The image's own directory, that of the children in it, and the one above if it is that of the children.
    fn look_around(&self, seen: &mut Seen) -> Result<()> {
        let children = self.places.children;
        let own = self.look_in("", seen)?;
        self.look_in(&format!("{children}/"), seen)?;
        let name = own.and_then(|real| real.file_name().map(OsStr::to_owned));
        if name.is_some_and(|name| name == children) {
            self.look_in("../", seen)?;
        }
        Ok(())
    }

    /// Looks at the files of one directory; where that really is, if it is there.
    fn look_in(&self, place: &str, seen: &mut Seen) -> Result<Option<PathBuf>> {
        let any = resolve_plain_name(self.base, OsStr::new(&format!("{place}_")));
        let path = match Path::new(&any).parent() {
            Some(path) if !path.as_os_str().is_empty() => path.to_owned(),
            _ => PathBuf::from("."),
        };
        let opened = FileOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(&path);
        let directory = match opened {
            Ok(directory) => directory,
            Err(error) => {
                if error.kind() != IoKind::NotFound && error.kind() != IoKind::NotADirectory {
                    seen.closed.get_or_insert((path, error));
                }
                return Ok(None);
            }
        };
        // What is looked at is the directory that the policy was asked about, whatever its name leads to by now.
        let held = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        let real = held.read_link().map_err(|error| Error::io(&error))?;
        if !self.policy.allows_directory(&real) {
            seen.denied.get_or_insert(path);
            return Ok(Some(real));
        }
        let entries = match held.read_dir() {
            Ok(entries) => entries,
            Err(error) => {
                seen.closed.get_or_insert((path, error));
                return Ok(Some(real));
            }
        };
        for entry in entries {
            seen.entries += 1;
            if seen.entries > MOST_ENTRIES {
                return Err(Error::new(
                    ErrorKind::Limit,
                    format!(
                        "'{}' has the parent with the {}, and there are more than {MOST_ENTRIES} files to look for it",
                        self.image,
                        self.id
                    ),
                )
                .with_hint(REMEDY));
            }
            let looked = entry.and_then(|entry| Ok((self.candidate(&entry)?, entry)));
            match looked {
                Ok((None, _)) => {}
                Ok((Some(file), entry)) => {
                    let mut name = OsString::from(place);
                    name.push(entry.file_name());
                    // Two names of one file are one candidate.
                    if seen.candidates.iter().all(|known| known.file != file) {
                        memory::push(&mut seen.candidates, Candidate { file, name })?;
                    }
                }
                // It went away meanwhile, or became a link.
                Err(error)
                    if error.kind() == IoKind::NotFound
                        || error.raw_os_error() == Some(libc::ELOOP) => {}
                Err(error) => {
                    seen.closed.get_or_insert((path.clone(), error));
                }
            }
        }
        memory::push(&mut seen.directories, path)?;
        Ok(Some(real))
    }

    /// The identity of the file, if it is a regular one and its beginning is that of the parent.
    fn candidate(&self, entry: &DirEntry) -> std::io::Result<Option<(u64, u64)>> {
        if !entry.file_type()?.is_file() {
            return Ok(None);
        }
        let file = FileOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(entry.path())?;
        let facts = file.metadata()?;
        if !facts.is_file() {
            return Ok(None);
        }
        let id = (self.places.identify)(&beginning(file, self.places.head_len)?);
        let is_parent = id.is_some_and(|id| self.parent.is_of(id));
        Ok(is_parent.then(|| (facts.dev(), facts.ino())))
    }
}

/// The first bytes of a file, fewer where it is shorter.
fn beginning(file: File, len: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(len)
        .map_err(|_| std::io::Error::from(IoKind::OutOfMemory))?;
    file.take(len as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
