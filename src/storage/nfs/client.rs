//! Clients of a server, each with one open file.

use std::ffi::{CString, c_int};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bstr::ByteSlice;

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::net::{Wait, numbers};
use crate::storage::engine::{Engine, Link, serve_until};
use crate::storage::remote_file::{How, check_regular, make, unmake};
use crate::sys::libnfs::{self, Answer, Client, NfsError, Reply, Request, Stat};

use super::options::Settings;
use super::write_back::WriteBack;

/// Timeout for mounting from one address of a host, and for each request until the file is open.
const MOUNT: Duration = Duration::from_secs(20);
/// How long a server that owes replies may be silent.
const QUIET: Duration = Duration::from_secs(60);
/// The usual port of servers; for version 3, the library queries the server's portmapper.
pub(super) const PORT: u16 = 2049;

/// A client that is served by one thread.
pub(super) struct Mount {
    client: Client,
    /// When a reply last arrived, or nothing was in flight.
    heard: Instant,
    /// The token of the last request of [`perform`].
    asked: u64,
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mount").finish_non_exhaustive()
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) link: Link<Mount>,
    pub(super) stat: Stat,
    /// Maximum payload of a read and of a write.
    pub(super) limits: (usize, usize),
    pub(super) write_back: WriteBack,
}

fn lost(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::Os, reason).with_errno(libc::ECONNRESET)
}

/// The error for a request that the server has refused.
pub(super) fn refused(failure: &NfsError) -> Error {
    Error::os(failure.errno)
}

impl Engine for Mount {
    type Request = Request;
    type Reply = Reply;

    fn submit(&mut self, token: u64, request: Request) -> Result<()> {
        self.client.submit(token, request).map_err(lost)
    }

    fn events(&self) -> (RawFd, c_int) {
        self.client.events()
    }

    fn serve(&mut self, ready: c_int) -> Result<()> {
        self.client
            .serve(ready)
            .map_err(|reason| lost(format!("The server ended the connection ({reason})")))
    }

    fn replies(&mut self) -> Vec<(u64, Reply)> {
        let done = self.client.done();
        if !done.is_empty() {
            self.heard = Instant::now();
        }
        done
    }

    fn tick(&mut self, under_way: usize) -> Result<()> {
        if under_way == 0 {
            self.heard = Instant::now();
        }
        match self.heard.elapsed() > QUIET {
            true => {
                Err(Error::new(ErrorKind::Os, "The server does not answer")
                    .with_errno(libc::ETIMEDOUT))
            }
            false => Ok(()),
        }
    }

    fn part(&mut self) -> bool {
        self.client.has_file() && self.client.submit(0, Request::Close).is_ok()
    }

    fn is_over(&mut self) -> bool {
        !self.client.has_file()
    }
}

fn text(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::invalid("The path has a NUL in it"))
}

/// Carries out one request on this thread. The outer error is that of the connection, the inner one the server's.
fn perform(
    mount: &mut Mount,
    request: Request,
    wait: Wait<'_>,
) -> Result<std::result::Result<Answer, NfsError>> {
    mount.asked += 1;
    let token = mount.asked;
    mount.submit(token, request)?;
    // Replies to earlier requests that were given up are ignored.
    let done = |mount: &mut Mount| {
        let replies = mount.replies().into_iter();
        Ok(replies.rev().find(|(of, _)| *of == token))
    };
    serve_until(mount, || wait.check(), done).map(|(_, reply)| reply)
}

/// Opens a file. All addresses of the host are tried in turn.
///
/// # Errors
/// If the connection fails, the server refuses, `control` ends the wait, or it is not a regular file.
pub(super) fn open(settings: &Settings, how: How, control: &Arc<JobControl>) -> Result<Opened> {
    libnfs::check().map_err(Error::unsupported)?;
    let mut failed = None;
    for number in numbers(&settings.host, PORT, Wait::new(control))? {
        let server = text(number.ip().to_string().as_bytes())?;
        match mount(settings, server, control) {
            Ok(mount) => return open_in(settings, mount, how, control),
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => failed = Some(error),
        }
    }
    let error = failed.unwrap_or_else(|| Error::os(libc::EADDRNOTAVAIL));
    Err(error.context(format!(
        "Failed to mount nfs share '{}' of '{}'",
        settings.directory, settings.host
    )))
}

fn mount(settings: &Settings, server: CString, control: &JobControl) -> Result<Mount> {
    let client = Client::new(&settings.wanted).map_err(Error::invalid)?;
    let mut mount = Mount {
        client,
        heard: Instant::now(),
        asked: 0,
    };
    let wait = Wait::new(control).at_most(MOUNT);
    let request = Request::Mount(server, text(&settings.directory)?);
    match perform(&mut mount, request, wait)? {
        Ok(_) => Ok(mount),
        Err(failure) => {
            Err(Error::new(ErrorKind::Os, failure.text.clone()).with_errno(failure.errno))
        }
    }
}

fn open_in(
    settings: &Settings,
    mut mount: Mount,
    how: How,
    control: &Arc<JobControl>,
) -> Result<Opened> {
    let path = text(&[b"/", settings.file.as_slice()].concat())?;
    let failed = |doing: &str, error: Error| match error.kind() {
        ErrorKind::Cancelled => error,
        _ => {
            let whom = settings.whom(&error);
            error.context(format!(
                "Failed to {doing} file '{}'{whom}",
                settings.file.as_bstr()
            ))
        }
    };
    let ask = |mount: &mut Mount, request, control: &JobControl| {
        let wait = Wait::new(control).at_most(MOUNT);
        perform(mount, request, wait)?.map_err(|failure| refused(&failure))
    };
    if how == How::Create {
        let request = Request::Create { path: path.clone() };
        make(settings.place(), control, |control| {
            ask(&mut mount, request, control)
        })
        .map_err(|error| failed("create", error))?;
    } else {
        let write = how == How::Write;
        let path = path.clone();
        ask(&mut mount, Request::Open { path, write }, control)
            .map_err(|error| failed("open", error))?;
    }
    let stat = match ask(&mut mount, Request::Stat, control) {
        Ok(Answer::Stat(stat)) => {
            check_regular(u32::try_from(stat.mode).unwrap_or(0)).map(|()| stat)
        }
        Ok(_) => Err(Error::os(libc::EPROTO)),
        Err(error) => Err(error),
    };
    let stat = stat.map_err(|error| match how {
        How::Read | How::Write => failed("open", error),
        How::Create => {
            unmake(settings.place(), control, |control| {
                ask(&mut mount, Request::Unlink(path), control).map(|_| ())
            });
            failed("create", error)
        }
    })?;
    let limit = |told: u64| {
        usize::try_from(told)
            .unwrap_or(usize::MAX)
            .clamp(512, 1 << 20)
    };
    let (read, write) = mount.client.limits();
    Ok(Opened {
        limits: (limit(read), limit(write)),
        stat,
        write_back: WriteBack::default(),
        link: Link::new("nfs", mount)?,
    })
}
