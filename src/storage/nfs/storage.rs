//! A file of a server as a storage.

use std::ffi::CString;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bstr::{BStr, BString, ByteSlice};
use parking_lot::{Mutex, RwLock};

use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageExtent;
use crate::job::JobControl;
use crate::memory;
use crate::net::Address;
use crate::options::{OptionValue, Values};
use crate::storage::driver::{OpenContext, StorageTarget};
use crate::storage::modes::{CacheMode, Durability, LockRequest, Preallocation, ZeroFlags};
use crate::storage::remote_len::RemoteLen;
use crate::storage::unflushed::Unflushed;
use crate::storage::{HostFile, Identity, Limits, ReadRange, Storage};
use crate::sys::libnfs::{Answer, Request};
use crate::value::{Map, Value};

use super::client::{How, Opened, PORT, open as open_file, refused};
use super::options::{OPTIONS, Settings, file_name, parse_file_name};

/// Requests of callers that wait for the server at once; each holds a buffer of the caller's.
const IN_FLIGHT: u32 = 16;
/// The most data of one request: longer ones gain nothing, and shorter ones are under way together.
const PIECE: usize = 256 << 10;
/// The most requests of one call at once.
const BATCH: usize = 32;
/// Zeroes that are sent at once.
const ZEROES: usize = 1 << 20;
/// How long attempts to connect again go on, and the pauses between them.
const RECONNECT: Duration = Duration::from_secs(15);
const PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

/// A file of a server.
pub(super) struct NfsStorage {
    name: BString,
    identity: Identity,
    settings: Settings,
    control: Arc<JobControl>,
    writable: bool,
    cache: CacheMode,
    file: Arc<RemoteLen>,
    opened: RwLock<Arc<Opened>>,
    /// Held while the connection is made again.
    reopening: Mutex<()>,
    unflushed: Unflushed,
    sync_failed: AtomicBool,
}

impl std::fmt::Debug for NfsStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NfsStorage")
            .field("name", &self.name)
            .field("writable", &self.writable)
            .finish_non_exhaustive()
    }
}

/// What the options and the name of a target say together.
pub(super) fn settings_of(
    target: &StorageTarget<'_>,
    options: &Values,
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
    let settings = Settings::of(&values)?;
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
    let (settings, name) = settings_of(&context.target, context.options)?;
    let port = settings.wanted.port.unwrap_or(PORT);
    context.check_server(&Address::inet(settings.host.clone(), port))?;
    let how = match context.how.writable {
        true => How::Write,
        false => How::Read,
    };
    let opened = open_file(&settings, how, context.control)?;
    let how = (context.how.writable, context.how.cache);
    let storage = NfsStorage::new(name, settings, opened, how, context.control);
    Ok(Arc::new(storage))
}

fn strange() -> Error {
    Error::new(
        ErrorKind::Internal,
        "A reply is of another kind than the request",
    )
}

impl NfsStorage {
    /// Of a file that is open.
    pub(super) fn new(
        name: BString,
        settings: Settings,
        opened: Opened,
        (writable, cache): (bool, CacheMode),
        control: &Arc<JobControl>,
    ) -> Self {
        Self {
            name,
            identity: Identity::Remote(settings.place()),
            control: control.clone(),
            writable,
            cache,
            file: RemoteLen::at(settings.place(), opened.stat.size),
            settings,
            opened: RwLock::new(Arc::new(opened)),
            reopening: Mutex::new(()),
            unflushed: Unflushed::default(),
            sync_failed: AtomicBool::new(false),
        }
    }

    fn opened(&self) -> Arc<Opened> {
        self.opened.read().clone()
    }

    /// Has `work` done over the connection; over a new one where it is lost and nothing that was written can be.
    fn with_file<T>(&self, mut work: impl FnMut(&Opened) -> Result<T>) -> Result<T> {
        let mut fresh = 0;
        loop {
            let opened = self.opened();
            let error = match work(&opened) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if !opened.link.is_lost() || error.kind() == ErrorKind::Cancelled {
                return Err(error);
            }
            self.control.check()?;
            // A server that ends each connection is not asked for ever.
            if fresh == 3 {
                return Err(self.about(&error));
            }
            fresh += 1;
            self.reopen(&opened, &error)?;
        }
    }

