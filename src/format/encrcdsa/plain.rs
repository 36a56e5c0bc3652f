//! The decrypted bytes of encrypted data.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::forward::{forward, read_only};
use crate::storage::{Limits, Storage};

use super::blocks::read_in_blocks;
use super::cipher::BlockCipher;

/// The decrypted data of a file.
#[derive(Debug)]
pub(super) struct Plain {
    file: Arc<dyn Storage>,
    /// Offset of the data in the file.
    at: u64,
    len: u64,
    cipher: BlockCipher,
}

impl Plain {
    /// For data whose place has been checked.
    pub(super) fn new(file: Arc<dyn Storage>, (at, len): (u64, u64), cipher: BlockCipher) -> Self {
        Self {
            file,
            at,
            len,
            cipher,
        }
    }

    /// Reads and decrypts whole blocks.
    fn blocks(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_at(buf, self.at + offset)?;
        // Their numbers have been checked to fit 32 bits.
        let first = (offset / self.cipher.block_len()) as u32;
        self.cipher.decrypt(buf, first);
        Ok(())
    }

    fn refused(&self) -> Error {
        let text = format!("'{}': what is encrypted so can only be read", self.name());
        Error::new(ErrorKind::ReadOnly, text)
    }
}

impl Storage for Plain {
    forward!(file: name, driver, identity, allocated_size, step_watcher, lock);
    read_only!(refused, made, solid);

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let known = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let (buf, past) = buf.split_at_mut(known);
        past.fill(0);
        let block = self.cipher.block_len();
        read_in_blocks(buf, offset, block, |buf, at| self.blocks(buf, at))
    }

    fn len(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn limits(&self) -> Limits {
        Limits {
            fixed_len: true,
            ..self.file.limits()
        }
    }
}
