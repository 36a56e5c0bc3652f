//! What an error says.

use std::ffi::{c_char, c_int};

use crate::capi::boundary::{self, get};
use crate::capi::error_object::PLATTER_STAGE_OTHER;

pub use crate::capi::error_object::platter_error;

/// What `platter_error_offset()` returns if no offset is known.
pub const PLATTER_OFFSET_UNKNOWN: u64 = 0xffff_ffff_ffff_ffff;

/// Returns the status, a `PLATTER_STATUS_*`; 0 for NULL.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_error_status(error: Option<&platter_error>) -> c_int {
    get(0, || error.map_or(0, |error| error.status))
}

/// Returns the errno of the system call that failed, or else the one that fits the status best; 0 for NULL.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_error_errno(error: Option<&platter_error>) -> c_int {
    get(0, || error.map_or(0, |error| error.errno))
}

/// Returns one line of UTF-8 for the user that names the file and the reason, with the causes after colons and without
/// a newline; control characters in names are escaped. The string lives as long as the error. `""` for NULL.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_error_message(error: Option<&platter_error>) -> *const c_char {
    get(c"".as_ptr(), || {
        error.map_or(c"".as_ptr(), |error| error.message.as_ptr())
    })
}

/// Returns a further line for the user: a remedy, or a question to consider. `index` counts from 0; NULL past the last
/// one. The string lives as long as the error. NULL for NULL.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_error_hint(error: Option<&platter_error>, index: usize) -> *const c_char {
    get(std::ptr::null(), || {
        let hint = error.and_then(|error| error.hints.get(index));
        hint.map_or(std::ptr::null(), |hint| hint.as_ptr())
    })
}

/// Returns the byte offset at which the file is damaged; `PLATTER_OFFSET_UNKNOWN` if that is not known, and for NULL.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_error_offset(error: Option<&platter_error>) -> u64 {
    get(PLATTER_OFFSET_UNKNOWN, || {
        let offset = error.and_then(|error| error.offset);
        offset.unwrap_or(PLATTER_OFFSET_UNKNOWN)
    })
}

/// Returns the name of the file that could not be read, written or synced, as it was opened: that of the image, of a
/// data file, of an extent, or of a layer below; NULL if no I/O failed, and for NULL. The message names it too, except
/// where it uses the wording of `qemu-img`. The string lives as long as the error.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_error_file(error: Option<&platter_error>) -> *const c_char {
    get(std::ptr::null(), || {
        let name = error.and_then(|error| error.file.as_ref());
        name.map_or(std::ptr::null(), |name| name.as_ptr())
    })
}

/// Returns what the operation was doing when it failed, a `PLATTER_STAGE_*`; `PLATTER_STAGE_OTHER` for NULL.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_error_stage(error: Option<&platter_error>) -> u32 {
    get(PLATTER_STAGE_OTHER, || {
        error.map_or(PLATTER_STAGE_OTHER, |error| error.stage)
    })
}

/// Frees an error. NULL does nothing.
///
/// Threads: one, once. Since 0.1.
///
/// # Safety
/// The error is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_error_free(error: *mut platter_error) {
    // SAFETY: the caller owns the error, which came from a failing call.
    unsafe { boundary::free(error) }
}