    fn about(&self, error: &Error) -> Error {
        let errno = match error.errno() {
            0 => libc::EIO,
            errno => errno,
        };
        let text = format!("Connection to '{}': {error}", self.name);
        Error::new(ErrorKind::Os, text).with_errno(errno)
    }

    /// Opens the file again in place of `lost`.
    fn reopen(&self, lost: &Arc<Opened>, error: &Error) -> Result<()> {
        let _alone = self.reopening.lock();
        if !Arc::ptr_eq(&self.opened(), lost) {
            return Ok(());
        }
        if self.unflushed.is_any() || self.sync_failed.load(Ordering::Acquire) {
            // The server may have been started anew, and what it had in memory be gone.
            self.sync_failed.store(true, Ordering::Release);
            let hint = "What was written since the last flush may be lost";
            return Err(self.about(error).with_hint(hint));
        }
        let how = match self.writable {
            true => How::Write,
            false => How::Read,
        };
        let end = Instant::now() + RECONNECT;
        let mut pauses = PAUSES.iter().copied();
        loop {
            self.control.check()?;
            std::thread::sleep(pauses.next().unwrap_or(PAUSES[PAUSES.len() - 1]));
            match open_file(&self.settings, how, &self.control) {
                Ok(opened) => {
                    let (was, is) = (lost.stat, opened.stat);
                    let changed = was.size != is.size || was.modified != is.modified;
                    if was.inode != is.inode || (changed && !self.writable) {
                        return Err(Error::new(
                            ErrorKind::Os,
                            format!("The file of '{}' is not what it was before", self.name),
                        )
                        .with_errno(libc::ESTALE));
                    }
                    *self.opened.write() = Arc::new(opened);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(last) if Instant::now() >= end => {
                    return Err(last.context(format!("Connection to '{}': {error}", self.name)));
                }
                Err(_) => {}
            }
        }
    }

    /// Reads ranges that are inside of the file, several pieces at once.
    fn read_ranges(&self, ranges: &mut [ReadRange<'_>]) -> Result<()> {
        let most = PIECE.min(self.opened().limits.0);
        let mut todo: Vec<(u64, &mut [u8])> = Vec::new();
        for (offset, buf) in ranges {
            let mut at = *offset;
            for part in buf.chunks_mut(most) {
                let len = part.len() as u64;
                todo.push((at, part));
                at = at.saturating_add(len);
            }
        }
        for batch in todo.chunks_mut(BATCH) {
            // What came of each so far.
            let mut filled = vec![0; batch.len()];
            self.with_file(|opened| self.read_batch(opened, batch, &mut filled))?;
        }
        Ok(())
    }

    fn read_batch(
        &self,
        opened: &Opened,
        batch: &mut [ReadRange<'_>],
        filled: &mut [usize],
    ) -> Result<()> {
        loop {
            let mut requests = Vec::new();
            let mut places = Vec::new();
            for (place, ((offset, part), filled)) in batch.iter().zip(filled.iter()).enumerate() {
                if *filled < part.len() {
                    let buf = memory::zeroed(part.len() - filled)?;
                    requests.push(Request::Read(offset.saturating_add(*filled as u64), buf));
                    places.push(place);
                }
            }
            if requests.is_empty() {
                return Ok(());
            }
            let replies = opened.link.run(requests, &self.control)?;
            for (place, reply) in places.into_iter().zip(replies) {
                let (data, count) = match reply {
                    Ok(Answer::Read(data, count)) => (data, count),
                    Ok(_) => return Err(strange()),
                    Err(failure) => return Err(refused(&failure)),
                };
                let (Some((offset, part)), Some(filled)) =
                    (batch.get_mut(place), filled.get_mut(place))
                else {
                    continue;
                };
                if count == 0 {
                    return Err(Error::new(
                        ErrorKind::Os,
                        format!("The file on the server ends before offset {offset}"),
                    )
                    .with_errno(libc::EIO));
                }
                let to = part.get_mut(*filled..).unwrap_or_default();
                for (to, from) in to.iter_mut().zip(data.iter().take(count)) {
                    *to = *from;
                }
                *filled += count;
            }
        }
    }

    fn write_batch(&self, opened: &Opened, buf: &[u8], offset: u64) -> Result<()> {
        let most = PIECE.min(opened.limits.1);
        let mut todo: Vec<(u64, &[u8])> = Vec::new();
        let mut at = offset;
        for part in buf.chunks(most) {
            todo.push((at, part));
            at = at.saturating_add(part.len() as u64);
        }
        while !todo.is_empty() {
            let mut requests = Vec::with_capacity(todo.len());
            for (at, part) in &todo {
                requests.push(Request::Write(*at, memory::copied(part)?));
            }
            let replies = opened.link.run(requests, &self.control)?;
            let mut left = Vec::new();
            for ((at, part), reply) in todo.into_iter().zip(replies) {
                let count = match reply {
                    Ok(Answer::Written(count)) => count,
                    Ok(_) => return Err(strange()),
                    Err(failure) => return Err(refused(&failure)),
                };
                if count == 0 {
                    return Err(Error::os(libc::EIO));
                }
                let rest = part.get(count..).unwrap_or_default();
                if !rest.is_empty() {
                    left.push((at.saturating_add(count as u64), rest));
                }
            }
            todo = left;
        }
        Ok(())
    }

    /// Refuses a change that cannot be; the end of its range.
    fn check_write(&self, offset: u64, len: u64) -> Result<u64> {
        if !self.writable {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                format!("'{}' is open read-only", self.name),
            ));
        }
        if self.sync_failed.load(Ordering::Acquire) {
            return Err(Error::os(libc::EIO).context("An earlier flush has failed"));
        }
        let end = offset.checked_add(len);
        end.filter(|end| i64::try_from(*end).is_ok())
            .ok_or_else(|| Error::os(libc::EFBIG))
    }

    /// Has one thing done that has no reply but that it was done.
    fn ask(&self, opened: &Opened, request: Request) -> Result<()> {
        let reply = opened.link.run(vec![request], &self.control)?.pop();
        match reply {
            Some(Ok(_)) => Ok(()),
            Some(Err(failure)) => Err(refused(&failure)),
            None => Err(strange()),
        }
    }

    fn flush(&self) -> Result<()> {
        let mark = self.unflushed.mark();
        self.with_file(|opened| self.ask(opened, Request::Sync))?;
        self.unflushed.flushed(mark);
        Ok(())
    }

    fn change_len(&self, len: u64, grow_only: bool) -> Result<()> {
        let _alone = self.file.growing.write();
        if grow_only && len <= self.file.get() {
            return Ok(());
        }
        self.with_file(|opened| {
            let change = || self.ask(opened, Request::SetLen(len));
            self.unflushed.change(change)
        })?;
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
        let mut opened = self.opened();
        if opened.link.is_lost() {
            opened = Arc::new(open_file(&self.settings, How::Read, &control)?);
        }
        let path = [b"/", self.settings.file.as_slice()].concat();
        let path = CString::new(path).map_err(|_| strange())?;
        let reply = opened.link.run(vec![Request::Unlink(path)], &control)?;
        match reply.into_iter().next() {
            Some(Err(failure)) => Err(refused(&failure)),
            _ => Ok(()),
        }
    }
}

impl Storage for NfsStorage {
    fn name(&self) -> &BStr {
        self.name.as_bstr()
    }

