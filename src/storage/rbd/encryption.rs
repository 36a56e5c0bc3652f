//! Encryption by the library: the formats it supports, and how they are recognised in an image.

use crate::error::{Error, Result};
use crate::object::Objects;
use crate::options::Values;
use crate::secret::Secret;
use crate::sys::librbd::{Cipher, Encryption};

const FORMATS: [(&str, Encryption); 2] =
    [("luks", Encryption::Luks1), ("luks2", Encryption::Luks2)];

/// Their names.
pub(super) const NAMES: &[&str] = &[FORMATS[0].0, FORMATS[1].0];

/// Magic at the start of an encrypted image, followed by a two-byte version.
const MAGIC: &[u8; 6] = b"LUKS\xba\xbe";

/// Number of bytes at the start of an image that show whether it is encrypted.
pub(super) const TELLING: usize = MAGIC.len() + 2;

/// How an image is to be encrypted.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) format: Encryption,
    pub(super) cipher: Cipher,
    pub(super) passphrase: Secret,
}

impl Wanted {
    /// Reads the encryption options; `None` where there are none.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`]; errors of the secret.
    pub(super) fn of(options: &Values, objects: &Objects) -> Result<Option<Self>> {
        let bad = |name: &str, value: &str| Error::refused_value(name, value);
        let Some(format) = options.str("encrypt.format") else {
            for key in ["encrypt.key-secret", "encrypt.cipher-alg"] {
                if options.str(key).is_some() {
                    return Err(Error::invalid("Parameter 'encrypt.format' is missing"));
                }
            }
            return Ok(None);
        };
        let known = FORMATS.iter().find(|(name, _)| *name == format);
        let (_, kind) = *known.ok_or_else(|| bad("format", format))?;
        let cipher = match options.str("encrypt.cipher-alg") {
            None | Some("aes-256") => Cipher::Aes256,
            Some("aes-128") => Cipher::Aes128,
            Some(other) => return Err(bad("cipher-alg", other)),
        };
        let id = options
            .str("encrypt.key-secret")
            .ok_or_else(|| Error::invalid("Parameter 'encrypt.key-secret' is missing"))?;
        Ok(Some(Self {
            format: kind,
            cipher,
            passphrase: objects.secret_text(id)?,
        }))
    }
}

/// The encryption format identified by the first bytes of an image.
pub(super) fn told_by(start: &[u8]) -> Option<&'static str> {
    let version = match start.strip_prefix(MAGIC)? {
        [0, 1, ..] => Encryption::Luks1,
        [0, 2, ..] => Encryption::Luks2,
        _ => return None,
    };
    let mut formats = FORMATS.iter();
    formats
        .find(|(_, known)| *known == version)
        .map(|(name, _)| *name)
}
