//! Sector encryption as used by disk formats: ciphers, modes, IV generators, hashes and key derivation.

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

/// The unit in bytes that every disk format encrypts separately.
pub const SECTOR: usize = 512;
