//! The header of version 2, at the beginning of the file.

use crate::bytes::{be32, be64};
use crate::error::{Error, Result};
use crate::memory;
use crate::storage::Storage;

use super::volume::{
    KeyCipher, Lock, MAX_SALT, Volume, Wrapped, check_derivation, counted, damaged_key,
};

/// The first bytes of the header.
pub(crate) const HEADER_MAGIC: &[u8; 8] = b"encrcdsa";

const VERSION: u32 = 2;
const HEADER_LEN: usize = 76;
const DESCRIPTOR_LEN: usize = 20;
const LOCK_LEN: usize = 616;

/// A key that a passphrase unlocks; other kinds need a certificate or a key bag.
const PASSPHRASE: u32 = 1;

/// Maximum number of keys to examine.
const MAX_LOCKS: u32 = 64;

/// Maximum length of wrapped keys in bytes: up to the end of their structure.
const MAX_WRAPPED: usize = LOCK_LEN - 104;

impl Volume {
    /// Decodes a file that begins with [`HEADER_MAGIC`].
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`], [`crate::ErrorKind::Corrupt`], or if reading fails.
    pub(in super::super) fn from_header(storage: &dyn Storage, file_len: u64) -> Result<Self> {
        let mut header = [0; HEADER_LEN];
        storage.read_at(&mut header, 0)?;
        let word = |at| be32(&header, at).unwrap_or_default();
        let long = |at| be64(&header, at).unwrap_or_default();
        if word(8) != VERSION {
            return Err(Error::unsupported(format!(
                "The encryption of the image is of version {}, which is not known",
                word(8)
            )));
        }
        let blocks = [word(52), word(20), word(16), word(24)];
        let ivs = [word(28), word(32)];
        let mut volume = Self::new(VERSION, blocks, ivs, (long(64), long(56)))?;
        let count = word(72);
        if count > MAX_LOCKS {
            return Err(Error::corrupt(format!(
                "An image is not encrypted for {count} keys"
            )));
        }
        for index in 0..u64::from(count) {
            let mut descriptor = [0; DESCRIPTOR_LEN];
            let at = HEADER_LEN as u64 + index * DESCRIPTOR_LEN as u64;
            storage.read_at(&mut descriptor, at)?;
            if be32(&descriptor, 0) != Some(PASSPHRASE) {
                continue;
            }
            let at = be64(&descriptor, 4).unwrap_or_default();
            let end = at.checked_add(LOCK_LEN as u64);
            if end.is_none_or(|end| end > file_len) {
                return Err(damaged_key().with_offset(at));
            }
            let mut lock = [0; LOCK_LEN];
            storage.read_at(&mut lock, at)?;
            memory::push(&mut volume.locks, lock_of(&lock)?)?;
        }
        if volume.locks.is_empty() {
            return Err(Error::unsupported(
                "The image is encrypted for certificates or key bags, and not for a passphrase",
            ));
        }
        Ok(volume)
    }
}

fn lock_of(bytes: &[u8]) -> Result<Lock> {
    let word = |at| be32(bytes, at).unwrap_or_default();
    check_derivation(word(0))?;
    let iterations = be64(bytes, 4).and_then(|count| u32::try_from(count).ok());
    let cipher = KeyCipher::new(word(88), word(96), word(84))?;
    let parts = iterations
        .zip(counted(bytes, 12, MAX_SALT))
        .zip(counted(bytes, 48, 32))
        .zip(counted(bytes, 100, MAX_WRAPPED));
    let (((iterations, salt), iv), keys) = parts.ok_or_else(damaged_key)?;
    Ok(Lock {
        iterations,
        salt: salt.to_vec(),
        cipher,
        key_len: (word(84) / 8) as usize,
        wrapped: Wrapped::Joint {
            iv: iv.to_vec(),
            keys: keys.to_vec(),
        },
    })
}
