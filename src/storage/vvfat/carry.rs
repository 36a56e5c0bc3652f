//! Carries a guest's changes on the disk over to the directory. Everything is checked before the first change; each
//! file is then replaced as a whole, so that a crash leaves either its old or its new contents.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};

use bstr::{BStr, BString, ByteSlice};

use super::disk::boot::Volume;
use super::files::{Files, open_directory};
use super::known::{Known, KnownFile};
use super::layout::Layout;
use super::overlay::{BLOCK, Blocks, Overlay};
use super::scan::STAGING;
use super::tree::Mark;
use super::written::{Read, Written};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::memory;
use crate::sys::directory::{self, Status};
use crate::sys::{falloc, rw};

/// Number of bytes to copy or compare at once.
const PIECE: u64 = 256 << 10;

/// A file whose contents come from the disk.
struct Fill {
    path: BString,
    /// Its index among the files found on the disk.
    written: usize,
    /// Its path, or a parent of it, has changed between file and directory.
    late: bool,
}

/// The changes to make in the directory.
pub(super) struct Plan<'a> {
    files: &'a Files,
    known: &'a Known,
    volume: Volume,
    written: &'a [Written],
    /// New directories; `make_late` has those at or below a path that has changed between file and directory.
    make: Vec<BString>,
    make_late: Vec<BString>,
    moves: Vec<(BString, BString)>,
    fills: Vec<Fill>,
    delete: Vec<BString>,
    remove: Vec<BString>,
}

/// New contents, ready to be renamed into place.
pub(super) struct Staged<'a> {
    files: &'a Files,
    name: BString,
    open: OwnedFd,
    marks: Vec<Mark>,
}

fn split(path: &BStr) -> (Vec<&[u8]>, &[u8]) {
    match path.rsplit_once_str("/") {
        Some((above, name)) => (above.split_str("/").collect(), name),
        None => (Vec::new(), path),
    }
}

fn above(path: &BStr) -> &BStr {
    path.rsplit_once_str("/")
        .map_or(&b""[..], |(above, _)| above)
        .into()
}

impl<'a> Plan<'a> {
    /// Compares what is on the disk with the last agreed state; `fresh` blocks were written since.
    ///
    /// # Errors
    /// Where the directory has changed in the meantime; errors of reading.
    pub(super) fn new(
        files: &'a Files,
        known: &'a Known,
        volume: Volume,
        written: &'a [Written],
        fresh: &Blocks,
        read: Read<'_>,
    ) -> Result<Self> {
        let mut plan = Self {
            files,
            known,
            volume,
            written,
            make: Vec::new(),
            make_late: Vec::new(),
            moves: Vec::new(),
            fills: Vec::new(),
            delete: Vec::new(),
            remove: Vec::new(),
        };
        let kinds: HashMap<&BStr, bool> = written
            .iter()
            .map(|file| (file.path.as_bstr(), file.is_directory))
            .collect();
        let changed_kind: BTreeSet<&BStr> = known
            .iter()
            .map(|(path, file)| (path.as_bstr(), file.is_directory))
            .filter(|(path, kind)| kinds.get(path).is_some_and(|now| now != kind))
            .map(|(path, _)| path)
            .collect();
        let is_late = |path: &BStr| {
            let mut at = path;
            while !at.is_empty() {
                if changed_kind.contains(at) {
                    return true;
                }
                at = above(at);
            }
            false
        };
        // Files that are no longer there under their name, by first cluster.
        let gone: HashMap<u32, (&BString, &KnownFile)> = known
            .iter()
            .filter(|(path, file)| !file.is_directory && kinds.get(path.as_bstr()) != Some(&false))
            .filter_map(|(path, file)| Some((file.runs.first()?.start, (path, file))))
            .collect();
        let mut moved = BTreeSet::new();
        for (number, file) in written.iter().enumerate() {
            let path = &file.path;
            let late = is_late(path.as_bstr());
            let there = known.get(path).filter(|_| !late);
            match (file.is_directory, there) {
                (true, Some(_)) => {}
                (true, None) if late => plan.make_late.push(path.clone()),
                (true, None) => plan.make.push(path.clone()),
                (false, Some(old)) if plan.is_same(path, old, file, fresh, read)? => {}
                (false, _) => {
                    let first = file.runs.first().map(|run| run.start);
                    let source = first.and_then(|first| gone.get(&first));
                    match source.filter(|_| there.is_none() && !late) {
                        Some((from, old)) if plan.is_same(from, old, file, fresh, read)? => {
                            moved.insert(from.as_bstr());
                            plan.moves.push(((*from).clone(), path.clone()));
                        }
                        _ => plan.fills.push(Fill {
                            path: path.clone(),
                            written: number,
                            late,
                        }),
                    }
                }
            }
        }
        for (path, file) in known {
            let kept = kinds.get(path.as_bstr()) == Some(&file.is_directory);
            match file.is_directory {
                _ if kept || moved.contains(path.as_bstr()) => {}
                true => plan.remove.push(path.clone()),
                false => plan.delete.push(path.clone()),
            }
        }
        plan.check()?;
        Ok(plan)
    }

