//! An image in a cluster as a storage.

use std::ffi::CString;
use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bstr::{BStr, BString, ByteSlice};
use parking_lot::RwLock;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageExtent;
use crate::job::JobControl;
use crate::memory::{self, IoBuf, Payload};
use crate::storage::aside::{aside, aside_stepwise, ended};
use crate::storage::details::{
    StorageDetails, StorageReport, StorageSnapshot, StorageSnapshots, StoredImage,
};
use crate::storage::driver::OpenContext;
use crate::storage::ending::Ending;
use crate::storage::modes::{Durability, LockRequest, Preallocation, ZeroFlags};
use crate::storage::recent;
use crate::storage::remote_len::RemoteLen;
use crate::storage::traits::ReadRange;
use crate::storage::{HostFile, Identity, Limits, Storage};
use crate::sys::librbd::{self, Image};
use crate::sys::pending::Pending;

use super::client::{Client, connect, failed};
use super::encryption::{TELLING, Wanted, told_by};
use super::gather::gather;
use super::options::Settings;
use super::silence::{Asked, Silence, is_no_answer};
use super::status::{Runs, Status};

/// Maximum number of concurrent requests from callers; each holds one of the caller's buffers.
const IN_FLIGHT: u32 = 16;
/// Maximum payload of one request: the library splits it into objects, which it processes in parallel.
const PIECE: usize = 8 << 20;
/// Maximum number of bytes in flight for one call; they are held in memory twice until they complete.
const BATCH: usize = 32 << 20;
/// Maximum number of bytes to zero or discard in one request.
const MOST_CHANGED: u64 = 256 << 20;
/// Number of zeroes per write, where they have to be written as data.
const ZEROES: u64 = 1 << 20;
/// Maximum range of one query where the cluster has to look at every object to see whether it exists.
const STRIDE: u64 = 4 << 30;
/// A write past the end makes the image longer by this much more, because resizing takes the cluster as long as many
/// writes. The excess is given back at the end.
const GROWTH: u64 = 64 << 20;
/// How long to wait for an image to close when the work is done.
const CLOSING: Duration = Duration::from_secs(10);
/// The same for a cluster that does not respond.
const LEAVING: Duration = Duration::from_secs(1);

/// An open image, in terms of the library.
pub(super) struct Opened {
    pub(super) image: Image,
    pub(super) object_size: u64,
    /// Bytes of the image that no offset reaches: its encryption header.
    pub(super) header: u64,
    pub(super) size: u64,
    identity: BString,
}

impl Opened {
    /// Opens the image named by the settings. Blocks on the cluster.
    pub(super) fn open(client: &Client, settings: &Settings, writable: bool) -> Result<Self> {
        let name = settings.image.to_string_lossy();
        let snapshot = settings.snapshot.as_deref();
        let image = Image::open(&client.pool, &settings.image, snapshot, writable)
            .map_err(|errno| failed(errno, format!("error reading header from {name}")))?;
        let raw = image.size().map_err(Error::os)?;
        if let Some(wanted) = &settings.encryption {
            image
                .load_encryption(wanted.format, wanted.passphrase.bytes())
                .map_err(|errno| failed(errno, "encryption load fail"))?;
        }
        Self::of(client, settings, image, raw)
    }

    /// Wraps an open image of `raw` bytes in total.
    pub(super) fn of(client: &Client, settings: &Settings, image: Image, raw: u64) -> Result<Self> {
        let size = image.size().map_err(Error::os)?;
        let object_size = image.object_size().map_err(Error::os)?;
        if !object_size.is_power_of_two() {
            return Err(Error::corrupt(format!(
                "The cluster says that objects have {object_size} bytes"
            )));
        }
        let pool = &client.pool;
        let mut identity = BString::from(b"rbd:".as_slice());
        for part in [
            pool.cluster().id().map_err(Error::os)?.as_bytes(),
            pool.id().to_string().as_bytes(),
            settings.namespace.as_bytes(),
            &image.id().map_err(Error::os)?,
            settings.snapshot.as_deref().unwrap_or_default().to_bytes(),
        ] {
            identity.extend_from_slice(part);
            identity.push(b'/');
        }
        Ok(Self {
            image,
            object_size,
            header: raw.saturating_sub(size),
            size,
            identity,
        })
    }
}

