//! The encryption of a new image in a format that supports more than one.

use crate::error::{Error, Result};
use crate::options::Values;

use super::METHOD;

/// The encryption of a new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewEncryption {
    /// That of qcow version 1.
    Aes,
    Luks,
}

impl NewEncryption {
    /// The encryption requested by `encrypt.format`, or by its alias `encryption`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for an unknown name, and if both are given.
    pub(crate) fn of(values: &Values) -> Result<Option<Self>> {
        match (values.str("encrypt.format"), values.bool("encryption")) {
            (Some(_), Some(_)) => Err(Error::invalid(
                "'encrypt.format' and its alias 'encryption' can't be used at the same time",
            )),
            // "qcow" is the name that QEMU uses for it internally.
            (Some("aes" | "qcow"), _) | (None, Some(true)) => Ok(Some(Self::Aes)),
            (Some(METHOD), _) => Ok(Some(Self::Luks)),
            (Some(name), _) => Err(Error::refused_value("format", name)),
            (None, _) => Ok(None),
        }
    }
}
