//! The partition header: LUKS On-Disk Format Specification 1.2.3, section 2.5, figures 1 and 2.

use crate::crypto::cipher::{Algorithm, CipherSpec, Mode};
use crate::crypto::hash::Hash;
use crate::crypto::ivgen::IvGenerator;
use crate::error::{Error, ErrorKind, Result};

/// Number of key slots in a header.
pub const SLOTS: usize = 8;
/// Anti-forensic stripes of a key slot, the only number in use.
pub const STRIPES: u32 = 4000;
const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";
const ACTIVE: u32 = 0x00AC_71F3;
const INACTIVE: u32 = 0x0000_DEAD;
/// Length of the header itself in bytes.
pub(super) const HEADER_LEN: usize = 592;
/// Offset of the first key slot's entry, and the length of an entry.
const SLOTS_AT: u64 = 208;
const SLOT_LEN: u64 = 48;
/// Length of the state at the beginning of an entry.
pub(super) const STATE_LEN: usize = 4;
pub(super) const SALT_LEN: usize = 32;
pub(super) const DIGEST_LEN: usize = 20;
/// LUKS offsets are in sectors of this size.
pub(super) const SECTOR_LEN: u64 = 512;

/// A key slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeySlot {
    /// Whether it holds a key.
    pub active: bool,
    /// PBKDF2 iterations.
    pub iterations: u32,
    /// PBKDF2 salt.
    pub salt: [u8; SALT_LEN],
    /// Sector at which the key material starts.
    pub material_sector: u32,
    /// Anti-forensic stripes.
    pub stripes: u32,
}

/// The header of a LUKS version 1 volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Cipher, mode and IV generator.
    pub cipher: CipherSpec,
    /// Hash of PBKDF2 and of the anti-forensic splitter.
    pub hash: Hash,
    /// Sector at which the encrypted payload starts.
    pub payload_sector: u32,
    /// Length of the master key in bytes.
    pub key_len: u32,
    /// Digest of the master key.
    pub digest: [u8; DIGEST_LEN],
    /// Salt of that digest.
    pub digest_salt: [u8; SALT_LEN],
    /// Iterations of that digest.
    pub digest_iterations: u32,
    /// UUID as text.
    pub uuid: String,
    /// The key slots.
    pub slots: [KeySlot; SLOTS],
}

/// Reads fields from the front of a buffer.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or_else(|| Error::new(ErrorKind::NotAnImage, "Volume is not in LUKS format"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.bytes()?))
    }

    fn text<const N: usize>(&mut self, what: &str) -> Result<String> {
        let field = self.bytes::<N>()?;
        let end = field
            .iter()
            .position(|&b| b == 0)
            .ok_or_else(|| Error::corrupt(format!("LUKS header {what} is not NUL terminated")))?;
        String::from_utf8(field[..end].to_vec())
            .map_err(|_| Error::corrupt(format!("LUKS header {what} is not text")))
    }
}

