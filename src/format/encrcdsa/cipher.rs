//! The cipher for individually encrypted blocks.

use std::fmt;

use aes::cipher::array::Array;
use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherDecrypt, BlockSizeUser, KeyInit};
use aes::{Aes128, Aes256};
use cbc::Decryptor;
use cbc::cipher::{BlockModeDecrypt, InnerIvInit};
use hmac::{Hmac, Mac};
use sha1::Sha1;

use crate::error::{Error, ErrorKind, Result};

use super::unlock::Keys;

enum Aes {
    Aes128(Box<Aes128>),
    Aes256(Box<Aes256>),
}

/// Decrypts blocks, each with an IV derived from its number.
pub(crate) struct BlockCipher {
    block: u32,
    aes: Aes,
    /// Already keyed; its digest of the number of a block is the IV.
    iv: Hmac<Sha1>,
}

impl BlockCipher {
    /// # Errors
    /// [`ErrorKind::Internal`] if the lengths of the keys differ from what the volume says.
    pub(super) fn new(block: u32, keys: &Keys) -> Result<Self> {
        let odd = |_| Error::new(ErrorKind::Internal, "A key of an odd length");
        let aes = match keys.data.len() {
            16 => {
                let aes = Aes128::new_from_slice(&keys.data).map_err(odd)?;
                Aes::Aes128(Box::new(aes))
            }
            _ => {
                let aes = Aes256::new_from_slice(&keys.data).map_err(odd)?;
                Aes::Aes256(Box::new(aes))
            }
        };
        Ok(Self {
            block,
            aes,
            iv: Hmac::new_from_slice(&keys.iv).map_err(odd)?,
        })
    }

    /// Size of a block in bytes: a multiple of 16.
    pub(crate) fn block_len(&self) -> u64 {
        u64::from(self.block)
    }

    /// Decrypts whole blocks, the first of which has the number `first`.
    pub(crate) fn decrypt(&self, blocks: &mut [u8], first: u32) {
        match &self.aes {
            Aes::Aes128(aes) => self.decrypt_by(&**aes, blocks, first),
            Aes::Aes256(aes) => self.decrypt_by(&**aes, blocks, first),
        }
    }

    fn decrypt_by<C>(&self, aes: &C, blocks: &mut [u8], first: u32)
    where
        C: BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> + Clone,
    {
        let mut number = first;
        for block in blocks.chunks_exact_mut(self.block as usize) {
            let mut mac = self.iv.clone();
            mac.update(&number.to_be_bytes());
            number = number.wrapping_add(1);
            let digest = mac.finalize().into_bytes();
            let mut iv = Array::<u8, U16>::default();
            iv.iter_mut()
                .zip(&digest)
                .for_each(|(to, from)| *to = *from);
            let mut mode = Decryptor::inner_iv_init(aes.clone(), &iv);
            let (units, _) = Array::slice_as_chunks_mut(block);
            mode.decrypt_blocks(units);
        }
    }
}

impl fmt::Debug for BlockCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCipher")
            .field("block", &self.block)
            .finish_non_exhaustive()
    }
}
