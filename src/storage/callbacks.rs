//! A byte store behind callbacks of the caller.

use std::fmt;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::extent::StorageExtent;
use crate::memory;
use crate::storage::{
    CacheMode, Durability, HostFile, Identity, Limits, LockRequest, Preallocation, Storage,
    ZeroFlags,
};

/// Zeroes are written in pieces of this size.
const CHUNK: usize = 256 << 10;

/// Fills the whole buffer from an offset; the range lies within the size.
pub type ReadFn = Box<dyn Fn(&mut [u8], u64) -> Result<()> + Send + Sync>;
/// Writes the whole buffer at an offset.
pub type WriteFn = Box<dyn Fn(&[u8], u64) -> Result<()> + Send + Sync>;
/// Returns the size in bytes.
pub type SizeFn = Box<dyn Fn() -> Result<u64> + Send + Sync>;
/// Makes completed writes durable.
pub type FlushFn = Box<dyn Fn() -> Result<()> + Send + Sync>;
/// Changes the size.
pub type SetSizeFn = Box<dyn Fn(u64) -> Result<()> + Send + Sync>;
/// Zeroes offset and length. [`ErrorKind::Unsupported`] makes the storage write zeroes instead.
pub type ZeroFn = Box<dyn Fn(u64, u64, ZeroFlags) -> Result<()> + Send + Sync>;
/// Gives offset and length back.
pub type DiscardFn = Box<dyn Fn(u64, u64) -> Result<()> + Send + Sync>;
/// Describes the first run at an offset, at most a length long; never longer than asked, never 0.
pub type ExtentFn = Box<dyn Fn(u64, u64) -> Result<StorageExtent> + Send + Sync>;
/// Ends the use; called once, after all other calls have returned.
pub type CloseFn = Box<dyn FnOnce() + Send + Sync>;

/// The callbacks of a [`CallbackStorage`]. All may be called from many threads at once.
pub struct StorageCallbacks {
    /// Reads.
    pub read: ReadFn,
    /// Tells the size; called once, when the storage is made.
    pub size: SizeFn,
    /// Writes. Without it the storage is read-only. Goes past the end only with `set_size`.
    pub write: Option<WriteFn>,
    /// Flushes; must be given with `write`. Once it has failed, all later flushes of the storage fail.
    pub flush: Option<FlushFn>,
    /// Changes the size; without it the size is fixed.
    pub set_size: Option<SetSizeFn>,
    /// Zeroes; without it zeroes are written.
    pub zero: Option<ZeroFn>,
    /// Discards; without it discarding is not supported.
    pub discard: Option<DiscardFn>,
    /// Describes runs; without it everything is data.
    pub extent: Option<ExtentFn>,
    /// Ends the use; called by the last storage over them.
    pub close: Option<CloseFn>,
}

impl fmt::Debug for StorageCallbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageCallbacks")
            .field("write", &self.write.is_some())
            .field("set_size", &self.set_size.is_some())
            .finish_non_exhaustive()
    }
}

/// A storage whose bytes the caller keeps.
#[derive(Debug)]
pub struct CallbackStorage {
    name: BString,
    identity: Identity,
    cache: CacheMode,
    len: AtomicU64,
    /// The errno of the first flush that failed.
    flush_failed: AtomicI32,
    calls: Arc<StorageCallbacks>,
}

impl CallbackStorage {
    /// Asks for the size and takes the callbacks; `close` runs when the storage is dropped, also
    /// when this fails.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`]: `write` without `flush`, or a size past 2^63; or of `size`.
    pub fn new(
        name: impl Into<BString>,
        calls: StorageCallbacks,
        cache: CacheMode,
    ) -> Result<Self> {
        Self::over(name.into(), Arc::new(calls), Identity::own(), cache)
    }

    /// As [`CallbackStorage::new`], for bytes that several storages may show, each of which asks for the size.
    ///
    /// # Errors
    /// As [`CallbackStorage::new`].
    pub fn over(
        name: BString,
        calls: Arc<StorageCallbacks>,
        identity: Identity,
        cache: CacheMode,
    ) -> Result<Self> {
        let storage = Self {
            name,
            identity,
            cache,
            len: AtomicU64::new(0),
            flush_failed: AtomicI32::new(0),
            calls,
        };
        if storage.calls.write.is_some() && storage.calls.flush.is_none() {
            return Err(Error::invalid(format!(
                "The storage '{}' can be written but not flushed",
                storage.name
            )));
        }
        let len = (storage.calls.size)()?;
        if i64::try_from(len).is_err() {
            return Err(Error::invalid(format!(
                "The storage '{}' gives a size of {len} bytes",
                storage.name
            )));
        }
        storage.len.store(len, Ordering::Release);
        Ok(storage)
    }

