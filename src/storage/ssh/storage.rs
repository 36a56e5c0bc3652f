//! A file of a server as a storage.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bstr::{BStr, BString, ByteSlice};
use parking_lot::{Mutex, RwLock};

use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageExtent;
use crate::job::JobControl;
use crate::memory;
use crate::net::{Wait, connect};
use crate::options::{OptionValue, Values};
use crate::storage::batch::Broken;
use crate::storage::driver::{OpenContext, StorageTarget};
use crate::storage::modes::{CacheMode, Durability, LockRequest, Preallocation, ZeroFlags};
use crate::storage::remote_len::RemoteLen;
use crate::storage::{HostFile, Identity, Limits, Storage};
use crate::sys::fd;
use crate::sys::libssh;
use crate::value::{Map, Value};

use super::link::{Connect, Link};
use super::login::log_in;
use super::options::{OPTIONS, Settings, file_name, parse_file_name};
use super::sftp::{Attributes, Code, OpenFlags, Reply, Request, violation};

/// Requests of callers that wait for the server at once; each holds a buffer of the caller's.
const IN_FLIGHT: u32 = 16;
/// The most data of one request: longer ones gain nothing, and shorter ones are under way together.
const PIECE: usize = 128 << 10;
/// The most requests of one call at once.
const BATCH: usize = 32;
/// Zeroes that are sent at once.
const ZEROES: usize = 1 << 20;
/// How long a server that is silent is left alone, where that was asked for.
const SILENCE: Duration = Duration::from_secs(60);
/// The pauses between attempts to connect again.
const PAUSES: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
];

/// Makes a connection with a server; another one in tests.
pub(super) type Dial = Arc<dyn Fn(&JobControl) -> Result<Link> + Send + Sync>;

/// A file that is open on a server.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) link: Link,
    handle: Vec<u8>,
    attributes: Attributes,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.link.tell(Request::Close {
            handle: &self.handle,
        });
    }
}

