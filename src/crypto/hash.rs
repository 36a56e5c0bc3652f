//! Hashes by the names used in LUKS headers, and PBKDF2 based on them.

use hmac::digest::{FixedOutput, OutputSizeUser, Update as _};
use hmac::{EagerHash, Hmac, KeyInit};
use sha2::Digest;
use sha2::digest::DynDigest;
use zeroize::Zeroize;

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::secret::scrubbing_stack;

/// Iterations between two checks for cancellation: about a millisecond.
const SLICE: u32 = 2048;

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// MD5, only for old images.
    Md5,
    /// SHA-1, only for old images.
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// RIPEMD-160.
    Ripemd160,
    /// SM3.
    Sm3,
}

/// A digest that is being computed.
pub struct Hasher(Box<dyn DynDigest + Send + Sync>);

impl Hasher {
    /// Adds further bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes.
    pub fn finish(self) -> Box<[u8]> {
        self.0.finalize()
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

/// Runs `$body` with `$type` bound to the hash's Rust type.
macro_rules! with_hash {
    ($hash:expr, $type:ident => $body:expr) => {
        match $hash {
            Hash::Md5 => {
                type $type = md5::Md5;
                $body
            }
            Hash::Sha1 => {
                type $type = sha1::Sha1;
                $body
            }
            Hash::Sha224 => {
                type $type = sha2::Sha224;
                $body
            }
            Hash::Sha256 => {
                type $type = sha2::Sha256;
                $body
            }
            Hash::Sha384 => {
                type $type = sha2::Sha384;
                $body
            }
            Hash::Sha512 => {
                type $type = sha2::Sha512;
                $body
            }
            Hash::Ripemd160 => {
                type $type = ripemd::Ripemd160;
                $body
            }
            Hash::Sm3 => {
                type $type = sm3::Sm3;
                $body
            }
        }
    };
}

impl Hash {
    /// The names, in the order in which the help text lists them.
    pub const NAMES: &'static [&'static str] = &[
        "md5",
        "sha1",
        "sha224",
        "sha256",
        "sha384",
        "sha512",
        "ripemd160",
        "sm3",
    ];

    /// The hash of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "md5" => Self::Md5,
            "sha1" => Self::Sha1,
            "sha224" => Self::Sha224,
            "sha256" => Self::Sha256,
            "sha384" => Self::Sha384,
            "sha512" => Self::Sha512,
            "ripemd160" => Self::Ripemd160,
            "sm3" => Self::Sm3,
            _ => return None,
        })
    }

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha224 => "sha224",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
            Self::Ripemd160 => "ripemd160",
            Self::Sm3 => "sm3",
        }
    }

    /// Length of a digest in bytes.
    pub fn digest_len(self) -> usize {
        with_hash!(self, H => <H as Digest>::output_size())
    }

    /// The digest of the concatenated parts.
    pub fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        with_hash!(self, H => {
            let mut hasher = H::new();
            for part in parts {
                Digest::update(&mut hasher, part);
            }
            hasher.finalize().to_vec()
        })
    }

    /// Starts a digest whose input is added piece by piece.
    pub fn hasher(self) -> Hasher {
        with_hash!(self, H => Hasher(Box::new(H::new())))
    }

    /// PBKDF2 with HMAC over this hash: fills `key`. `iterations` of 0 count as 1.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`] soon after `control` cancels the work.
    pub fn pbkdf2(
        self,
        password: &[u8],
        salt: &[u8],
        iterations: u32,
        key: &mut [u8],
        control: &JobControl,
    ) -> Result<()> {
        scrubbing_stack(
            || with_hash!(self, H => pbkdf2::<H>(password, salt, iterations, key, control)),
        )
    }
}

/// RFC 8018, section 5.2; the crate of that name cannot be interrupted.
fn pbkdf2<H: EagerHash>(
    password: &[u8],
    salt: &[u8],
    iterations: u32,
    key: &mut [u8],
    control: &JobControl,
) -> Result<()> {
    let keyed = Hmac::<H>::new_from_slice(password)
        .map_err(|_| Error::new(ErrorKind::Internal, "HMAC takes keys of any length"))?;
    let block_len = <Hmac<H> as OutputSizeUser>::output_size();
    for (block, index) in key.chunks_mut(block_len).zip(1u32..) {
        let first = keyed.clone().chain(salt).chain(index.to_be_bytes());
        let mut last = first.finalize_fixed();
        let mut sum = last.clone();
        let mut left = iterations.max(1) - 1;
        while left > 0 {
            control.checkpoint()?;
            let slice = left.min(SLICE);
            for _ in 0..slice {
                last = keyed.clone().chain(&last).finalize_fixed();
                sum.iter_mut().zip(&last).for_each(|(a, b)| *a ^= b);
            }
            left -= slice;
        }
        block.copy_from_slice(sum.get(..block.len()).unwrap_or_default());
        last.zeroize();
        sum.zeroize();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_round_trips() {
        for name in Hash::NAMES {
            assert_eq!(Hash::from_name(name).unwrap().name(), *name);
        }
    }

    #[test]
    fn pbkdf2_matches_rfc_6070_and_rfc_7914() {
        let mut key = [0; 25];
        Hash::Sha1
            .pbkdf2(
                b"passwordPASSWORDpassword",
                b"saltSALTsaltSALTsaltSALTsaltSALTsalt",
                4096,
                &mut key,
                &JobControl::default(),
            )
            .unwrap();
        assert_eq!(key[..8], [0x3d, 0x2e, 0xec, 0x4f, 0xe4, 0x1c, 0x84, 0x9b]);
        let mut key = [0; 64];
        let idle = JobControl::default();
        Hash::Sha256
            .pbkdf2(b"passwd", b"salt", 1, &mut key, &idle)
            .unwrap();
        assert_eq!(key[..8], [0x55, 0xac, 0x04, 0x6e, 0x56, 0xe3, 0x08, 0x9f]);
    }

    #[test]
    fn pbkdf2_gives_what_the_crate_of_that_name_gives() {
        let idle = JobControl::default();
        for name in Hash::NAMES {
            let hash = Hash::from_name(name).unwrap();
            // Around a slice, and with a key that ends within a block.
            for iterations in [0, 1, 2, SLICE, SLICE + 1, SLICE + 2] {
                let (mut ours, mut theirs) = ([0; 100], [0; 100]);
                hash.pbkdf2(b"key", b"salt", iterations, &mut ours, &idle)
                    .unwrap();
                with_hash!(hash, H => pbkdf2::pbkdf2_hmac::<H>(
                    b"key", b"salt", iterations.max(1), &mut theirs));
                assert_eq!(ours, theirs, "{name}, {iterations}");
            }
        }
    }

    #[test]
    fn pbkdf2_ends_when_it_is_cancelled() {
        let control = JobControl::default();
        control.set_deadline(Some(std::time::Duration::from_millis(20)));
        let begin = std::time::Instant::now();
        let ended = Hash::Sha512.pbkdf2(b"key", b"salt", u32::MAX, &mut [0; 64], &control);
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(begin.elapsed() < std::time::Duration::from_secs(60));
    }
}
