//! Which encryption a new image in a format that knows several is to have.

use crate::error::{Error, Result};
use crate::options::Values;

use super::METHOD;

/// The encryption of a new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewEncryption {
    /// That of the first version of qcow.
    Aes,
    Luks,
}

impl NewEncryption {
    /// What `encrypt.format`, or its alias `encryption`, asks for.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for a name that is none, and for both of them.
    pub(crate) fn of(values: &Values) -> Result<Option<Self>> {
        match (values.str("encrypt.format"), values.bool("encryption")) {
            (Some(_), Some(_)) => Err(Error::invalid(
                "'encrypt.format' and its alias 'encryption' can't be used at the same time",
            )),
            // The second is what QEMU calls it within.
            (Some("aes" | "qcow"), _) | (None, Some(true)) => Ok(Some(Self::Aes)),
            (Some(METHOD), _) => Ok(Some(Self::Luks)),
            (Some(name), _) => Err(Error::refused_value("format", name)),
            (None, _) => Ok(None),
        }
    }
}