/// The one reply to one request, where that is no error.
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
    /// Of the server, in its words; where it is no regular file.
    pub(super) fn open(
        link: Link,
        path: &BStr,
        flags: OpenFlags,
        control: &JobControl,
    ) -> Result<Self, (Error, Option<Link>)> {
        let failed = |error: Error| {
            error.context_if_server(|| format!("failed to open remote file '{path}'"))
        };
        let mode = flags.contains(OpenFlags::CREATE).then_some(0o644);
        let request = Request::Open { path, flags, mode };
        let handle = match ask(&link, request, control) {
            Ok(Reply::Handle(handle)) => handle,
            Ok(_) => return Err((strange(), None)),
            Err(error) => return Err((failed(error), Some(link))),
        };
        let mut opened = Self {
            link,
            handle,
            attributes: Attributes::default(),
        };
        opened.attributes = opened
            .stat(control)
            .map_err(|error| (error.context("failed to read file attributes"), None))?;
        let kind = opened.attributes.mode.map(|mode| mode & libc::S_IFMT);
        match kind {
            None | Some(0 | libc::S_IFREG) => Ok(opened),
            Some(libc::S_IFDIR) => Err((failed(Error::os(libc::EISDIR)), None)),
            Some(_) => {
                let error = Error::unsupported("It is no regular file, and has no length");
                Err((failed(error), None))
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

    pub(super) fn len(&self) -> u64 {
        self.attributes.size.unwrap_or(0)
    }

    fn pieces(limit: u32) -> usize {
        PIECE.min(limit as usize).max(1)
    }

    /// Reads what is inside of the file.
    fn read(&self, buf: &mut [u8], offset: u64, control: &JobControl) -> Result<()> {
        let piece = Self::pieces(self.link.limits.read);
        let mut at = offset;
        for batch in buf.chunks_mut(piece.saturating_mul(BATCH)) {
            let mut todo = Vec::with_capacity(batch.len().div_ceil(piece));
            for part in batch.chunks_mut(piece) {
                let len = part.len() as u64;
                todo.push((at, part));
                at = at.saturating_add(len);
            }
            while !todo.is_empty() {
                todo = self.read_pieces(todo, control)?;
            }
        }
        Ok(())
    }

    /// Reads each piece as far as the server likes; gives what is left of them.
    fn read_pieces<'b>(
        &self,
        pieces: Vec<(u64, &'b mut [u8])>,
        control: &JobControl,
    ) -> Result<Vec<(u64, &'b mut [u8])>> {
        let requests: Vec<_> = pieces
            .iter()
            .map(|(offset, part)| Request::Read {
                handle: &self.handle,
                offset: *offset,
                // No piece is longer than a request may be.
                len: part.len() as u32,
            })
            .collect();
        let replies = self.link.run(&requests, control)?;
        let mut left = Vec::new();
        for ((offset, part), reply) in pieces.into_iter().zip(replies) {
            let data = match &reply {
                Reply::Data(data) => data,
                Reply::Status(status) if status.code == Code::End => {
                    return Err(Error::new(
                        ErrorKind::Os,
                        format!("The file on the server ends before offset {offset}"),
                    )
                    .with_errno(libc::EIO));
                }
                Reply::Status(status) => return Err(status.error()),
                _ => return Err(strange()),
            };
            // No more than was asked for has come.
            let (now, rest) = part.split_at_mut(data.len().min(part.len()));
            now.copy_from_slice(data.get(..now.len()).unwrap_or_default());
            if !rest.is_empty() {
                left.push((offset.saturating_add(now.len() as u64), rest));
            }
        }
        Ok(left)
    }

    fn write(&self, buf: &[u8], offset: u64, control: &JobControl) -> Result<()> {
        let piece = Self::pieces(self.link.limits.write);
        let mut at = offset;
        for batch in buf.chunks(piece.saturating_mul(BATCH)) {
            let mut requests = Vec::with_capacity(batch.len().div_ceil(piece));
            for data in batch.chunks(piece) {
                requests.push(Request::Write {
                    handle: &self.handle,
                    offset: at,
                    data,
                });
                at = at.saturating_add(data.len() as u64);
            }
            let replies = self.link.run(&requests, control)?;
            replies.iter().try_for_each(expect_ok)?;
        }
        Ok(())
    }
}

/// Whether an error is a server's own refusal, which says nothing of the file.
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

/// How connections with a server are made.
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
            // A hint: the connection is good without.
            let _ = stream.set_keepalive(SILENCE);
        }
        let socket = stream
            .descriptor()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "The stream has no descriptor"))?;
        // The stream goes; its socket stays.
        let socket = fd::duplicate(socket).map_err(|error| Error::io(&error))?;
        let own = settings.clone();
        let make: Connect = Box::new(move |waiter| log_in(&own, socket, waiter));
        Link::open(make, settings.timeout, control)
    })
}

/// A file of a server.
pub(super) struct SshStorage {
    name: BString,
    host: String,
    path: BString,
    identity: Identity,
    dial: Dial,
    control: Arc<JobControl>,
    writable: bool,
    cache: CacheMode,
    file: Arc<RemoteLen>,
    opened: RwLock<Arc<Opened>>,
    /// Held while the connection is made again.
    reopening: Mutex<()>,
    /// How often that has failed, and why the last time.
    failures: Mutex<(u64, Option<Broken>)>,
    sync_failed: AtomicBool,
}

impl std::fmt::Debug for SshStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshStorage")
            .field("name", &self.name)
            .field("writable", &self.writable)
            .finish_non_exhaustive()
    }
}

