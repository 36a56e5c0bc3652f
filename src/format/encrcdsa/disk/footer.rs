//! The trailer of version 1, at the end of the file.

use crate::bytes::{be32, be64};
use crate::error::{Error, Result};

use super::volume::{
    KeyCipher, Lock, MAX_SALT, Volume, Wrapped, bytes_of, check_derivation, counted, damaged_key,
};

/// Length of the trailer in bytes.
pub(in super::super) const FOOTER_LEN: usize = 1276;

/// The last bytes of the trailer.
pub(crate) const FOOTER_MAGIC: &[u8; 8] = b"cdsaencr";

const VERSION: u32 = 1;

/// Maximum length of a wrapped key in bytes.
const MAX_WRAPPED: usize = 256;

impl Volume {
    /// Decodes the [`FOOTER_LEN`] bytes at the offset `at`, which end the file.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] or [`crate::ErrorKind::Corrupt`].
    pub(in super::super) fn from_footer(bytes: &[u8; FOOTER_LEN], at: u64) -> Result<Self> {
        let word = |at| be32(bytes, at).unwrap_or_default();
        if word(1264) != VERSION {
            return Err(Error::unsupported(format!(
                "The encryption of the image is of version {}, which is not known",
                word(1264)
            )));
        }
        // The data begins at offset 0; the field that looks like its offset is the upper half of its length.
        let len = be64(bytes, 1256).unwrap_or_default();
        if len.next_multiple_of(16) > at {
            return Err(Error::corrupt(format!(
                "The encrypted data is said to have {len} bytes, more than the file"
            )));
        }
        let blocks = [word(16), word(96), word(92), word(100)];
        let mut volume = Self::new(VERSION, blocks, [word(396), word(400)], (0, len))?;
        check_derivation(word(40))?;
        let parts = counted(bytes, 52, MAX_SALT)
            .zip(counted(bytes, 136, MAX_WRAPPED))
            .zip(counted(bytes, 436, MAX_WRAPPED));
        let ((salt, key), iv_key) = parts.ok_or_else(damaged_key)?;
        let lock = Lock {
            iterations: word(48),
            salt: salt.to_vec(),
            cipher: KeyCipher::new(word(20), word(28), word(32))?,
            key_len: bytes_of(word(32)),
            wrapped: Wrapped::Apart {
                key: key.to_vec(),
                iv_key: iv_key.to_vec(),
            },
        };
        volume.locks = vec![lock];
        Ok(volume)
    }
}
