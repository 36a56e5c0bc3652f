//! Names of drivers and of compressions, as setters accept them.

use std::ffi::c_char;

use bstr::ByteSlice;

use crate::capi::driver::find;
use crate::capi::text::{optional_utf8, utf8};
use crate::driver_names::{unknown_driver, unknown_format};
use crate::error::{Error, Result};
use crate::ops::known::may_be_recorded;
use crate::options::Options;
use crate::printable::printable;

/// Flag of setters that take the name of a format or of a compression: the setter does not refuse an unknown name. It
/// is refused when it is used, with an error that says for what.
pub const PLATTER_NAME_UNCHECKED: u32 = 0x40000;

fn checked(
    name: &str,
    flags: u32,
    is_known: impl Fn(&str) -> bool,
    refusal: impl Fn(&str) -> Error,
) -> Result<()> {
    match flags & PLATTER_NAME_UNCHECKED != 0 || is_known(name) {
        true => Ok(()),
        false => Err(refusal(name)),
    }
}

fn is_here(name: &str) -> bool {
    find(name, 0).is_ok()
}

/// The format of an existing image.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`], as for opening.
///
/// # Safety
/// `format` is NULL or NUL-terminated.
pub(super) unsafe fn opened(format: *const c_char, flags: u32) -> Result<Option<String>> {
    // SAFETY: by this function's contract.
    let format = unsafe { optional_utf8(format, "format")? };
    if let Some(name) = format {
        checked(name, flags, is_here, unknown_driver)?;
    }
    Ok(format.map(str::to_owned))
}

/// The format of a new image.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`], as for creation.
///
/// # Safety
/// `format` is NULL or NUL-terminated.
pub(super) unsafe fn made(format: *const c_char, flags: u32) -> Result<String> {
    // SAFETY: by this function's contract.
    let name = unsafe { utf8(format, "format")? };
    checked(name, flags, is_here, unknown_format)?;
    Ok(name.to_owned())
}

/// The format of a backing file, as it is recorded: one that only other builds have is accepted too.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`], as for creation.
///
/// # Safety
/// `format` is NULL or NUL-terminated.
pub(super) unsafe fn recorded(
    format: *const c_char,
    parameter: &str,
    flags: u32,
) -> Result<Option<String>> {
    // SAFETY: by this function's contract.
    let format = unsafe { optional_utf8(format, parameter)? };
    if let Some(name) = format {
        checked(name, flags, may_be_recorded, unknown_driver)?;
    }
    Ok(format.map(str::to_owned))
}

/// Refuses options for opening that name an unknown driver.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`], as for opening.
pub(super) fn check_options(options: &Options) -> Result<()> {
    for (key, value) in options.iter() {
        if key == "driver" || key.ends_with(".driver") {
            let name = value.to_str_lossy();
            checked(&name, 0, is_here, unknown_driver)?;
        }
    }
    Ok(())
}

/// A driver for a policy, by its canonical name, under which the policy looks it up.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`].
///
/// # Safety
/// `name` is NULL or NUL-terminated.
pub(super) unsafe fn allowed(name: *const c_char, parameter: &str, kind: u32) -> Result<String> {
    // SAFETY: by this function's contract.
    let name = unsafe { utf8(name, parameter)? };
    let unknown = |_| Error::unsupported(format!("Unknown {parameter} '{}'", printable(name)));
    Ok(find(name, kind).map_err(unknown)?.name().to_owned())
}
