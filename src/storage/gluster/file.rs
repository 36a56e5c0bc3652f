//! A file in a volume.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bstr::BString;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageExtent;
use crate::job::JobControl;
use crate::memory::{IoBuf, Payload};
use crate::storage::ReadRange;
use crate::storage::aside::{aside, aside_or_undo, ended};
use crate::storage::modes::Preallocation;
use crate::storage::remote_file::{
    Found, How, Protocol, Room, check_regular, make, no_preallocation,
};
use crate::sys::libgfapi::{self, Found as Sought, OpenFile, Stat, Volume};
use crate::sys::pending::Pending;

use super::options::Settings;
use super::volumes::{connect, end, forget, known, text};

/// Maximum payload of one request: one long request is cheaper for the server than several short ones.
const PIECE: usize = 1 << 20;
/// Timeout for opening a file.
const OPENING: Duration = Duration::from_secs(60);
/// How long to wait for a file to be closed when the work is done.
const CLOSING: Duration = Duration::from_secs(2);

/// Identifies the file.
#[derive(Debug)]
pub(super) struct Gluster {
    settings: Settings,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Opened {
    /// None while it is being closed.
    file: Option<Arc<OpenFile>>,
    stat: Stat,
    /// Something was written that the library may still hold back, and then ignores when it looks for holes.
    kept: AtomicBool,
    /// Whether the volume distinguishes data from holes; None if that is not known yet.
    tells_holes: Mutex<Option<bool>>,
    /// False once the volume is known not to zero ranges by itself.
    zeroes: AtomicBool,
}

impl Opened {
    fn file(&self) -> Result<&Arc<OpenFile>> {
        self.file.as_ref().ok_or_else(|| Error::os(libc::EBADF))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        let volume = file.volume().clone();
        // Whatever had to be durable has been flushed. If the servers do not answer, the library is left to close it.
        let closed = aside(&JobControl::default(), Some(CLOSING), move || {
            drop(file);
            Ok(())
        });
        if closed.is_err() {
            forget(&volume);
        }
        // If this was the last user of the volume, it is shut down without waiting either.
        if Arc::strong_count(&volume) == 1 {
            end(volume);
        }
    }
}

/// The volume, and whether it was already connected. Waits for the servers.
fn volume_of(settings: &Settings) -> Result<(Arc<Volume>, bool)> {
    libgfapi::check().map_err(Error::unsupported)?;
    match known(settings) {
        Some(volume) => Ok((volume, true)),
        None => connect(settings).map(|volume| (volume, false)),
    }
}

fn opened_in(volume: &Arc<Volume>, settings: &Settings, how: How) -> Result<Opened> {
    let flags = match how {
        How::Read => libc::O_RDONLY,
        How::Write => libc::O_RDWR,
        How::Create => libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
    };
    let path = text(&settings.path)?;
    let file = OpenFile::open(volume, &path, flags).map_err(Error::os)?;
    let look = || {
        let stat = file.stat().map_err(Error::os)?;
        check_regular(stat.mode)?;
        Ok(stat)
    };
    let stat = look().inspect_err(|_| {
        if how == How::Create {
            unmake(volume, settings);
        }
    })?;
    Ok(Opened {
        file: Some(Arc::new(file)),
        stat,
        kept: AtomicBool::new(false),
        tells_holes: Mutex::default(),
        zeroes: AtomicBool::new(true),
    })
}

/// Removes a file that was created but cannot be used. Waits for the servers.
fn unmake(volume: &Volume, settings: &Settings) {
    // The original error is the one to report.
    let _ = text(&settings.path).map(|path| volume.unlink(&path));
}

/// The error of a request. How the library reports an open file whose server has gone depends on when it notices.
fn failed(errno: i32) -> Error {
    Error::os(match errno {
        libc::EBADFD => libc::ENOTCONN,
        other => other,
    })
}

/// Waits for a request. The library fails it if the servers do not answer.
fn wait(pending: &Pending, control: &JobControl) -> Result<(usize, IoBuf)> {
    let (count, bytes) = ended(pending, control, None)?.map_err(failed)?;
    Ok((usize::try_from(count).unwrap_or(usize::MAX), bytes))
}

/// Makes a call that waits for the servers.
fn call<T: Send + 'static>(
    opened: &Opened,
    control: &JobControl,
    call: impl FnOnce(&OpenFile) -> Result<T, i32> + Send + 'static,
) -> Result<T> {
    let file = opened.file()?.clone();
    let outcome = aside(control, None, move || Ok(call(&file)))?;
    outcome.map_err(failed)
}

