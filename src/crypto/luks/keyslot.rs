//! Key slots: adding and erasing keys.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::crypto::afsplit;
use crate::crypto::luks::create::{fill_random, iterations_for};
use crate::crypto::luks::disk::{Header, SECTOR_LEN, SLOTS};
use crate::crypto::luks::volume::{HeaderIo, Volume, find_key, open_slot, wrong_secret};
use crate::error::{Error, ErrorKind, Result};

/// Whether a change fills or erases key slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmendState {
    /// Fill a slot.
    Active,
    /// Erase slots.
    Inactive,
}

/// A change of key slots, as `amend -o state=…` asks for it.
#[derive(Debug)]
pub struct KeyslotChange<'a> {
    /// Fill or erase.
    pub state: AmendState,
    /// The slot; None takes the first free one, or all that the old secret opens.
    pub keyslot: Option<usize>,
    /// Opens the volume (fill), or selects the slots to erase.
    pub old_secret: Option<&'a [u8]>,
    /// The passphrase of the slot to fill.
    pub new_secret: Option<&'a [u8]>,
    /// How long an unlock of the new slot should take.
    pub iter_time: Duration,
    /// Overwrite an active slot, erase the last one.
    pub force: bool,
}

/// Splits, encrypts and writes the master key into a slot, and marks it active in `header` (which
/// the caller writes afterwards).
pub(super) fn fill(
    io: &dyn HeaderIo,
    header: &mut Header,
    index: usize,
    key: &[u8],
    passphrase: &[u8],
    iterations: u32,
) -> Result<()> {
    let material_len = (header.material_sectors() * SECTOR_LEN) as usize;
    let (cipher, hash) = (header.cipher, header.hash);
    let slot = header
        .slots
        .get_mut(index)
        .ok_or_else(|| Error::invalid(format!("Invalid keyslot {index}")))?;
    fill_random(&mut slot.salt)?;
    slot.iterations = iterations;
    let mut slot_key = Zeroizing::new(vec![0; key.len()]);
    hash.pbkdf2(passphrase, &slot.salt, iterations, &mut slot_key);
    let mut material = Zeroizing::new(vec![0; material_len]);
    let stripes = &mut material[..key.len() * slot.stripes as usize];
    fill_random(stripes)?;
    afsplit::split(hash, key, stripes);
    cipher.keyed(&slot_key)?.encrypt(&mut material, 0);
    io.write(&material, u64::from(slot.material_sector) * SECTOR_LEN)?;
    slot.active = true;
    Ok(())
}

impl Volume {
    /// Changes key slots. `unlocked_by` is the passphrase that the image was opened with.
    ///
    /// The new key material is durable before the header names it, and a slot is inactive in the
    /// header before its material is overwritten.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a change that would lose the data, [`ErrorKind::WrongSecret`], or
    /// of I/O.
    pub fn amend(
        io: &dyn HeaderIo,
        change: &KeyslotChange<'_>,
        unlocked_by: Option<&[u8]>,
    ) -> Result<()> {
        let mut header = Self::read_header(io)?;
        if let Some(slot) = change.keyslot.filter(|&slot| slot >= SLOTS) {
            return Err(Error::invalid(format!(
                "Invalid keyslot {slot} specified, must be between 0 and {}",
                SLOTS - 1
            )));
        }
        match change.state {
            AmendState::Active => activate(io, &mut header, change, unlocked_by),
            AmendState::Inactive => erase(io, &mut header, change),
        }
    }
}

fn activate(
    io: &dyn HeaderIo,
    header: &mut Header,
    change: &KeyslotChange<'_>,
    unlocked_by: Option<&[u8]>,
) -> Result<()> {
    let new_secret = change
        .new_secret
        .ok_or_else(|| Error::invalid("'new-secret' is required to activate a keyslot"))?;
    let index = match change.keyslot {
        Some(index) if header.slots[index].active && !change.force => {
            return Err(Error::invalid(format!(
                "Refusing to overwrite active keyslot {index} - please erase it first"
            )));
        }
        Some(index) => index,
        None => header
            .slots
            .iter()
            .position(|slot| !slot.active)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::NoSpace,
                    "Can't add a keyslot - all keyslots are in use",
                )
            })?,
    };
    let opener = change.old_secret.or(unlocked_by).ok_or_else(|| {
        Error::new(
            ErrorKind::NeedsSecret,
            "A secret that opens the volume is required",
        )
    })?;
    let (_, key) = find_key(io, header, opener)?.ok_or_else(wrong_secret)?;
    if header.slots[index].active {
        deactivate(io, header, index)?;
    }
    let iterations = iterations_for(header.hash, key.len(), change.iter_time);
    fill(io, header, index, &key, new_secret, iterations)?;
    io.sync()?;
    io.write(&header.to_bytes(), 0)?;
    io.sync()
}

