//! Files on an SSH server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bstr::BString;
use once_cell::sync::OnceCell;

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::net::{Wait, connect};
use crate::storage::ReadRange;
use crate::storage::remote_file::{Found, How, Protocol, Room, check_regular, make, unmake};
use crate::sys::fd;
use crate::sys::libssh;
use crate::zero::is_zero;

use super::link::{Connect, Link};
use super::login::log_in;
use super::options::Settings;
use super::sftp::{Attributes, Code, OpenFlags, Reply, Request, violation};

/// Maximum payload of one request: longer ones gain nothing, because several shorter ones are in flight at once.
const PIECE: usize = 128 << 10;
/// The file on a server that reads as zeroes.
const ZEROES: &str = "/dev/zero";
/// Number of its bytes that are checked before it is relied on.
const LOOK: u32 = 4096;
/// Shorter runs of zeroes are sent as data.
const LEAST_COPIED: u64 = 32 << 10;
/// Maximum length that the server copies for one request, as other requests have to wait meanwhile.
const MOST_COPIED: u64 = 4 << 20;
/// Idle time before TCP keep-alive probes are sent, where they are enabled.
const SILENCE: Duration = Duration::from_secs(60);

/// Opens a connection to a server; replaced in tests.
pub(super) type Dial = Arc<dyn Fn(&JobControl) -> Result<Link> + Send + Sync>;

/// A file that is open on a server.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) link: Link,
    handle: Vec<u8>,
    attributes: Attributes,
    /// The handle of [`ZEROES`]; `None` if there is no such file, or the server cannot copy.
    zeroes: OnceCell<Option<Vec<u8>>>,
    /// The server has failed to copy.
    copies_failed: AtomicBool,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let zeroes = self.zeroes.get().and_then(Option::as_ref);
        for handle in [Some(&self.handle), zeroes].into_iter().flatten() {
            self.link.tell(Request::Close { handle });
        }
    }
}

/// Sends one request and returns its reply, unless that is an error status.
pub(super) fn ask(link: &Link, request: Request<'_>, control: &JobControl) -> Result<Reply> {
    let reply = link.run(&[request], control)?.pop();
    match reply {
        Some(Reply::Status(status)) if status.code != Code::Ok => Err(status.error()),
        Some(reply) => Ok(reply),
        None => Err(strange()),
    }
}

fn strange() -> Error {
    violation("The server's reply is of another kind than the request")
}

fn expect_ok(reply: &Reply) -> Result<()> {
    match reply {
        Reply::Status(status) if status.code == Code::Ok => Ok(()),
        Reply::Status(status) => Err(status.error()),
        _ => Err(strange()),
    }
}

impl Opened {
    /// Opens a file.
    ///
    /// # Errors
    /// Errors of the server, with its message; where it is not a regular file.
    pub(super) fn open(
        link: Link,
        (place, path): (&BString, &BString),
        flags: OpenFlags,
        control: &Arc<JobControl>,
    ) -> Result<Self, (Error, Option<Link>)> {
        let failed = |error: Error| {
            error.context_if_server(|| format!("failed to open remote file '{path}'"))
        };
        let creates = flags.contains(OpenFlags::CREATE);
        let mode = creates.then_some(0o644);
        let request = Request::Open { path, flags, mode };
        let reply = match creates {
            true => make(place, control, |control| ask(&link, request, control)),
            false => ask(&link, request, control),
        };
        let handle = match reply {
            Ok(Reply::Handle(handle)) => handle,
            Ok(_) => return Err((strange(), None)),
            Err(error) => return Err((failed(error), Some(link))),
        };
        let mut opened = Self {
            link,
            handle,
            attributes: Attributes::default(),
            zeroes: OnceCell::new(),
            copies_failed: AtomicBool::new(false),
        };
        let looked = opened
            .stat(control)
            .map_err(|error| error.context("failed to read file attributes"))
            .and_then(|attributes| {
                // Not all servers report the type.
                let kind = attributes.mode.map(|mode| mode & libc::S_IFMT);
                let kind = kind.filter(|kind| *kind != 0);
                kind.map_or(Ok(()), check_regular).map_err(failed)?;
                Ok(attributes)
            });
        match looked {
            Ok(attributes) => opened.attributes = attributes,
            Err(error) => {
                if creates {
                    unmake(place, control, |control| {
                        ask(&opened.link, Request::Remove { path }, control).map(|_| ())
                    });
                }
                return Err((error, None));
            }
        }
        Ok(opened)
    }

    /// The handle to copy zeroes from, where that is possible.
    fn zeroes(&self, control: &JobControl) -> Result<Option<&Vec<u8>>> {
        if !self.link.extensions.copy_data || self.copies_failed.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let found = self.zeroes.get_or_try_init(|| self.open_zeroes(control));
        found.map(Option::as_ref)
    }

