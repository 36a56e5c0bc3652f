//! Sector encryption as disk formats use it: ciphers, modes, IV generators, hashes and key derivation.

mod afsplit;
mod block;
mod cipher;
mod hash;
mod ivgen;
pub mod luks;
mod modes;

pub use afsplit::{merge as af_merge, split as af_split};
pub use cipher::{Algorithm, CipherSpec, Mode, SectorCipher};
pub use hash::{Hash, Hasher};
pub use ivgen::IvGenerator;

/// Bytes of the unit that every disk format encrypts by itself.
pub const SECTOR: usize = 512;
