//! Growable byte buffers for I/O, in aligned memory.

use std::fmt;
use std::ops::{Deref, DerefMut};

use zeroize::Zeroize;

use super::AlignedBuf;
use crate::error::Result;
use crate::lack::lack;

/// Bytes that are read from a file or written to one: as a `Vec<u8>`, but page-aligned if they are at least a page
/// long, and from the buffer pool if they are long.
#[derive(Default)]
pub struct IoBuf {
    memory: Option<AlignedBuf>,
    len: usize,
}

impl IoBuf {
    /// An empty buffer.
    pub const fn new() -> Self {
        Self {
            memory: None,
            len: 0,
        }
    }

    /// As `Vec::resize` with zeroes.
    ///
    /// # Errors
    /// If memory cannot be allocated; then nothing has changed.
    pub fn resize(&mut self, len: usize) -> Result<()> {
        let old = self.len;
        let fresh = self.make_room(len)?;
        self.len = len;
        if let Some(new) = self.get_mut(old..).filter(|_| !fresh) {
            new.fill(0);
        }
        Ok(())
    }

    /// Changes the length; the contents are unspecified.
    ///
    /// # Errors
    /// If memory cannot be allocated; then nothing has changed.
    pub fn room(&mut self, len: usize) -> Result<&mut [u8]> {
        if self.capacity() < len {
            self.clear();
            self.make_room(len)?;
        }
        self.len = len;
        Ok(self)
    }

    /// As `Vec::extend_from_slice`.
    ///
    /// # Errors
    /// If memory cannot be allocated; then nothing has changed.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> Result<()> {
        let old = self.len;
        let len = old.checked_add(bytes.len()).ok_or_else(lack)?;
        if self.capacity() < len {
            self.make_room(len.max(old.saturating_mul(2)))?;
        }
        self.len = len;
        if let Some(new) = self.get_mut(old..) {
            new.copy_from_slice(bytes);
        }
        Ok(())
    }

    /// As `Vec::truncate`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// As `Vec::clear`.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Reserves space for this many bytes in total.
    ///
    /// # Errors
    /// If memory cannot be allocated; then nothing has changed.
    pub(crate) fn reserve(&mut self, len: usize) -> Result<()> {
        self.make_room(len).map(drop)
    }

    fn capacity(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| memory.len())
    }

    /// Ensures memory for this many bytes, preserving the existing ones; true if it is newly allocated, and zero after
    /// them.
    fn make_room(&mut self, len: usize) -> Result<bool> {
        if self.capacity() >= len {
            return Ok(false);
        }
        let mut memory = AlignedBuf::zeroed(len, 1).map_err(|_| lack())?;
        if let Some(start) = memory.get_mut(..self.len) {
            start.copy_from_slice(self);
        }
        self.memory = Some(memory);
        Ok(true)
    }
}

impl Deref for IoBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let memory = self.memory.as_deref().and_then(|all| all.get(..self.len));
        memory.unwrap_or_default()
    }
}

impl DerefMut for IoBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        let memory = self.memory.as_deref_mut();
        memory
            .and_then(|all| all.get_mut(..len))
            .unwrap_or_default()
    }
}

impl AsRef<[u8]> for IoBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Wipes all of the memory, including leftovers of longer contents.
impl Zeroize for IoBuf {
    fn zeroize(&mut self) {
        if let Some(memory) = self.memory.as_deref_mut() {
            memory.zeroize();
        }
        self.len = 0;
    }
}

impl fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoBuf({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_for_io_are_those_of_a_vector_at_the_start_of_a_page() {
        for len in [4096, 100_000, 1 << 20, 3 << 20] {
            let mut bytes = IoBuf::new();
            bytes.resize(len).unwrap();
            assert_eq!(bytes.len(), len);
            assert_eq!(bytes.as_ptr() as usize % 4096, 0);
            assert!(bytes.iter().all(|byte| *byte == 0));
            bytes.fill(1);
        }
        let mut bytes = IoBuf::new();
        assert!(bytes.is_empty());
        bytes.extend_from_slice(&[1, 2, 3]).unwrap();
        bytes.resize(100_000).unwrap();
        assert_eq!(bytes[..4], [1, 2, 3, 0]);
        bytes.fill(9);
        bytes.truncate(2);
        bytes.extend_from_slice(&[5]).unwrap();
        // Leftovers of longer contents never reappear.
        bytes.resize(5).unwrap();
        assert_eq!(*bytes, [9, 9, 5, 0, 0]);
        assert_eq!(bytes.room(200_000).unwrap().len(), 200_000);
        assert_eq!(bytes.room(7).unwrap().len(), 7);
        bytes.fill(3);
        bytes.zeroize();
        assert!(bytes.is_empty());
        assert_eq!(bytes.room(7).unwrap(), [0; 7]);
    }
}
