//! Errors of the protocol, whose numbers are those of Linux on every host ("Error values").

use crate::error::{Error, ErrorKind};

const PAIRS: &[(u32, i32)] = &[
    (1, libc::EPERM),
    (5, libc::EIO),
    (12, libc::ENOMEM),
    (22, libc::EINVAL),
    (28, libc::ENOSPC),
    (75, libc::EOVERFLOW),
    (95, libc::ENOTSUP),
    (108, libc::ESHUTDOWN),
];

/// Converts an error of the protocol to an errno of this host; unknown ones become `EINVAL`.
pub fn from_wire(error: u32) -> i32 {
    let known = PAIRS.iter().find(|(wire, _)| *wire == error);
    known.map_or(libc::EINVAL, |(_, errno)| *errno)
}

/// Converts an errno of this host to an error of the protocol; unknown ones become `EIO`.
pub fn to_wire(errno: i32) -> u32 {
    let errno = match errno {
        libc::EROFS | libc::EACCES => libc::EPERM,
        libc::EDQUOT | libc::EFBIG => libc::ENOSPC,
        libc::ENOSYS => libc::ENOTSUP,
        other => other,
    };
    let known = PAIRS.iter().find(|(_, local)| *local == errno);
    known.map_or(5, |(wire, _)| *wire)
}

/// The error of the protocol with which to report a failure to a client.
pub fn of_error(error: &Error) -> u32 {
    match error.kind() {
        ErrorKind::ReadOnly => to_wire(libc::EPERM),
        ErrorKind::NoSpace => to_wire(libc::ENOSPC),
        ErrorKind::Unsupported => to_wire(libc::ENOTSUP),
        _ => to_wire(error.errno()),
    }
}