impl Header {
    /// Parses and checks a header. `bytes` must hold at least the first 592 bytes of the volume.
    ///
    /// # Errors
    /// [`ErrorKind::NotAnImage`] if the magic is missing, [`ErrorKind::Unsupported`] for LUKS2 and unknown ciphers,
    /// [`ErrorKind::Corrupt`] for inconsistent fields.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader(bytes);
        if r.bytes::<6>()? != MAGIC {
            return Err(Error::new(
                ErrorKind::NotAnImage,
                "Volume is not in LUKS format",
            ));
        }
        let version = u16::from_be_bytes(r.bytes()?);
        if version != 1 {
            return Err(Error::unsupported(format!(
                "LUKS version {version} is not supported"
            )));
        }
        let family = r.text::<32>("cipher name")?;
        let mode_text = r.text::<32>("cipher mode")?;
        let hash_text = r.text::<32>("hash spec")?;
        let payload_sector = r.u32()?;
        let key_len = r.u32()?;
        let digest = r.bytes()?;
        let digest_salt = r.bytes()?;
        let digest_iterations = r.u32()?;
        let uuid = r.text::<40>("UUID")?;
        let mut slots = [KeySlot::default(); SLOTS];
        for slot in &mut slots {
            let state = r.u32()?;
            *slot = KeySlot {
                active: state == ACTIVE,
                iterations: r.u32()?,
                salt: r.bytes()?,
                material_sector: r.u32()?,
                stripes: r.u32()?,
            };
            if state != ACTIVE && state != INACTIVE {
                return Err(Error::corrupt(format!(
                    "LUKS key slot state {state:#x} is invalid"
                )));
            }
        }
        let hash = Hash::from_name(&hash_text).ok_or_else(|| {
            Error::unsupported(format!("Hash algorithm '{hash_text}' is not supported"))
        })?;
        let cipher = parse_cipher(&family, &mode_text, key_len)?;
        let header = Self {
            cipher,
            hash,
            payload_sector,
            key_len,
            digest,
            digest_salt,
            digest_iterations,
            uuid,
            slots,
        };
        header.check()?;
        Ok(header)
    }

    /// The 592 bytes of the header.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend(MAGIC);
        out.extend(1u16.to_be_bytes());
        put_text(&mut out, self.cipher.algorithm.family(), 32);
        put_text(&mut out, &cipher_mode_text(&self.cipher), 32);
        put_text(&mut out, self.hash.name(), 32);
        out.extend(self.payload_sector.to_be_bytes());
        out.extend(self.key_len.to_be_bytes());
        out.extend(self.digest);
        out.extend(self.digest_salt);
        out.extend(self.digest_iterations.to_be_bytes());
        put_text(&mut out, &self.uuid, 40);
        for slot in &self.slots {
            out.extend((if slot.active { ACTIVE } else { INACTIVE }).to_be_bytes());
            out.extend(slot.iterations.to_be_bytes());
            out.extend(slot.salt);
            out.extend(slot.material_sector.to_be_bytes());
            out.extend(slot.stripes.to_be_bytes());
        }
        out
    }

    /// Offset in the header of a key slot's entry; its first four bytes are the state.
    pub(super) fn slot_offset(index: usize) -> u64 {
        SLOTS_AT + index as u64 * SLOT_LEN
    }

    /// Number of sectors of one slot's key material.
    pub fn material_sectors(&self) -> u64 {
        (u64::from(self.key_len) * u64::from(STRIPES)).div_ceil(SECTOR_LEN)
    }

    /// Byte offset of the payload from the volume's beginning.
    pub fn payload_offset(&self) -> u64 {
        u64::from(self.payload_sector) * SECTOR_LEN
    }

    /// Slots must be after the header, before the payload, and must not overlap.
    fn check(&self) -> Result<()> {
        if self.digest_iterations == 0 {
            return Err(Error::corrupt("LUKS key digest iterations are zero"));
        }
        let payload = u64::from(self.payload_sector);
        let len = self.material_sectors();
        let ranges: Vec<(u64, u64)> = self
            .slots
            .iter()
            .map(|slot| {
                (
                    u64::from(slot.material_sector),
                    u64::from(slot.material_sector) + len,
                )
            })
            .collect();
        for (index, slot) in self.slots.iter().enumerate() {
            let (start, end) = ranges[index];
            if slot.stripes != STRIPES {
                return Err(Error::corrupt(format!(
                    "Keyslot {index} is corrupted (stripes {} != {STRIPES})",
                    slot.stripes
                )));
            }
            if start < (HEADER_LEN as u64).div_ceil(SECTOR_LEN) {
                return Err(Error::corrupt(format!(
                    "Keyslot {index} is overlapping with the LUKS header"
                )));
            }
            if slot.active && slot.iterations == 0 {
                return Err(Error::corrupt(format!(
                    "Keyslot {index} iteration count is zero"
                )));
            }
            if payload != 0 && end > payload {
                return Err(Error::corrupt(format!(
                    "Keyslot {index} is overlapping with the encrypted payload"
                )));
            }
            for (other, &(other_start, other_end)) in ranges.iter().enumerate().skip(index + 1) {
                if start < other_end && other_start < end {
                    return Err(Error::corrupt(format!(
                        "Keyslots {index} and {other} are overlapping in the header"
                    )));
                }
            }
        }
        Ok(())
    }
}

