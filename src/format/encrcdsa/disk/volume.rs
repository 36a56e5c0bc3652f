//! What both versions specify: how blocks are encrypted, and what unlocks their keys.

use crate::bytes::be32;
use crate::error::{Error, Result};

/// Identifiers of algorithms, as in Apple's security architecture.
const TRIPLE_DES: u32 = 17;
const SHA1_HMAC: u32 = 91;
pub(super) const PBKDF2: u32 = 103;
const AES: u32 = 0x8000_0001;

/// Modes, all of which are CBC.
const CBC_MODES: [u32; 3] = [4, 5, 6];

/// Maximum length of a salt.
pub(super) const MAX_SALT: usize = 32;

/// The encrypted guest data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Volume {
    /// 1 or 2.
    pub(in super::super) version: u32,
    /// Its offset in the file, and its length when decrypted.
    pub(in super::super) data: (u64, u64),
    /// Size of the individually encrypted blocks in bytes: a multiple of 16.
    pub(in super::super) block_size: u32,
    /// Length of the AES key in bytes: 16 or 32.
    pub(in super::super) key_len: usize,
    /// Length in bytes of the key for the IVs of the blocks.
    pub(in super::super) iv_key_len: usize,
    /// The locks that a passphrase may open.
    pub(in super::super) locks: Vec<Lock>,
}

/// Keys, wrapped with a key that is derived from a passphrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Lock {
    pub(in super::super) iterations: u32,
    pub(in super::super) salt: Vec<u8>,
    pub(in super::super) cipher: KeyCipher,
    /// Length of the derived key in bytes.
    pub(in super::super) key_len: usize,
    pub(in super::super) wrapped: Wrapped,
}

/// The cipher that keys are wrapped with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum KeyCipher {
    TripleDes,
    Aes,
}

/// The wrapped keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Wrapped {
    /// Both together, as in version 2.
    Joint { iv: Vec<u8>, keys: Vec<u8> },
    /// Each wrapped twice, as in version 1.
    Apart { key: Vec<u8>, iv_key: Vec<u8> },
}

fn unknown(what: &str, method: u32) -> Error {
    Error::unsupported(format!(
        "The image is encrypted in a way that is not known: {what} is by the method {method:#x}"
    ))
}

/// Converts a number of bits to bytes.
pub(super) fn bytes_of(bits: u32) -> usize {
    (bits / 8) as usize
}

impl Volume {
    /// A volume without locks, from the numbers that specify how blocks are encrypted.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] for unknown algorithms, [`crate::ErrorKind::Corrupt`] for impossible numbers.
    pub(super) fn new(
        version: u32,
        [block_size, method, mode, key_bits]: [u32; 4],
        [iv_method, iv_key_bits]: [u32; 2],
        data: (u64, u64),
    ) -> Result<Self> {
        if method != AES || !CBC_MODES.contains(&mode) {
            return Err(unknown("its data", method));
        }
        if iv_method != SHA1_HMAC {
            return Err(unknown("the beginning of its blocks", iv_method));
        }
        let refuse = |why: String| Err(Error::corrupt(why));
        if !matches!(key_bits, 128 | 256) {
            return refuse(format!("A key of AES does not have {key_bits} bits"));
        }
        if iv_key_bits == 0 || iv_key_bits % 8 != 0 || iv_key_bits > 512 {
            return refuse(format!("A key of HMAC does not have {iv_key_bits} bits"));
        }
        if block_size == 0 || block_size % 16 != 0 || block_size > 1 << 20 {
            return refuse(format!("Blocks of {block_size} bytes cannot be encrypted"));
        }
        let blocks = data.1.div_ceil(u64::from(block_size));
        if blocks > 1 << 32 || data.1 > i64::MAX as u64 {
            return refuse(format!(
                "{} bytes are more than blocks can be numbered",
                data.1
            ));
        }
        Ok(Self {
            version,
            data,
            block_size,
            key_len: bytes_of(key_bits),
            iv_key_len: bytes_of(iv_key_bits),
            locks: Vec::new(),
        })
    }

    /// Checks that the data lies within the file.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`].
    pub(in super::super) fn check_place(&self, file_len: u64) -> Result<()> {
        let (at, len) = self.data;
        let held = len.next_multiple_of(u64::from(self.block_size));
        if at.checked_add(held).is_none_or(|end| end > file_len) {
            return Err(Error::corrupt(format!(
                "The encrypted data is said to be at {at} + {len}, outside of the file"
            )));
        }
        Ok(())
    }
}

impl KeyCipher {
    /// From the stored identifiers, and the length of its key in bits.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`].
    pub(super) fn new(method: u32, mode: u32, key_bits: u32) -> Result<Self> {
        match (method, key_bits) {
            _ if !CBC_MODES.contains(&mode) => Err(unknown("its key", method)),
            (TRIPLE_DES, 192) => Ok(Self::TripleDes),
            (AES, 128 | 256) => Ok(Self::Aes),
            _ => Err(unknown("its key", method)),
        }
    }

    /// Block size of the cipher in bytes.
    pub(in super::super) fn block_len(self) -> usize {
        match self {
            Self::TripleDes => 8,
            Self::Aes => 16,
        }
    }
}

/// The bytes after their length, which is at `at`; None if there are more than `most`.
pub(super) fn counted(bytes: &[u8], at: usize, most: usize) -> Option<&[u8]> {
    let len = be32(bytes, at)? as usize;
    bytes.get(at + 4..)?.get(..len).filter(|_| len <= most)
}

/// The error for a malformed key.
pub(super) fn damaged_key() -> Error {
    Error::corrupt("The key of the encrypted image is damaged")
}

/// Checks the algorithm of the key derivation.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`].
pub(super) fn check_derivation(method: u32) -> Result<()> {
    match method {
        PBKDF2 => Ok(()),
        _ => Err(unknown("the derivation of its key", method)),
    }
}