/// What the options and the name of a target say together.
pub(super) fn settings_of(
    target: &StorageTarget<'_>,
    options: &Values,
    objects: &crate::object::Objects,
) -> Result<(Settings, BString)> {
    let named = match target {
        StorageTarget::Uri(uri) => Some(uri.as_bytes().as_bstr().to_owned()),
        StorageTarget::Path(path) => Some(BString::from(path.as_os_str().as_encoded_bytes())),
        StorageTarget::Unnamed => None,
    };
    let mut given = tree_of(options);
    if let Some(name) = named {
        for (key, value) in parse_file_name(name.as_bstr())? {
            given.entry(key).or_insert(value);
        }
    }
    let values = Values::check(&crate::location::tree::flatten(&given), OPTIONS)?;
    let settings = Settings::of(&values, objects)?;
    let name = file_name(&given).unwrap_or_else(|| settings.place());
    Ok((settings, name))
}

/// Checked options as they were given.
fn tree_of(values: &Values) -> Map<String, Value> {
    values
        .iter()
        .map(|(key, value)| {
            let value = match value {
                OptionValue::Str(text) => Value::from(text.as_str()),
                OptionValue::Name(name) => Value::String(name.clone()),
                OptionValue::Num(number) => Value::from(*number),
                OptionValue::Bool(flag) => Value::from(*flag),
            };
            (key.to_owned(), value)
        })
        .collect()
}

/// Opens a file.
pub(super) fn open(context: &OpenContext<'_>) -> Result<Arc<dyn Storage>> {
    let (settings, name) = settings_of(&context.target, context.options, context.objects)?;
    context.check_server(&settings.address())?;
    let mut flags = OpenFlags::READ;
    flags.set(OpenFlags::WRITE, context.how.writable);
    let dial = dialer(&settings);
    let link = dial(context.control)?;
    let opened = Opened::open(link, settings.path.as_bstr(), flags, context.control)
        .map_err(|(error, _)| error)?;
    let how = (context.how.writable, context.how.cache);
    let storage = SshStorage::new(name, &settings, dial, opened, how, context.control);
    Ok(Arc::new(storage))
}

impl SshStorage {
    /// Of a file that is open.
    pub(super) fn new(
        name: BString,
        settings: &Settings,
        dial: Dial,
        opened: Opened,
        (writable, cache): (bool, CacheMode),
        control: &Arc<JobControl>,
    ) -> Self {
        Self {
            name,
            host: settings.host.clone(),
            path: settings.path.clone(),
            identity: Identity::Remote(settings.place()),
            dial,
            control: control.clone(),
            writable,
            cache,
            file: RemoteLen::at(settings.place(), opened.len()),
            opened: RwLock::new(Arc::new(opened)),
            reopening: Mutex::new(()),
            failures: Mutex::default(),
            sync_failed: AtomicBool::new(false),
        }
    }

    fn opened(&self) -> Arc<Opened> {
        self.opened.read().clone()
    }

    fn about(&self, opened: &Opened, error: Error) -> Error {
        match opened.link.is_lost() && error.kind() != ErrorKind::Cancelled {
            true => error.context(format!("Connection to '{}'", self.name)),
            false => error,
        }
    }

    /// Reads what is inside; a connection that is lost is made again where nothing can have changed.
    fn read_inside(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut again = true;
        loop {
            let before = self.failures.lock().0;
            let opened = self.opened();
            let Err(error) = opened.read(buf, offset, &self.control) else {
                return Ok(());
            };
            self.control.check()?;
            if self.writable || !again || !opened.link.is_lost() {
                return Err(self.about(&opened, error));
            }
            again = self.reopen(&opened, before, &error)?;
        }
    }

