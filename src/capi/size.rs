//! Sizes as users type and read them.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;

use crate::capi::boundary::{call_out, check_flags};
use crate::capi::error::platter_error;
use crate::capi::text::{c_string, owned, utf8};
use crate::error::{Error, ErrorKind};
use crate::size::{self, SizeError};

/// Flag of `platter_size_parse()`: the text is the size of an image, and messages say so.
pub const PLATTER_SIZE_IMAGE: u32 = 1;

/// Parses a size as users type it: digits, a fraction if a suffix follows, and an optional suffix `k`, `M`, `G`, `T`,
/// `P` or `E` (powers of 1024) or `b`. `*out` is in bytes, not rounded. `flags` is 0 or `PLATTER_SIZE_IMAGE`.
///
/// Statuses: INVALID (not a size), LIMIT (negative or too large). Threads: any. Since 0.1.
///
/// # Safety
/// `text` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_size_parse(
    out: Option<&mut MaybeUninit<u64>>,
    text: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, PLATTER_SIZE_IMAGE)?;
        // SAFETY: by the contract of this function.
        let text = unsafe { utf8(text, "text")? };
        let parsed = if flags & PLATTER_SIZE_IMAGE != 0 {
            size::parse_image_size(text)
        } else {
            size::parse_size_checked(text)
                .map_err(|_| Error::invalid(format!("'{text}' is no size")))
        };
        parsed.map_err(|error| match size::parse_size_checked(text) {
            Err(SizeError::Syntax) => error,
            _ => error.with_kind(ErrorKind::Limit),
        })
    })
}

/// Formats a number of bytes as users read it: three significant digits and a unit, `"1.5 KiB"`. `*out` belongs to the
/// caller, who frees it with `platter_free()`. `flags` must be 0.
///
/// Statuses: INVALID, OS where there is no memory. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_size_format(
    out: Option<&mut MaybeUninit<*mut c_char>>,
    bytes: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        owned(&c_string(size::human_size(bytes)))
    })
}
