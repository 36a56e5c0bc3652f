//! Owned strings.

use std::ffi::c_void;

/// Frees a string that a function of this library returned to the caller (a `char **out`). NULL does nothing.
///
/// Threads: any. Since 0.1.
///
/// # Safety
/// The string is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_free(string: *mut c_void) {
    // SAFETY: owned strings are allocated by `strdup`.
    unsafe { libc::free(string) }
}
