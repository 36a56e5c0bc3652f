//! Ciphers by name, and a keyed cipher over sectors.

use std::fmt;

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

use crate::crypto::block::{BlockKey, Keyed};
use crate::crypto::hash::Hash;
use crate::crypto::ivgen::{IvGenerator, IvSource};
use crate::crypto::modes::{Cbc, Ctr, Ecb, SectorMode, Xts};
use crate::error::{Error, Result};

/// A block cipher with its key length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// AES with a 128-bit key.
    Aes128,
    /// AES with a 192-bit key.
    Aes192,
    /// AES with a 256-bit key.
    Aes256,
    /// CAST-128, only for old images.
    Cast5,
    /// Serpent with a 128-bit key.
    Serpent128,
    /// Serpent with a 192-bit key.
    Serpent192,
    /// Serpent with a 256-bit key.
    Serpent256,
    /// Twofish with a 128-bit key.
    Twofish128,
    /// Twofish with a 192-bit key.
    Twofish192,
    /// Twofish with a 256-bit key.
    Twofish256,
}

/// A mode of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// XEX with a tweak per sector.
    Xts,
    /// Cipher block chaining.
    Cbc,
    /// Counter.
    Ctr,
    /// Each block separately.
    Ecb,
}

const ALGORITHMS: &[(Algorithm, &str, &str, usize)] = &[
    (Algorithm::Aes128, "aes-128", "aes", 16),
    (Algorithm::Aes192, "aes-192", "aes", 24),
    (Algorithm::Aes256, "aes-256", "aes", 32),
    (Algorithm::Cast5, "cast5-128", "cast5", 16),
    (Algorithm::Serpent128, "serpent-128", "serpent", 16),
    (Algorithm::Serpent192, "serpent-192", "serpent", 24),
    (Algorithm::Serpent256, "serpent-256", "serpent", 32),
    (Algorithm::Twofish128, "twofish-128", "twofish", 16),
    (Algorithm::Twofish192, "twofish-192", "twofish", 24),
    (Algorithm::Twofish256, "twofish-256", "twofish", 32),
];

impl Algorithm {
    /// The names.
    pub const NAMES: &'static [&'static str] = &[
        "aes-128",
        "aes-192",
        "aes-256",
        "cast5-128",
        "serpent-128",
        "serpent-192",
        "serpent-256",
        "twofish-128",
        "twofish-192",
        "twofish-256",
    ];

    /// The algorithm with that option value, such as `aes-256`.
    pub fn from_name(name: &str) -> Option<Self> {
        ALGORITHMS.iter().find(|a| a.1 == name).map(|a| a.0)
    }

    /// The algorithm with that LUKS cipher name (`aes`) whose key is `key_len` bytes long.
    pub fn from_family(family: &str, key_len: usize) -> Option<Self> {
        ALGORITHMS
            .iter()
            .find(|a| a.2 == family && a.3 == key_len)
            .map(|a| a.0)
    }

    fn row(self) -> (&'static str, &'static str, usize) {
        ALGORITHMS
            .iter()
            .find(|a| a.0 == self)
            .map_or(("", "", 0), |a| (a.1, a.2, a.3))
    }

    /// The option value, such as `aes-256`.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// The LUKS cipher name, such as `aes`.
    pub fn family(self) -> &'static str {
        self.row().1
    }

    /// Key length in bytes for one cipher; XTS uses two.
    pub fn key_len(self) -> usize {
        self.row().2
    }
}

impl Mode {
    /// The names.
    pub const NAMES: &'static [&'static str] = &["xts", "cbc", "ctr", "ecb"];

    /// The mode of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "xts" => Self::Xts,
            "cbc" => Self::Cbc,
            "ctr" => Self::Ctr,
            "ecb" => Self::Ecb,
            _ => return None,
        })
    }

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xts => "xts",
            Self::Cbc => "cbc",
            Self::Ctr => "ctr",
            Self::Ecb => "ecb",
        }
    }
}

/// A cipher, its mode and its IV generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CipherSpec {
    /// The block cipher.
    pub algorithm: Algorithm,
    /// The mode.
    pub mode: Mode,
    /// The IV generator.
    pub iv: IvGenerator,
}

