//! The structures of the NBD protocol as sent on the wire, for both client and server. Nothing here reads from or
//! writes to a connection.
//!
//! The specification is `doc/proto.md` of the NetworkBlockDevice project; each file names its sections. All numbers are
//! big-endian. Every decoder accepts untrusted bytes: it checks all lengths and allocates no more than it was given.

pub mod chunk;
mod codes;
pub mod errno;
pub mod export;
mod fields;
pub mod flags;
pub mod greeting;
pub mod limits;
pub mod meta;
pub mod option;
pub mod reply;
pub mod request;
pub mod uri;

#[cfg(test)]
mod tests;

use bstr::{BStr, ByteSlice};

use crate::error::{Error, ErrorKind};

/// The error for a peer that violates the protocol; `what` describes the violation.
pub fn violation(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Os, what).with_errno(libc::EPROTO)
}

/// Whether bytes may be a string of the protocol ("Conventions"): no NUL, and at most [`limits::MAX_STRING`] long.
/// Strings that are not UTF-8 are accepted: file names become names of exports.
pub fn is_string(bytes: &[u8]) -> bool {
    bytes.len() <= limits::MAX_STRING && !bytes.contains(&0)
}

/// Checks a string with [`is_string`].
///
/// # Errors
/// [`violation`], naming `what`.
fn checked_string<'a>(bytes: &'a [u8], what: &str) -> crate::Result<&'a BStr> {
    match is_string(bytes) {
        true => Ok(bytes.as_bstr()),
        false if bytes.contains(&0) => Err(violation(format!("The {what} holds a NUL byte"))),
        false => Err(violation(format!(
            "The {what} is {} bytes long; {} are allowed",
            bytes.len(),
            limits::MAX_STRING
        ))),
    }
}
