//! The shell script at the beginning, and the two numbers after it.

use crate::bytes::be32;
use crate::error::{Error, Result};

/// Bytes before the table of offsets.
pub(in super::super) const HEADER_LEN: usize = 136;

/// The first bytes of the script of version 2.
pub(in super::super) const SCRIPT: &[u8] =
    b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";

const BLOCK_SIZE_AT: usize = 128;
const BLOCKS_AT: usize = 132;

/// Maximum size of a block.
pub(super) const MAX_BLOCK: u32 = 64 << 20;

/// Maximum number of blocks.
const MAX_BLOCKS: u32 = u32::MAX / 8;

/// Maximum length of the table of offsets.
const MAX_TABLE: u64 = 512 << 20;

/// The numbers in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Header {
    /// Guest bytes per block.
    pub(in super::super) block_size: u32,
    /// The number of blocks.
    pub(in super::super) blocks: u32,
}

impl Header {
    /// Decodes the first [`HEADER_LEN`] bytes of the file; the text of the script does not matter.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`].
    pub(in super::super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let number = |at| be32(bytes, at).unwrap_or_default();
        let refuse = |at: usize, why| Err(Error::corrupt(why).with_offset(at as u64));
        let header = Self {
            block_size: number(BLOCK_SIZE_AT),
            blocks: number(BLOCKS_AT),
        };
        let size = header.block_size;
        if size == 0 {
            return refuse(BLOCK_SIZE_AT, "block_size cannot be zero".to_owned());
        }
        if !size.is_multiple_of(512) {
            let why = format!("block_size {size} must be a multiple of 512");
            return refuse(BLOCK_SIZE_AT, why);
        }
        if size > MAX_BLOCK {
            let why = format!("block_size {size} must be 64 MB or less");
            return refuse(BLOCK_SIZE_AT, why);
        }
        if header.blocks > MAX_BLOCKS {
            let why = format!("n_blocks {} must be {MAX_BLOCKS} or less", header.blocks);
            return refuse(BLOCKS_AT, why);
        }
        if header.table_len() > MAX_TABLE {
            let why = "image requires too many offsets, try increasing block size";
            return refuse(BLOCKS_AT, why.to_owned());
        }
        Ok(header)
    }

    /// Length in bytes of the table of offsets, which follows the header.
    pub(in super::super) fn table_len(&self) -> u64 {
        (u64::from(self.blocks) + 1) * 8
    }

    /// The virtual size in bytes.
    pub(in super::super) fn virtual_size(&self) -> u64 {
        u64::from(self.blocks) * u64::from(self.block_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_refused() {
        let parse = |size: u32, blocks: u32| {
            let mut bytes = [0; HEADER_LEN];
            bytes[128..132].copy_from_slice(&size.to_be_bytes());
            bytes[132..136].copy_from_slice(&blocks.to_be_bytes());
            Header::from_bytes(&bytes)
        };
        let text = |size, blocks| parse(size, blocks).unwrap_err().to_string();
        assert_eq!(text(0, 1), "block_size cannot be zero");
        assert_eq!(text(1000, 1), "block_size 1000 must be a multiple of 512");
        assert_eq!(
            text((64 << 20) + 512, 1),
            "block_size 67109376 must be 64 MB or less"
        );
        assert_eq!(
            text(512, u32::MAX),
            "n_blocks 4294967295 must be 536870911 or less"
        );
        assert_eq!(
            text(512, 64 << 20),
            "image requires too many offsets, try increasing block size"
        );
        let header = parse(64 << 20, (64 << 20) - 1).unwrap();
        assert_eq!(header.virtual_size(), ((64 << 20) - 1) * (64 << 20));
        assert_eq!(parse(512, 0).unwrap().virtual_size(), 0);
    }
}
