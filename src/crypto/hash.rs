//! Hashes by the names that LUKS headers carry, and PBKDF2 over them.

use sha2::Digest;

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// MD5, for old images alone.
    Md5,
    /// SHA-1, for old images alone.
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
    /// The names, in the order in which help lists them.
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

    /// Bytes of a digest.
    pub fn digest_len(self) -> usize {
        with_hash!(self, H => <H as Digest>::output_size())
    }

    /// The digest of the parts, one after the other.
    pub fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        with_hash!(self, H => {
            let mut hasher = H::new();
            for part in parts {
                hasher.update(part);
            }
            hasher.finalize().to_vec()
        })
    }

    /// PBKDF2 with HMAC over this hash: fills `key`. `iterations` of 0 count as 1.
    pub fn pbkdf2(self, password: &[u8], salt: &[u8], iterations: u32, key: &mut [u8]) {
        with_hash!(self, H => pbkdf2::pbkdf2_hmac::<H>(password, salt, iterations.max(1), key));
    }
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
        Hash::Sha1.pbkdf2(
            b"passwordPASSWORDpassword",
            b"saltSALTsaltSALTsaltSALTsaltSALTsalt",
            4096,
            &mut key,
        );
        assert_eq!(key[..8], [0x3d, 0x2e, 0xec, 0x4f, 0xe4, 0x1c, 0x84, 0x9b]);
        let mut key = [0; 64];
        Hash::Sha256.pbkdf2(b"passwd", b"salt", 1, &mut key);
        assert_eq!(key[..8], [0x55, 0xac, 0x04, 0x6e, 0x56, 0xe3, 0x08, 0x9f]);
    }
}