impl CipherSpec {
    /// Length of the whole key in bytes.
    pub fn key_len(&self) -> usize {
        self.algorithm.key_len() * if self.mode == Mode::Xts { 2 } else { 1 }
    }

    /// Keys the cipher.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for a key of the wrong length, [`crate::ErrorKind::Unsupported`]
    /// for a combination that does not exist.
    pub fn keyed(&self, key: &[u8]) -> Result<SectorCipher> {
        if key.len() != self.key_len() {
            return Err(Error::invalid(format!(
                "Cipher key length {} should be {}",
                key.len(),
                self.key_len()
            )));
        }
        let iv = self.iv_source(key)?;
        let mode: Box<dyn SectorMode> = match self.algorithm {
            Algorithm::Aes128 => block16::<aes::Aes128>(self.mode, key, iv)?,
            Algorithm::Aes192 => block16::<aes::Aes192>(self.mode, key, iv)?,
            Algorithm::Aes256 => block16::<aes::Aes256>(self.mode, key, iv)?,
            Algorithm::Serpent128 | Algorithm::Serpent192 | Algorithm::Serpent256 => {
                block16::<serpent::Serpent>(self.mode, key, iv)?
            }
            Algorithm::Twofish128 | Algorithm::Twofish192 | Algorithm::Twofish256 => {
                block16::<twofish::Twofish>(self.mode, key, iv)?
            }
            Algorithm::Cast5 => {
                let cipher = new_cipher::<cast5::Cast5>(key)?;
                match self.mode {
                    Mode::Cbc => Box::new(Cbc { cipher, iv }),
                    Mode::Ecb => Box::new(Ecb(cipher)),
                    Mode::Ctr => Box::new(Ctr { cipher, iv }),
                    Mode::Xts => return Err(self.no_such_mode()),
                }
            }
        };
        Ok(SectorCipher(mode))
    }

    fn no_such_mode(&self) -> Error {
        Error::unsupported(format!("Unsupported cipher mode {}", self.mode.name()))
    }

    fn iv_source(&self, key: &[u8]) -> Result<IvSource> {
        Ok(match self.iv {
            IvGenerator::Plain => IvSource::Plain,
            IvGenerator::Plain64 => IvSource::Plain64,
            IvGenerator::Essiv(hash) => IvSource::Essiv(self.essiv_cipher(hash, key)?),
        })
    }

    /// ESSIV keys the same cipher family with a key as long as the digest.
    fn essiv_cipher(&self, hash: Hash, key: &[u8]) -> Result<Box<dyn BlockKey>> {
        let family = self.algorithm.family();
        let salt = zeroize::Zeroizing::new(hash.digest(&[key]));
        let algorithm = Algorithm::from_family(family, salt.len()).ok_or_else(|| {
            Error::unsupported(format!(
                "No cipher {family} with key size {} available",
                salt.len()
            ))
        })?;
        Ok(match algorithm {
            Algorithm::Aes128 => Box::new(Keyed(new_cipher::<aes::Aes128>(&salt)?)),
            Algorithm::Aes192 => Box::new(Keyed(new_cipher::<aes::Aes192>(&salt)?)),
            Algorithm::Aes256 => Box::new(Keyed(new_cipher::<aes::Aes256>(&salt)?)),
            Algorithm::Cast5 => Box::new(Keyed(new_cipher::<cast5::Cast5>(&salt)?)),
            Algorithm::Serpent128 | Algorithm::Serpent192 | Algorithm::Serpent256 => {
                Box::new(Keyed(new_cipher::<serpent::Serpent>(&salt)?))
            }
            Algorithm::Twofish128 | Algorithm::Twofish192 | Algorithm::Twofish256 => {
                Box::new(Keyed(new_cipher::<twofish::Twofish>(&salt)?))
            }
        })
    }
}

fn new_cipher<C: KeyInit>(key: &[u8]) -> Result<C> {
    C::new_from_slice(key)
        .map_err(|_| Error::invalid(format!("Cipher key length {} is not possible", key.len())))
}

