//! Unlocking: from a passphrase to the keys.

use aes::cipher::array::Array;
use aes::cipher::{BlockCipherDecrypt, BlockModeDecrypt, KeyInit};
use aes::{Aes128, Aes256};
use cbc::Decryptor;
use cbc::cipher::InnerIvInit;
use des::TdesEde3;
use zeroize::Zeroizing;

use crate::crypto::Hash;
use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;

use super::disk::{KeyCipher, Lock, Volume, Wrapped};

/// What follows the unwrapped keys of version 2.
const END_OF_KEYS: &[u8] = b"CKIE\0";

/// What precedes an unwrapped key of version 1.
const BEFORE_KEY: [u8; 4] = [0; 4];

/// The IV of the outer wrapping of version 1 (RFC 3217).
const OUTER_IV: [u8; 8] = [0x4a, 0xdd, 0xa2, 0x2c, 0x79, 0xe8, 0x21, 0x05];

/// The keys of a volume. Wiped when dropped.
pub(super) struct Keys {
    /// The key of the data.
    pub(super) data: Zeroizing<Vec<u8>>,
    /// The key for the IVs of the blocks.
    pub(super) iv: Zeroizing<Vec<u8>>,
}

/// Returns the keys that a passphrase unlocks.
///
/// # Errors
/// [`ErrorKind::WrongSecret`] if it unlocks none, [`ErrorKind::Cancelled`] if `control` ends the work.
pub(super) fn unlock(volume: &Volume, passphrase: &[u8], control: &JobControl) -> Result<Keys> {
    for lock in &volume.locks {
        let mut key = Zeroizing::new(vec![0; lock.key_len]);
        Hash::Sha1.pbkdf2(passphrase, &lock.salt, lock.iterations, &mut key, control)?;
        if let Some(keys) = open(volume, lock, &key) {
            return Ok(keys);
        }
    }
    Err(Error::new(
        ErrorKind::WrongSecret,
        "Invalid password, cannot unlock the encrypted image",
    ))
}

/// The keys in a lock, if `key` opens it.
fn open(volume: &Volume, lock: &Lock, key: &[u8]) -> Option<Keys> {
    match &lock.wrapped {
        Wrapped::Joint { iv, keys } => {
            let plain = decrypt(lock.cipher, key, iv, keys)?;
            let keys = plain.strip_suffix(END_OF_KEYS)?;
            let (data, iv) = keys.split_at_checked(volume.key_len)?;
            (iv.len() == volume.iv_key_len).then(|| Keys {
                data: Zeroizing::new(data.to_vec()),
                iv: Zeroizing::new(iv.to_vec()),
            })
        }
        Wrapped::Apart { key: data, iv_key } => {
            let data = unwrap_twice(lock.cipher, key, data)?;
            let iv = unwrap_twice(lock.cipher, key, iv_key)?;
            let fits = data.len() == volume.key_len && iv.len() == volume.iv_key_len;
            fits.then_some(Keys { data, iv })
        }
    }
}

/// Unwraps a key of version 1.
fn unwrap_twice(cipher: KeyCipher, key: &[u8], wrapped: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut outer = decrypt(cipher, key, &OUTER_IV, wrapped)?;
    outer.reverse();
    let (iv, inner) = outer.split_at_checked(OUTER_IV.len())?;
    let plain = decrypt(cipher, key, iv, inner)?;
    let key = plain.strip_prefix(&BEFORE_KEY)?;
    Some(Zeroizing::new(key.to_vec()))
}

/// Decrypts whole blocks and removes the padding of the last one; None if the padding is wrong.
fn decrypt(cipher: KeyCipher, key: &[u8], iv: &[u8], bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut plain = Zeroizing::new(bytes.to_vec());
    match (cipher, key.len()) {
        (KeyCipher::TripleDes, _) => chain(TdesEde3::new_from_slice(key).ok()?, iv, &mut plain)?,
        (KeyCipher::Aes, 16) => chain(Aes128::new_from_slice(key).ok()?, iv, &mut plain)?,
        (KeyCipher::Aes, _) => chain(Aes256::new_from_slice(key).ok()?, iv, &mut plain)?,
    }
    let fill = usize::from(*plain.last()?);
    let len = plain.len().checked_sub(fill)?;
    let is_filled = (1..=cipher.block_len()).contains(&fill)
        && plain
            .get(len..)?
            .iter()
            .all(|byte| usize::from(*byte) == fill);
    is_filled.then(|| plain.truncate(len))?;
    Some(plain)
}

/// CBC; an IV that is too short is padded with zeroes.
fn chain<C: BlockCipherDecrypt>(cipher: C, iv: &[u8], bytes: &mut [u8]) -> Option<()> {
    let mut first = Array::<u8, C::BlockSize>::default();
    let most = first.len();
    for (to, from) in first.iter_mut().zip(iv.iter().take(most)) {
        *to = *from;
    }
    let mut mode = Decryptor::inner_iv_init(cipher, &first);
    let (blocks, rest) = Array::slice_as_chunks_mut(bytes);
    rest.is_empty().then(|| mode.decrypt_blocks(blocks))
}
