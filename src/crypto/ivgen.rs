//! Initialisation vectors from sector numbers.

use crate::crypto::block::BlockKey;
use crate::crypto::hash::Hash;

/// How the IV of a sector is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IvGenerator {
    /// The low 32 bits of the sector number, little endian.
    Plain,
    /// The sector number, 64 bits little endian.
    Plain64,
    /// The sector number encrypted under a hash of the key.
    Essiv(Hash),
}

impl IvGenerator {
    /// The names, without a hash.
    pub const NAMES: &'static [&'static str] = &["plain", "plain64", "essiv"];

    /// The name without the hash.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Plain64 => "plain64",
            Self::Essiv(_) => "essiv",
        }
    }

    /// The hash, for those that use one.
    pub fn hash(self) -> Option<Hash> {
        match self {
            Self::Essiv(hash) => Some(hash),
            Self::Plain | Self::Plain64 => None,
        }
    }
}

/// An IV generator with the key schedule that it needs.
pub(super) enum IvSource {
    Plain,
    Plain64,
    Essiv(Box<dyn BlockKey>),
}

impl IvSource {
    /// Fills `iv` for `sector`; longer IVs are zero-padded.
    pub(super) fn fill(&self, sector: u64, iv: &mut [u8]) {
        iv.fill(0);
        match self {
            Self::Plain => copy_prefix(iv, &(sector as u32).to_le_bytes()),
            Self::Plain64 => copy_prefix(iv, &sector.to_le_bytes()),
            Self::Essiv(cipher) => {
                copy_prefix(iv, &sector.to_le_bytes());
                cipher.encrypt_block(iv);
            }
        }
    }
}

fn copy_prefix(iv: &mut [u8], bytes: &[u8]) {
    let len = iv.len().min(bytes.len());
    iv[..len].copy_from_slice(&bytes[..len]);
}
