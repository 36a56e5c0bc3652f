//! An unlocked volume: its header, and the cipher for its payload.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::crypto::afsplit;
use crate::crypto::cipher::SectorCipher;
use crate::crypto::luks::disk::{DIGEST_LEN, HEADER_LEN, Header, KeySlot, SECTOR_LEN};
use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::memory;

/// Maximum number of PBKDF2 iterations accepted for a key slot or digest: minutes of work.
pub(super) const MAX_ITERATIONS: u32 = 1 << 28;

/// Access to a volume's header area, starting at its first byte.
pub trait HeaderIo: Sync {
    /// Fills `buf` from `offset` within the header area.
    ///
    /// # Errors
    /// If I/O fails, or the area ends before.
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Writes `buf` at `offset` within the header area.
    ///
    /// # Errors
    /// If I/O fails.
    fn write(&self, buf: &[u8], offset: u64) -> Result<()>;

    /// Makes the writes durable.
    ///
    /// # Errors
    /// If I/O fails.
    fn sync(&self) -> Result<()>;
}

/// An unlocked LUKS volume.
#[derive(Debug)]
pub struct Volume {
    header: Header,
    cipher: Arc<SectorCipher>,
}

impl Volume {
    /// Reads the header without unlocking the volume.
    ///
    /// # Errors
    /// As [`Header::from_bytes`]; if I/O fails.
    pub fn read_header(io: &dyn HeaderIo) -> Result<Header> {
        let mut bytes = [0; HEADER_LEN];
        io.read(&mut bytes, 0)?;
        Header::from_bytes(&bytes)
    }

    /// Unlocks with a passphrase, which is tried on every active key slot.
    ///
    /// # Errors
    /// [`ErrorKind::WrongSecret`] if it opens none, [`ErrorKind::Cancelled`] if `control` cancels it.
    pub fn unlock(io: &dyn HeaderIo, passphrase: &[u8], control: &JobControl) -> Result<Self> {
        let header = Self::read_header(io)?;
        let (_, key) = find_key(io, &header, passphrase, control)?.ok_or_else(wrong_secret)?;
        Self::with_key(header, &key)
    }

    pub(super) fn with_key(header: Header, key: &[u8]) -> Result<Self> {
        let cipher = header.cipher.keyed(key)?;
        Ok(Self {
            header,
            cipher: Arc::new(cipher),
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The cipher for the payload; sector 0 is the payload's first.
    pub fn cipher(&self) -> &SectorCipher {
        &self.cipher
    }

    /// The cipher, for sharing between threads.
    pub fn cipher_handle(&self) -> Arc<SectorCipher> {
        self.cipher.clone()
    }
}

pub(super) fn wrong_secret() -> Error {
    Error::new(
        ErrorKind::WrongSecret,
        "Invalid password, cannot unlock any keyslot",
    )
}

/// The first slot that `passphrase` opens, and the master key.
pub(super) fn find_key(
    io: &dyn HeaderIo,
    header: &Header,
    passphrase: &[u8],
    control: &JobControl,
) -> Result<Option<(usize, Zeroizing<Vec<u8>>)>> {
    for (index, slot) in header
        .slots
        .iter()
        .enumerate()
        .filter(|(_, slot)| slot.active)
    {
        if let Some(key) = open_slot(io, header, slot, passphrase, control)? {
            return Ok(Some((index, key)));
        }
    }
    Ok(None)
}

/// The master key, if `passphrase` opens the slot.
pub(super) fn open_slot(
    io: &dyn HeaderIo,
    header: &Header,
    slot: &KeySlot,
    passphrase: &[u8],
    control: &JobControl,
) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let key_len = header.cipher.key_len();
    let mut slot_key = Zeroizing::new(vec![0; key_len]);
    check_iterations(slot.iterations)?;
    check_iterations(header.digest_iterations)?;
    let (salt, iterations) = (&slot.salt, slot.iterations);
    header
        .hash
        .pbkdf2(passphrase, salt, iterations, &mut slot_key, control)?;
    let material_len = (header.material_sectors() * SECTOR_LEN) as usize;
    // The cipher works on whole sectors; the splitter needs the stripes only.
    let mut material = Zeroizing::new(memory::zeroed(material_len)?);
    io.read(&mut material, u64::from(slot.material_sector) * SECTOR_LEN)?;
    header.cipher.keyed(&slot_key)?.decrypt(&mut material, 0);
    let stripes = &material[..key_len * slot.stripes as usize];
    let key = afsplit::merge(header.hash, stripes, key_len);
    let digest = digest_key(header, &key, control)?;
    Ok((digest == header.digest).then_some(key))
}

/// A header may specify any amount of work.
fn check_iterations(iterations: u32) -> Result<()> {
    if iterations > MAX_ITERATIONS {
        return Err(Error::new(
            ErrorKind::Limit,
            format!(
                "The LUKS header asks for {iterations} iterations of PBKDF2; the limit is \
                 {MAX_ITERATIONS}"
            ),
        ));
    }
    Ok(())
}

/// The digest that identifies a master key.
pub(super) fn digest_key(
    header: &Header,
    key: &[u8],
    control: &JobControl,
) -> Result<[u8; DIGEST_LEN]> {
    let mut digest = [0; DIGEST_LEN];
    header.hash.pbkdf2(
        key,
        &header.digest_salt,
        header.digest_iterations,
        &mut digest,
        control,
    )?;
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::luks::disk::tests::sample;

    struct Bytes(Vec<u8>);

    impl HeaderIo for Bytes {
        fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            buf.copy_from_slice(&self.0[offset as usize..][..buf.len()]);
            Ok(())
        }

        fn write(&self, _buf: &[u8], _offset: u64) -> Result<()> {
            Ok(())
        }

        fn sync(&self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn work_without_end_is_refused() {
        for digest in [false, true] {
            let mut header = sample();
            header.slots[0].active = true;
            header.slots[0].iterations = if digest { 1000 } else { u32::MAX };
            header.digest_iterations = if digest { u32::MAX } else { 1000 };
            let mut bytes = header.to_bytes();
            bytes.resize(4 << 20, 0);
            let error = Volume::unlock(&Bytes(bytes), b"x", &JobControl::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Limit);
        }
    }
}