fn start(pending: Result<Pending, i32>, control: &JobControl) -> Result<()> {
    wait(&pending.map_err(failed)?, control).map(|_| ())
}

/// Whether the volume does not support the request.
fn is_unknown(error: &Error) -> bool {
    matches!(
        error.os_errno(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)
    )
}

/// The run at an offset, at most `len` bytes, of a file that was `known` bytes long. Waits for the servers.
fn sought(file: &OpenFile, (offset, len): (u64, u64), known: u64) -> Result<StorageExtent, i32> {
    let run = |end: u64, zero: bool| StorageExtent {
        len: end.saturating_sub(offset).clamp(1, len),
        zero,
        allocated: !zero,
    };
    let end = offset.saturating_add(len);
    match file.seek(offset, true)? {
        // Believing nonsense would turn data into a hole.
        Sought::At(data) if data >= end.max(known) && data >= file.stat()?.size => {
            return Err(libc::EPROTO);
        }
        Sought::At(data) if data > offset => return Ok(run(data, true)),
        Sought::At(_) => {}
        // If the file has been truncated before the offset, this is not a hole.
        Sought::None if file.stat()?.size > offset => return Ok(run(end, true)),
        Sought::None => return Err(libc::EIO),
    }
    Ok(match file.seek(offset, false)? {
        Sought::At(hole) if hole > offset => run(hole, false),
        _ => run(end, false),
    })
}

/// Whether the volume distinguishes data from holes.
fn tells_holes(opened: &Opened, control: &JobControl) -> Result<bool> {
    let mut known = opened.tells_holes.lock();
    if let Some(tells) = *known {
        return Ok(tells);
    }
    // If it does, there is no data past the end.
    let tells = call(opened, control, |file| {
        let end = file.stat()?.size;
        Ok(matches!(file.seek(end, true), Ok(Sought::None)))
    })?;
    Ok(*known.insert(tells))
}

impl Gluster {
    pub(super) fn of(settings: Settings) -> Self {
        Self { settings }
    }
}

impl Gluster {
    fn open_in(&self, volume: &Arc<Volume>, how: How, control: &Arc<JobControl>) -> Result<Opened> {
        let (own, settings) = (volume.clone(), self.settings.clone());
        let call = move || opened_in(&own, &settings, how);
        if how != How::Create {
            return aside(control, Some(OPENING), call);
        }
        let (own, settings) = (volume.clone(), self.settings.clone());
        let undo = move |made| {
            drop(made);
            unmake(&own, &settings);
        };
        let name = format!("gluster:{}/{}", self.settings.volume, self.settings.path);
        make(name, control, |control| {
            aside_or_undo(control, Some(OPENING), call, undo)
        })
    }
}

impl Protocol for Gluster {
    const NAME: &'static str = "gluster";
    // The library acknowledges some writes before it has sent them.
    const REPLIES_LAST: bool = false;
    type Opened = Opened;

    fn open(&self, how: How, control: &Arc<JobControl>) -> Result<Opened> {
        loop {
            let settings = self.settings.clone();
            let (volume, was_known) = aside(control, Some(OPENING), move || volume_of(&settings))?;
            match self.open_in(&volume, how, control) {
                Err(error) if was_known && error.os_errno() == Some(libc::ENOTCONN) => {
                    forget(&volume);
                }
                other => return other,
            }
        }
    }

    fn place(&self, opened: &Opened) -> BString {
        // The inode number is half of a random ID of the file, the same whichever name of the servers leads to it.
        let (volume, inode) = (&self.settings.volume, opened.stat.inode);
        format!("gluster:{volume}/{inode}").into()
    }

    fn found(&self, opened: &Opened) -> Found {
        Found {
            len: opened.stat.size,
            used: Some(opened.stat.used),
            modified: None,
            inode: Some((0, opened.stat.inode)),
        }
    }

    fn is_lost(&self, _opened: &Opened) -> bool {
        // The library reconnects by itself, and fails the requests that were in flight.
        false
    }

    fn room(&self, _opened: &Opened) -> Room {
        Room {
            read: PIECE,
            write: PIECE,
        }
    }

