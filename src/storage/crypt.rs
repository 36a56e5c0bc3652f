//! A storage that encrypts: the plain bytes over a storage that holds the encrypted ones.

use std::cell::RefCell;
use std::fmt;
use std::io::IoSliceMut;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::crypto::{SECTOR, SectorCipher};
use crate::error::{Error, Result};
use crate::extent::StorageExtent;
use crate::memory::IoBuf;
use crate::storage::forward::forward;
use crate::storage::{HostFile, Limits, Preallocation, Storage, ZeroFlags};

/// Bytes encrypted at a time.
const CHUNK: usize = 1 << 20;
const SECTOR_LEN: u64 = SECTOR as u64;

thread_local! {
    /// The thread's room for encrypted bytes.
    static ROOM: RefCell<IoBuf> = const { RefCell::new(IoBuf::new()) };
}

/// The plain bytes of a storage from `base` on; sector numbers count from there.
pub struct CryptStorage {
    inner: Arc<dyn Storage>,
    base: u64,
    cipher: Arc<SectorCipher>,
    /// Writers of whole sectors share it; a writer of parts of sectors reads them first, alone.
    edges: RwLock<()>,
}

impl CryptStorage {
    /// The plain view of `inner` from byte `base`, a multiple of 512.
    pub fn new(inner: Arc<dyn Storage>, base: u64, cipher: Arc<SectorCipher>) -> Self {
        Self {
            inner,
            base,
            cipher,
            edges: RwLock::new(()),
        }
    }

    fn below(&self, offset: u64) -> Result<u64> {
        self.base
            .checked_add(offset)
            .ok_or_else(|| Error::invalid("Offset is beyond the largest file"))
    }

    /// Encrypts `data` (whole sectors) in place and writes it.
    fn seal(&self, data: &mut [u8], offset: u64) -> Result<()> {
        self.cipher.encrypt(data, offset / SECTOR_LEN);
        self.inner.write_at(data, self.below(offset)?)
    }

    /// Reads and decrypts whole sectors.
    fn unseal(&self, data: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_at(data, self.below(offset)?)?;
        self.cipher.decrypt(data, offset / SECTOR_LEN);
        Ok(())
    }

    /// Writes chunk by chunk what `fill` puts into each piece of the range.
    fn write_with(
        &self,
        offset: u64,
        len: u64,
        mut fill: impl FnMut(&mut [u8], u64),
    ) -> Result<()> {
        let end = offset
            .checked_add(len)
            .ok_or_else(|| Error::invalid("Offset is beyond the largest file"))?;
        let mut at = offset;
        // Taken out while it is in use: the storage below may encrypt too.
        let mut room = ROOM.take();
        let buf = &mut room;
        let mut run = || {
            while at < end {
                let start = at - at % SECTOR_LEN;
                let stop = end.min(start + CHUNK as u64);
                let whole = stop.next_multiple_of(SECTOR_LEN) - start;
                buf.room(whole as usize)?;
                let inside = (at - start) as usize..(stop - start) as usize;
                if inside.start == 0 && inside.end == buf.len() {
                    fill(buf, at - offset);
                    let _shared = self.edges.read();
                    self.seal(buf, start)?;
                } else {
                    let _alone = self.edges.write();
                    self.unseal(buf, start)?;
                    fill(&mut buf[inside], at - offset);
                    self.seal(buf, start)?;
                }
                at = stop;
            }
            Ok(())
        };
        let result = run();
        ROOM.set(room);
        result
    }
}

impl fmt::Debug for CryptStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CryptStorage")
            .field("inner", &self.inner)
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl Storage for CryptStorage {
    forward!(
        inner: name, driver, identity, read_only, sync, allocated_size, step_watcher, lock,
    );

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let len = self.len()?.next_multiple_of(SECTOR_LEN);
        let known = len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let (buf, past) = buf.split_at_mut(known);
        past.fill(0);
        let lead = (offset % SECTOR_LEN) as usize;
        if lead == 0 && buf.len() % SECTOR == 0 {
            return self.unseal(buf, offset);
        }
        let mut bounce = IoBuf::new();
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let lead = (at % SECTOR_LEN) as usize;
            let take = (buf.len() - done).min(CHUNK - lead);
            bounce.room((lead + take).next_multiple_of(SECTOR))?;
            self.unseal(&mut bounce, at - lead as u64)?;
            buf[done..done + take].copy_from_slice(&bounce[lead..lead + take]);
            done += take;
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.write_with(offset, buf.len() as u64, |piece, at| {
            let at = at as usize;
            piece.copy_from_slice(&buf[at..at + piece.len()]);
        })
    }

    fn len(&self) -> Result<u64> {
        Ok(self.inner.len()?.saturating_sub(self.base))
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.inner.set_len(self.below(len)?, preallocation)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        if flags.contains(ZeroFlags::NO_FALLBACK) {
            return Err(Error::unsupported("Encrypted zeroes must be written"));
        }
        self.write_with(offset, len, |piece, _| piece.fill(0))
    }

    fn discard(&self, _offset: u64, _len: u64) -> Result<()> {
        Err(Error::unsupported("Encrypted data cannot be discarded"))
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        // A hole below decrypts to noise, so only what lies past the end is known to be zero.
        let inside = self.len()?.saturating_sub(offset);
        Ok(if inside == 0 {
            StorageExtent {
                len,
                zero: true,
                allocated: false,
            }
        } else {
            StorageExtent {
                len: len.min(inside),
                zero: false,
                allocated: true,
            }
        })
    }

    fn try_read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<bool> {
        let whole = |len: u64| len.is_multiple_of(SECTOR_LEN);
        if !whole(offset) || !bufs.iter().all(|buf| whole(buf.len() as u64)) {
            return Ok(false);
        }
        if !self.inner.try_read(bufs, self.below(offset)?)? {
            return Ok(false);
        }
        let mut at = offset;
        for buf in bufs {
            self.cipher.decrypt(buf, at / SECTOR_LEN);
            at += buf.len() as u64;
        }
        Ok(true)
    }

    fn limits(&self) -> Limits {
        let inner = self.inner.limits();
        Limits {
            request_alignment: inner.request_alignment.max(SECTOR as u32),
            grown_is_zero: false,
            ..inner
        }
    }

    fn host(&self) -> Option<&dyn HostFile> {
        // The bytes behind the descriptor are not the bytes of this storage.
        None
    }
}
