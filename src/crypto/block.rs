//! Encryption of single blocks with a cipher, as needed for ESSIV.

use aes::cipher::BlockCipherEncrypt;
use aes::cipher::array::Array;

/// A keyed block cipher, for the single block of an ESSIV.
pub(super) trait BlockKey: Send + Sync {
    /// Encrypts one block in place; `block` has the cipher's block length.
    fn encrypt_block(&self, block: &mut [u8]);
}

pub(super) struct Keyed<C>(pub(super) C);

impl<C: BlockCipherEncrypt + Send + Sync> BlockKey for Keyed<C> {
    fn encrypt_block(&self, block: &mut [u8]) {
        if let Ok(block) = <&mut Array<u8, C::BlockSize>>::try_from(block) {
            self.0.encrypt_block(block);
        }
    }
}
