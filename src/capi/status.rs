//! Status codes.

use std::ffi::{CStr, c_char, c_int};

use crate::error::ErrorKind;

/// Success.
pub const PLATTER_OK: c_int = 0;
/// An argument, option or combination of options is wrong.
pub const PLATTER_STATUS_INVALID: c_int = -10001;
/// The operating system refused; `platter_error_errno()` says why.
pub const PLATTER_STATUS_OS: c_int = -10002;
/// The format, protocol or kernel cannot do this.
pub const PLATTER_STATUS_UNSUPPORTED: c_int = -10003;
/// The file is not an image of the requested format.
pub const PLATTER_STATUS_NOT_AN_IMAGE: c_int = -10004;
/// The image's metadata is damaged; `platter_error_offset()` says where, if known.
pub const PLATTER_STATUS_CORRUPT: c_int = -10005;
/// Another process, or another handle of this one, holds a conflicting lock.
pub const PLATTER_STATUS_LOCKED: c_int = -10006;
/// A write to an image or storage that is open read-only.
pub const PLATTER_STATUS_READ_ONLY: c_int = -10007;
/// The object to create exists already.
pub const PLATTER_STATUS_EXISTS: c_int = -10008;
/// The named object, or the entry at that index, does not exist.
pub const PLATTER_STATUS_NOT_FOUND: c_int = -10009;
/// The host file system or device is full.
pub const PLATTER_STATUS_NO_SPACE: c_int = -10010;
/// The image is encrypted and no secret was given.
pub const PLATTER_STATUS_NEEDS_SECRET: c_int = -10011;
/// The secret opens no key slot.
pub const PLATTER_STATUS_WRONG_SECRET: c_int = -10012;
/// The open policy does not allow it.
pub const PLATTER_STATUS_DENIED: c_int = -10013;
/// A limit of the open policy or of the format was exceeded.
pub const PLATTER_STATUS_LIMIT: c_int = -10014;
/// The object is in use by another operation of this process.
pub const PLATTER_STATUS_BUSY: c_int = -10015;
/// The job or call was cancelled, or its deadline has passed.
pub const PLATTER_STATUS_CANCELLED: c_int = -10016;
/// A bug in this library; the object in which it occurred refuses further use.
pub const PLATTER_STATUS_INTERNAL: c_int = -10017;

struct Status {
    code: c_int,
    kind: ErrorKind,
    name: &'static CStr,
}

const fn status(code: c_int, kind: ErrorKind, name: &'static CStr) -> Status {
    Status { code, kind, name }
}

static TABLE: [Status; 17] = [
    status(PLATTER_STATUS_INVALID, ErrorKind::Invalid, c"INVALID"),
    status(PLATTER_STATUS_OS, ErrorKind::Os, c"OS"),
    status(
        PLATTER_STATUS_UNSUPPORTED,
        ErrorKind::Unsupported,
        c"UNSUPPORTED",
    ),
    status(
        PLATTER_STATUS_NOT_AN_IMAGE,
        ErrorKind::NotAnImage,
        c"NOT_AN_IMAGE",
    ),
    status(PLATTER_STATUS_CORRUPT, ErrorKind::Corrupt, c"CORRUPT"),
    status(PLATTER_STATUS_LOCKED, ErrorKind::Locked, c"LOCKED"),
    status(PLATTER_STATUS_READ_ONLY, ErrorKind::ReadOnly, c"READ_ONLY"),
    status(PLATTER_STATUS_EXISTS, ErrorKind::Exists, c"EXISTS"),
    status(PLATTER_STATUS_NOT_FOUND, ErrorKind::NotFound, c"NOT_FOUND"),
    status(PLATTER_STATUS_NO_SPACE, ErrorKind::NoSpace, c"NO_SPACE"),
    status(
        PLATTER_STATUS_NEEDS_SECRET,
        ErrorKind::NeedsSecret,
        c"NEEDS_SECRET",
    ),
    status(
        PLATTER_STATUS_WRONG_SECRET,
        ErrorKind::WrongSecret,
        c"WRONG_SECRET",
    ),
    status(PLATTER_STATUS_DENIED, ErrorKind::Denied, c"DENIED"),
    status(PLATTER_STATUS_LIMIT, ErrorKind::Limit, c"LIMIT"),
    status(PLATTER_STATUS_BUSY, ErrorKind::Busy, c"BUSY"),
    status(PLATTER_STATUS_CANCELLED, ErrorKind::Cancelled, c"CANCELLED"),
    status(PLATTER_STATUS_INTERNAL, ErrorKind::Internal, c"INTERNAL"),
];

/// The status of an error kind.
pub(super) fn of_kind(kind: ErrorKind) -> c_int {
    TABLE
        .iter()
        .find(|status| status.kind == kind)
        .map_or(PLATTER_STATUS_INTERNAL, |status| status.code)
}

/// The error kind of a status, for those that callbacks return.
pub(super) fn kind_of(code: c_int) -> Option<ErrorKind> {
    TABLE
        .iter()
        .find(|status| status.code == code)
        .map(|status| status.kind)
}

/// Returns the name of a status without its prefix: `"NOT_FOUND"`; `"OK"` for 0, NULL for an unknown one. The string
/// lives forever.
///
/// Threads: any; safe in a signal handler. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_status_name(status: c_int) -> *const c_char {
    if status == PLATTER_OK {
        return c"OK".as_ptr();
    }
    TABLE
        .iter()
        .find(|entry| entry.code == status)
        .map_or(std::ptr::null(), |entry| entry.name.as_ptr())
}

/// Returns the errno that fits a status best: `ENOSPC` for `PLATTER_STATUS_NO_SPACE`; 0 for 0, `EIO` for an unknown
/// one. `platter_error_errno()` is exact if a system call failed.
///
/// Threads: any; safe in a signal handler. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_status_errno(status: c_int) -> c_int {
    match kind_of(status) {
        Some(kind) => kind.errno(),
        None if status == PLATTER_OK => 0,
        None => libc::EIO,
    }
}
