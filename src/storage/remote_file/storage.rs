//! A file on a server as a storage.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Duration;

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::extent::StorageExtent;
use crate::job::JobControl;
use crate::memory;
use crate::storage::align::in_pieces;
use crate::storage::details::StorageReport;
use crate::storage::driver::OpenContext;
use crate::storage::ending::Ending;
use crate::storage::modes::{CacheMode, Durability, LockRequest, Preallocation, ZeroFlags};
use crate::storage::remote_len::RemoteLen;
use crate::storage::{HostFile, Identity, Limits, ReadRange, Storage};

use super::lasting::{Lasting, Renew};
use super::protocol::{How, Protocol, no_preallocation};

/// Maximum number of concurrent requests from callers; each holds one of the caller's buffers.
const IN_FLIGHT: u32 = 16;
/// Maximum number of requests in flight for one call.
const BATCH: usize = 32;
/// Number of zeroes per write.
const ZEROES: u64 = 1 << 20;
/// Maximum number of bytes to zero or discard in one request, which blocks until the server has finished.
const MOST_CHANGED: u64 = 256 << 20;

/// A file on a server.
pub(in crate::storage) struct RemoteFile<P: Protocol> {
    name: BString,
    identity: Identity,
    protocol: P,
    control: Arc<JobControl>,
    writable: bool,
    cache: CacheMode,
    len: Arc<RemoteLen>,
    opened: Lasting<P::Opened>,
}

impl<P: Protocol> std::fmt::Debug for RemoteFile<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteFile")
            .field("driver", &P::NAME)
            .field("name", &self.name)
            .field("writable", &self.writable)
            .finish_non_exhaustive()
    }
}

/// Opens a file as requested by the context.
///
/// # Errors
/// Errors of the connection or the server.
pub(in crate::storage) fn open<P: Protocol>(
    context: &OpenContext<'_>,
    name: BString,
    protocol: P,
) -> Result<Arc<dyn Storage>> {
    let (writable, control) = (context.how.writable, context.control);
    let opened = protocol.open(how(writable), control)?;
    let how = (writable, context.how.cache);
    Ok(Arc::new(RemoteFile::new(
        name, protocol, opened, how, control,
    )))
}

fn how(writable: bool) -> How {
    match writable {
        true => How::Write,
        false => How::Read,
    }
}

/// Rejects anything but a regular file, judging by its mode.
///
/// # Errors
/// Where it is not one.
pub(in crate::storage) fn check_regular(mode: u32) -> Result<()> {
    match mode & libc::S_IFMT {
        libc::S_IFREG => Ok(()),
        libc::S_IFDIR => Err(Error::os(libc::EISDIR)),
        _ => Err(Error::unsupported(
            "It is no regular file, and has no length",
        )),
    }
}

/// Checks the byte count of a request: it must not be zero, and is capped at what was requested.
fn counted(count: usize, len: usize, none: impl FnOnce() -> Error) -> Result<usize> {
    match count {
        0 => Err(none()),
        count => Ok(count.min(len)),
    }
}

impl<P: Protocol> Renew for RemoteFile<P> {
    type Connection = P::Opened;

    fn shown(&self) -> &BStr {
        self.name.as_bstr()
    }

    fn control(&self) -> &JobControl {
        &self.control
    }

    fn is_lost(&self, opened: &P::Opened) -> bool {
        self.protocol.is_lost(opened)
    }

    fn patience(&self) -> Duration {
        P::PATIENCE
    }

    fn may_renew(&self, lost: &P::Opened) -> bool {
        !self.writable || self.protocol.tells_what_is_flushed(lost)
    }

    fn renew(&self) -> Result<P::Opened> {
        self.protocol.open(how(self.writable), &self.control)
    }

    fn accept(&self, lost: &P::Opened, fresh: &P::Opened) -> Result<()> {
        let (was, is) = (self.protocol.found(lost), self.protocol.found(fresh));
        let changed = was.len != is.len || was.modified != is.modified;
        match was.inode != is.inode || (changed && !self.writable) {
            true => Err(Error::new(
                ErrorKind::Os,
                format!("The file of '{}' is not what it was before", self.name),
            )
            .with_errno(libc::ESTALE)),
            false => Ok(()),
        }
    }
}

impl<P: Protocol> RemoteFile<P> {
    /// Wraps an open file.
    pub(in crate::storage) fn new(
        name: BString,
        protocol: P,
        opened: P::Opened,
        (writable, cache): (bool, CacheMode),
        control: &Arc<JobControl>,
    ) -> Self {
        let place = protocol.place(&opened);
        Self {
            name,
            identity: Identity::Remote(place.clone()),
            control: control.clone(),
            writable,
            cache,
            len: RemoteLen::at(place, protocol.found(&opened).len),
            opened: Lasting::new(opened),
            protocol,
        }
    }