fn block16<C>(mode: Mode, key: &[u8], iv: IvSource) -> Result<Box<dyn SectorMode>>
where
    C: KeyInit
        + BlockCipherEncrypt
        + BlockCipherDecrypt
        + aes::cipher::BlockSizeUser<BlockSize = aes::cipher::consts::U16>
        + Clone
        + Send
        + Sync
        + 'static,
{
    Ok(match mode {
        Mode::Xts => {
            let (data, tweak) = key.split_at(key.len() / 2);
            Box::new(Xts {
                data: new_cipher::<C>(data)?,
                tweak: new_cipher::<C>(tweak)?,
                iv,
            })
        }
        Mode::Cbc => Box::new(Cbc {
            cipher: new_cipher::<C>(key)?,
            iv,
        }),
        Mode::Ctr => Box::new(Ctr {
            cipher: new_cipher::<C>(key)?,
            iv,
        }),
        Mode::Ecb => Box::new(Ecb(new_cipher::<C>(key)?)),
    })
}

/// A keyed cipher over 512-byte sectors. May be used by several threads at once.
pub struct SectorCipher(Box<dyn SectorMode>);

impl SectorCipher {
    /// Encrypts whole sectors in place; `sector` is the number of the first.
    pub fn encrypt(&self, data: &mut [u8], sector: u64) {
        self.0.encrypt(data, sector);
    }

    /// Decrypts whole sectors in place; `sector` is the number of the first.
    pub fn decrypt(&self, data: &mut [u8], sector: u64) {
        self.0.decrypt(data, sector);
    }
}

impl fmt::Debug for SectorCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never prints the key.
        f.write_str("SectorCipher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SECTOR;

    #[test]
    fn every_combination_round_trips_and_depends_on_the_sector() {
        for (algorithm, ..) in ALGORITHMS {
            for mode in [Mode::Xts, Mode::Cbc, Mode::Ctr, Mode::Ecb] {
                for iv in [
                    IvGenerator::Plain,
                    IvGenerator::Plain64,
                    IvGenerator::Essiv(Hash::Sha256),
                ] {
                    let spec = CipherSpec {
                        algorithm: *algorithm,
                        mode,
                        iv,
                    };
                    let key: Vec<u8> = (1..=spec.key_len() as u8).collect();
                    let Ok(cipher) = spec.keyed(&key) else {
                        assert_eq!(*algorithm, Algorithm::Cast5, "{spec:?}");
                        continue;
                    };
                    let plain: Vec<u8> = (0..SECTOR * 2).map(|i| (i / 3) as u8).collect();
                    let mut data = plain.clone();
                    cipher.encrypt(&mut data, 7);
                    assert_ne!(data, plain);
                    let mut other = plain.clone();
                    cipher.encrypt(&mut other, 8);
                    assert_eq!(data == other, mode == Mode::Ecb);
                    cipher.decrypt(&mut data, 7);
                    assert_eq!(data, plain, "{spec:?}");
                }
            }
        }
    }

    #[test]
    fn xts_matches_ieee_1619_vector_4_in_its_first_block() {
        let spec = CipherSpec {
            algorithm: Algorithm::Aes128,
            mode: Mode::Xts,
            iv: IvGenerator::Plain64,
        };
        let mut key = vec![0x27, 0x18, 0x28, 0x18, 0x28, 0x45, 0x90, 0x45];
        key.extend([0x23, 0x53, 0x60, 0x28, 0x74, 0x71, 0x35, 0x26]);
        key.extend([0x31, 0x41, 0x59, 0x26, 0x53, 0x58, 0x97, 0x93]);
        key.extend([0x23, 0x84, 0x62, 0x64, 0x33, 0x83, 0x27, 0x95]);
        let mut data: Vec<u8> = (0..SECTOR).map(|i| i as u8).collect();
        spec.keyed(&key).unwrap().encrypt(&mut data, 0);
        assert_eq!(data[..8], [0x27, 0xa7, 0x47, 0x9b, 0xef, 0xa1, 0xd4, 0x76]);
    }
}