fn put_text(out: &mut Vec<u8>, text: &str, len: usize) {
    let end = out.len() + len;
    out.extend(text.bytes().take(len - 1));
    out.resize(end, 0);
}

fn cipher_mode_text(cipher: &CipherSpec) -> String {
    match cipher.iv.hash() {
        Some(hash) => format!(
            "{}-{}:{}",
            cipher.mode.name(),
            cipher.iv.name(),
            hash.name()
        ),
        None => format!("{}-{}", cipher.mode.name(), cipher.iv.name()),
    }
}

fn parse_cipher(family: &str, mode_text: &str, key_len: u32) -> Result<CipherSpec> {
    let (mode_name, iv_text) = mode_text.split_once('-').ok_or_else(|| {
        Error::corrupt(format!(
            "Unexpected cipher mode string format '{mode_text}'"
        ))
    })?;
    let mode = Mode::from_name(mode_name)
        .ok_or_else(|| Error::unsupported(format!("Cipher mode '{mode_name}' is not supported")))?;
    let iv = match iv_text.split_once(':') {
        None if iv_text == "plain" => IvGenerator::Plain,
        None if iv_text == "plain64" => IvGenerator::Plain64,
        Some(("essiv", hash)) => IvGenerator::Essiv(Hash::from_name(hash).ok_or_else(|| {
            Error::unsupported(format!("Hash algorithm '{hash}' is not supported"))
        })?),
        _ => {
            return Err(Error::unsupported(format!(
                "IV generator '{iv_text}' is not supported"
            )));
        }
    };
    let single = if mode == Mode::Xts {
        key_len / 2
    } else {
        key_len
    };
    let algorithm = Algorithm::from_family(family, single as usize)
        .filter(|_| mode != Mode::Xts || key_len.is_multiple_of(2))
        .ok_or_else(|| {
            Error::unsupported(format!(
                "Algorithm '{family}' with key size {key_len} not supported"
            ))
        })?;
    Ok(CipherSpec {
        algorithm,
        mode,
        iv,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::crypto::luks) fn sample() -> Header {
        let mut slots = [KeySlot {
            stripes: STRIPES,
            ..KeySlot::default()
        }; SLOTS];
        for (index, slot) in slots.iter_mut().enumerate() {
            slot.material_sector = 8 + 504 * index as u32;
        }
        Header {
            cipher: CipherSpec {
                algorithm: Algorithm::Aes256,
                mode: Mode::Xts,
                iv: IvGenerator::Plain64,
            },
            hash: Hash::Sha256,
            payload_sector: 4040,
            key_len: 64,
            digest: [1; DIGEST_LEN],
            digest_salt: [2; SALT_LEN],
            digest_iterations: 1000,
            uuid: "7a3f1c3e-6a86-4e0e-9d6b-8a1f2f8d3c11".into(),
            slots,
        }
    }

    #[test]
    fn a_header_round_trips_and_has_its_size() {
        let bytes = sample().to_bytes();
        assert_eq!(bytes.len(), HEADER_LEN);
        assert_eq!(Header::from_bytes(&bytes).unwrap(), sample());
    }

    #[test]
    fn damage_is_refused() {
        assert_eq!(
            Header::from_bytes(&[0; 592]).unwrap_err().kind(),
            ErrorKind::NotAnImage
        );
        assert!(Header::from_bytes(&sample().to_bytes()[..500]).is_err());
        let mut luks2 = sample().to_bytes();
        luks2[7] = 2;
        assert_eq!(
            Header::from_bytes(&luks2).unwrap_err().kind(),
            ErrorKind::Unsupported
        );
        let mut overlap = sample();
        overlap.slots[3].material_sector = overlap.slots[2].material_sector + 1;
        assert!(Header::from_bytes(&overlap.to_bytes()).is_err());
        let mut payload = sample();
        payload.payload_sector = 100;
        assert!(Header::from_bytes(&payload.to_bytes()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_flip_is_parsed_or_refused(at in 0usize..592, value: u8) {
            let mut bytes = sample().to_bytes();
            bytes[at] = value;
            let _ = Header::from_bytes(&bytes);
        }
    }
}