/// An image in a cluster.
pub(super) struct RbdStorage {
    name: BString,
    settings: Settings,
    client: Client,
    control: Arc<JobControl>,
    writable: bool,
    /// `None` once it has been removed.
    image: RwLock<Option<Arc<Image>>>,
    identity: BString,
    object_size: u64,
    header: u64,
    len: Arc<RemoteLen>,
    status: Status,
    silence: Silence,
    sync_failed: AtomicBool,
}

impl std::fmt::Debug for RbdStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RbdStorage")
            .field("name", &self.name)
            .field("writable", &self.writable)
            .finish_non_exhaustive()
    }
}

/// Opens an image.
pub(super) fn open(context: &OpenContext<'_>) -> Result<Arc<dyn Storage>> {
    let mut settings = Settings::of(&context.target, context.options, context.objects)?;
    settings.policy = context.policy_of_servers();
    let writable = context.how.writable;
    if writable && settings.snapshot.is_some() {
        return Err(Error::new(
            ErrorKind::ReadOnly,
            "rbd snapshots are read-only",
        ));
    }
    let client = connect(&settings, context.how.cache, context.control)?;
    let opened = {
        let (client, settings) = (client.clone(), settings.clone());
        aside(context.control, Some(client.patience), move || {
            Opened::open(&client, &settings, writable)
        })?
    };
    Ok(Arc::new(RbdStorage::new(
        settings,
        client,
        opened,
        writable,
        context.control,
    )))
}

impl RbdStorage {
    /// Wraps an open image.
    pub(super) fn new(
        settings: Settings,
        client: Client,
        opened: Opened,
        writable: bool,
        control: &Arc<JobControl>,
    ) -> Self {
        Self {
            name: settings.short(),
            settings,
            client,
            control: control.clone(),
            writable,
            image: RwLock::new(Some(Arc::new(opened.image))),
            object_size: opened.object_size,
            header: opened.header,
            len: RemoteLen::at(opened.identity.clone(), opened.size),
            identity: opened.identity,
            status: Status::default(),
            silence: Silence::default(),
            sync_failed: AtomicBool::new(false),
        }
    }

    fn image(&self) -> Result<Arc<Image>> {
        if self.silence.lasts() {
            return Err(self.unanswered());
        }
        let image = self.image.read();
        image
            .clone()
            .ok_or_else(|| Error::os(libc::ESTALE).of_file(self.name()))
    }

    fn is_encrypted(&self) -> bool {
        self.settings.encryption.is_some()
    }

    fn unanswered(&self) -> Error {
        let error = Error::os(libc::ETIMEDOUT).of_file(self.name());
        error.context(format!("The cluster of '{}' does not answer", self.name))
    }

    /// The error of a completed request.
    fn error(&self, errno: i32) -> Error {
        let error = Error::os(errno).of_file(self.name());
        match errno {
            libc::ETIMEDOUT => {
                self.silence.gave_up();
                self.unanswered()
            }
            libc::ESHUTDOWN => error.context(format!(
                "The cluster has shut out this user of '{}'",
                self.name
            )),
            _ => error,
        }
    }

    /// The result of a request that has completed or been abandoned.
    fn answer<T>(&self, asked: Asked, ended: Result<Result<T, i32>>) -> Result<T> {
        match ended {
            Ok(Ok(given)) => {
                self.silence.heard();
                Ok(given)
            }
            Ok(Err(errno)) => Err(self.error(errno)),
            Err(error) if is_no_answer(&error) => {
                self.silence.left(asked);
                Err(self.unanswered())
            }
            Err(error) => Err(error),
        }
    }

    /// Waits for a request.
    fn wait(&self, asked: Asked, pending: &Pending) -> Result<(u64, IoBuf)> {
        let outcome = ended(pending, &self.control, Some(self.client.patience));
        self.answer(asked, outcome)
    }

    /// Waits for changes that were submitted together.
    fn wait_all(&self, pending: &[Pending]) -> Result<()> {
        pending
            .iter()
            .try_for_each(|one| self.wait(Asked::Change, one).map(|_| ()))
    }

