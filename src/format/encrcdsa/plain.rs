//! The plain bytes of encrypted data.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use aes::cipher::array::Array;
use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherDecrypt, BlockSizeUser, KeyInit};
use aes::{Aes128, Aes256};
use cbc::Decryptor;
use cbc::cipher::{BlockModeDecrypt, InnerIvInit};
use hmac::{Hmac, Mac};
use sha1::Sha1;

use crate::error::{Error, ErrorKind, Result};
use crate::memory::IoBuf;
use crate::storage::forward::{forward, read_only};
use crate::storage::{Limits, Storage};

use super::unlock::Keys;

thread_local! {
    /// The thread's room for blocks of which a part is wanted.
    static ROOM: RefCell<IoBuf> = const { RefCell::new(IoBuf::new()) };
}

enum Cipher {
    Aes128(Box<Aes128>),
    Aes256(Box<Aes256>),
}

/// The decrypted data of a file.
pub(super) struct Plain {
    file: Arc<dyn Storage>,
    /// Where the data begins in the file.
    at: u64,
    len: u64,
    block: u64,
    cipher: Cipher,
    /// Keyed; of the number of a block it is what the block begins with.
    iv: Hmac<Sha1>,
}

impl Plain {
    /// Of data whose place was checked.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] where the keys have other lengths than the volume says.
    pub(super) fn new(
        file: Arc<dyn Storage>,
        (at, len): (u64, u64),
        block: u32,
        keys: &Keys,
    ) -> Result<Self> {
        let odd = |_| Error::new(ErrorKind::Internal, "A key of an odd length");
        let cipher = match keys.data.len() {
            16 => {
                let cipher = Aes128::new_from_slice(&keys.data).map_err(odd)?;
                Cipher::Aes128(Box::new(cipher))
            }
            _ => {
                let cipher = Aes256::new_from_slice(&keys.data).map_err(odd)?;
                Cipher::Aes256(Box::new(cipher))
            }
        };
        Ok(Self {
            file,
            at,
            len,
            block: u64::from(block),
            cipher,
            iv: Hmac::new_from_slice(&keys.iv).map_err(odd)?,
        })
    }

    /// Reads and decrypts whole blocks.
    fn blocks(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_at(buf, self.at + offset)?;
        let first = offset / self.block;
        match &self.cipher {
            Cipher::Aes128(cipher) => self.decrypt(&**cipher, buf, first),
            Cipher::Aes256(cipher) => self.decrypt(&**cipher, buf, first),
        }
        Ok(())
    }

    fn decrypt<C>(&self, cipher: &C, buf: &mut [u8], first: u64)
    where
        C: BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> + Clone,
    {
        for (block, number) in buf.chunks_exact_mut(self.block as usize).zip(first..) {
            let mut mac = self.iv.clone();
            // Their numbers were checked to have 32 bits.
            mac.update(&(number as u32).to_be_bytes());
            let digest = mac.finalize().into_bytes();
            let mut iv = Array::<u8, U16>::default();
            iv.iter_mut()
                .zip(&digest)
                .for_each(|(to, from)| *to = *from);
            let mut mode = Decryptor::inner_iv_init(cipher.clone(), &iv);
            let (units, _) = Array::slice_as_chunks_mut(block);
            mode.decrypt_blocks(units);
        }
    }

    fn refused(&self) -> Error {
        let text = format!("'{}': what is encrypted so can only be read", self.name());
        Error::new(ErrorKind::ReadOnly, text)
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain")
            .field("file", &self.file)
            .field("at", &self.at)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl Storage for Plain {
    forward!(file: name, driver, identity, allocated_size, step_watcher, lock);
    read_only!(refused, made, solid);

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let known = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let (buf, past) = buf.split_at_mut(known);
        past.fill(0);
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let start = at - at % self.block;
            let lead = at - start;
            let whole = rest.len() as u64 / self.block * self.block;
            if lead == 0 && whole > 0 {
                let (part, tail) = rest.split_at_mut(whole as usize);
                self.blocks(part, at)?;
                (rest, at) = (tail, at + whole);
                continue;
            }
            let take = (self.block - lead).min(rest.len() as u64);
            let (part, tail) = rest.split_at_mut(take as usize);
            // Taken out while it is in use: the storage below may be of the same kind.
            let mut room = ROOM.take();
            let read = room
                .room(self.block as usize)
                .and_then(|block| self.blocks(block, start));
            if read.is_ok() {
                let lead = lead as usize;
                part.copy_from_slice(&room[lead..lead + part.len()]);
            }
            ROOM.set(room);
            read?;
            (rest, at) = (tail, at + take);
        }
        Ok(())
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