    /// Reads ranges inside the file, several pieces at once.
    fn read_ranges(&self, ranges: &mut [ReadRange<'_>]) -> Result<()> {
        let most = self.protocol.room(&self.opened.current()).read.max(1);
        let mut pieces: Vec<ReadRange<'_>> = Vec::new();
        for (offset, buf) in ranges {
            let mut at = *offset;
            for piece in buf.chunks_mut(most) {
                let len = piece.len() as u64;
                pieces.push((at, piece));
                at = at.saturating_add(len);
            }
        }
        for batch in pieces.chunks_mut(BATCH) {
            self.opened
                .run(self, |opened| self.read_batch(opened, batch))?;
        }
        Ok(())
    }

    fn read_batch(&self, opened: &P::Opened, batch: &mut [ReadRange<'_>]) -> Result<()> {
        let mut todo: Vec<ReadRange<'_>> = Vec::with_capacity(batch.len());
        for (offset, piece) in batch {
            todo.push((*offset, piece));
        }
        while !todo.is_empty() {
            let counts = self.protocol.read(opened, &mut todo, &self.control)?;
            let mut left = Vec::new();
            for ((offset, piece), count) in todo.into_iter().zip(counts) {
                let count = counted(count, piece.len(), || {
                    let text = format!("The file on the server ends before offset {offset}");
                    Error::new(ErrorKind::Os, text).with_errno(libc::EIO)
                })?;
                let (_, rest) = piece.split_at_mut(count);
                if !rest.is_empty() {
                    left.push((offset.saturating_add(count as u64), rest));
                }
            }
            todo = left;
        }
        Ok(())
    }

    fn write_batch(&self, opened: &P::Opened, buf: &[u8], offset: u64) -> Result<()> {
        let most = self.protocol.room(opened).write.max(1);
        let mut todo: Vec<(u64, &[u8])> = Vec::with_capacity(buf.len().div_ceil(most));
        let mut at = offset;
        for piece in buf.chunks(most) {
            todo.push((at, piece));
            at = at.saturating_add(piece.len() as u64);
        }
        while !todo.is_empty() {
            let counts = self.protocol.write(opened, &todo, &self.control)?;
            let mut left = Vec::new();
            for ((offset, piece), count) in todo.into_iter().zip(counts) {
                let count = counted(count, piece.len(), || Error::os(libc::EIO))?;
                let rest = piece.get(count..).unwrap_or_default();
                if !rest.is_empty() {
                    left.push((offset.saturating_add(count as u64), rest));
                }
            }
            todo = left;
        }
        Ok(())
    }

    /// Checks that a change is possible, and returns the end of its range.
    fn check_write(&self, offset: u64, len: u64) -> Result<u64> {
        if !self.writable {
            return Err(Error::open_read_only(&self.name));
        }
        self.opened.check()?;
        let end = offset.checked_add(len);
        end.filter(|end| i64::try_from(*end).is_ok())
            .ok_or_else(|| Error::os(libc::EFBIG))
    }

    fn flush(&self) -> Result<()> {
        let flush = |opened: &P::Opened| self.protocol.flush(opened, &self.control);
        self.opened.flush(self, flush)
    }

    /// Completes a change: flushes it in write-through mode.
    fn changed(&self) -> Result<()> {
        match self.cache.write_through() {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn change_len(&self, len: u64, grow_only: bool, mode: Preallocation) -> Result<()> {
        let _alone = self.len.growing.write();
        let old = self.len.get();
        if grow_only && len <= old {
            return Ok(());
        }
        self.opened.change(self, |opened| match mode {
            Preallocation::Off => self.protocol.set_len(opened, len, &self.control),
            mode => self
                .protocol
                .preallocate(opened, (old, len), mode, &self.control),
        })?;
        self.len.set(len);
        Ok(())
    }

    /// Zeroes a range inside the file by writing zeroes.
    fn write_zero_data(&self, range: (u64, u64)) -> Result<()> {
        let most = range.1.saturating_sub(range.0).min(ZEROES);
        let zeroes = memory::zeroed(usize::try_from(most).unwrap_or(0))?;
        in_pieces(range, ZEROES, |at, len| {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            self.write_at(zeroes.get(..len).unwrap_or_default(), at)
        })
    }

    /// Zeroes a range inside the file with dedicated requests; returns the offset reached.
    fn zero(&self, (start, end): (u64, u64)) -> Result<u64> {
        let mut at = start;
        while at < end {
            let to = end.min(at.saturating_add(MOST_CHANGED));
            let zero = |opened: &P::Opened| self.protocol.zero(opened, (at, to), &self.control);
            if !self.opened.change(self, zero)? {
                return Ok(at);
            }
            at = to;
        }
        self.changed()?;
        Ok(end)
    }

    /// Whether the job on the file has been cancelled, or is past its deadline.
    pub(super) fn is_cancelled(&self) -> bool {
        self.control.check().is_err()
    }

    /// Removes the file, even if the job was cancelled.
    ///
    /// # Errors
    /// Errors of the connection or the server.
    pub(super) fn remove(&self, time: Duration) -> Result<()> {
        JobControl::apart(time, |control| {
            self.protocol.remove(&self.opened.current(), control)
        })
    }

    /// Empties the file, even if the job was cancelled. Requests sent earlier take effect first.
    ///
    /// # Errors
    /// Errors of the connection or the server.
    pub(super) fn clear(&self, time: Duration) -> Result<()> {
        JobControl::apart(time, |control| {
            let mut opened = self.opened.current();
            if self.protocol.is_lost(&opened) {
                opened = Arc::new(self.protocol.open(How::Write, control)?);
            }
            let _alone = self.len.growing.write();
            self.protocol.set_len(&opened, 0, control)?;
            self.len.set(0);
            Ok(())
        })
    }
}

impl<P: Protocol> Storage for RemoteFile<P> {
    fn name(&self) -> &BStr {
        self.name.as_bstr()
    }

    fn driver(&self) -> &'static str {
        P::NAME
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.identity.clone())
    }

    fn read_only(&self) -> bool {
        !self.writable
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let inside = self.len.get().saturating_sub(offset);
        let inside = usize::try_from(inside).unwrap_or(usize::MAX).min(buf.len());
        let (buf, past) = buf.split_at_mut(inside);
        past.fill(0);
        match buf.is_empty() {
            true => Ok(()),
            false => self.read_ranges(&mut [(offset, buf)]),
        }
    }

    fn read_many_at(&self, ranges: &mut [ReadRange<'_>]) -> Result<()> {
        let len = self.len.get();
        let inside = |(offset, buf): &ReadRange<'_>| offset.saturating_add(buf.len() as u64) <= len;
        if ranges.iter().all(inside) {
            return self.read_ranges(ranges);
        }
        for (offset, buf) in ranges {
            self.read_at(buf, *offset)?;
        }
        Ok(())
    }

    fn try_read(&self, _bufs: &mut [IoSliceMut<'_>], _offset: u64) -> Result<bool> {
        // A read always has to wait for the server.
        Ok(false)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let end = self.check_write(offset, buf.len() as u64)?;
        if buf.is_empty() {
            return Ok(());
        }
        let grows = end > self.len.get();
        let growing = grows.then(|| self.len.growing.read());
        let most = self.protocol.room(&self.opened.current()).write.max(1);
        let mut at = offset;
        for batch in buf.chunks(most.saturating_mul(BATCH)) {
            self.opened
                .change(self, |opened| self.write_batch(opened, batch, at))?;
            at = at.saturating_add(batch.len() as u64);
        }
        self.len.reaches(end);
        drop(growing);
        self.changed()
    }

    fn len(&self) -> Result<u64> {
        Ok(self.len.get())
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.check_write(0, len)?;
        if preallocation == Preallocation::Metadata {
            return Err(no_preallocation(preallocation));
        }
        self.change_len(len, false, preallocation)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        let end = self.check_write(offset, len)?;
        let inside = end.min(self.len.get());
        if offset < inside {
            if flags.contains(ZeroFlags::NO_FALLBACK) {
                return Err(Error::unsupported(
                    "The server writes zeroes no faster than data",
                ));
            }
            let at = self.zero((offset, inside))?;
            self.write_zero_data((at, inside))?;
        }
        match end > inside && len > 0 {
            // The extension reads as zeroes.
            true => self.change_len(end, true, Preallocation::Off),
            false => Ok(()),
        }
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let end = self.check_write(offset, len)?;
        let inside = end.min(self.len.get());
        in_pieces((offset.min(inside), inside), MOST_CHANGED, |at, len| {
            self.opened.change(self, |opened| {
                let range = (at, at + len);
                self.protocol.discard(opened, range, &self.control)
            })
        })
    }

    fn sync(&self, durability: Durability) -> Result<()> {
        let wanted = match durability {
            Durability::None => false,
            Durability::Synced => true,
            _ => !P::REPLIES_LAST,
        };
        match wanted && self.writable {
            true => self.opened.sync(|| self.flush()).of_file(self.name()),
            false => Ok(()),
        }
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
        let told = self.opened.run(self, |opened| {
            self.protocol.extent(opened, offset, len, &self.control)
        })?;
        Ok(told.unwrap_or(StorageExtent {
            len,
            zero: false,
            allocated: true,
        }))
    }

    fn limits(&self) -> Limits {
        Limits {
            grown_is_zero: true,
            in_flight: IN_FLIGHT,
            ..Limits::default()
        }
    }

    fn allocated_size(&self) -> Option<u64> {
        self.protocol.found(&self.opened.current()).used
    }

    fn lock(&self, _request: LockRequest) -> Result<()> {
        // The protocols' locks are not taken, as QEMU takes none either; locking is left to the server.
        Ok(())
    }

    fn host(&self) -> Option<&dyn HostFile> {
        None
    }

    fn report(&self) -> Option<&dyn StorageReport> {
        Some(self)
    }

    fn ending(&self) -> Option<&dyn Ending> {
        Some(self)
    }
}

impl<P: Protocol> Ending for RemoteFile<P> {
    fn finish(&self) -> Result<()> {
        match P::REPLIES_LAST {
            true => Ok(()),
            // Releasing the file would otherwise lose what only this process holds.
            false => self.sync(Durability::Ordered),
        }
    }
}

impl<P: Protocol> StorageReport for RemoteFile<P> {
    fn warnings(&self) -> Vec<String> {
        self.protocol
            .warnings(&self.opened.current(), self.writable)
    }
}
