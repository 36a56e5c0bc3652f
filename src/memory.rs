//! Memory whose amount depends on an image, an option or a caller: running out of it is an error, `ENOMEM`, instead of
//! ending the process.

use std::fmt;
use std::hint::black_box;
use std::io;
use std::sync::Arc;

use crate::error::Result;
pub(crate) use crate::lack::{keep_reserve, lack};
pub use crate::sys::IoBuf;
pub(crate) use crate::sys::{Payload, lend};

/// `len` zero bytes.
///
/// # Errors
/// If there is no memory.
pub(crate) fn zeroed(len: usize) -> Result<IoBuf> {
    let mut bytes = IoBuf::new();
    bytes.resize(len)?;
    Ok(bytes)
}

/// A copy of the bytes in memory of its own.
///
/// # Errors
/// If there is no memory.
pub(crate) fn copied(bytes: &[u8]) -> Result<IoBuf> {
    let mut copy = IoBuf::new();
    copy.extend_from_slice(bytes)?;
    Ok(copy)
}

/// Concatenates the parts.
///
/// # Errors
/// If there is no memory.
pub(crate) fn joined<'a>(parts: impl Iterator<Item = &'a [u8]> + Clone) -> Result<IoBuf> {
    let len = parts
        .clone()
        .fold(0usize, |len, part| len.saturating_add(part.len()));
    let mut all = IoBuf::new();
    all.reserve(len)?;
    for part in parts {
        all.extend_from_slice(part)?;
    }
    Ok(all)
}

/// A copy of the bytes as a vector without spare capacity.
///
/// # Errors
/// If there is no memory.
pub(crate) fn to_vec(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).map_err(|_| lack())?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// To be called before allocating many small parts one by one, such as the nodes of a tree or the names of a list:
/// finds out whether there is memory for all of them, by allocating it for a moment.
///
/// # Errors
/// If there is no memory.
pub(crate) fn headroom(bytes: u64) -> Result<()> {
    keep_reserve();
    let bytes = usize::try_from(bytes).map_err(|_| lack())?;
    drop(black_box(room_for(bytes)?));
    // Small parts come from the heap, which can be exhausted before the memory for one large block is.
    let count = bytes.div_ceil(SMALL).min(MOST_SMALL);
    let mut parts = Vec::new();
    reserve(&mut parts, count)?;
    for _ in 0..count {
        parts.push(room_for(bytes.min(SMALL))?);
    }
    black_box(&parts);
    Ok(())
}

/// A size that is allocated from the heap, whatever the allocator does with large blocks.
const SMALL: usize = 32 << 10;

/// This many small parts are a sufficient sample.
const MOST_SMALL: usize = 512;

fn room_for(bytes: usize) -> Result<Vec<u8>> {
    let mut room = Vec::new();
    room.try_reserve_exact(bytes).map_err(|_| lack())?;
    Ok(room)
}

/// A shared value, one of as many as a file names. Checks that there is memory for it and for the little that is
/// allocated along with it.
///
/// # Errors
/// If there is no memory.
pub(crate) fn shared<T>(value: T) -> Result<Arc<T>> {
    headroom(size_of::<T>() as u64 + BESIDE)?;
    Ok(Arc::new(value))
}

/// `len` copies of a value.
///
/// # Errors
/// If there is no memory.
pub(crate) fn filled<T: Clone>(len: usize, value: T) -> Result<Vec<T>> {
    let mut values = Vec::new();
    resize(&mut values, len, value)?;
    Ok(values)
}

/// As `Vec::resize`.
///
/// # Errors
/// If there is no memory; nothing has changed then.
pub(crate) fn resize<T: Clone>(values: &mut Vec<T>, len: usize, value: T) -> Result<()> {
    reserve(values, len.saturating_sub(values.len()))?;
    values.resize(len, value);
    Ok(())
}

/// Reserves space for this many additional values.
///
/// # Errors
/// If there is no memory; nothing has changed then.
pub(crate) fn reserve<T>(values: &mut Vec<T>, more: usize) -> Result<()> {
    values.try_reserve(more).map_err(|_| lack())
}

/// The values of an iterator that knows its length.
///
/// # Errors
/// If there is no memory.
pub(crate) fn collect<T>(from: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>> {
    let mut values = Vec::new();
    reserve(&mut values, from.len())?;
    values.extend(from);
    Ok(values)
}

/// As `Vec::push`.
///
/// # Errors
/// If there is no memory; nothing has changed then.
pub(crate) fn push<T>(values: &mut Vec<T>, value: T) -> Result<()> {
    reserve(values, 1)?;
    values.push(value);
    Ok(())
}

/// The text that `write` writes.
///
/// # Errors
/// If there is no memory.
pub(crate) fn text(write: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) -> Result<String> {
    let mut out = Growing(String::new());
    // Nothing else can fail.
    write(&mut out).map_err(|fmt::Error| lack())?;
    Ok(out.0)
}

/// The text that `write` writes, whose names need not be UTF-8.
///
/// # Errors
/// If there is no memory.
pub(crate) fn bytes(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> Result<Vec<u8>> {
    let mut out = Growing(Vec::new());
    // Nothing else can fail.
    write(&mut out).map_err(|_| lack())?;
    Ok(out.0)
}

/// A text that can be written to as long as there is memory for it.
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

/// The bytes of a table of words, each of them big-endian.
///
/// # Errors
/// If there is no memory.
pub(crate) fn bytes_of(words: impl ExactSizeIterator<Item = u64>) -> Result<IoBuf> {
    let mut bytes = zeroed(words.len().saturating_mul(8))?;
    for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    Ok(bytes)
}

/// Allowance for what is allocated along with a shared value.
const BESIDE: u64 = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

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
