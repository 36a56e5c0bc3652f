//! A new volume: layout, master key and first key slot.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::crypto::cipher::CipherSpec;
use crate::crypto::hash::Hash;
use crate::crypto::luks::derivation::{MIN_ITERATIONS, fill_random, iterations_for};
use crate::crypto::luks::disk::{
    DIGEST_LEN, HEADER_LEN, Header, KeySlot, SALT_LEN, SECTOR_LEN, SLOTS, STRIPES,
};
use crate::crypto::luks::keyslot;
use crate::crypto::luks::volume::{HeaderIo, Volume, digest_key};
use crate::error::Result;
use crate::job::JobControl;
use crate::memory;

/// How a new volume is created.
#[derive(Clone, Copy, Debug)]
pub struct CreateOptions {
    /// Cipher, mode and IV generator, for key slots and payload.
    pub cipher: CipherSpec,
    /// Hash for PBKDF2 and the anti-forensic splitter.
    pub hash: Hash,
    /// How long one unlock should take on this machine.
    pub iter_time: Duration,
}

/// Key material starts and ends at multiples of this many sectors, as in cryptsetup.
const ALIGN_SECTORS: u64 = 8;
fn slot_sectors(cipher: &CipherSpec) -> u64 {
    (cipher.key_len() as u64 * u64::from(STRIPES))
        .div_ceil(SECTOR_LEN)
        .next_multiple_of(ALIGN_SECTORS)
}

/// Length in bytes of the header area of a new volume, before the payload.
pub fn required_header_len(cipher: &CipherSpec) -> u64 {
    (ALIGN_SECTORS + SLOTS as u64 * slot_sectors(cipher)) * SECTOR_LEN
}

/// A new volume with all its keys, before anything is written.
pub struct NewVolume {
    header: Header,
    key: Zeroizing<Vec<u8>>,
    /// The first key slot.
    slot: keyslot::Filled,
}

impl std::fmt::Debug for NewVolume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewVolume").finish_non_exhaustive()
    }
}

impl NewVolume {
    /// Generates the master key and one key slot for it. If the header is `detached`, the payload starts at the
    /// beginning of another file.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] for a cipher that does not exist, [`crate::ErrorKind::Limit`] for a time that
    /// needs too many iterations, [`crate::ErrorKind::Cancelled`] if `control` cancels it.
    pub fn new(
        options: &CreateOptions,
        detached: bool,
        passphrase: &[u8],
        control: &JobControl,
    ) -> Result<Self> {
        let cipher = options.cipher;
        let mut key = Zeroizing::new(vec![0; cipher.key_len()]);
        fill_random(&mut key)?;
        cipher.keyed(&key)?;
        let mut slots = [KeySlot {
            stripes: STRIPES,
            ..KeySlot::default()
        }; SLOTS];
        for (index, slot) in slots.iter_mut().enumerate() {
            slot.material_sector = (ALIGN_SECTORS + index as u64 * slot_sectors(&cipher)) as u32;
        }
        let iterations =
            iterations_for(options.hash, cipher.key_len(), options.iter_time, control)?;
        let mut header = Header {
            cipher,
            hash: options.hash,
            payload_sector: if detached {
                0
            } else {
                (required_header_len(&cipher) / SECTOR_LEN) as u32
            },
            key_len: cipher.key_len() as u32,
            digest: [0; DIGEST_LEN],
            digest_salt: [0; SALT_LEN],
            digest_iterations: (iterations / 8).max(MIN_ITERATIONS),
            uuid: uuid::Uuid::new_v4().to_string(),
            slots,
        };
        fill_random(&mut header.digest_salt)?;
        header.digest = digest_key(&header, &key, control)?;
        let slot = keyslot::Filled::new(&header, 0, &key, passphrase, iterations, control)?;
        Ok(Self { header, key, slot })
    }

    /// Length of the header area in bytes.
    pub fn header_len(&self) -> u64 {
        required_header_len(&self.header.cipher)
    }

    /// Writes the volume to the header area, which need not be zeroed.
    ///
    /// # Errors
    /// If I/O fails.
    pub fn write(mut self, io: &dyn HeaderIo) -> Result<Volume> {
        let begin = HEADER_LEN as u64;
        wipe(io, begin, self.header_len() - begin)?;
        self.slot.write(io, &mut self.header)?;
        io.write(&self.header.to_bytes(), 0)?;
        Volume::with_key(self.header, &self.key)
    }
}

/// Zeroes a range of the header area, in pieces of bounded size.
fn wipe(io: &dyn HeaderIo, offset: u64, len: u64) -> Result<()> {
    let zeroes = memory::zeroed(64 << 10)?;
    let mut done = 0;
    while done < len {
        let piece = (len - done).min(zeroes.len() as u64);
        io.write(&zeroes[..piece as usize], offset + done)?;
        done += piece;
    }
    Ok(())
}