    fn writer(&self) -> Result<&WriteFn> {
        self.calls
            .write
            .as_ref()
            .ok_or_else(|| Error::open_read_only(&self.name))
    }

    /// The end of a write, if the storage may become that long.
    fn check_end(&self, offset: u64, len: u64) -> Result<u64> {
        let end = offset
            .checked_add(len)
            .filter(|end| i64::try_from(*end).is_ok())
            .ok_or_else(|| Error::os(libc::EFBIG))?;
        if end > self.len.load(Ordering::Acquire) && self.calls.set_size.is_none() {
            return Err(Error::os(libc::ENOSPC));
        }
        Ok(end)
    }

    fn wrote(&self, end: u64) -> Result<()> {
        self.len.fetch_max(end, Ordering::AcqRel);
        if self.cache.write_through() {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        match self.flush_failed.load(Ordering::Acquire) {
            0 => {}
            errno => return Err(Error::os(errno).of_file(self.name())),
        }
        let Some(flush) = &self.calls.flush else {
            return Ok(());
        };
        let flushed = flush().inspect_err(|error| {
            self.flush_failed.store(error.errno(), Ordering::Release);
        });
        flushed.of_file(self.name())
    }

    fn write_zero_bytes(&self, offset: u64, len: u64) -> Result<()> {
        let write = self.writer()?;
        let zeroes = memory::zeroed(usize::try_from(len).map_or(CHUNK, |len| len.min(CHUNK)))?;
        let mut done = 0;
        while done < len {
            let n = usize::try_from(len - done).map_or(CHUNK, |left| left.min(zeroes.len()));
            write(&zeroes[..n], offset + done).of_file(self.name())?;
            done += n as u64;
        }
        Ok(())
    }
}

impl Drop for CallbackStorage {
    fn drop(&mut self) {
        let close = Arc::get_mut(&mut self.calls).and_then(|calls| calls.close.take());
        if let Some(close) = close {
            close();
        }
    }
}

impl Storage for CallbackStorage {
    fn name(&self) -> &BStr {
        self.name.as_bstr()
    }

