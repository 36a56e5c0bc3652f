//! Memory whose amount follows an image, an option or a caller: a lack of it is an error, `ENOMEM`,
//! and not the end of the process.

use crate::error::{Error, Result};

/// `len` zero bytes.
///
/// # Errors
/// Where there is no memory.
pub(crate) fn zeroed(len: usize) -> Result<Vec<u8>> {
    filled(len, 0)
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

/// The bytes of a table of words, the most significant first.
///
/// # Errors
/// Where there is no memory.
pub(crate) fn bytes_of(words: impl ExactSizeIterator<Item = u64>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reserve(&mut bytes, words.len().saturating_mul(8))?;
    bytes.extend(words.flat_map(u64::to_be_bytes));
    Ok(bytes)
}

/// The error of an allocation that failed.
pub(crate) fn lack() -> Error {
    Error::os(libc::ENOMEM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_is_an_error() {
        let error = zeroed(usize::MAX / 2).unwrap_err();
        assert_eq!(error.errno(), libc::ENOMEM);
        assert_eq!(error.to_string(), "Cannot allocate memory");
        let mut bytes = vec![1, 2];
        resize(&mut bytes, usize::MAX / 2, 0).unwrap_err();
        assert_eq!(bytes, [1, 2]);
        resize(&mut bytes, 3, 0).unwrap();
        assert_eq!(bytes, [1, 2, 0]);
    }
}