    fn open_zeroes(&self, control: &JobControl) -> Result<Option<Vec<u8>>> {
        let request = Request::Open {
            path: ZEROES.as_bytes(),
            flags: OpenFlags::READ,
            mode: None,
        };
        let Some(Reply::Handle(handle)) = self.link.run(&[request], control)?.pop() else {
            return Ok(None);
        };
        let look = [
            Request::Stat { handle: &handle },
            Request::Read {
                handle: &handle,
                offset: 0,
                len: LOOK,
            },
        ];
        let is_device = |attributes: &Attributes| {
            attributes.mode.map(|mode| mode & libc::S_IFMT) == Some(libc::S_IFCHR)
        };
        match &*self.link.run(&look, control)? {
            [Reply::Attributes(attributes), Reply::Data(data)]
                if is_device(attributes) && is_zero(data) =>
            {
                Ok(Some(handle))
            }
            _ => {
                self.link.tell(Request::Close { handle: &handle });
                Ok(None)
            }
        }
    }

    fn stat(&self, control: &JobControl) -> Result<Attributes> {
        let handle = &self.handle;
        match ask(&self.link, Request::Stat { handle }, control)? {
            Reply::Attributes(attributes) if attributes.size.is_some() => Ok(attributes),
            Reply::Attributes(_) => Err(violation("The server does not say how long the file is")),
            _ => Err(strange()),
        }
    }
}

/// Adds the file to an error, except a cancellation, which says nothing about the file.
trait OfServer {
    fn context_if_server(self, message: impl FnOnce() -> String) -> Error;
}

impl OfServer for Error {
    fn context_if_server(self, message: impl FnOnce() -> String) -> Error {
        match self.kind() {
            ErrorKind::Cancelled => self,
            _ => self.context(message()),
        }
    }
}

/// How to connect to a server.
pub(super) fn dialer(settings: &Settings) -> Dial {
    let settings = settings.clone();
    Arc::new(move |control: &JobControl| {
        libssh::check().map_err(Error::unsupported)?;
        let mut wait = Wait::new(control);
        if let Some(timeout) = settings.timeout {
            wait = wait.at_most(timeout);
        }
        let stream = connect(&settings.address(), wait)?;
        if settings.keep_alive {
            // A hint: the connection works without it.
            let _ = stream.set_keepalive(SILENCE);
        }
        let socket = stream
            .descriptor()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "The stream has no descriptor"))?;
        // The stream is dropped; its socket stays open.
        let socket = fd::duplicate(socket).map_err(|error| Error::io(&error))?;
        let own = settings.clone();
        let make: Connect = Box::new(move |waiter| log_in(&own, socket, waiter));
        Link::open(make, settings.timeout, control)
    })
}

/// Identifies the file and its server.
pub(super) struct Ssh {
    host: String,
    path: BString,
    place: BString,
    dial: Dial,
}

impl std::fmt::Debug for Ssh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ssh")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

fn flags_of(how: How) -> OpenFlags {
    let both = OpenFlags::READ | OpenFlags::WRITE;
    match how {
        How::Read => OpenFlags::READ,
        How::Write => both,
        How::Create => both | OpenFlags::CREATE | OpenFlags::EXCLUSIVE,
    }
}

impl Ssh {
    pub(super) fn new(settings: &Settings, dial: Dial) -> Self {
        Self {
            host: settings.host.clone(),
            path: settings.path.clone(),
            place: settings.place(),
            dial,
        }
    }

    fn open_over(
        &self,
        link: Link,
        how: How,
        control: &Arc<JobControl>,
    ) -> Result<Opened, (Error, Option<Link>)> {
        Opened::open(link, (&self.place, &self.path), flags_of(how), control)
    }
}

impl Protocol for Ssh {
    const NAME: &'static str = super::DRIVER.name;
    // Each attempt has to connect and log in.
    const PATIENCE: Duration = Duration::from_millis(750);
    type Opened = Opened;

    fn open(&self, how: How, control: &Arc<JobControl>) -> Result<Opened> {
        let link = (self.dial)(control)?;
        self.open_over(link, how, control)
            .map_err(|(error, _)| error)
    }

    fn make_or_open(&self, control: &Arc<JobControl>) -> Result<(bool, Opened)> {
        let link = (self.dial)(control)?;
        match self.open_over(link, How::Create, control) {
            Ok(opened) => Ok((true, opened)),
            // It exists, or it cannot be created: opening it shows which. The login is reused.
            Err((first, Some(link))) => match self.open_over(link, How::Write, control) {
                Ok(opened) => Ok((false, opened)),
                Err((error, _)) if error.os_errno() == Some(libc::ENOENT) => Err(first),
                Err((error, _)) => Err(error),
            },
            Err((error, None)) => Err(error),
        }
    }