    /// Opens the file again in place of `lost`; true where somebody else had done so. What has failed since there
    /// were `before` failures is not tried again by each of those that waited.
    fn reopen(&self, lost: &Arc<Opened>, before: u64, error: &Error) -> Result<bool> {
        let _alone = self.reopening.lock();
        if !Arc::ptr_eq(&self.opened(), lost) {
            return Ok(true);
        }
        if let (now, Some(broken)) = &*self.failures.lock()
            && *now != before
        {
            return Err(broken.error());
        }
        let failed = |last: Error| {
            let text = format!("Connection to '{}': {error}", self.name);
            match last.kind() {
                ErrorKind::Cancelled => last,
                _ => last.context(text),
            }
        };
        let mut last = Error::os(libc::ECONNRESET);
        for pause in PAUSES {
            self.control.check()?;
            std::thread::sleep(pause);
            let made = (self.dial)(&self.control).and_then(|link| {
                let path = self.path.as_bstr();
                Opened::open(link, path, OpenFlags::READ, &self.control).map_err(|(error, _)| error)
            });
            match made {
                Ok(made) => {
                    let (was, is) = (lost.attributes, made.attributes);
                    if was.size != is.size || was.modified != is.modified {
                        return Err(Error::new(
                            ErrorKind::Os,
                            format!("The file of '{}' is not what it was before", self.name),
                        )
                        .with_errno(libc::ESTALE));
                    }
                    *self.opened.write() = Arc::new(made);
                    return Ok(false);
                }
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(error) => last = error,
            }
            // A server that keeps quiet was waited for already.
            if last.errno() == libc::ETIMEDOUT {
                break;
            }
        }
        let last = failed(last);
        let mut failures = self.failures.lock();
        *failures = (failures.0 + 1, Some(Broken::of(&last)));
        Err(last)
    }

    /// Refuses a change that cannot be; the end of its range.
    fn check_write(&self, offset: u64, len: u64) -> Result<u64> {
        if !self.writable {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                format!("'{}' is open read-only", self.name),
            ));
        }
        let end = offset.checked_add(len);
        end.filter(|end| i64::try_from(*end).is_ok())
            .ok_or_else(|| Error::os(libc::EFBIG))
    }

    /// Has `write` change the file up to `end`.
    fn change(&self, end: u64, write: impl FnOnce(&Opened) -> Result<()>) -> Result<()> {
        let grows = end > self.file.get();
        let _growing = grows.then(|| self.file.growing.read());
        let opened = self.opened();
        write(&opened).map_err(|error| self.about(&opened, error))?;
        self.file.reaches(end);
        match self.cache.write_through() {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&self) -> Result<()> {
        let opened = self.opened();
        if !opened.link.extensions.fsync {
            // Whoever opened it was told.
            return Ok(());
        }
        let handle = &opened.handle;
        let done = ask(&opened.link, Request::Sync { handle }, &self.control);
        done.map(|_| ()).map_err(|error| self.about(&opened, error))
    }

    fn change_len(&self, len: u64, grow_only: bool) -> Result<()> {
        let _alone = self.file.growing.write();
        if grow_only && len <= self.file.get() {
            return Ok(());
        }
        let opened = self.opened();
        let handle = &opened.handle;
        let done = ask(&opened.link, Request::SetLen { handle, len }, &self.control);
        done.map_err(|error| self.about(&opened, error))?;
        self.file.set(len);
        Ok(())
    }

    /// Removes the file, also where the work was cancelled.
    ///
    /// # Errors
    /// Of the connection, or of the server.
    pub(super) fn remove(&self, time: Duration) -> Result<()> {
        let control = JobControl::default();
        control.set_deadline(Some(time));
        let path = &self.path;
        let opened = self.opened();
        let done = match opened.link.is_lost() {
            true => ask(&(self.dial)(&control)?, Request::Remove { path }, &control),
            false => ask(&opened.link, Request::Remove { path }, &control),
        };
        done.map(|_| ())
    }

    /// Empties the file, also where the work was cancelled. What was sent before is done before.
    ///
    /// # Errors
    /// Of the connection, or of the server.
    pub(super) fn clear(&self, time: Duration) -> Result<()> {
        let control = JobControl::default();
        control.set_deadline(Some(time));
        let opened = self.opened();
        let empty = |opened: &Opened| {
            let handle = &opened.handle;
            ask(&opened.link, Request::SetLen { handle, len: 0 }, &control).map(|_| ())
        };
        if !opened.link.is_lost() {
            return empty(&opened);
        }
        let link = (self.dial)(&control)?;
        let again = Opened::open(link, self.path.as_bstr(), OpenFlags::WRITE, &control);
        empty(&again.map_err(|(error, _)| error)?)
    }
}

