//! Memory whose amount follows an image, an option or a caller: a lack of it is an error, `ENOMEM`,
//! and not the end of the process.

use std::fmt;
use std::hint::black_box;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::Mutex;
use zeroize::Zeroize;

use crate::error::{Error, Result};
use crate::sys::AlignedBuf;

/// Bytes that are read from a file or written to one: as a `Vec<u8>`, but at the start of a page where
/// they are as long as one, and from the pool of buffers where they are long.
#[derive(Default)]
pub struct IoBuf {
    memory: Option<AlignedBuf>,
    len: usize,
}

impl IoBuf {
    /// No bytes.
    pub const fn new() -> Self {
        Self {
            memory: None,
            len: 0,
        }
    }

    /// As `Vec::resize` with zeroes.
    ///
    /// # Errors
    /// Where there is no memory; nothing has changed then.
    pub fn resize(&mut self, len: usize) -> Result<()> {
        let old = self.len;
        let fresh = self.make_room(len)?;
        self.len = len;
        if let Some(new) = self.get_mut(old..).filter(|_| !fresh) {
            new.fill(0);
        }
        Ok(())
    }

    /// Changes the length; the bytes are whatever was there.
    ///
    /// # Errors
    /// Where there is no memory; nothing has changed then.
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
    /// Where there is no memory; nothing has changed then.
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

    fn capacity(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| memory.len())
    }

    /// Memory for so many bytes, which begins with those that there are; true where it is fresh,
    /// and zero behind them.
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

/// All of the memory, also what a longer content has left.
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

/// `len` zero bytes.
///
/// # Errors
/// Where there is no memory.
pub(crate) fn zeroed(len: usize) -> Result<IoBuf> {
    let mut bytes = IoBuf::new();
    bytes.make_room(len)?;
    bytes.len = len;
    Ok(bytes)
}

/// The same bytes in memory of their own.
///
/// # Errors
/// Where there is no memory.
pub(crate) fn copied(bytes: &[u8]) -> Result<IoBuf> {
    let mut copy = IoBuf::new();
    copy.extend_from_slice(bytes)?;
    Ok(copy)
}

/// Parts one behind the other.
///
/// # Errors
/// Where there is no memory.
pub(crate) fn joined<'a>(parts: impl Iterator<Item = &'a [u8]> + Clone) -> Result<IoBuf> {
    let len = parts
        .clone()
        .fold(0usize, |len, part| len.saturating_add(part.len()));
    let mut all = IoBuf::new();
    all.make_room(len)?;
    for part in parts {
        all.extend_from_slice(part)?;
    }
    Ok(all)
}

/// The same bytes as a vector that takes no more than they do.
///
/// # Errors
/// Where there is no memory.
pub(crate) fn to_vec(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).map_err(|_| lack())?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// Before much is made of many small parts that are allocated one by one, such as the nodes of a tree or the
/// names of a list: finds out whether there is memory for all of them, by having it for a moment.
///
/// # Errors
/// Where there is no memory.
pub(crate) fn headroom(bytes: u64) -> Result<()> {
    keep_reserve();
    let bytes = usize::try_from(bytes).map_err(|_| lack())?;
    drop(black_box(room_for(bytes)?));
    // Small parts come from the heap, which can end before the memory for one large block does.
    let count = bytes.div_ceil(SMALL).min(MOST_SMALL);
    let mut parts = Vec::new();
    reserve(&mut parts, count)?;
    for _ in 0..count {
        parts.push(room_for(bytes.min(SMALL))?);
    }
    black_box(&parts);
    Ok(())
}

/// What comes from the heap, whatever the allocator does with large blocks.
const SMALL: usize = 32 << 10;

/// So many small parts tell enough.
const MOST_SMALL: usize = 512;

fn room_for(bytes: usize) -> Result<Vec<u8>> {
    let mut room = Vec::new();
    room.try_reserve_exact(bytes).map_err(|_| lack())?;
    Ok(room)
}

/// A value that is shared, one of as many as a file names. The allocator has memory for it and for what little
/// comes with it.
///
/// # Errors
/// Where there is no memory.
pub(crate) fn shared<T>(value: T) -> Result<Arc<T>> {
    headroom(size_of::<T>() as u64 + BESIDE)?;
    Ok(Arc::new(value))
}

/// `len` copies of a value.
///
/// # Errors
/// Where there is no memory.
pub(crate) fn filled<T: Clone>(len: usize, value: T) -> Result<Vec<T>> {
    let mut values = Vec::new();
    resize(&mut values, len, value)?;
    Ok(values)
}

/// As `Vec::resize`.
///
/// # Errors
/// Where there is no memory; nothing has changed then.
pub(crate) fn resize<T: Clone>(values: &mut Vec<T>, len: usize, value: T) -> Result<()> {
    reserve(values, len.saturating_sub(values.len()))?;
    values.resize(len, value);
    Ok(())
}

