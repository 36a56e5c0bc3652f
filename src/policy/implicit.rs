//! The files that images name: which of them may be opened, searched for and created.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bstr::BStr;

use super::OpenPolicy;
use crate::error::{Error, ErrorKind, Result};

/// A caller's decision on one file that an image names.
pub type AskFn = dyn Fn(&ImplicitFile<'_>) -> Result<ImplicitAnswer> + Send + Sync;

/// Whether files that an image names (backing file, data file, extents) may be opened.
#[derive(Clone, Default)]
pub enum ImplicitFiles {
    /// None. The library's default.
    #[default]
    Deny,
    /// Any, as the command-line tool allows.
    Allow,
    /// Only files whose real path lies below one of these directories.
    Below(Vec<PathBuf>),
    /// Ask the callback for each file.
    Ask(Arc<AskFn>),
}

impl fmt::Debug for ImplicitFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deny => f.write_str("Deny"),
            Self::Allow => f.write_str("Allow"),
            Self::Below(directories) => f.debug_tuple("Below").field(directories).finish(),
            Self::Ask(_) => f.write_str("Ask(..)"),
        }
    }
}

/// The role of a file named inside an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImplicitRole {
    /// Holds what the overlay does not.
    Backing,
    /// Holds the guest data, separate from the metadata.
    DataFile,
    /// Holds part of the guest data.
    Extent,
    /// Another name of the backing file, in a record of its own.
    ParentLocator,
}

impl ImplicitRole {
    /// The role in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Backing => "backing file",
            Self::DataFile => "data file",
            Self::Extent => "extent",
            Self::ParentLocator => "parent",
        }
    }

    /// The name in reports.
    pub fn id(self) -> &'static str {
        match self {
            Self::Backing => "backing-file",
            Self::DataFile => "data-file",
            Self::Extent => "extent",
            Self::ParentLocator => "parent-locator",
        }
    }
}

/// A file that an image names, as shown to [`ImplicitFiles::Ask`].
#[derive(Debug)]
pub struct ImplicitFile<'a> {
    /// Its role.
    pub role: ImplicitRole,
    /// The name as stored in the image.
    pub name: &'a BStr,
    /// The image that names it.
    pub named_by: &'a BStr,
    /// The host path that the name denotes; None if it is not a plain file.
    pub path: Option<&'a Path>,
    /// Whether it would be opened for writing.
    pub writable: bool,
}

/// The answer of [`ImplicitFiles::Ask`].
#[derive(Debug)]
pub enum ImplicitAnswer {
    /// Refuse it.
    Deny,
    /// Open the file by its name.
    Open,
    /// Use this open file instead of the name.
    Fd(OwnedFd),
}

impl OpenPolicy {
    /// Asks whether a file that an image names may be opened. Never returns [`ImplicitAnswer::Deny`]: that is the
    /// error.
    ///
    /// With [`ImplicitFiles::Below`] the answer is the open file, so that what was checked is what is used, whatever
    /// happens to the name in the meantime.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`], the error of the callback, or if opening the file for the check fails.
    pub fn check_implicit(&self, file: &ImplicitFile<'_>) -> Result<ImplicitAnswer> {
        match &self.implicit_files {
            ImplicitFiles::Allow => Ok(ImplicitAnswer::Open),
            ImplicitFiles::Deny => Err(denied(file, "")),
            ImplicitFiles::Ask(ask) => match ask(file)? {
                ImplicitAnswer::Deny => Err(denied(file, "")),
                answer => Ok(answer),
            },
            ImplicitFiles::Below(directories) => {
                let Some(path) = file.path else {
                    return Err(denied(file, ": it is no plain file name"));
                };
                open_below(path, directories, file).map(ImplicitAnswer::Fd)
            }
        }
    }

    /// Asks whether files may be examined to find one that an image identifies by a mark; `file.name` is the mark. What
    /// is found is then asked about by its name. Never returns [`ImplicitAnswer::Deny`]: that is the error. With
    /// [`ImplicitFiles::Below`], each directory is asked about, by [`OpenPolicy::allows_directory`].
    ///
    /// # Errors
    /// As [`OpenPolicy::check_implicit`].
    pub(crate) fn check_search(&self, file: &ImplicitFile<'_>) -> Result<ImplicitAnswer> {
        match &self.implicit_files {
            ImplicitFiles::Below(_) => Ok(ImplicitAnswer::Open),
            _ => self.check_implicit(file),
        }
    }

    /// Asks whether a file that an image is to name may be created. With [`ImplicitFiles::Below`] its directory is
    /// checked. Never returns [`ImplicitAnswer::Deny`]: that is the error.
    ///
    /// # Errors
    /// As [`OpenPolicy::check_implicit`].
    pub(crate) fn check_creation(&self, file: &ImplicitFile<'_>) -> Result<ImplicitAnswer> {
        let ImplicitFiles::Below(directories) = &self.implicit_files else {
            return self.check_implicit(file);
        };
        let parent = file.path.and_then(Path::parent);
        let parent = parent.map(|parent| match parent == Path::new("") {
            true => Path::new("."),
            false => parent,
        });
        let real = parent.and_then(|parent| parent.canonicalize().ok());
        match real.is_some_and(|real| is_below(&real, directories)) {
            true => Ok(ImplicitAnswer::Open),
            false => Err(denied(file, "")),
        }
    }

