//! Errors of the protocol, whose numbers are Linux's on every host ("Error values").

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

/// The errno of this host for an error of the protocol; one that is not known is `EINVAL`.
pub fn from_wire(error: u32) -> i32 {
    let known = PAIRS.iter().find(|(wire, _)| *wire == error);
    known.map_or(libc::EINVAL, |(_, errno)| *errno)
}

/// The error of the protocol for an errno of this host; one that it does not have is `EIO`.
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

/// The error of the protocol that tells a client of a failure.
pub fn of_error(error: &Error) -> u32 {
    match error.kind() {
        ErrorKind::ReadOnly => to_wire(libc::EPERM),
        ErrorKind::NoSpace => to_wire(libc::ENOSPC),
        ErrorKind::Unsupported => to_wire(libc::ENOTSUP),
        _ => to_wire(error.errno()),
    }
}
