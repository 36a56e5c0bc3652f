//! Searches the files near an image for its parent, of which the image records only the identity.

use std::ffi::{OsStr, OsString};
use std::fs::{DirEntry, File, OpenOptions as FileOptions};
use std::io::{ErrorKind as IoKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bstr::{BStr, BString};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{ParentId, ParentSearch};
use crate::location::{protocol_of, resolve_plain_name};
use crate::memory;
use crate::policy::OpenPolicy;
use crate::storage::Identity;

/// Maximum number of directory entries to examine.
const MOST_ENTRIES: usize = 10_000;

/// Advice for a parent that is not found.
pub(super) const REMEDY: &str =
    "Give the file of the parent as 'backing' in the options of the image.";

/// Advice for a new parent that would not be found.
const PLACE: &str =
    "Keep the image and its parent in one directory, the parent as a file and not as a link.";

/// Advice for a new parent that could be confused with another file.
const MOVE: &str = "Move the file that is not meant to another directory.";

/// What to look for, and from where.
#[derive(Clone, Copy)]
pub(crate) struct Search<'a> {
    /// The name of the image, for messages.
    pub(crate) image: &'a BStr,
    /// The file to which names are relative.
    pub(crate) base: &'a OsStr,
    /// The recorded identity of the parent.
    pub(crate) id: ParentId,
    pub(crate) places: &'a ParentSearch,
    pub(crate) policy: &'a OpenPolicy,
}

/// A file whose beginning matches the parent.
struct Candidate {
    file: Identity,
    /// As the image would name it.
    name: OsString,
}

/// The state of a search.
#[derive(Default)]
struct Seen {
    entries: usize,
    candidates: Vec<Candidate>,
    /// The directories that were searched.
    directories: Vec<PathBuf>,
    /// The first place that could not be examined.
    closed: Option<(PathBuf, std::io::Error)>,
    /// The first place that the policy does not permit.
    denied: Option<PathBuf>,
}

impl Search<'_> {
    /// The name of the parent as seen from the image.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or [`ErrorKind::Denied`] if the policy prevented a complete search,
    /// [`ErrorKind::Invalid`] if there are several candidates, [`ErrorKind::Limit`] if there are too many files.
    pub(super) fn find(&self) -> Result<BString> {
        let seen = self.look().map_err(|error| error.with_hint(REMEDY))?;
        let wanted = self.id;
        let image = self.image;
        let places = seen.places();
        let mut candidates = seen.candidates.into_iter();
        let shown = |name: &OsStr| self.shown(name);
        match (candidates.next(), candidates.next()) {
            (Some(one), None) => Ok(one.name.into_vec().into()),
            (Some(one), Some(other)) => Err(Error::invalid(format!(
                "'{image}' has the parent with the {wanted}, and both '{}' and '{}' have it",
                shown(&one.name),
                shown(&other.name)
            ))
            .with_hint(REMEDY)),
            (None, _) => {
                let mut text = format!("'{image}' has the parent with the {wanted}, ");
                match places.is_empty() {
                    true => text.push_str("and there is no directory to look for it"),
                    false => {
                        text.push_str("which no image has in ");
                        text.push_str(&places);
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

    /// Makes sure that an image that is about to record the identity will find its parent: the file `parent`, which the
    /// user calls `name`. `own` is the file of the image. If the policy does not permit the search, the image can only
    /// be opened with a parent given by the user.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if it would not, or the I/O error that may be the reason, [`ErrorKind::Invalid`] if
    /// another file would be found as well, [`ErrorKind::Limit`] if there are too many files.
    pub(crate) fn check_leads_to(
        &self,
        parent: &Identity,
        name: &BStr,
        own: Option<&Identity>,
    ) -> Result<()> {
        if matches!(parent, Identity::Own(_)) {
            // It is a storage of the caller.
            return Ok(());
        }
        let mut seen = self.look()?;
        seen.candidates
            .retain(|candidate| Some(&candidate.file) != own);
        let id = self.id;
        let is_there = |candidate: &Candidate| candidate.file == *parent;
        match &seen.candidates[..] {
            [one] if is_there(one) => Ok(()),
            [one, other, ..] => {
                let (one, other) = (self.shown(&one.name), self.shown(&other.name));
                Err(Error::invalid(format!(
                    "The image would know its parent by the {id} alone, and both '{one}' and '{other}' have it"
                ))
                .with_hint(MOVE))
            }
            [] if seen.denied.is_some() => Ok(()),
            _ => {
                let places = match seen.directories.is_empty() {
                    true => "there is no directory in which it would look for it".to_owned(),
                    false => format!("would not find '{name}' in {}", seen.places()),
                };
                let text =
                    format!("The image would know its parent by the {id} alone, and {places}");
                match seen.closed {
                    // The parent may be there.
                    Some((path, error)) => {
                        Err(Error::io(&error).context(format!("{text}: '{}'", path.display())))
                    }
                    None => Err(Error::unsupported(text).with_hint(PLACE)),
                }
            }
        }
    }

    /// A name as seen from the image, as the user would write it.
    fn shown(&self, name: &OsStr) -> String {
        resolve_plain_name(self.base, name).display().to_string()
    }

    /// Searches all places where the parent may be.
    fn look(&self) -> Result<Seen> {
        let mut seen = Seen::default();
        if !self.base.is_empty() && protocol_of(self.base).is_none() {
            self.look_around(&mut seen)?;
        }
        Ok(seen)
    }

    /// Searches the image's own directory, its subdirectory for children, and, if the image is in a directory for
    /// children, the parent directory.
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

    /// Searches the files of one directory; returns its real path, if it exists.
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
        // Search exactly the directory that the policy is asked about, even if its name refers to another one by now.
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
                        self.image, self.id
                    ),
                ));
            }
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    seen.closed.get_or_insert((path.clone(), error));
                    continue;
                }
            };
            match self.candidate(&entry) {
                Ok(None) => {}
                Ok(Some(file)) => {
                    let mut name = OsString::from(place);
                    name.push(entry.file_name());
                    // Several names of one file count as one candidate.
                    if seen.candidates.iter().all(|known| known.file != file) {
                        memory::push(&mut seen.candidates, Candidate { file, name })?;
                    }
                }
                // It was removed in the meantime, or replaced by a link.
                Err(error)
                    if error.kind() == IoKind::NotFound
                        || error.raw_os_error() == Some(libc::ELOOP) => {}
                Err(error) => {
                    seen.closed
                        .get_or_insert((path.join(entry.file_name()), error));
                }
            }
        }
        memory::push(&mut seen.directories, path)?;
        Ok(Some(real))
    }

    /// The identity of the file, if it is a regular file whose beginning matches the parent.
    fn candidate(&self, entry: &DirEntry) -> std::io::Result<Option<Identity>> {
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
        let is_parent = id.is_some_and(|id| self.id.is_same_image(id));
        Ok(is_parent.then(|| Identity::File {
            device: facts.dev(),
            inode: facts.ino(),
        }))
    }
}

impl Seen {
    /// The directories that were searched, for messages.
    fn places(&self) -> String {
        let places = self.directories.iter();
        let places: Vec<String> = places
            .map(|directory| format!("'{}'", directory.display()))
            .collect();
        places.join(" or ")
    }
}

/// The first bytes of a file; fewer if it is shorter.
fn beginning(file: File, len: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(len)
        .map_err(|_| std::io::Error::from(IoKind::OutOfMemory))?;
    file.take(len as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
