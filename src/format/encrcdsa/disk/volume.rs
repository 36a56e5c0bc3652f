//! What both versions say: how blocks are encrypted, and by what their keys are unlocked.

use crate::bytes::be32;
use crate::error::{Error, Result};

/// Identifiers of methods, as those of Apple's security architecture.
const TRIPLE_DES: u32 = 17;
const SHA1_HMAC: u32 = 91;
pub(super) const PBKDF2: u32 = 103;
const AES: u32 = 0x8000_0001;

/// Modes: all of them chain blocks.
const CBC_MODES: [u32; 3] = [4, 5, 6];

/// The longest salt.
pub(super) const MAX_SALT: usize = 32;

/// Encrypted guest data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Volume {
    /// 1 or 2.
    pub(in super::super) version: u32,
    /// Where it is in the file, and how long it is when decrypted.
    pub(in super::super) data: (u64, u64),
    /// Bytes that are encrypted by themselves: a multiple of 16.
    pub(in super::super) block_size: u32,
    /// Bytes of the key of AES: 16 or 32.
    pub(in super::super) key_len: usize,
    /// Bytes of the key of what begins each block.
    pub(in super::super) iv_key_len: usize,
    /// What a passphrase unlocks the keys by.
    pub(in super::super) locks: Vec<Lock>,
}

/// Keys, wrapped by one that is derived from a passphrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Lock {
    pub(in super::super) iterations: u32,
    pub(in super::super) salt: Vec<u8>,
    pub(in super::super) cipher: KeyCipher,
    /// Bytes of the derived key.
    pub(in super::super) key_len: usize,
    pub(in super::super) wrapped: Wrapped,
}

/// What keys are wrapped with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum KeyCipher {
    TripleDes,
    Aes,
}

/// The wrapped keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Wrapped {
    /// Both in one, as in version 2.
    Joint { iv: Vec<u8>, keys: Vec<u8> },
    /// Each wrapped twice, as in version 1.
    Apart { key: Vec<u8>, iv_key: Vec<u8> },
}

fn unknown(what: &str, method: u32) -> Error {
    Error::unsupported(format!(
        "The image is encrypted in a way that is not known: {what} is by the method {method:#x}"
    ))
}

/// Bytes of a number of bits.
pub(super) fn bytes_of(bits: u32) -> usize {
    (bits / 8) as usize
}

impl Volume {
    /// A volume without locks, from the numbers that say how blocks are encrypted.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] for methods that are not known, [`crate::ErrorKind::Corrupt`] for
    /// numbers that cannot be.
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

    /// Checks that the data is in the file.
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
    /// From what is stored, with the bits of its key.
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

    /// Bytes of its blocks.
    pub(in super::super) fn block_len(self) -> usize {
        match self {
            Self::TripleDes => 8,
            Self::Aes => 16,
        }
    }
}

/// Bytes behind their number, which is at `at`; None where there are more than `most`.
pub(super) fn counted(bytes: &[u8], at: usize, most: usize) -> Option<&[u8]> {
    let len = be32(bytes, at)? as usize;
    bytes.get(at + 4..)?.get(..len).filter(|_| len <= most)
}

/// The error of a key that is not as it should be.
pub(super) fn damaged_key() -> Error {
    Error::corrupt("The key of the encrypted image is damaged")
}

/// Checks the method of the derivation.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`].
pub(super) fn check_derivation(method: u32) -> Result<()> {
    match method {
        PBKDF2 => Ok(()),
        _ => Err(unknown("the derivation of its key", method)),
    }
}
