//! A byte store in memory.

use std::io::IoSliceMut;

use bstr::{BStr, BString, ByteSlice};
use parking_lot::RwLock;

use crate::error::{Error, Result};
use crate::extent::StorageExtent;
use crate::storage::{
    Durability, HostFile, Identity, Limits, LockRequest, Preallocation, Storage, ZeroFlags,
};

/// The bytes stand in a vector; everything is data.
#[derive(Debug)]
pub struct MemoryStorage {
    name: BString,
    identity: Identity,
    read_only: bool,
    most: u64,
    bytes: RwLock<Vec<u8>>,
}

impl MemoryStorage {
    /// An empty one that can be written.
    pub fn new(name: impl Into<BString>) -> Self {
        Self::with_bytes(name, Vec::new())
    }

    /// One that holds `bytes` and can be written.
    pub fn with_bytes(name: impl Into<BString>, bytes: Vec<u8>) -> Self {
        Self {
            name: name.into(),
            identity: Identity::own(),
            read_only: false,
            most: u64::MAX,
            bytes: RwLock::new(bytes),
        }
    }

    /// Refuses writes from now on.
    #[must_use]
    pub fn into_read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Takes this many bytes at most, and is then full: what a damaged image names may stand anywhere.
    #[must_use]
    pub fn limited_to(mut self, most: u64) -> Self {
        self.most = most;
        self
    }

    /// A copy of the bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes.read().clone()
    }

    fn check_writable(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::open_read_only(&self.name));
        }
        Ok(())
    }

    fn resize(&self, bytes: &mut Vec<u8>, len: u64) -> Result<()> {
        if len > self.most {
            return Err(Error::os(libc::ENOSPC));
        }
        let len = usize::try_from(len).map_err(|_| Error::os(libc::EFBIG))?;
        let more = len.saturating_sub(bytes.len());
        bytes
            .try_reserve(more)
            .map_err(|_| Error::os(libc::ENOMEM))?;
        bytes.resize(len, 0);
        Ok(())
    }

    fn end_of(offset: u64, len: u64) -> Result<u64> {
        offset
            .checked_add(len)
            .ok_or_else(|| Error::os(libc::EFBIG))
    }
}

impl Storage for MemoryStorage {
    fn name(&self) -> &BStr {
        self.name.as_bstr()
    }

    fn driver(&self) -> &'static str {
        "memory"
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.identity.clone())
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let bytes = self.bytes.read();
        let start = usize::try_from(offset).map_or(bytes.len(), |at| at.min(bytes.len()));
        let there = (bytes.len() - start).min(buf.len());
        buf[..there].copy_from_slice(&bytes[start..start + there]);
        buf[there..].fill(0);
        Ok(())
    }

    fn try_read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<bool> {
        self.read_vectored_at(bufs, offset).map(|()| true)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_writable()?;
        if buf.is_empty() {
            return Ok(());
        }
        let end = Self::end_of(offset, buf.len() as u64)?;
        let mut bytes = self.bytes.write();
        if end > bytes.len() as u64 {
            self.resize(&mut bytes, end)?;
        }
        let start = offset as usize;
        bytes[start..start + buf.len()].copy_from_slice(buf);
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.bytes.read().len() as u64)
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.check_writable()?;
        if preallocation == Preallocation::Metadata {
            return Err(Error::no_metadata_preallocation());
        }
        self.resize(&mut self.bytes.write(), len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, _flags: ZeroFlags) -> Result<()> {
        self.check_writable()?;
        if len == 0 {
            return Ok(());
        }
        let end = Self::end_of(offset, len)?;
        let mut bytes = self.bytes.write();
        if end > bytes.len() as u64 {
            self.resize(&mut bytes, end)?;
        }
        bytes[offset as usize..end as usize].fill(0);
        Ok(())
    }

    fn discard(&self, _offset: u64, _len: u64) -> Result<()> {
        self.check_writable()?;
        Err(Error::unsupported("Memory cannot be given back in parts"))
    }

    fn sync(&self, _durability: Durability) -> Result<()> {
        // Memory is as durable as it gets once written.
        Ok(())
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        let end = self.bytes.read().len() as u64;
        let inside = offset < end;
        Ok(StorageExtent {
            len: if inside { len.min(end - offset) } else { len },
            zero: !inside,
            allocated: inside,
        })
    }

    fn limits(&self) -> Limits {
        Limits {
            grown_is_zero: true,
            writes_to_memory: true,
            ..Limits::default()
        }
    }

    fn allocated_size(&self) -> Option<u64> {
        Some(self.bytes.read().len() as u64)
    }

    fn lock(&self, _request: LockRequest) -> Result<()> {
        // Nothing outside this process can reach it.
        Ok(())
    }

    fn host(&self) -> Option<&dyn HostFile> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_one_takes_no_more_and_keeps_what_it_has() {
        let memory = MemoryStorage::with_bytes("m", vec![1; 100]).limited_to(200);
        memory.write_at(&[2; 100], 100).unwrap();
        let full = [
            memory.write_at(&[3], 200),
            memory.write_at(&[3; 2], 199),
            memory.write_at(&[3], 1 << 40),
            memory.set_len(201, Preallocation::Off),
            memory.write_zeroes(150, 51, ZeroFlags::empty()),
        ];
        for result in full {
            assert_eq!(result.unwrap_err().errno(), libc::ENOSPC);
        }
        assert!(memory.to_vec() == [[1; 100], [2; 100]].concat());
    }
}