    /// Makes a blocking library call, with a timeout that counts from its last progress.
    fn aside<T: Send + 'static>(
        &self,
        asked: Asked,
        call: impl FnOnce(&Image, &AtomicU64) -> Result<T, i32> + Send + 'static,
    ) -> Result<T> {
        let image = self.image()?;
        let steps = Arc::new(AtomicU64::new(0));
        let counter = steps.clone();
        let outcome = aside_stepwise(&self.control, self.client.patience, &steps, move || {
            Ok(call(&image, &counter))
        });
        self.answer(asked, outcome)
    }

    /// Fills ranges inside the image, with up to `BATCH` bytes in flight.
    fn read_inside(&self, ranges: &mut [ReadRange<'_>]) -> Result<()> {
        let image = self.image()?;
        let mut under_way: Vec<(Pending, &mut [u8])> = Vec::new();
        let mut bytes = 0;
        for (offset, buf) in ranges {
            let mut at = *offset;
            for part in buf.chunks_mut(PIECE) {
                if bytes + part.len() > BATCH && bytes > 0 {
                    self.take(&mut under_way)?;
                    bytes = 0;
                }
                let mut room = IoBuf::new();
                room.room(part.len())?;
                let len = part.len();
                let pending = image.read(at, room).map_err(|errno| self.error(errno))?;
                under_way.push((pending, part));
                at = at.saturating_add(len as u64);
                bytes += len;
            }
        }
        self.take(&mut under_way)
    }

    /// Waits for reads, and copies their data out.
    fn take(&self, under_way: &mut Vec<(Pending, &mut [u8])>) -> Result<()> {
        for (pending, part) in under_way.drain(..) {
            let (len, bytes) = self.wait(Asked::Read, &pending)?;
            if len != part.len() as u64 || bytes.len() != part.len() {
                return Err(Error::os(libc::EIO).context(format!(
                    "The cluster has read {len} bytes of {} of '{}'",
                    part.len(),
                    self.name
                )));
            }
            part.copy_from_slice(&bytes);
        }
        Ok(())
    }

    /// The part of a buffer that lies inside the image; the rest is filled with zeroes.
    fn inside<'b>(&self, buf: &'b mut [u8], offset: u64) -> &'b mut [u8] {
        let inside = self.len.get().saturating_sub(offset);
        let inside = usize::try_from(inside).unwrap_or(usize::MAX).min(buf.len());
        let (buf, past) = buf.split_at_mut(inside);
        past.fill(0);
        buf
    }

    /// Checks that a change is possible, and returns the end of its range.
    fn check_write(&self, offset: u64, len: u64) -> Result<u64> {
        if !self.writable {
            return Err(Error::open_read_only(&self.name));
        }
        let end = offset.checked_add(len);
        end.filter(|end| i64::try_from(end.saturating_add(self.header)).is_ok())
            .ok_or_else(|| Error::os(libc::EFBIG))
    }

    /// Changes a range through `write`, growing the image where the range extends past its end.
    fn change(
        &self,
        offset: u64,
        end: u64,
        write: impl FnOnce(&Image) -> Result<()>,
    ) -> Result<()> {
        let image = self.image()?;
        let growing = loop {
            if end <= self.len.get() {
                break None;
            }
            let growing = self.len.growing.read();
            if end <= self.len.reserved() {
                break Some(growing);
            }
            drop(growing);
            self.reserve(end)?;
        };
        self.status.written(offset, end - offset);
        let done = write(&image);
        // A query made in the meantime may show the previous state.
        self.status.written(offset, end - offset);
        done?;
        self.len.reaches(end);
        drop(growing);
        Ok(())
    }

    /// Makes the image longer on the cluster than its visible length.
    fn reserve(&self, end: u64) -> Result<()> {
        let _alone = self.len.growing.write();
        if end <= self.len.reserved() {
            return Ok(());
        }
        let most = i64::MAX.unsigned_abs() - self.header;
        let len = end.saturating_add(GROWTH).min(most.max(end));
        self.resize(len)?;
        self.len.reserve(len);
        Ok(())
    }

    /// Changes the length on the cluster; `growing` must be held exclusively.
    fn resize(&self, len: u64) -> Result<()> {
        let all = len.checked_add(self.header);
        let all = all.ok_or_else(|| Error::os(libc::EFBIG))?;
        self.aside(Asked::Change, move |image, steps| image.resize(all, steps))
    }

    fn change_len(&self, len: u64, grow_only: bool) -> Result<()> {
        let _alone = self.len.growing.write();
        let (shown, reserved) = (self.len.get(), self.len.reserved());
        if len == shown && reserved <= shown || grow_only && len <= shown {
            return Ok(());
        }
        self.status.forget();
        if len > shown && reserved > shown {
            // A failed write may have left data past the end.
            self.resize(shown)?;
            self.len.set(shown);
        }
        if len != self.len.reserved() {
            self.resize(len)?;
        }
        self.status.forget();
        self.len.set(len);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        let pending = self.image()?.flush();
        let pending = pending.map_err(|errno| self.error(errno))?;
        self.wait(Asked::Change, &pending).map(|_| ())
    }

    /// Queries the cluster for the extents that hold data from `offset` on.
    fn ask_status(&self, offset: u64, len: u64) -> Result<Option<StorageExtent>> {
        let _alone = self.status.asking.lock();
        if let Some(found) = self.status.find(offset, len) {
            return Ok(Some(found));
        }
        let asked = self.status.now();
        let (size, object_size) = (self.len.get(), self.object_size);
        let wanted = len.saturating_add(object_size);
        let most = match self.settings.snapshot {
            Some(_) => u64::MAX,
            None => recent::stride(wanted, u64::MAX),
        };
        let runs = self.aside(Asked::Read, move |image, steps| {
            let whole = image.has_object_map()?;
            let (start, end) = match whole && most > STRIDE {
                true => (0, size),
                false => {
                    let start = offset - offset % object_size;
                    (start, size.min(start.saturating_add(most.min(STRIDE))))
                }
            };
            let mut runs = Runs::new(start, end);
            let told = image.written(start, end - start, whole, |offset, len, exists| {
                steps.fetch_add(1, Ordering::Relaxed);
                !exists || runs.tell(offset, len)
            });
            match told {
                Err(_) if runs.is_full() => Ok(runs),
                told => told.map(|()| runs),
            }
        })?;
        let found = runs.at(offset, len);
        let fixed = self.settings.snapshot.is_some();
        self.status.keep(asked, runs, fixed);
        Ok(found)
    }

    /// Gives back the reserved length; `growing` must be held exclusively.
    fn trim(&self) -> Result<()> {
        let shown = self.len.get();
        if self.len.reserved() > shown {
            self.resize(shown)?;
            self.len.set(shown);
        }
        Ok(())
    }

    /// The first bytes, which show whether the image is encrypted.
    fn start(&self) -> Result<[u8; TELLING]> {
        let mut start = [0; TELLING];
        if self.header == 0 {
            self.read_at(&mut start, 0)?;
        }
        Ok(start)
    }

    /// Whether the job that opened the image has been cancelled.
    pub(super) fn is_cancelled(&self) -> bool {
        self.control.check().is_err()
    }

    /// Whether the cluster has failed to respond in time.
    pub(super) fn is_silent(&self) -> bool {
        self.silence.lasts()
    }

    /// Closes and removes the image, even if the job was cancelled: within `time`, and giving up after `patience`
    /// without progress.
    ///
    /// # Errors
    /// Errors of the cluster.
    pub(super) fn remove(&self, time: Duration, patience: Duration) -> Result<()> {
        let image = self.image.write().take();
        let (pool, name) = (self.client.pool.clone(), self.settings.image.clone());
        let steps = Arc::new(AtomicU64::new(0));
        let counter = steps.clone();
        let removed = move || {
            drop(image);
            counter.fetch_add(1, Ordering::Relaxed);
            librbd::remove(&pool, &name, &counter).map_err(Error::os)
        };
        JobControl::apart(time, |control| {
            aside_stepwise(control, patience, &steps, removed)
        })
        .map_err(|error| match error.errno() {
            libc::ETIMEDOUT => self.unanswered(),
            _ => error,
        })
    }
}

