//! The files of the directory, only a few of which are open at a time.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bstr::{BString, ByteSlice};
use parking_lot::Mutex;

use super::tree::{Mark, Tree};
use crate::error::{Error, Result, ResultExt};
use crate::sys::{directory, rw};

/// Maximum number of files open at a time.
const MAX_OPEN: usize = 16;

/// Opens the directory at a path relative to `root`; links are not followed.
pub(super) fn open_directory<N: AsRef<[u8]>>(
    root: BorrowedFd<'_>,
    path: &[N],
) -> std::io::Result<OwnedFd> {
    let mut open = directory::open_directory_at(root, b".")?;
    for name in path {
        open = directory::open_directory_at(open.as_fd(), name.as_ref())?;
    }
    Ok(open)
}

/// Opens the file at a path relative to `root` for reading.
fn open_file<N: AsRef<[u8]>>(root: BorrowedFd<'_>, path: &[N]) -> std::io::Result<OwnedFd> {
    let Some((name, above)) = path.split_last() else {
        return Err(std::io::Error::from_raw_os_error(libc::EISDIR));
    };
    let above = open_directory(root, above)?;
    directory::open_at(above.as_fd(), name.as_ref(), libc::O_RDONLY, 0)
}

/// The open directory.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) root: OwnedFd,
    /// Its name in messages.
    pub(super) shown: BString,
    /// The open files, most recently read last.
    open: Mutex<Vec<(u32, Arc<OwnedFd>)>>,
    /// The current paths of files that were renamed after the disk was opened.
    moved: Mutex<HashMap<u32, BString>>,
}

impl Files {
    pub(super) fn new(root: OwnedFd, shown: BString) -> Self {
        Self {
            root,
            shown,
            open: Mutex::default(),
            moved: Mutex::default(),
        }
    }

    /// Fills `buf` from a file; the range must lie within it.
    ///
    /// # Errors
    /// Errors of reading, and one where the file has changed since the disk was opened; they name the file.
    pub(super) fn read(&self, tree: &Tree, number: u32, buf: &mut [u8], offset: u64) -> Result<()> {
        let open = match self.known(number) {
            Some(open) => open,
            None => self.open(tree, number)?,
        };
        let read = rw::read_full(open.as_fd(), buf, offset);
        let read = read.map_err(|error| Error::io(&error)).context(|| {
            format!(
                "Could not read '{}'",
                tree.shown(self.shown.as_ref(), number)
            )
        })?;
        // A change before this read would also have changed the modification time.
        if read < buf.len() || !self.is_same(tree, number, &open) {
            self.forget(number);
            return Err(self.changed(tree, number));
        }
        Ok(())
    }

    fn known(&self, number: u32) -> Option<Arc<OwnedFd>> {
        let mut open = self.open.lock();
        let at = open.iter().position(|(of, _)| *of == number)?;
        open[at..].rotate_left(1);
        open.last().map(|(_, file)| file.clone())
    }

    fn open(&self, tree: &Tree, number: u32) -> Result<Arc<OwnedFd>> {
        let moved = self.moved.lock().get(&number).cloned();
        let opened = match &moved {
            Some(path) => {
                let names: Vec<&[u8]> = path.split_str("/").collect();
                open_file(self.root.as_fd(), &names)
            }
            None => open_file(self.root.as_fd(), &tree.path(number)),
        };
        let file = match opened {
            Ok(file) => Arc::new(file),
            Err(error) => {
                let gone = matches!(
                    error.raw_os_error(),
                    Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)
                );
                return Err(match gone {
                    true => self.changed(tree, number),
                    false => Error::io(&error).context(format!(
                        "Could not open '{}'",
                        tree.shown(self.shown.as_ref(), number)
                    )),
                });
            }
        };
        let mut open = self.open.lock();
        if open.len() >= MAX_OPEN {
            open.remove(0);
        }
        open.push((number, file.clone()));
        Ok(file)
    }

    /// Records the new path of a file.
    pub(super) fn moved(&self, number: u32, path: BString) {
        self.moved.lock().insert(number, path);
    }

    /// Closes a file.
    fn forget(&self, number: u32) {
        self.open.lock().retain(|(of, _)| *of != number);
    }

    fn is_same(&self, tree: &Tree, number: u32, open: &OwnedFd) -> bool {
        let status = directory::stat(open.as_fd());
        status.is_ok_and(|status| {
            status.is_regular() && Mark::from(&status) == tree.node(number).mark
        })
    }

    fn changed(&self, tree: &Tree, number: u32) -> Error {
        Error::os(libc::ESTALE)
            .with_message(format!(
                "'{}' has changed since the disk was opened",
                tree.shown(self.shown.as_ref(), number)
            ))
            .with_hint("Open the disk again when nothing writes to the directory")
    }
}
