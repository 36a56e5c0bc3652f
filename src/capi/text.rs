//! Strings in and out: copied on the way in, NUL-terminated on the way out. Descriptors: duplicated.

use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bstr::{BStr, ByteSlice};

use crate::capi::parameter::given;
use crate::error::{Error, Result};
use crate::ops::convert::NamedFd;
use crate::printable::{printable, printable_name};
use crate::storage::file;
use crate::storage::stream::{Direction, check_direction};

/// A UTF-8 string parameter.
///
/// # Safety
/// `text` is NULL or a NUL-terminated string that lives for `'a`.
pub(super) unsafe fn utf8<'a>(text: *const c_char, name: &str) -> Result<&'a str> {
    // SAFETY: by this function's contract.
    let text = unsafe { optional_utf8(text, name)? };
    given(text, name)
}

/// As [`utf8`]; NULL is None.
///
/// # Safety
/// As [`utf8`].
pub(super) unsafe fn optional_utf8<'a>(text: *const c_char, name: &str) -> Result<Option<&'a str>> {
    // SAFETY: by this function's contract.
    let Some(bytes) = (unsafe { bytes(text) }) else {
        return Ok(None);
    };
    std::str::from_utf8(bytes)
        .map(Some)
        .map_err(|_| Error::invalid(format!("Parameter '{name}' is not valid UTF-8")))
}

/// A byte string parameter: the name of a file, a snapshot or a bitmap, or text that may contain one.
///
/// # Safety
/// As [`utf8`].
pub(super) unsafe fn name<'a>(text: *const c_char, parameter: &str) -> Result<&'a BStr> {
    // SAFETY: by this function's contract.
    let name = unsafe { optional_name(text) };
    given(name, parameter)
}

/// As [`name`]; NULL is None.
///
/// # Safety
/// As [`utf8`].
pub(super) unsafe fn optional_name<'a>(text: *const c_char) -> Option<&'a BStr> {
    // SAFETY: by this function's contract.
    unsafe { bytes(text) }.map(BStr::new)
}

/// A byte string parameter: a path or a location.
///
/// # Safety
/// As [`utf8`].
pub(super) unsafe fn os<'a>(text: *const c_char, name: &str) -> Result<&'a OsStr> {
    // SAFETY: by this function's contract.
    let bytes = unsafe { bytes(text) };
    given(bytes.map(OsStr::from_bytes), name)
}

unsafe fn bytes<'a>(text: *const c_char) -> Option<&'a [u8]> {
    if text.is_null() {
        return None;
    }
    // SAFETY: by the caller's contract.
    Some(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// A string for C. A NUL within it becomes U+FFFD, so that nothing is cut off and a name is never mistaken for another
/// one that ends there.
pub(super) fn c_string(text: impl Into<Vec<u8>>) -> CString {
    CString::new(text).unwrap_or_else(|error| {
        let mut bytes = Vec::new();
        for part in error.into_vec().split_inclusive(|byte| *byte == 0) {
            bytes.extend_from_slice(part.strip_suffix(&[0]).unwrap_or(part));
            if part.ends_with(&[0]) {
                bytes.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
        CString::new(bytes).unwrap_or_default()
    })
}

/// A line for people: control characters of a terminal, including newlines within the line, are escaped.
pub(super) fn c_line(text: impl AsRef<[u8]>) -> CString {
    let text = text.as_ref().trim_end_with(|c| c == '\n');
    c_string(printable_name(text).into_owned())
}

/// As [`c_line`], for several lines.
pub(super) fn c_lines(text: &str) -> CString {
    let lines: Vec<_> = text
        .trim_end_matches('\n')
        .split('\n')
        .map(printable)
        .collect();
    c_string(lines.join("\n"))
}

/// An owned copy for the caller, to be released with `platter_free`.
///
/// # Errors
/// If there is not enough memory.
pub(super) fn owned(text: &CStr) -> Result<*mut c_char> {
    // SAFETY: `text` is NUL-terminated.
    let copy = unsafe { libc::strdup(text.as_ptr()) };
    match copy.is_null() {
        true => Err(Error::os(libc::ENOMEM)),
        false => Ok(copy),
    }
}

/// A duplicate of a descriptor that the caller keeps, which must be open in that direction.
pub(super) fn duplicate_fd(number: c_int, direction: Direction) -> Result<NamedFd> {
    if number < 0 {
        return Err(Error::invalid("Parameter 'fd' is negative"));
    }
    let fd = file::duplicate(number)?;
    check_direction(fd.as_fd(), direction)
        .map_err(|error| error.context("Could not use the file descriptor"))?;
    Ok(NamedFd {
        fd: Arc::new(fd),
        name: match number {
            0 => "/dev/stdin".to_owned(),
            1 => "/dev/stdout".to_owned(),
            _ => format!("/dev/fd/{number}"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_cuts_nothing_off() {
        let text = |text: CString| text.into_string().unwrap();
        assert_eq!(text(c_string("a\0b\0")), "a\u{fffd}b\u{fffd}");
        assert_eq!(text(c_line("a\0b\nc\n")), "a\\u{0}b\\u{a}c");
        assert_eq!(text(c_lines("a\u{1b}\nb\n")), "a\\u{1b}\nb");
    }
}