    fn driver(&self) -> &'static str {
        "callbacks"
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.identity.clone())
    }

    fn read_only(&self) -> bool {
        self.calls.write.is_none()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let left = self.len.load(Ordering::Acquire).saturating_sub(offset);
        let there = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let (inside, outside) = buf.split_at_mut(there);
        outside.fill(0);
        if inside.is_empty() {
            return Ok(());
        }
        (self.calls.read)(inside, offset).of_file(self.name())
    }

    fn try_read(&self, _bufs: &mut [IoSliceMut<'_>], _offset: u64) -> Result<bool> {
        // The caller's read may block.
        Ok(false)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let write = self.writer()?;
        if buf.is_empty() {
            return Ok(());
        }
        let end = self.check_end(offset, buf.len() as u64)?;
        write(buf, offset).of_file(self.name())?;
        self.wrote(end)
    }

    fn len(&self) -> Result<u64> {
        Ok(self.len.load(Ordering::Acquire))
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.writer()?;
        let old = self.len.load(Ordering::Acquire);
        match (&self.calls.set_size, preallocation) {
            (_, Preallocation::Metadata | Preallocation::Falloc) => {
                return Err(Error::unsupported("Unsupported preallocation mode"));
            }
            (Some(set_size), _) => set_size(len).of_file(self.name())?,
            (None, _) if len == old => {}
            (None, _) => return Err(Error::unsupported("The size of the storage is fixed")),
        }
        self.len.store(len, Ordering::Release);
        if preallocation == Preallocation::Full && len > old {
            self.write_zero_bytes(old, len - old)?;
        }
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.writer()?;
        if len == 0 {
            return Ok(());
        }
        let end = self.check_end(offset, len)?;
        if let Some(zero) = &self.calls.zero {
            match zero(offset, len, flags) {
                Ok(()) => return self.wrote(end),
                Err(error) if error.kind() == ErrorKind::Unsupported => {}
                Err(error) => return Err(error.of_file(self.name())),
            }
        }
        if flags.contains(ZeroFlags::NO_FALLBACK) {
            return Err(Error::unsupported(
                "Zeroing without writing is not supported by the storage",
            ));
        }
        self.write_zero_bytes(offset, len)?;
        self.wrote(end)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.writer()?;
        match &self.calls.discard {
            Some(discard) => {
                discard(offset, len).of_file(self.name())?;
                self.wrote(0)
            }
            None => Err(Error::unsupported(
                "Discarding is not supported by the storage",
            )),
        }
    }

    fn sync(&self, durability: Durability) -> Result<()> {
        if durability != Durability::Synced || self.cache == CacheMode::Unsafe {
            return Ok(());
        }
        self.flush()
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        let end = self.len.load(Ordering::Acquire);
        let run = |len, zero| StorageExtent {
            len,
            zero,
            allocated: !zero,
        };
        if offset >= end {
            return Ok(run(len, true));
        }
        let inside = len.min(end - offset);
        let Some(extent) = &self.calls.extent else {
            return Ok(run(inside, false));
        };
        let found = extent(offset, inside).of_file(self.name())?;
        if found.len == 0 || found.len > inside {
            return Err(Error::invalid(format!(
                "The storage '{}' describes {} of {inside} bytes at {offset}",
                self.name, found.len
            )));
        }
        Ok(found)
    }

    fn limits(&self) -> Limits {
        Limits {
            fixed_len: self.calls.set_size.is_none(),
            ..Limits::default()
        }
    }

    fn allocated_size(&self) -> Option<u64> {
        None
    }

    fn lock(&self, _request: LockRequest) -> Result<()> {
        // The caller alone knows who else has the bytes.
        Ok(())
    }

    fn host(&self) -> Option<&dyn HostFile> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::storage::MemoryStorage;

    fn over(memory: &Arc<MemoryStorage>, closed: &Arc<AtomicU32>) -> StorageCallbacks {
        let (read, size, write, set) = (
            memory.clone(),
            memory.clone(),
            memory.clone(),
            memory.clone(),
        );
        let closed = closed.clone();
        StorageCallbacks {
            read: Box::new(move |buf, at| {
                assert!(at + buf.len() as u64 <= read.len()?);
                read.read_at(buf, at)
            }),
            size: Box::new(move || size.len()),
            write: Some(Box::new(move |buf, at| write.write_at(buf, at))),
            flush: Some(Box::new(|| Ok(()))),
            set_size: Some(Box::new(move |len| set.set_len(len, Preallocation::Off))),
            zero: None,
            discard: None,
            extent: None,
            close: Some(Box::new(move || {
                closed.fetch_add(1, Ordering::Relaxed);
            })),
        }
    }

    #[test]
    fn reads_stay_inside_and_close_runs_once() {
        let memory = Arc::new(MemoryStorage::with_bytes("m", vec![1; 100]));
        let closed = Arc::new(AtomicU32::new(0));
        let storage =
            CallbackStorage::new("c", over(&memory, &closed), CacheMode::Writeback).unwrap();
        let mut buf = [9; 40];
        storage.read_at(&mut buf, 80).unwrap();
        assert_eq!(buf[..20], [1; 20]);
        assert_eq!(buf[20..], [0; 20]);
        storage.write_at(&[2; 10], 120).unwrap();
        storage.write_zeroes(10, 200, ZeroFlags::empty()).unwrap();
        assert_eq!(storage.len().unwrap(), 210);
        assert_eq!(memory.to_vec()[10..], [0; 200]);
        assert_eq!(
            storage
                .write_zeroes(0, 1, ZeroFlags::NO_FALLBACK)
                .unwrap_err()
                .kind(),
            ErrorKind::Unsupported
        );
        drop(storage);
        assert_eq!(closed.load(Ordering::Relaxed), 1);
        let mut calls = over(&memory, &closed);
        calls.flush = None;
        assert!(CallbackStorage::new("c", calls, CacheMode::Writeback).is_err());
        assert_eq!(closed.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_flush_that_failed_fails_all_later_ones() {
        let memory = Arc::new(MemoryStorage::new("m"));
        let closed = Arc::default();
        let mut calls = over(&memory, &closed);
        let flushes = AtomicU32::new(0);
        calls.flush = Some(Box::new(move || {
            match flushes.fetch_add(1, Ordering::Relaxed) {
                1 => Err(Error::os(libc::ENOSPC)),
                _ => Ok(()),
            }
        }));
        let storage = CallbackStorage::new("c", calls, CacheMode::Writeback).unwrap();
        storage.sync(Durability::Synced).unwrap();
        for _ in 0..2 {
            storage.sync(Durability::Ordered).unwrap();
            let error = storage.sync(Durability::Synced).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoSpace);
        }
    }

    #[test]
    fn a_fixed_size_stays() {
        let memory = Arc::new(MemoryStorage::with_bytes("m", vec![1; 100]));
        let closed = Arc::default();
        let mut calls = over(&memory, &closed);
        calls.set_size = None;
        let storage = CallbackStorage::new("c", calls, CacheMode::Writeback).unwrap();
        assert!(storage.limits().fixed_len);
        assert_eq!(
            storage.write_at(&[1], 100).unwrap_err().kind(),
            ErrorKind::NoSpace
        );
        assert!(storage.set_len(50, Preallocation::Off).is_err());
        storage.set_len(100, Preallocation::Off).unwrap();
    }
}