impl Storage for SshStorage {
    fn name(&self) -> &BStr {
        self.name.as_bstr()
    }

    fn driver(&self) -> &'static str {
        super::DRIVER.name
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.identity.clone())
    }

    fn warnings(&self) -> Vec<String> {
        let durable = self.opened().link.extensions.fsync;
        match self.writable && !durable {
            true => vec![format!(
                "ssh server {} does not support fsync; to support fsync, you need OpenSSH >= 6.3",
                self.host
            )],
            false => Vec::new(),
        }
    }

    fn read_only(&self) -> bool {
        !self.writable
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let inside = self.file.get().saturating_sub(offset);
        let inside = usize::try_from(inside).unwrap_or(usize::MAX).min(buf.len());
        let (buf, past) = buf.split_at_mut(inside);
        past.fill(0);
        match buf.is_empty() {
            true => Ok(()),
            false => self.read_inside(buf, offset),
        }
    }

    fn try_read(&self, _bufs: &mut [IoSliceMut<'_>], _offset: u64) -> Result<bool> {
        // The server is always waited for.
        Ok(false)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let end = self.check_write(offset, buf.len() as u64)?;
        if buf.is_empty() {
            return Ok(());
        }
        self.change(end, |opened| opened.write(buf, offset, &self.control))
    }

    fn len(&self) -> Result<u64> {
        Ok(self.file.get())
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.check_write(0, len)?;
        if preallocation != Preallocation::Off {
            return Err(Error::unsupported(format!(
                "Unsupported preallocation mode '{}'",
                preallocation.name()
            )));
        }
        self.change_len(len, false)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        let end = self.check_write(offset, len)?;
        let inside = end.min(self.file.get());
        if offset < inside {
            if flags.contains(ZeroFlags::NO_FALLBACK) {
                return Err(Error::unsupported(
                    "The server writes zeroes no faster than data",
                ));
            }
            let most = (inside - offset).min(ZEROES as u64);
            let zeroes = memory::zeroed(usize::try_from(most).unwrap_or(ZEROES))?;
            let mut at = offset;
            while at < inside {
                let len = (inside - at).min(zeroes.len() as u64);
                let now = usize::try_from(len).unwrap_or(usize::MAX);
                self.write_at(zeroes.get(..now).unwrap_or_default(), at)?;
                at += len;
            }
        }
        match end > inside && len > 0 {
            // What is added reads as zeroes.
            true => self.change_len(end, true),
            false => Ok(()),
        }
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.check_write(offset, len)?;
        Err(Error::unsupported("Discarding is not supported"))
    }

    fn sync(&self, durability: Durability) -> Result<()> {
        if durability != Durability::Synced || !self.writable {
            // What the server has replied to survives this process.
            return Ok(());
        }
        if self.sync_failed.load(Ordering::Acquire) {
            return Err(Error::os(libc::EIO).context("An earlier flush has failed"));
        }
        let done = self.flush();
        if done.is_err() {
            self.sync_failed.store(true, Ordering::Release);
        }
        done
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        // The server does not tell data from holes.
        let inside = self.file.get().saturating_sub(offset);
        Ok(StorageExtent {
            len: if inside == 0 { len } else { len.min(inside) },
            zero: inside == 0,
            allocated: inside != 0,
        })
    }

    fn limits(&self) -> Limits {
        Limits {
            grown_is_zero: true,
            in_flight: IN_FLIGHT,
            ..Limits::default()
        }
    }

    fn allocated_size(&self) -> Option<u64> {
        None
    }

    fn specific_info(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    fn lock(&self, _request: LockRequest) -> Result<()> {
        // The protocol has none: the server's matter.
        Ok(())
    }

    fn host(&self) -> Option<&dyn HostFile> {
        None
    }
}
