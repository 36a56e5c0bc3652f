//! The user that this process runs as.

use std::ffi::CStr;

/// Maximum length of a user database entry.
const ROOM: usize = 16 << 10;

/// The user's name, if there is one.
pub(crate) fn name() -> Option<String> {
    let mut room = vec![0; ROOM];
    // SAFETY: a zeroed entry is valid; it is written by the call before it is read.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: the entry, the space for its texts and the result are valid for the call.
    let code = unsafe {
        let (text, len) = (room.as_mut_ptr(), room.len());
        libc::getpwuid_r(libc::getuid(), &raw mut entry, text, len, &raw mut found)
    };
    if code != 0 || found.is_null() || entry.pw_name.is_null() {
        return None;
    }
    // SAFETY: a NUL-terminated text in that space.
    let name = unsafe { CStr::from_ptr(entry.pw_name) };
    name.to_str().ok().map(str::to_owned)
}

/// The user ID and the group ID of this process.
pub(crate) fn numbers() -> (u32, u32) {
    // SAFETY: plain system calls, which always succeed.
    unsafe { (libc::getuid(), libc::getgid()) }
}