    fn shown(&self, path: &BStr) -> BString {
        let mut shown = self.files.shown.clone();
        shown.push(b'/');
        shown.extend_from_slice(path);
        shown
    }

    fn failed(&self, path: &BStr, error: &std::io::Error) -> Error {
        Error::io(error).context(format!("Could not change '{}'", self.shown(path)))
    }

    /// Opens the directory that contains a path.
    fn above(&self, path: &BStr) -> Result<OwnedFd> {
        let (names, _) = split(path);
        open_directory(self.files.root.as_fd(), &names).map_err(|error| self.failed(path, &error))
    }

    fn status(&self, path: &BStr) -> Result<Option<Status>> {
        match directory::stat_at(self.above(path)?.as_fd(), split(path).1) {
            Ok(status) => Ok(Some(status)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(self.failed(path, &error)),
        }
    }

    /// Whether a file on the disk has the same contents as one in the directory.
    fn is_same(
        &self,
        path: &BString,
        old: &KnownFile,
        file: &Written,
        fresh: &Blocks,
        read: Read<'_>,
    ) -> Result<bool> {
        if old.size != file.size {
            return Ok(false);
        }
        let offset = |cluster| self.volume.cluster_offset(cluster);
        let mut runs = file.runs.iter();
        if old.runs == file.runs
            && !runs.any(|run| fresh.touches(offset(run.start), offset(run.end)))
        {
            return Ok(true);
        }
        let path = path.as_bstr();
        let open = directory::open_at(self.above(path)?.as_fd(), split(path).1, libc::O_RDONLY, 0)
            .map_err(|error| self.failed(path, &error))?;
        let status = directory::stat(open.as_fd()).map_err(|error| self.failed(path, &error))?;
        if Mark::from(&status) != old.mark {
            return Err(self.changed(path));
        }
        let mut there = memory::zeroed(PIECE as usize)?;
        self.pieces(file, read, |bytes, at| {
            let there = there.get_mut(..bytes.len()).unwrap_or_default();
            let len = rw::read_full(open.as_fd(), there, at)
                .map_err(|error| self.failed(path, &error))?;
            Ok(len == bytes.len() && there == bytes)
        })
    }

    /// Passes the contents of a file on the disk to `visit`, for as long as it returns true.
    fn pieces(
        &self,
        file: &Written,
        read: Read<'_>,
        mut visit: impl FnMut(&[u8], u64) -> Result<bool>,
    ) -> Result<bool> {
        let mut buf = memory::zeroed(PIECE as usize)?;
        let mut at = 0;
        for run in &file.runs {
            let mut place = self.volume.cluster_offset(run.start);
            let end = self.volume.cluster_offset(run.end);
            while place < end && at < u64::from(file.size) {
                let len = (end - place).min(PIECE).min(u64::from(file.size) - at);
                let piece = buf.get_mut(..len as usize).unwrap_or_default();
                read(piece, place)?;
                if !visit(piece, at)? {
                    return Ok(false);
                }
                place += len;
                at += len;
            }
        }
        Ok(true)
    }

    fn changed(&self, path: &BStr) -> Error {
        Error::os(libc::ESTALE)
            .with_message(format!(
                "'{}' has changed since the disk was opened",
                self.shown(path)
            ))
            .with_hint("Nothing was carried over to the directory")
    }

    /// Refuses changes that would affect anything that the disk does not show, or that the host has changed.
    fn check(&self) -> Result<()> {
        let replaced = self.fills.iter().filter(|fill| !fill.late);
        let replaced = replaced.map(|fill| &fill.path);
        let replaced = replaced.filter(|path| self.known.contains_key(*path));
        let sources = self.moves.iter().map(|(from, _)| from);
        for path in self.delete.iter().chain(replaced).chain(sources) {
            let status = self.status(path.as_bstr())?;
            let mark = self.known.get(path).map(|file| file.mark);
            if status.map(|status| Mark::from(&status)) != mark {
                return Err(self.changed(path.as_bstr()));
            }
        }
        let fills = self.fills.iter().filter(|fill| !fill.late);
        let new = self.make.iter().chain(self.moves.iter().map(|(_, to)| to));
        for path in new.chain(fills.map(|fill| &fill.path)) {
            let stands = above(path.as_bstr());
            let in_new = !stands.is_empty() && !self.known.contains_key(&stands.to_owned());
            if !self.known.contains_key(path) && !in_new && self.status(path.as_bstr())?.is_some() {
                return Err(self.in_the_way(path.as_bstr()));
            }
        }
        for path in &self.remove {
            let names: Vec<&[u8]> = path.split_str("/").collect();
            let open = open_directory(self.files.root.as_fd(), &names)
                .map_err(|error| self.failed(path.as_bstr(), &error))?;
            let mut other = None;
            directory::names(open, |name| {
                let below: BString = [path.as_slice(), b"/", name].concat().into();
                if !self.known.contains_key(&below) {
                    other = Some(below);
                }
                Ok::<_, std::io::Error>(())
            })
            .map_err(|error| self.failed(path.as_bstr(), &error))?;
            if let Some(other) = other {
                return Err(self.in_the_way(other.as_bstr()));
            }
        }
        Ok(())
    }

    fn in_the_way(&self, path: &BStr) -> Error {
        Error::new(
            ErrorKind::Exists,
            format!(
                "'{}' is in the way of a change, and the disk does not show it",
                self.shown(path)
            ),
        )
        .with_hint("Nothing was carried over to the directory")
    }

    /// Writes all new contents to files in a temporary directory.
    ///
    /// # Errors
    /// Errors of the host, in which case nothing has been changed.
    pub(super) fn stage(&self, read: Read<'_>, durable: bool) -> Result<Staged<'a>> {
        let root = self.files.root.as_fd();
        let name = BString::from(format!("{STAGING}{}", uuid::Uuid::new_v4()));
        directory::make_at(root, &name, 0o700)
            .map_err(|error| self.failed(name.as_bstr(), &error))?;
        let open = directory::open_directory_at(root, &name)
            .map_err(|error| self.failed(name.as_bstr(), &error))?;
        let mut staged = Staged {
            files: self.files,
            name,
            open,
            marks: Vec::new(),
        };
        for (number, fill) in self.fills.iter().enumerate() {
            let path = fill.path.as_bstr();
            let mark = self
                .write(&staged, number, fill, read, durable)
                .context(|| format!("Could not write '{}'", self.shown(path)))?;
            staged.marks.push(mark);
        }
        Ok(staged)
    }

    fn write(
        &self,
        staged: &Staged<'_>,
        number: usize,
        fill: &Fill,
        read: Read<'_>,
        durable: bool,
    ) -> Result<Mark> {
        let host = |error: std::io::Error| Error::io(&error);
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        let name = number.to_string();
        let file = directory::open_at(staged.open.as_fd(), name.as_bytes(), flags, 0o666);
        let file = file.map_err(host)?;
        if let Some(written) = self.written.get(fill.written) {
            self.pieces(written, read, |bytes, at| {
                rw::write_full(file.as_fd(), bytes, at).map_err(host)?;
                Ok(true)
            })?;
        }
        if !fill.late
            && self.known.contains_key(&fill.path)
            && let Some(old) = self.status(fill.path.as_bstr())?
        {
            directory::set_owner_and_mode(file.as_fd(), Some(old.owner), old.mode).map_err(host)?;
        }
        if durable {
            falloc::sync(file.as_fd()).map_err(host)?;
        }
        directory::stat(file.as_fd())
            .map_err(host)
            .map(|status| Mark::from(&status))
    }

    /// Copies to the overlay what the disk still shows of files that are about to be deleted or replaced.
    ///
    /// # Errors
    /// Errors of reading or storing the data.
    pub(super) fn keep_old(&self, layout: &Layout, overlay: &mut Overlay) -> Result<()> {
        let replaced = self.fills.iter().map(|fill| &fill.path);
        let known = self
            .delete
            .iter()
            .chain(replaced)
            .filter_map(|path| self.known.get(path));
        let mut buf = [0; BLOCK as usize];
        for number in known.filter_map(|file| file.number) {
            let node = layout.tree.node(number);
            if node.is_directory {
                continue;
            }
            let start = layout.volume.cluster_offset(node.cluster);
            let end = start + u64::from(node.size);
            for block in start / BLOCK..end.div_ceil(BLOCK) {
                if !overlay.has(block) {
                    layout.read(self.files, &mut buf, block * BLOCK)?;
                    overlay.put(&buf, block * BLOCK, false)?;
                }
            }
        }
        Ok(())
    }

    /// Changes the directory, and returns the newly agreed state.
    ///
    /// # Errors
    /// Errors of the host; some of the changes may have been made by then.
    pub(super) fn apply(&self, staged: &Staged<'_>, durable: bool) -> Result<Known> {
        for path in &self.make {
            self.make(path.as_bstr())?;
        }
        for (from, to) in &self.moves {
            self.rename(from.as_bstr(), to.as_bstr())?;
        }
        self.place(staged, false)?;
        for path in &self.delete {
            self.unlink(path.as_bstr(), false)?;
        }
        for path in self.remove.iter().rev() {
            self.unlink(path.as_bstr(), true)?;
        }
        for path in &self.make_late {
            self.make(path.as_bstr())?;
        }
        self.place(staged, true)?;
        if durable {
            self.sync_names()?;
        }
        Ok(self.agreed(staged))
    }

    fn make(&self, path: &BStr) -> Result<()> {
        directory::make_at(self.above(path)?.as_fd(), split(path).1, 0o777)
            .map_err(|error| self.failed(path, &error))
    }

    fn unlink(&self, path: &BStr, is_directory: bool) -> Result<()> {
        directory::remove_at(self.above(path)?.as_fd(), split(path).1, is_directory)
            .map_err(|error| self.failed(path, &error))
    }

    fn rename(&self, from: &BStr, to: &BStr) -> Result<()> {
        let (old, new) = (self.above(from)?, self.above(to)?);
        let (old, new) = ((old.as_fd(), split(from).1), (new.as_fd(), split(to).1));
        directory::rename_at(old, new, false).map_err(|error| self.failed(to, &error))?;
        if let Some(number) = self.known.get(from).and_then(|file| file.number) {
            self.files.moved(number, to.to_owned());
        }
        Ok(())
    }

    fn place(&self, staged: &Staged<'_>, late: bool) -> Result<()> {
        for (number, fill) in self.fills.iter().enumerate() {
            if fill.late != late {
                continue;
            }
            let path = fill.path.as_bstr();
            let to = self.above(path)?;
            let name = number.to_string();
            let replace = !late && self.known.contains_key(&fill.path);
            directory::rename_at(
                (staged.open.as_fd(), name.as_bytes()),
                (to.as_fd(), split(path).1),
                replace,
            )
            .map_err(|error| self.failed(path, &error))?;
        }
        Ok(())
    }

    /// Makes all changed names durable.
    fn sync_names(&self) -> Result<()> {
        let moves = self.moves.iter().flat_map(|(from, to)| [from, to]);
        let gone = self.delete.iter().chain(&self.remove);
        let made = self.make.iter().chain(&self.make_late);
        let all = moves.chain(gone).chain(made);
        let all = all.chain(self.fills.iter().map(|fill| &fill.path));
        let directories: BTreeSet<&BStr> = all.map(|path| above(path.as_bstr())).collect();
        for path in directories {
            let names: Vec<&[u8]> = path
                .split_str("/")
                .filter(|name| !name.is_empty())
                .collect();
            // A directory that is gone needs no sync.
            let Ok(open) = open_directory(self.files.root.as_fd(), &names) else {
                continue;
            };
            match falloc::sync(open.as_fd()) {
                // Some file systems do not support syncing a directory.
                Err(error) if error.raw_os_error() != Some(libc::EINVAL) => {
                    return Err(self.failed(path, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn agreed(&self, staged: &Staged<'_>) -> Known {
        let fills: HashMap<&BString, Mark> = self
            .fills
            .iter()
            .map(|fill| &fill.path)
            .zip(staged.marks.iter().copied())
            .collect();
        let sources: HashMap<&BString, &BString> =
            self.moves.iter().map(|(from, to)| (to, from)).collect();
        let files = self.written.iter().map(|file| {
            let source = sources.get(&file.path).copied().unwrap_or(&file.path);
            let old = self.known.get(source);
            let filled = fills.get(&file.path).copied();
            let mark = filled.or(old.map(|old| old.mark)).unwrap_or(Mark {
                identity: (0, 0),
                modified: (0, 0),
                len: 0,
            });
            let known = KnownFile {
                is_directory: file.is_directory,
                mark,
                size: file.size,
                runs: if file.is_directory {
                    Vec::new()
                } else {
                    file.runs.clone()
                },
                number: old.filter(|_| filled.is_none()).and_then(|old| old.number),
            };
            (file.path.clone(), known)
        });
        files.collect()
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        // Files that were renamed into place are no longer here.
        for number in 0..=self.marks.len() {
            let name = number.to_string();
            let _ = directory::remove_at(self.open.as_fd(), name.as_bytes(), false);
        }
        let _ = directory::remove_at(self.files.root.as_fd(), &self.name, true);
    }
}