/// Makes room for so many values more.
///
/// # Errors
/// Where there is no memory; nothing has changed then.
pub(crate) fn reserve<T>(values: &mut Vec<T>, more: usize) -> Result<()> {
    values.try_reserve(more).map_err(|_| lack())
}

/// The values of an iterator that knows how many it has.
///
/// # Errors
/// Where there is no memory.
pub(crate) fn collect<T>(from: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>> {
    let mut values = Vec::new();
    reserve(&mut values, from.len())?;
    values.extend(from);
    Ok(values)
}

/// As `Vec::push`.
///
/// # Errors
/// Where there is no memory; nothing has changed then.
pub(crate) fn push<T>(values: &mut Vec<T>, value: T) -> Result<()> {
    reserve(values, 1)?;
    values.push(value);
    Ok(())
}

/// What is written, as one text.
///
/// # Errors
/// Where there is no memory.
pub(crate) fn text(write: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) -> Result<String> {
    let mut out = Growing(String::new());
    // Nothing else can fail.
    write(&mut out).map_err(|fmt::Error| lack())?;
    Ok(out.0)
}

/// What is written, as one text whose names need not be UTF-8.
///
/// # Errors
/// Where there is no memory.
pub(crate) fn bytes(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> Result<Vec<u8>> {
    let mut out = Growing(Vec::new());
    // Nothing else can fail.
    write(&mut out).map_err(|_| lack())?;
    Ok(out.0)
}

/// A text that is written to as long as there is memory for it.
struct Growing<T>(T);

impl fmt::Write for Growing<String> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.try_reserve(text.len()).map_err(|_| fmt::Error)?;
        self.0.push_str(text);
        Ok(())
    }
}

impl io::Write for Growing<Vec<u8>> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_reserve(bytes.len())?;
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The bytes of a table of words, the most significant first.
///
/// # Errors
/// Where there is no memory.
pub(crate) fn bytes_of(words: impl ExactSizeIterator<Item = u64>) -> Result<IoBuf> {
    let mut bytes = zeroed(words.len().saturating_mul(8))?;
    for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    Ok(bytes)
}

/// Memory with which to tell that there is none: many small parts may have used up the last of it.
static RESERVE: Mutex<Vec<u8>> = Mutex::new(Vec::new());
const RESERVE_BYTES: usize = 32 << 10;

/// For what is allocated beside a value that is shared.
const BESIDE: u64 = 4 << 10;

/// Keeps a little memory for the error that tells of a lack of it; before anything that can take much.
pub(crate) fn keep_reserve() {
    if let Some(mut reserve) = RESERVE.try_lock()
        && reserve.capacity() == 0
    {
        // Without it that error may end the process, as any small allocation may.
        let _ = reserve.try_reserve_exact(RESERVE_BYTES);
    }
}

/// The error of an allocation that failed.
pub(crate) fn lack() -> Error {
    *RESERVE.lock() = Vec::new();
    Error::os(libc::ENOMEM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_for_io_are_those_of_a_vector_at_the_start_of_a_page() {
        for len in [4096, 100_000, 1 << 20, 3 << 20] {
            let mut bytes = zeroed(len).unwrap();
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
        // What a longer content has left is not seen again.
        bytes.resize(5).unwrap();
        assert_eq!(*bytes, [9, 9, 5, 0, 0]);
        assert_eq!(bytes.room(200_000).unwrap().len(), 200_000);
        assert_eq!(bytes.room(7).unwrap().len(), 7);
        bytes.fill(3);
        bytes.zeroize();
        assert!(bytes.is_empty());
        assert_eq!(bytes.room(7).unwrap(), [0; 7]);
    }

    #[test]
    fn a_lack_of_memory_is_an_error() {
        let error = zeroed(usize::MAX / 2).unwrap_err();
        assert_eq!(error.errno(), libc::ENOMEM);
        assert_eq!(error.to_string(), "Cannot allocate memory");
        let mut bytes = copied(&[1, 2]).unwrap();
        bytes.resize(usize::MAX / 2).unwrap_err();
        bytes.resize(usize::MAX).unwrap_err();
        assert_eq!(*bytes, [1, 2]);
        assert_eq!(to_vec(&[1, 2]).unwrap(), [1, 2]);
        headroom(1 << 20).unwrap();
        assert_eq!(headroom(u64::MAX / 2).unwrap_err().errno(), libc::ENOMEM);
        let mut bytes = vec![1, 2];
        resize(&mut bytes, usize::MAX / 2, 0).unwrap_err();
        assert_eq!(bytes, [1, 2]);
        resize(&mut bytes, 3, 0).unwrap();
        assert_eq!(bytes, [1, 2, 0]);
    }
}