fn erase(io: &dyn HeaderIo, header: &mut Header, change: &KeyslotChange<'_>) -> Result<()> {
    if change.new_secret.is_some() {
        return Err(Error::invalid(
            "'new-secret' must not be given when erasing keyslots",
        ));
    }
    let active = header.slots.iter().filter(|slot| slot.active).count();
    let doomed: Vec<usize> = match (change.keyslot, change.old_secret) {
        (None, None) => {
            return Err(Error::invalid(
                "To erase keyslot(s), either explicit keyslot index or the password currently \
                 contained in them must be given",
            ));
        }
        (Some(index), secret) => {
            if !header.slots[index].active && !change.force {
                return Err(Error::invalid(format!(
                    "Given keyslot {index} is already erased (inactive)"
                )));
            }
            if let Some(secret) = secret
                && open_slot(io, header, &header.slots[index], secret)?.is_none()
            {
                return Err(Error::new(
                    ErrorKind::WrongSecret,
                    format!("This keyslot {index} doesn't contain the given password"),
                ));
            }
            if active == 1 && header.slots[index].active && !change.force {
                return Err(Error::invalid(format!(
                    "Attempt to erase the only active keyslot {index} which will erase all the \
                     data in the image irreversibly - refusing operation"
                )));
            }
            vec![index]
        }
        (None, Some(secret)) => {
            let mut matching = Vec::new();
            for (index, slot) in header
                .slots
                .iter()
                .enumerate()
                .filter(|(_, slot)| slot.active)
            {
                if open_slot(io, header, slot, secret)?.is_some() {
                    matching.push(index);
                }
            }
            if matching.is_empty() {
                return Err(Error::new(
                    ErrorKind::WrongSecret,
                    "No keyslots match given (old) password for erase operation",
                ));
            }
            if matching.len() == active && !change.force {
                return Err(Error::invalid(
                    "All the active keyslots match the (old) password that was given and erasing \
                     them will erase all the data in the image irreversibly - refusing operation",
                ));
            }
            matching
        }
    };
    for index in doomed {
        deactivate(io, header, index)?;
    }
    Ok(())
}

/// Marks a slot inactive on disk, then overwrites its material.
fn deactivate(io: &dyn HeaderIo, header: &mut Header, index: usize) -> Result<()> {
    let len = (header.material_sectors() * SECTOR_LEN) as usize;
    let slot = &mut header.slots[index];
    slot.active = false;
    slot.iterations = 0;
    slot.salt.fill(0);
    let offset = u64::from(slot.material_sector) * SECTOR_LEN;
    io.write(&header.to_bytes(), 0)?;
    io.sync()?;
    let mut noise = vec![0; len];
    fill_random(&mut noise)?;
    io.write(&noise, offset)?;
    io.sync()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::cipher::{Algorithm, CipherSpec, Mode};
    use crate::crypto::hash::Hash;
    use crate::crypto::ivgen::IvGenerator;
    use crate::crypto::luks::create::{CreateOptions, required_header_len};
    use parking_lot::Mutex;

    struct Area(Mutex<Vec<u8>>);

    impl HeaderIo for Area {
        fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            let bytes = self.0.lock();
            let end = offset as usize + buf.len();
            let part = bytes
                .get(offset as usize..end)
                .ok_or_else(|| Error::corrupt("short"))?;
            buf.copy_from_slice(part);
            Ok(())
        }

        fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
            let mut bytes = self.0.lock();
            let end = offset as usize + buf.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[offset as usize..end].copy_from_slice(buf);
            Ok(())
        }

        fn sync(&self) -> Result<()> {
            Ok(())
        }
    }

    fn change<'a>(state: AmendState) -> KeyslotChange<'a> {
        KeyslotChange {
            state,
            keyslot: None,
            old_secret: None,
            new_secret: None,
            iter_time: Duration::ZERO,
            force: false,
        }
    }

    #[test]
    fn keys_are_added_erased_and_the_last_is_kept() {
        let area = Area(Mutex::new(Vec::new()));
        let cipher = CipherSpec {
            algorithm: Algorithm::Aes256,
            mode: Mode::Xts,
            iv: IvGenerator::Plain64,
        };
        assert_eq!(required_header_len(&cipher), 2_068_480);
        let options = CreateOptions {
            cipher,
            hash: Hash::Sha256,
            iter_time: Duration::ZERO,
        };
        let made = Volume::create(&area, &options, b"one").unwrap();
        let mut data = vec![5; 1024];
        made.cipher().encrypt(&mut data, 3);
        let unlocked = Volume::unlock(&area, b"one").unwrap();
        unlocked.cipher().decrypt(&mut data, 3);
        assert_eq!(data, vec![5; 1024]);
        assert_eq!(
            Volume::unlock(&area, b"two").unwrap_err().kind(),
            ErrorKind::WrongSecret
        );

        let add = KeyslotChange {
            new_secret: Some(b"two"),
            ..change(AmendState::Active)
        };
        assert!(Volume::amend(&area, &add, None).is_err());
        Volume::amend(&area, &add, Some(b"one")).unwrap();
        Volume::unlock(&area, b"two").unwrap();
        let drop_one = KeyslotChange {
            old_secret: Some(b"one"),
            ..change(AmendState::Inactive)
        };
        Volume::amend(&area, &drop_one, None).unwrap();
        assert!(Volume::unlock(&area, b"one").is_err());
        let drop_two = KeyslotChange {
            old_secret: Some(b"two"),
            ..change(AmendState::Inactive)
        };
        assert!(Volume::amend(&area, &drop_two, None).is_err());
        Volume::unlock(&area, b"two").unwrap();
    }
}
