//! Scans the contents of a directory.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};

use bstr::{BStr, BString, ByteSlice};

use super::aliases::{Aliases, exact, folded, is_short, storable};
use super::disk::entry::{LEN, ShortName};
use super::disk::long_name::PIECE;
use super::files::open_directory;
use super::tree::{Node, ROOT, Tree};
use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::memory;
use crate::policy::OpenPolicy;
use crate::sys::directory::{self, Status};

/// Maximum number of entries of a directory that is stored in clusters, and of a root directory that is not.
const MAX_ENTRIES: u32 = 65_536;
pub(super) const MAX_ROOT_ENTRIES: u32 = 65_520;

/// Maximum depth of directories.
pub(super) const MAX_DEPTH: usize = 128;

/// Prefix of the names of temporary directories for changes in progress.
pub(super) const STAGING: &str = ".platter-vvfat-";

/// The result of a scan.
pub(super) struct Scanned {
    pub(super) tree: Tree,
    pub(super) left_out: LeftOut,
}

/// The files that the disk does not show.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    count: u64,
    first: Option<(BString, String)>,
}

impl LeftOut {
    fn add(&mut self, name: impl FnOnce() -> BString, why: impl Into<String>) {
        self.count += 1;
        if self.first.is_none() {
            self.first = Some((name(), why.into()));
        }
    }

    /// A one-line warning, if anything was left out.
    pub(super) fn warning(&self) -> Option<String> {
        let (name, why) = self.first.as_ref()?;
        Some(match self.count {
            1 => format!("'{name}' is left out of the disk: {why}"),
            count => {
                format!("{count} files are left out of the disk, the first of them '{name}': {why}")
            }
        })
    }
}

/// An entry of the directory, with its status.
struct Found {
    name: BString,
    status: Status,
    short: Option<ShortName>,
}

struct Scan<'a> {
    root: &'a OwnedFd,
    shown: &'a BStr,
    policy: &'a OpenPolicy,
    tree: Tree,
    left_out: LeftOut,
}

/// Scans an open directory. `root_in_clusters`: the root directory of the disk is stored in clusters.
///
/// # Errors
/// [`ErrorKind::Limit`] where a limit of the policy or of a FAT volume is exceeded; errors of reading directories.
pub(super) fn scan(
    root: &OwnedFd,
    shown: &BStr,
    label: Option<ShortName>,
    root_in_clusters: bool,
    policy: &OpenPolicy,
    control: &JobControl,
) -> Result<Scanned> {
    let status = directory::stat(root.as_fd()).map_err(|error| Error::io(&error))?;
    let mut scan = Scan {
        root,
        shown,
        policy,
        tree: Tree {
            label,
            root_in_clusters,
            ..Tree::default()
        },
        left_out: LeftOut::default(),
    };
    scan.push(b"", &status, ROOT, *b"           ", 0, 0)?;
    let mut number = 0;
    while let Some(node) = scan.tree.nodes.get(number as usize) {
        if node.is_directory {
            control.check()?;
            scan.directory(number).map_err(|error| match error.kind() {
                ErrorKind::Limit | ErrorKind::Cancelled => error,
                _ => error.context(format!(
                    "Could not read directory {}",
                    scan.tree.shown(shown, number)
                )),
            })?;
        }
        number += 1;
    }
    Ok(Scanned {
        tree: scan.tree,
        left_out: scan.left_out,
    })
}