impl Drop for RbdStorage {
    fn drop(&mut self) {
        let image = self.image.get_mut().take();
        let client = self.client.clone();
        let closing = move || {
            drop(image);
            drop(client);
            Ok(())
        };
        // Anything that has to be durable has been flushed already. If the cluster does not respond, closing is left to
        // the library.
        let time = match self.silence.lasts() {
            true => LEAVING,
            false => CLOSING,
        };
        let _ = aside(&self.control, Some(time), closing);
    }
}

impl Storage for RbdStorage {
    fn name(&self) -> &BStr {
        self.name.as_bstr()
    }

    fn driver(&self) -> &'static str {
        super::DRIVER.name
    }

    fn identity(&self) -> Option<Identity> {
        Some(Identity::Remote(self.identity.clone()))
    }

    fn read_only(&self) -> bool {
        !self.writable
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let buf = self.inside(buf, offset);
        match buf.is_empty() {
            true => Ok(()),
            false => self.read_inside(&mut [(offset, buf)]),
        }
    }

    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        let mut at = offset;
        let mut ranges: Vec<ReadRange<'_>> = Vec::with_capacity(bufs.len());
        for buf in bufs {
            let len = buf.len() as u64;
            ranges.push((at, buf));
            at = at.saturating_add(len);
        }
        self.read_many_at(&mut ranges)
    }

    fn read_many_at(&self, ranges: &mut [ReadRange<'_>]) -> Result<()> {
        let mut inside: Vec<ReadRange<'_>> = Vec::with_capacity(ranges.len());
        for (offset, buf) in ranges {
            let buf = self.inside(buf, *offset);
            if !buf.is_empty() {
                inside.push((*offset, buf));
            }
        }
        self.read_inside(&mut inside)
    }

    fn try_read(&self, _bufs: &mut [IoSliceMut<'_>], _offset: u64) -> Result<bool> {
        // A read always has to wait for the cluster.
        Ok(false)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.write_vectored_at(&[IoSlice::new(buf)], offset)
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        let len: u64 = bufs.iter().map(|buf| buf.len() as u64).sum();
        let end = self.check_write(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        self.change(offset, end, |image| {
            let mut under_way = Vec::new();
            let mut at = offset;
            let send = |payload: Payload| {
                let len = payload.len() as u64;
                let pending = image.write(at, payload);
                under_way.push(pending.map_err(|errno| self.error(errno))?);
                at = at.saturating_add(len);
                if under_way.len() == BATCH / PIECE {
                    self.wait_all(&under_way)?;
                    under_way.clear();
                }
                Ok(())
            };
            gather(bufs, PIECE, send)?;
            self.wait_all(&under_way)
        })
    }

    fn len(&self) -> Result<u64> {
        Ok(self.len.get())
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.check_write(0, len)?;
        if preallocation != Preallocation::Off {
            return Err(Error::no_preallocation(preallocation.name()));
        }
        self.change_len(len, false)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        let end = self.check_write(offset, len)?;
        let inside = end.min(self.len.get());
        let mut at = offset;
        if at < inside && self.is_encrypted() {
            // The library zeroes ciphertext, which would not decrypt to zeroes.
            if flags.contains(ZeroFlags::NO_FALLBACK) {
                return Err(Error::unsupported(
                    "Zeroes of an encrypted image are written as data",
                ));
            }
            let most = usize::try_from((inside - at).min(ZEROES)).unwrap_or(0);
            let zeroes = memory::zeroed(most)?;
            while at < inside {
                let now = usize::try_from((inside - at).min(ZEROES)).unwrap_or(0);
                self.write_at(zeroes.get(..now).unwrap_or_default(), at)?;
                at += now as u64;
            }
        }
        while at < inside {
            let now = (inside - at).min(MOST_CHANGED - at % MOST_CHANGED);
            self.status.forget();
            let done = self.image().and_then(|image| {
                let len = usize::try_from(now).map_err(|_| Error::os(libc::EFBIG))?;
                let pending = image.write_zeroes(at, len);
                self.wait(Asked::Change, &pending.map_err(|errno| self.error(errno))?)
            });
            self.status.forget();
            done?;
            at += now;
        }
        match end > inside && len > 0 {
            // The extension reads as zeroes.
            true => self.change_len(end, true),
            false => Ok(()),
        }
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let end = self.check_write(offset, len)?;
        if self.is_encrypted() {
            return Err(Error::no_discard());
        }
        let size = self.len.get();
        // A partial object is kept, except at the end of the image, where the last object counts as whole.
        let start = offset
            .div_ceil(self.object_size)
            .saturating_mul(self.object_size);
        let end = match end >= size {
            true => size,
            false => end - end % self.object_size,
        };
        let mut at = start;
        while at < end {
            let now = (end - at).min(MOST_CHANGED - at % MOST_CHANGED);
            self.status.forget();
            let done = self.image().and_then(|image| {
                let pending = image.discard(at, now);
                self.wait(Asked::Change, &pending.map_err(|errno| self.error(errno))?)
            });
            self.status.forget();
            done?;
            at += now;
        }
        Ok(())
    }

    fn sync(&self, durability: Durability) -> Result<()> {
        if durability == Durability::None || !self.writable {
            return Ok(());
        }
        if self.sync_failed.load(Ordering::Acquire) {
            let error = Error::os(libc::EIO).context("An earlier flush has failed");
            return Err(error.of_file(self.name()));
        }
        // The library's cache is lost with the process, so even ordering needs a flush.
        let done = self.flush();
        if done.is_err() {
            self.sync_failed.store(true, Ordering::Release);
        }
        done
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        let inside = self.len.get().saturating_sub(offset);
        if inside == 0 {
            return Ok(StorageExtent {
                len,
                zero: true,
                allocated: false,
            });
        }
        let len = len.min(inside);
        let unknown = StorageExtent {
            len,
            zero: false,
            allocated: true,
        };
        if self.is_encrypted() {
            // The cluster's offsets include the header, and its zeroes are not the plaintext's.
            return Ok(unknown);
        }
        let found = match self.status.find(offset, len) {
            Some(found) => Some(found),
            None => self.ask_status(offset, len)?,
        };
        Ok(found.unwrap_or(unknown))
    }

    fn limits(&self) -> Limits {
        Limits {
            grown_is_zero: true,
            in_flight: IN_FLIGHT,
            remembers_extents: true,
            write_unit: match self.header % self.object_size {
                0 => self.object_size,
                _ => 1,
            },
            ..Limits::default()
        }
    }

    fn allocated_size(&self) -> Option<u64> {
        None
    }

    fn report(&self) -> Option<&dyn StorageReport> {
        Some(self)
    }

    fn ending(&self) -> Option<&dyn Ending> {
        Some(self)
    }

    fn snapshots(&self) -> Option<&dyn StorageSnapshots> {
        Some(self)
    }

    fn lock(&self, _request: LockRequest) -> Result<()> {
        // The library takes the image's own lock on the first write, where the image supports one.
        Ok(())
    }

    fn host(&self) -> Option<&dyn HostFile> {
        None
    }
}

impl Ending for RbdStorage {
    fn finish(&self) -> Result<()> {
        if !self.writable {
            return Ok(());
        }
        let alone = self.len.growing.write();
        self.trim()?;
        drop(alone);
        // This writes out the library's cache, or reports that it cannot be.
        self.sync(Durability::Ordered)
    }
}

impl StorageReport for RbdStorage {
    fn details(&self) -> Result<StorageDetails> {
        let snapshots = self
            .aside(Asked::Read, |image, _| image.snapshots())
            .map_err(|error| {
                error.context(format!("Could not list the snapshots of '{}'", self.name))
            })?;
        let snapshots = snapshots.into_iter().map(|snapshot| StorageSnapshot {
            name: snapshot.name.into(),
            len: snapshot.size,
        });
        let encryption = told_by(&self.start()?);
        Ok(StorageDetails {
            image: Some(StoredImage {
                cluster_size: Some(self.object_size),
                snapshots: snapshots.collect(),
            }),
            specific: encryption
                .map(|format| ("encryption-format", format.into()))
                .into_iter()
                .collect(),
        })
    }
}

/// Converts the name of a snapshot for the library.
fn snapshot_name(name: &BStr) -> Result<CString> {
    let name = CString::new(name.to_vec());
    let name = name.ok().filter(|name| !name.is_empty());
    name.ok_or_else(|| Error::os(libc::EINVAL))
}

impl StorageSnapshots for RbdStorage {
    fn create(&self, name: &BStr) -> Result<()> {
        self.check_write(0, 0)?;
        let name = snapshot_name(name)?;
        // No write can grow the image meanwhile, and the snapshot includes everything written so far.
        let _alone = self.len.growing.write();
        self.trim()?;
        self.sync(Durability::Synced)?;
        self.aside(Asked::Change, move |image, _| image.create_snapshot(&name))
    }

    fn apply(&self, name: &BStr) -> Result<()> {
        self.check_write(0, 0)?;
        let name = snapshot_name(name)?;
        let _alone = self.len.growing.write();
        self.trim()?;
        self.sync(Durability::Synced)?;
        self.status.forget();
        let done = self.aside(Asked::Change, move |image, steps| {
            image.roll_back(&name, steps)?;
            image.size()
        });
        self.status.forget();
        self.len.set(done?);
        Ok(())
    }

    fn delete(&self, name: &BStr) -> Result<()> {
        self.check_write(0, 0)?;
        let name = snapshot_name(name)?;
        let done = self.aside(Asked::Change, move |image, _| image.remove_snapshot(&name));
        done.map_err(|error| error.context("Failed to remove the snapshot"))
    }
}

/// Encrypts an image that was just created, with room for the header; returns its length including the header.
pub(super) fn encrypt(image: &Image, wanted: &Wanted) -> Result<u64, i32> {
    let raw = image.size()?;
    image.format_encryption(wanted.format, wanted.cipher, wanted.passphrase.bytes())?;
    Ok(raw)
}