    fn driver(&self) -> &'static str {
        super::DRIVER.name
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.identity.clone())
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
            false => self.read_ranges(&mut [(offset, buf)]),
        }
    }

    fn read_many_at(&self, ranges: &mut [ReadRange<'_>]) -> Result<()> {
        let size = self.file.get();
        let inside =
            |(offset, buf): &ReadRange<'_>| offset.saturating_add(buf.len() as u64) <= size;
        if ranges.iter().all(inside) {
            return self.read_ranges(ranges);
        }
        for (offset, buf) in ranges {
            self.read_at(buf, *offset)?;
        }
        Ok(())
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
        let grows = end > self.file.get();
        let growing = grows.then(|| self.file.growing.read());
        let mut at = offset;
        for batch in buf.chunks(PIECE * BATCH) {
            self.with_file(|opened| {
                let change = || self.write_batch(opened, batch, at);
                self.unflushed.change(change)
            })?;
            at = at.saturating_add(batch.len() as u64);
        }
        self.file.reaches(end);
        drop(growing);
        match self.cache.write_through() {
            true => self.flush(),
            false => Ok(()),
        }
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
        // The library does not tell data from holes.
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
        Some(self.opened().stat.used)
    }

    fn specific_info(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    fn lock(&self, _request: LockRequest) -> Result<()> {
        // Locks of the protocol are not taken, as QEMU takes none: the server's matter.
        Ok(())
    }

    fn host(&self) -> Option<&dyn HostFile> {
        None
    }
}
