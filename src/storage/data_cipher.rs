//! The cipher of guest data that lies in clusters anywhere in a file.

use std::cell::RefCell;
use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use crate::crypto::luks::Volume;
use crate::crypto::{Algorithm, CipherSpec, IvGenerator, Mode, SECTOR, SectorCipher};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{self, IoBuf};
use crate::storage::Storage;

/// Bytes encrypted at a time.
const CHUNK: usize = 1 << 20;
const SECTOR_LEN: u64 = SECTOR as u64;

thread_local! {
    /// The thread's room for encrypted bytes.
    static SEALED: RefCell<IoBuf> = const { RefCell::new(IoBuf::new()) };
}

/// Runs `body` with the thread's room, which is taken out meanwhile: the storage below may encrypt too.
fn with_room(body: impl FnOnce(&mut IoBuf) -> Result<()>) -> Result<()> {
    let mut room = SEALED.take();
    let result = body(&mut room);
    SEALED.set(room);
    result
}

/// Which offset numbers the sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbering {
    /// That of the bytes in their file.
    Host,
    /// That which the guest sees.
    Guest,
}

/// A keyed cipher of guest data.
#[derive(Clone, Debug)]
pub struct DataCipher {
    cipher: Arc<SectorCipher>,
    numbering: Numbering,
}

impl DataCipher {
    /// The cipher of an unlocked LUKS header: sectors count from the start of the file.
    pub fn luks(volume: &Volume) -> Self {
        Self {
            cipher: volume.cipher_handle(),
            numbering: Numbering::Host,
        }
    }

    /// The legacy cipher of qcow and qcow2: AES-128-CBC under the passphrase itself, cut or padded
    /// with zeroes to 16 bytes; sectors count from the start of the disk.
    ///
    /// # Errors
    /// None in practice: key and mode fit.
    pub fn aes(passphrase: &[u8]) -> Result<Self> {
        let mut key = zeroize::Zeroizing::new([0; 16]);
        key.iter_mut().zip(passphrase).for_each(|(k, p)| *k = *p);
        let spec = CipherSpec {
            algorithm: Algorithm::Aes128,
            mode: Mode::Cbc,
            iv: IvGenerator::Plain64,
        };
        Ok(Self {
            cipher: Arc::new(spec.keyed(&*key)?),
            numbering: Numbering::Guest,
        })
    }

    fn sector(&self, host: u64, guest: u64) -> u64 {
        match self.numbering {
            Numbering::Host => host / SECTOR_LEN,
            Numbering::Guest => guest / SECTOR_LEN,
        }
    }

