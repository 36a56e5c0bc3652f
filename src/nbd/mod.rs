//! The structures of the NBD protocol as they stand on the wire, for the client and the server alike.
//! Nothing here reads or writes a connection.
//!
//! The specification is `doc/proto.md` of the NetworkBlockDevice project; each file names its sections.
//! Every number is big-endian, every decoder takes untrusted bytes: it checks all lengths and allocates
//! nothing beyond what it was given.

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

/// The error of a peer that does not keep to the protocol; `what` says how, as half a sentence about it.
pub fn violation(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Os, what).with_errno(libc::EPROTO)
}

/// Whether bytes may be a string of the protocol ("Conventions"): no NUL, and at most
/// [`limits::MAX_STRING`] long. Strings that are not UTF-8 are let through: names of files become names
/// of exports.
pub fn is_string(bytes: &[u8]) -> bool {
    bytes.len() <= limits::MAX_STRING && !bytes.contains(&0)
}

/// The string, checked by [`is_string`].
///
/// # Errors
/// [`violation`] that names `what`.
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