impl Scan<'_> {
    fn push(
        &mut self,
        name: &[u8],
        status: &Status,
        parent: u32,
        short: ShortName,
        slot: u32,
        slots: u8,
    ) -> Result<()> {
        let tree = &mut self.tree;
        let bytes = (tree.nodes.len() + 1) * size_of::<Node>() + tree.names.len() + name.len();
        self.policy
            .check_table("The list of files of the directory is", bytes as u64)?;
        let at = u32::try_from(tree.names.len()).map_err(|_| memory::lack())?;
        memory::reserve(&mut tree.names, name.len())?;
        tree.names.extend_from_slice(name);
        let is_directory = status.is_directory();
        memory::push(
            &mut tree.nodes,
            Node {
                name: (at, name.len() as u16),
                short,
                is_directory,
                read_only: status.mode & 0o222 == 0,
                slots,
                slot,
                parent,
                children: (0, 0),
                size: match is_directory {
                    true => 0,
                    false => status.len as u32,
                },
                cluster: 0,
                mark: status.into(),
            },
        )
    }

    /// The entries of a directory that the disk shows, sorted by name.
    fn names(&mut self, number: u32) -> Result<Vec<Found>> {
        let open = open_directory(self.root.as_fd(), &self.tree.path(number))
            .map_err(|error| Error::io(&error))?;
        let again = directory::open_directory_at(open.as_fd(), b".");
        let again = again.map_err(|error| Error::io(&error))?;
        let mut names: Vec<BString> = Vec::new();
        let limit = MAX_ENTRIES as usize;
        let mut bytes = 0;
        directory::names(again, |name| {
            bytes += name.len() + size_of::<Found>();
            self.policy
                .check_table("The listing of a directory is", bytes as u64)?;
            memory::push(&mut names, memory::to_vec(name)?.into())?;
            Ok::<_, Unread>(())
        })
        .map_err(Unread::into_error)?;
        names.sort_unstable();
        let mut found = Vec::new();
        let mut known = HashSet::new();
        for name in names {
            let shown = || {
                let mut shown = self.tree.shown(self.shown, number);
                shown.push(b'/');
                shown.extend_from_slice(&name);
                shown
            };
            if name.starts_with(STAGING.as_bytes()) {
                let why = "changes that were not finished are kept in it";
                self.left_out.add(shown, why);
                continue;
            }
            let text = match storable(&name) {
                Ok(text) => text,
                Err(why) => {
                    self.left_out.add(shown, why);
                    continue;
                }
            };
            let status = match directory::stat_at(open.as_fd(), &name) {
                Ok(status) => status,
                // It was removed while the directory was being read.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
                Err(error) => return Err(Error::io(&error)),
            };
            if !status.is_directory() && !status.is_regular() {
                self.left_out.add(shown, kind_of(&status));
                continue;
            }
            known.try_reserve(1).map_err(|_| memory::lack())?;
            if !known.insert(folded(text)) {
                let why = "another name differs from its own in the case of letters alone";
                self.left_out.add(shown, why);
                continue;
            }
            if status.is_regular() && u32::try_from(status.len).is_err() {
                return Err(Error::new(
                    ErrorKind::Limit,
                    format!(
                        "'{}' has 4 GiB or more, and no file of a FAT volume has",
                        shown()
                    ),
                ));
            }
            let short = exact(text);
            memory::push(
                &mut found,
                Found {
                    name,
                    status,
                    short,
                },
            )?;
            if found.len() > limit {
                return Err(self.too_many(number));
            }
        }
        Ok(found)
    }

    fn too_many(&self, number: u32) -> Error {
        Error::new(
            ErrorKind::Limit,
            format!(
                "'{}' holds more files than a directory of a FAT volume can list",
                self.tree.shown(self.shown, number)
            ),
        )
    }

    fn directory(&mut self, number: u32) -> Result<()> {
        if self.tree.path(number).len() > MAX_DEPTH {
            return Err(Error::new(
                ErrorKind::Limit,
                format!(
                    "'{}' lies deeper than {MAX_DEPTH} directories",
                    self.tree.shown(self.shown, number)
                ),
            ));
        }
        let found = self.names(number)?;
        let mut aliases = Aliases::default();
        for short in found.iter().filter_map(|found| found.short) {
            aliases.take(short)?;
        }
        let is_root = number == ROOT;
        let mut slot = match is_root {
            true => u32::from(self.tree.label.is_some()),
            // The entries for the directory itself and for its parent.
            false => 2,
        };
        let first = self.tree.nodes.len() as u32;
        for found in &found {
            let text = found.name.to_str_lossy();
            let short = match found.short {
                Some(short) => Some(short),
                None => aliases.alias(&text)?,
            };
            let Some(short) = short else {
                return Err(self.too_many(number));
            };
            let pieces = match is_short(&text) {
                true => 0,
                false => text.encode_utf16().count().div_ceil(PIECE),
            };
            let slots = pieces as u8 + 1;
            self.push(&found.name, &found.status, number, short, slot, slots)?;
            slot += u32::from(slots);
        }
        let limit = match is_root && !self.tree.root_in_clusters {
            true => MAX_ROOT_ENTRIES,
            false => MAX_ENTRIES,
        };
        if slot > limit {
            return Err(self.too_many(number));
        }
        let node = &mut self.tree.nodes[number as usize];
        node.children = (first, found.len() as u32);
        node.size = slot * LEN as u32;
        Ok(())
    }
}

/// Why a listing was cut short.
enum Unread {
    Host(std::io::Error),
    Ours(Error),
}

impl From<std::io::Error> for Unread {
    fn from(error: std::io::Error) -> Self {
        Self::Host(error)
    }
}

impl From<Error> for Unread {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl Unread {
    fn into_error(self) -> Error {
        match self {
            Self::Host(error) => Error::io(&error),
            Self::Ours(error) => error,
        }
    }
}

fn kind_of(status: &Status) -> &'static str {
    match status.mode & libc::S_IFMT {
        libc::S_IFLNK => "it is a symbolic link",
        libc::S_IFIFO => "it is a FIFO",
        libc::S_IFSOCK => "it is a socket",
        libc::S_IFBLK | libc::S_IFCHR => "it is a device",
        _ => "it is no regular file",
    }
}
