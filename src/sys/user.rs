//! Who runs this process.

use std::ffi::CStr;

/// The longest entry of the user database that is read.
const ROOM: usize = 16 << 10;

/// The name of the user, where it has one.
pub(crate) fn name() -> Option<String> {
    let mut room = vec![0; ROOM];
    // SAFETY: an entry without anything is valid; it is written by the call before it is read.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: the entry, the room of its texts and the result are valid for the call.
    let code = unsafe {
        let (text, len) = (room.as_mut_ptr(), room.len());
        libc::getpwuid_r(libc::getuid(), &raw mut entry, text, len, &raw mut found)
    };
    if code != 0 || found.is_null() || entry.pw_name.is_null() {
        return None;
    }
    // SAFETY: a NUL-terminated text in the room.
    let name = unsafe { CStr::from_ptr(entry.pw_name) };
    name.to_str().ok().map(str::to_owned)
}

/// The numbers of the user and of the group that this process belongs to.
pub(crate) fn numbers() -> (u32, u32) {
    // SAFETY: plain system calls, which always succeed.
    unsafe { (libc::getuid(), libc::getgid()) }
}