    fn read(
        &self,
        opened: &Opened,
        pieces: &mut [ReadRange<'_>],
        control: &JobControl,
    ) -> Result<Vec<usize>> {
        let file = opened.file()?;
        let mut under_way = Vec::with_capacity(pieces.len());
        for (offset, piece) in pieces.iter() {
            let mut room = IoBuf::new();
            room.room(piece.len())?;
            under_way.push(file.read(*offset, room).map_err(Error::os)?);
        }
        let mut counts = Vec::with_capacity(pieces.len());
        for ((_, piece), pending) in pieces.iter_mut().zip(under_way) {
            let (count, bytes) = wait(&pending, control)?;
            let came = bytes.get(..count).unwrap_or(&bytes);
            for (to, from) in piece.iter_mut().zip(came) {
                *to = *from;
            }
            counts.push(came.len());
        }
        Ok(counts)
    }

    fn write(
        &self,
        opened: &Opened,
        pieces: &[(u64, &[u8])],
        control: &JobControl,
    ) -> Result<Vec<usize>> {
        let file = opened.file()?;
        opened.kept.store(true, Ordering::Release);
        let mut under_way = Vec::with_capacity(pieces.len());
        for (offset, piece) in pieces {
            let bytes = Payload::of(piece)?;
            under_way.push(file.write(*offset, bytes).map_err(Error::os)?);
        }
        let counts = under_way.iter().map(|pending| wait(pending, control));
        counts.map(|done| done.map(|(count, _)| count)).collect()
    }

    fn set_len(&self, opened: &Opened, len: u64, control: &JobControl) -> Result<()> {
        start(opened.file()?.set_len(len), control)
    }

    fn flush(&self, opened: &Opened, control: &JobControl) -> Result<()> {
        // A write during the flush sets this again.
        opened.kept.store(false, Ordering::Release);
        start(opened.file()?.sync(), control).inspect_err(|_| {
            opened.kept.store(true, Ordering::Release);
        })
    }

    fn remove(&self, opened: &Opened, control: &Arc<JobControl>) -> Result<()> {
        let path = text(&self.settings.path)?;
        call(opened, control, move |file| file.volume().unlink(&path))
    }

    fn zero(&self, opened: &Opened, range: (u64, u64), control: &JobControl) -> Result<bool> {
        if !opened.zeroes.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let (offset, len) = (range.0, range.1 - range.0);
        match start(opened.file()?.write_zeroes(offset, len), control) {
            Err(error) if is_unknown(&error) => {
                opened.zeroes.store(false, Ordering::Relaxed);
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }

    fn discard(&self, opened: &Opened, range: (u64, u64), control: &JobControl) -> Result<()> {
        let (offset, len) = (range.0, range.1 - range.0);
        match start(opened.file()?.discard(offset, len), control) {
            Err(error) if is_unknown(&error) => Err(Error::no_discard()),
            other => other,
        }
    }

    fn extent(
        &self,
        opened: &Opened,
        offset: u64,
        len: u64,
        control: &JobControl,
    ) -> Result<Option<StorageExtent>> {
        if !tells_holes(opened, control)? {
            return Ok(None);
        }
        if opened.kept.load(Ordering::Acquire) {
            self.flush(opened, control)?;
        }
        let known = opened.stat.size;
        let found = call(opened, control, move |file| {
            sought(file, (offset, len), known)
        });
        match found {
            Err(error) if error.os_errno() == Some(libc::EPROTO) => Err(Error::new(
                ErrorKind::Os,
                "The server finds data behind the end of the file",
            )
            .with_errno(libc::EPROTO)),
            Err(error) if is_unknown(&error) => Ok(None),
            Err(error) if error.os_errno() == Some(libc::EIO) => Err(Error::new(
                ErrorKind::Os,
                format!("The file on the server ends before offset {offset}"),
            )
            .with_errno(libc::EIO)),
            other => other.map(Some),
        }
    }

    fn preallocate(
        &self,
        opened: &Opened,
        (from, to): (u64, u64),
        mode: Preallocation,
        control: &JobControl,
    ) -> Result<()> {
        if to < from {
            return Err(Error::unsupported(
                "Preallocation can't be used for shrinking files",
            ));
        }
        let done = match mode {
            Preallocation::Falloc if from == to => Ok(()),
            Preallocation::Falloc => {
                call(opened, control, move |file| file.allocate(from, to - from))
            }
            Preallocation::Full => {
                start(opened.file()?.set_len(to), control)?;
                match from == to {
                    true => Ok(()),
                    false => start(opened.file()?.write_zeroes(from, to - from), control),
                }
            }
            mode => Err(no_preallocation(mode)),
        };
        done.map_err(|error| error.context("Could not preallocate data"))
    }
}