    fn place(&self, _opened: &Opened) -> BString {
        self.place.clone()
    }

    fn found(&self, opened: &Opened) -> Found {
        let attributes = opened.attributes;
        Found {
            len: attributes.size.unwrap_or(0),
            used: None,
            modified: attributes.modified.map(|time| (time.into(), 0)),
            inode: None,
        }
    }

    fn is_lost(&self, opened: &Opened) -> bool {
        opened.link.is_lost()
    }

    fn tells_what_is_flushed(&self, _opened: &Opened) -> bool {
        // Not all servers can flush.
        false
    }

    fn warnings(&self, opened: &Opened, writable: bool) -> Vec<String> {
        match writable && !opened.link.extensions.fsync {
            true => vec![format!(
                "ssh server {} does not support fsync; to support fsync, you need OpenSSH >= 6.3",
                self.host
            )],
            false => Vec::new(),
        }
    }

    fn room(&self, opened: &Opened) -> Room {
        let limits = &opened.link.limits;
        let room = |limit: u32| PIECE.min(limit as usize);
        Room {
            read: room(limits.read),
            write: room(limits.write),
        }
    }

    fn read(
        &self,
        opened: &Opened,
        pieces: &mut [ReadRange<'_>],
        control: &JobControl,
    ) -> Result<Vec<usize>> {
        let requests: Vec<_> = pieces
            .iter()
            .map(|(offset, piece)| Request::Read {
                handle: &opened.handle,
                offset: *offset,
                // No piece is longer than the maximum request.
                len: piece.len() as u32,
            })
            .collect();
        let replies = opened.link.run(&requests, control)?;
        drop(requests);
        let mut counts = Vec::with_capacity(pieces.len());
        for ((_, piece), reply) in pieces.iter_mut().zip(replies) {
            counts.push(match &reply {
                Reply::Data(data) => {
                    // The reply has at most the requested length.
                    for (to, from) in piece.iter_mut().zip(data.iter()) {
                        *to = *from;
                    }
                    data.len()
                }
                Reply::Status(status) if status.code == Code::End => 0,
                Reply::Status(status) => return Err(status.error()),
                _ => return Err(strange()),
            });
        }
        Ok(counts)
    }

    fn write(
        &self,
        opened: &Opened,
        pieces: &[(u64, &[u8])],
        control: &JobControl,
    ) -> Result<Vec<usize>> {
        let handle = &opened.handle;
        let requests: Vec<_> = pieces
            .iter()
            .map(|(offset, data)| Request::Write {
                handle,
                offset: *offset,
                data,
            })
            .collect();
        let replies = opened.link.run(&requests, control)?;
        replies.iter().try_for_each(expect_ok)?;
        Ok(pieces.iter().map(|(_, data)| data.len()).collect())
    }

    /// Avoids sending zeroes: the server copies its own.
    fn zero(
        &self,
        opened: &Opened,
        (start, end): (u64, u64),
        control: &JobControl,
    ) -> Result<bool> {
        if end.saturating_sub(start) < LEAST_COPIED {
            return Ok(false);
        }
        let Some(from) = opened.zeroes(control)? else {
            return Ok(false);
        };
        let copy = |offset: u64| Request::Copy {
            from,
            len: MOST_COPIED.min(end - offset),
            to: &opened.handle,
            offset,
        };
        let requests: Vec<_> = (start..end)
            .step_by(MOST_COPIED as usize)
            .map(copy)
            .collect();
        let replies = opened.link.run(&requests, control)?;
        let done = replies.iter().all(|reply| expect_ok(reply).is_ok());
        if !done {
            // If the fallback to writing fails too, its error gives the reason.
            opened.copies_failed.store(true, Ordering::Relaxed);
        }
        Ok(done)
    }

    fn set_len(&self, opened: &Opened, len: u64, control: &JobControl) -> Result<()> {
        let handle = &opened.handle;
        ask(&opened.link, Request::SetLen { handle, len }, control).map(|_| ())
    }

    fn flush(&self, opened: &Opened, control: &JobControl) -> Result<()> {
        if !opened.link.extensions.fsync {
            // This was reported when the file was opened.
            return Ok(());
        }
        let handle = &opened.handle;
        ask(&opened.link, Request::Sync { handle }, control).map(|_| ())
    }

    fn remove(&self, opened: &Opened, control: &Arc<JobControl>) -> Result<()> {
        let path = &self.path;
        let done = match opened.link.is_lost() {
            true => ask(&(self.dial)(control)?, Request::Remove { path }, control),
            false => ask(&opened.link, Request::Remove { path }, control),
        };
        done.map(|_| ())
    }
}
