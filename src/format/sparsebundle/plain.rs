//! The decrypted bytes of encrypted bands.

use std::sync::Arc;

use once_cell::sync::OnceCell;

use crate::error::{Error, Result};
use crate::format::encrcdsa::{BlockCipher, read_in_blocks};
use crate::memory;
use crate::storage::forward::{forward, read_only};
use crate::storage::{Limits, Storage};
use crate::zero::is_zero;

use super::bands::Bands;
use super::info::Info;
use super::numbering::{Numbering, shown_by};

/// Maximum number of bytes to examine for the numbering in the band that is being read.
const MOST_OF_BAND: u64 = 16 << 20;

/// Maximum number of other bands to examine, and maximum number of bytes in each.
const MOST_OTHERS: u64 = 256;
const MOST_OF_OTHERS: u64 = 1 << 20;

/// Bytes to examine at a time.
const STEP: u64 = 128 << 10;

/// The decrypted disk of a bundle.
#[derive(Debug)]
pub(super) struct PlainBands {
    bands: Arc<Bands>,
    info: Info,
    cipher: BlockCipher,
    numbering: OnceCell<Numbering>,
    /// The numbering derived from bands other than the one that is being read.
    shown_by_others: OnceCell<Option<Numbering>>,
}

impl PlainBands {
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if the bands are not multiples of blocks, or the blocks cannot be numbered.
    pub(super) fn new(bands: Arc<Bands>, info: Info, cipher: BlockCipher) -> Result<Self> {
        let block = cipher.block_len();
        if !info.band.is_multiple_of(block) {
            return Err(Error::corrupt(format!(
                "Bands of {} bytes do not consist of encrypted blocks of {block}",
                info.band
            )));
        }
        if info.len.div_ceil(block) > 1 << 32 {
            return Err(Error::corrupt(format!(
                "{} bytes are more than blocks can be numbered",
                info.len
            )));
        }
        Ok(Self {
            bands,
            info,
            cipher,
            numbering: OnceCell::new(),
            shown_by_others: OnceCell::new(),
        })
    }

    /// Reads and decrypts whole blocks.
    fn blocks(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.bands.read_at(buf, offset)?;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let left = self.info.band - at % self.info.band;
            let (part, tail) = rest.split_at_mut(left.min(rest.len() as u64) as usize);
            let len = part.len() as u64;
            self.within_band(part, at)?;
            (rest, at) = (tail, at + len);
        }
        Ok(())
    }

    /// Decrypts what was read from one band.
    fn within_band(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let number = offset / self.info.band;
        let block_len = self.cipher.block_len();
        let held = number * self.info.band + self.bands.held(number)?;
        let blocks = buf.chunks_exact_mut(block_len as usize);
        for (block, at) in blocks.zip((offset..).step_by(block_len as usize)) {
            // Unwritten blocks are holes of the file, or lie past its end.
            if is_zero(block) {
                continue;
            }
            if held < (at + block_len).min(self.info.len) {
                return Err(Error::corrupt(format!(
                    "Band {number:x} ends within an encrypted block"
                )));
            }
            let numbering = match number {
                // Both numberings agree in the first band.
                0 => Numbering::Disk,
                _ => self.numbering(number)?,
            };
            let number = numbering.number(at, self.info.band, block_len);
            self.cipher.decrypt(block, number);
        }
        Ok(())
    }

    fn numbering(&self, band: u64) -> Result<Numbering> {
        let found = self.numbering.get_or_try_init(|| {
            if let Some(found) = self.shown_by_band(band, MOST_OF_BAND)? {
                return Ok(found);
            }
            let others = self.shown_by_others.get_or_try_init(|| {
                let count = self.info.len.div_ceil(self.info.band);
                for band in 1..count.min(MOST_OTHERS) {
                    if let Some(found) = self.shown_by_band(band, MOST_OF_OTHERS)? {
                        return Ok(Some(found));
                    }
                }
                Ok::<_, Error>(None)
            })?;
            others.ok_or_else(|| {
                Error::unsupported("The encrypted bands do not show how their blocks are numbered")
            })
        });
        found.copied()
    }

    /// The numbering derived from a band other than the first, examined up to `most` bytes.
    fn shown_by_band(&self, band: u64, most: u64) -> Result<Option<Numbering>> {
        let start = band * self.info.band;
        let end = start + self.bands.held(band)?.min(most);
        let block_len = self.cipher.block_len();
        let mut buf = memory::zeroed(STEP.next_multiple_of(block_len) as usize)?;
        let mut at = start;
        while at + block_len <= end {
            let len = (end - at).min(buf.len() as u64) / block_len * block_len;
            let blocks = buf.get_mut(..len as usize).unwrap_or_default();
            self.bands.read_at(blocks, at)?;
            if let Some(found) = shown_by(&self.cipher, blocks, at, self.info.band)? {
                return Ok(Some(found));
            }
            at += len;
        }
        Ok(None)
    }

    fn refused(&self) -> Error {
        self.bands.refused()
    }
}

impl Storage for PlainBands {
    forward!(bands: name, driver, identity, allocated_size, step_watcher, lock);
    read_only!(refused, made, solid);

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let known = self.info.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let (buf, past) = buf.split_at_mut(known);
        past.fill(0);
        let block = self.cipher.block_len();
        read_in_blocks(buf, offset, block, |buf, at| self.blocks(buf, at))
    }

    fn len(&self) -> Result<u64> {
        Ok(self.info.len)
    }

    fn limits(&self) -> Limits {
        self.bands.limits()
    }
}