    /// Whether files may be examined in a directory, given by its real path.
    pub(crate) fn allows_directory(&self, real: &Path) -> bool {
        match &self.implicit_files {
            ImplicitFiles::Below(directories) => is_below(real, directories),
            ImplicitFiles::Deny => false,
            ImplicitFiles::Allow | ImplicitFiles::Ask(_) => true,
        }
    }
}

fn denied(file: &ImplicitFile<'_>, why: &str) -> Error {
    Error::new(
        ErrorKind::Denied,
        format!(
            "The open policy does not allow the {} '{}' that '{}' names{why}",
            file.role.words(),
            file.name,
            file.named_by
        ),
    )
}

/// Opens `path` and checks where the open file really is.
fn open_below(path: &Path, directories: &[PathBuf], file: &ImplicitFile<'_>) -> Result<OwnedFd> {
    let outside = || denied(file, ": it is not in a directory that is allowed");
    // The target of the name is checked before the open, so that nothing outside is touched needlessly; what counts is
    // the second check, of the open file.
    if !is_below(&real_path(path)?, directories) {
        return Err(outside());
    }
    let open = OpenOptions::new()
        .read(true)
        .write(file.writable)
        // A FIFO placed there must not block the open.
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)
        .map_err(|e| Error::io(&e))
        .map_err(|error| error.could_not_open(path.display()))?;
    if is_below(&real_path_of(&open)?, directories) {
        Ok(open.into())
    } else {
        Err(outside())
    }
}

fn real_path(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .map_err(|e| Error::io(&e))
        .map_err(|error| error.could_not_open(path.display()))
}

fn real_path_of(file: &File) -> Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(|e| Error::io(&e))
}

fn is_below(real: &Path, directories: &[PathBuf]) -> bool {
    // A directory that cannot be resolved allows nothing.
    directories
        .iter()
        .filter_map(|directory| directory.canonicalize().ok())
        .any(|directory| real.starts_with(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file<'a>(name: &'a str, path: Option<&'a Path>) -> ImplicitFile<'a> {
        ImplicitFile {
            role: ImplicitRole::Backing,
            name: name.into(),
            named_by: "top.qcow2".into(),
            path,
            writable: false,
        }
    }

    fn policy(files: ImplicitFiles) -> OpenPolicy {
        OpenPolicy {
            implicit_files: files,
            ..OpenPolicy::default()
        }
    }

    #[test]
    fn the_default_denies() {
        let error = OpenPolicy::default()
            .check_implicit(&file("base", None))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert_eq!(
            error.to_string(),
            "The open policy does not allow the backing file 'base' that 'top.qcow2' names"
        );
        assert!(!OpenPolicy::default().allows_probing(true));
        assert!(OpenPolicy::default().allows_probing(false));
        assert!(OpenPolicy::permissive().allows_probing(true));
    }

    #[test]
    fn below_follows_links_to_the_real_file() {
        let dir = tempfile::tempdir().unwrap();
        let (allowed, other) = (dir.path().join("in"), dir.path().join("in2"));
        std::fs::create_dir(&allowed).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::fs::write(allowed.join("a"), b"a").unwrap();
        std::fs::write(other.join("b"), b"b").unwrap();
        std::os::unix::fs::symlink(other.join("b"), allowed.join("link")).unwrap();
        std::os::unix::fs::symlink(allowed.join("a"), other.join("back")).unwrap();
        let policy = policy(ImplicitFiles::Below(vec![
            allowed.clone(),
            dir.path().join("gone"),
        ]));
        let check = |path: PathBuf| policy.check_implicit(&file("x", Some(&path)));
        assert!(matches!(
            check(allowed.join("a")),
            Ok(ImplicitAnswer::Fd(_))
        ));
        assert!(matches!(
            check(other.join("back")),
            Ok(ImplicitAnswer::Fd(_))
        ));
        for path in ["in/link", "in2/b", "in/../in2/b"] {
            let error = check(dir.path().join(path)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{path}");
        }
        assert_eq!(
            check(allowed.join("none")).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        assert!(policy.check_implicit(&file("nbd://h", None)).is_err());
    }

    #[test]
    fn a_callback_decides() {
        let ask = |answer: fn() -> ImplicitAnswer| {
            policy(ImplicitFiles::Ask(Arc::new(move |_| Ok(answer()))))
        };
        assert!(
            ask(|| ImplicitAnswer::Deny)
                .check_implicit(&file("x", None))
                .is_err()
        );
        assert!(matches!(
            ask(|| ImplicitAnswer::Open).check_implicit(&file("x", None)),
            Ok(ImplicitAnswer::Open)
        ));
    }
}
