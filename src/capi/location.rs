//! The location of an image, as a parameter of calls.

use std::ffi::{OsStr, c_char};

use crate::capi::text::os;
use crate::error::{Error, Result};
use crate::location::Location;

/// Flag of calls that take a location: it is a plain path, whatever it looks like. Without this flag
/// and the next, it is a path, `json:{…}` or `protocol:…`.
pub const PLATTER_LOCATION_PATH: u32 = 0x10000;
/// Flag of calls that take a location: it is a list `driver=…,file.filename=…`.
pub const PLATTER_LOCATION_IMAGE_OPTS: u32 = 0x20000;

pub(super) const LOCATION_FLAGS: u32 = PLATTER_LOCATION_PATH | PLATTER_LOCATION_IMAGE_OPTS;

/// The location in a parameter, interpreted as `flags` specify.
///
/// # Safety
/// `text` is NULL or NUL-terminated.
pub(super) unsafe fn location(text: *const c_char, name: &str, flags: u32) -> Result<Location> {
    match flags & LOCATION_FLAGS {
        0 => {
            // SAFETY: by this function's contract.
            let text: &OsStr = unsafe { os(text, name)? };
            Location::parse(text)
        }
        PLATTER_LOCATION_PATH => {
            // SAFETY: by this function's contract.
            let text: &OsStr = unsafe { os(text, name)? };
            Ok(Location::from_path(text))
        }
        PLATTER_LOCATION_IMAGE_OPTS => {
            // SAFETY: by this function's contract.
            Location::from_image_opts(unsafe { os(text, name)? })
        }
        _ => Err(Error::invalid(
            "Parameter 'flags' asks for two kinds of location",
        )),
    }
}

/// As [`location`], for an image to create: `json:` does not introduce a tree there.
///
/// # Safety
/// `text` is NULL or NUL-terminated.
pub(super) unsafe fn target(text: *const c_char, name: &str, flags: u32) -> Result<Location> {
    if flags & LOCATION_FLAGS == 0 {
        // SAFETY: by this function's contract.
        return Ok(Location::for_target(unsafe { os(text, name)? }));
    }
    // SAFETY: by this function's contract.
    unsafe { location(text, name, flags) }
}