    /// Fills `buf` with the guest bytes at `guest`, which lie at `host` of `storage`; both offsets
    /// lie alike within a sector.
    ///
    /// # Errors
    /// Of I/O.
    pub fn read(&self, storage: &dyn Storage, buf: &mut [u8], host: u64, guest: u64) -> Result<()> {
        let lead = (host % SECTOR_LEN) as usize;
        if lead == 0 && buf.len().is_multiple_of(SECTOR) {
            storage.read_at(buf, host)?;
            self.cipher.decrypt(buf, self.sector(host, guest));
            return Ok(());
        }
        with_room(|room| {
            let mut done = 0;
            while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
                let (host, guest) = (host + done as u64, guest + done as u64);
                let lead = (host % SECTOR_LEN) as usize;
                let take = rest.len().min(CHUNK - lead);
                room.room((lead + take).next_multiple_of(SECTOR))?;
                storage.read_at(room, host - lead as u64)?;
                self.cipher.decrypt(room, self.sector(host, guest));
                for (to, from) in rest.iter_mut().zip(room.iter().skip(lead)).take(take) {
                    *to = *from;
                }
                done += take;
            }
            Ok(())
        })
    }

    /// As [`DataCipher::read`] of whole sectors where that does not block; false leaves the buffer
    /// undefined.
    ///
    /// # Errors
    /// Of I/O.
    pub fn try_read(
        &self,
        storage: &dyn Storage,
        buf: &mut [u8],
        host: u64,
        guest: u64,
    ) -> Result<bool> {
        let whole = host.is_multiple_of(SECTOR_LEN) && buf.len().is_multiple_of(SECTOR);
        if !whole || !storage.try_read(&mut [IoSliceMut::new(buf)], host)? {
            return Ok(false);
        }
        self.cipher.decrypt(buf, self.sector(host, guest));
        Ok(true)
    }

    /// Encrypts the guest bytes at `guest`, in `bufs` one after the other, and writes them at `host`
    /// of `storage`. Both offsets are multiples of 512; a last sector that is not whole, which only
    /// the end of a disk may be, is filled up with zeroes.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] for an offset within a sector, else of I/O.
    pub fn write(
        &self,
        storage: &dyn Storage,
        bufs: &[IoSlice<'_>],
        host: u64,
        guest: u64,
    ) -> Result<()> {
        if !host.is_multiple_of(SECTOR_LEN) || !guest.is_multiple_of(SECTOR_LEN) {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("Encrypted data at guest offset {guest} does not begin at a sector"),
            ));
        }
        with_room(|room| {
            room.clear();
            let mut done = 0;
            for buf in bufs {
                let mut rest: &[u8] = buf;
                while !rest.is_empty() {
                    let (part, tail) = rest.split_at(rest.len().min(CHUNK - room.len()));
                    room.extend_from_slice(part)?;
                    rest = tail;
                    if room.len() == CHUNK {
                        self.seal(storage, room, host + done, guest + done)?;
                        done += CHUNK as u64;
                        room.clear();
                    }
                }
            }
            room.resize(room.len().next_multiple_of(SECTOR))?;
            self.seal(storage, room, host + done, guest + done)
        })
    }

    fn seal(&self, storage: &dyn Storage, room: &mut [u8], host: u64, guest: u64) -> Result<()> {
        if room.is_empty() {
            return Ok(());
        }
        self.cipher.encrypt(room, self.sector(host, guest));
        storage.write_at(room, host)
    }

    /// Writes `len` zero bytes of the guest, encrypted; see [`DataCipher::write`].
    ///
    /// # Errors
    /// As [`DataCipher::write`].
    pub fn write_zeroes(
        &self,
        storage: &dyn Storage,
        len: u64,
        host: u64,
        guest: u64,
    ) -> Result<()> {
        let zeroes = memory::zeroed(len.min(CHUNK as u64) as usize)?;
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(CHUNK as u64) as usize;
            let bytes = zeroes.get(..piece).unwrap_or(&zeroes);
            self.write(storage, &[IoSlice::new(bytes)], host + done, guest + done)?;
            done += piece as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;

    #[test]
    fn any_part_reads_back_and_the_disk_holds_no_plain_text() {
        let cipher = DataCipher::aes(b"a passphrase longer than sixteen bytes").unwrap();
        let same = DataCipher::aes(b"a passphrase lon").unwrap();
        let storage = MemoryStorage::new("mem");
        let plain: Vec<u8> = (0..3 << 20).map(|i: u32| (i / 7) as u8).collect();
        let (a, b) = plain.split_at(700_000);
        let bufs = [IoSlice::new(a), IoSlice::new(b)];
        cipher.write(&storage, &bufs, 4096, 1 << 30).unwrap();
        let mut sealed = vec![0; 512];
        storage.read_at(&mut sealed, 4096).unwrap();
        assert_ne!(sealed, plain[..512]);
        for (at, len) in [
            (0, 3 << 20),
            (1, 1),
            (511, 2),
            (1000, 2 << 20),
            (3_145_000, 728),
        ] {
            let mut part = vec![0; len];
            let (host, guest) = (4096 + at as u64, (1 << 30) + at as u64);
            same.read(&storage, &mut part, host, guest).unwrap();
            assert!(part == plain[at..at + len], "{at} + {len}");
        }
        assert!(cipher.write(&storage, &bufs, 4097, 1).is_err());
        cipher.write_zeroes(&storage, 100, 4096, 1 << 30).unwrap();
        let mut part = vec![1; 512];
        same.read(&storage, &mut part, 4096, 1 << 30).unwrap();
        assert_eq!(part, [0; 512]);
    }
}
