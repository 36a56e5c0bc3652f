//! Key slots: adding and erasing keys.
//!
//! Writes are ordered so that the volume can be unlocked at every instant. A slot is filled in this order: the
//! material, then salt and iterations, then the state alone, whose four bytes are in one sector. It is emptied in this
//! order: the state, then salt and iterations, then the material, which is overwritten with random bytes. There is a
//! sync between the steps. If the only active slot is to be overwritten, the new key is kept in a free slot in the
//! meantime.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::crypto::afsplit;
use crate::crypto::luks::derivation::{fill_random, iterations_for};
use crate::crypto::luks::disk::{HEADER_LEN, Header, KeySlot, SECTOR_LEN, SLOTS, STATE_LEN};
use crate::crypto::luks::volume::{HeaderIo, Volume, find_key, open_slot, wrong_secret};
use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::memory;

/// Default unlock time of a new slot.
const ITER_TIME: Duration = Duration::from_millis(2000);

/// Whether a change fills or erases key slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmendState {
    /// Fill a slot.
    Active,
    /// Erase slots.
    Inactive,
}

/// A change of key slots, as requested by `amend -o state=…`.
#[derive(Debug)]
pub struct KeyslotChange<'a> {
    /// Fill or erase.
    pub state: AmendState,
    /// The slot; None for the first free one, or for all that the old secret opens.
    pub keyslot: Option<u64>,
    /// Selects the slots to erase.
    pub old_secret: Option<&'a [u8]>,
    /// The passphrase of the slot to fill.
    pub new_secret: Option<&'a [u8]>,
    /// How long unlocking the new slot should take; None for 2 seconds.
    pub iter_time: Option<Duration>,
    /// Allows overwriting an active slot and erasing the last one.
    pub force: bool,
}

/// The contents of a key slot that is to be filled. Everything slow is done before anything is written, so that a
/// change is cancelled as a whole.
pub(super) struct Filled {
    index: usize,
    slot: KeySlot,
    material: Zeroizing<memory::IoBuf>,
}

impl Filled {
    /// Splits and encrypts the master key for a slot.
    pub(super) fn new(
        header: &Header,
        index: usize,
        key: &[u8],
        passphrase: &[u8],
        iterations: u32,
        control: &JobControl,
    ) -> Result<Self> {
        let material_len = (header.material_sectors() * SECTOR_LEN) as usize;
        let (cipher, hash) = (header.cipher, header.hash);
        let mut slot = *header
            .slots
            .get(index)
            .ok_or_else(|| Error::invalid(format!("Invalid keyslot {index}")))?;
        fill_random(&mut slot.salt)?;
        slot.iterations = iterations;
        slot.active = true;
        let mut slot_key = Zeroizing::new(vec![0; key.len()]);
        hash.pbkdf2(passphrase, &slot.salt, iterations, &mut slot_key, control)?;
        let mut material = Zeroizing::new(memory::zeroed(material_len)?);
        let stripes = &mut material[..key.len() * slot.stripes as usize];
        fill_random(stripes)?;
        afsplit::split(hash, key, stripes);
        cipher.keyed(&slot_key)?.encrypt(&mut material, 0);
        Ok(Self {
            index,
            slot,
            material,
        })
    }

    /// Writes the material, and sets the slot in `header`, which the caller writes afterwards.
    pub(super) fn write(&self, io: &dyn HeaderIo, header: &mut Header) -> Result<()> {
        io.write(
            &self.material,
            u64::from(self.slot.material_sector) * SECTOR_LEN,
        )?;
        if let Some(slot) = header.slots.get_mut(self.index) {
            *slot = self.slot;
        }
        Ok(())
    }
}

impl Volume {
    /// Changes key slots. `unlocked_by` is the passphrase that the image was opened with. `control` can cancel it only
    /// before the first write: the change is made completely or not at all.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a change that would lose the data, [`ErrorKind::WrongSecret`],
    /// [`ErrorKind::Cancelled`]; if I/O fails.
    pub fn amend(
        io: &dyn HeaderIo,
        change: &KeyslotChange<'_>,
        unlocked_by: &[u8],
        control: &JobControl,
    ) -> Result<()> {
        let mut header = Self::read_header(io)?;
        match change.state {
            AmendState::Active => activate(io, &mut header, change, unlocked_by, control),
            AmendState::Inactive => erase(io, &mut header, change, control),
        }
    }
}

/// The slot that the change specifies.
fn named_slot(change: &KeyslotChange<'_>) -> Result<Option<usize>> {
    let Some(slot) = change.keyslot else {
        return Ok(None);
    };
    match usize::try_from(slot) {
        Ok(index) if index < SLOTS => Ok(Some(index)),
        _ => Err(Error::invalid(format!(
            "Invalid keyslot {slot} specified, must be between 0 and {}",
            SLOTS - 1
        ))),
    }
}

fn activate(
    io: &dyn HeaderIo,
    header: &mut Header,
    change: &KeyslotChange<'_>,
    unlocked_by: &[u8],
    control: &JobControl,
) -> Result<()> {
    let new_secret = change
        .new_secret
        .ok_or_else(|| Error::invalid("'new-secret' is required to activate a keyslot"))?;
    if change.old_secret.is_some() {
        return Err(Error::invalid(
            "'old-secret' must not be given when activating keyslots",
        ));
    }
    let free = header.slots.iter().position(|slot| !slot.active);
    let index = match named_slot(change)? {
        Some(index) if header.slots[index].active && !change.force => {
            return Err(Error::invalid(format!(
                "Refusing to overwrite active keyslot {index} - please erase it first"
            )));
        }
        Some(index) => index,
        None => free.ok_or_else(|| {
            Error::new(
                ErrorKind::NoSpace,
                "Can't add a keyslot - all keyslots are in use",
            )
        })?,
    };
    let (_, key) = find_key(io, header, unlocked_by, control)?.ok_or_else(wrong_secret)?;
    let iter_time = change.iter_time.unwrap_or(ITER_TIME);
    let iterations = iterations_for(header.hash, key.len(), iter_time, control)?;
    let filled = |index| Filled::new(header, index, &key, new_secret, iterations, control);
    let others = active_slots(header).filter(|&slot| slot != index).count();
    let spare = free.filter(|_| header.slots[index].active && others == 0);
    let meanwhile = spare.map(filled).transpose()?;
    let wanted = filled(index)?;
    if let Some(meanwhile) = &meanwhile {
        publish(io, header, meanwhile)?;
    }
    if header.slots[index].active {
        deactivate(io, header, index)?;
    }
    publish(io, header, &wanted)?;
    match spare {
        Some(spare) => deactivate(io, header, spare),
        None => Ok(()),
    }
}

fn active_slots(header: &Header) -> impl Iterator<Item = usize> + '_ {
    (0..SLOTS).filter(|&index| header.slots[index].active)
}

fn erase(
    io: &dyn HeaderIo,
    header: &mut Header,
    change: &KeyslotChange<'_>,
    control: &JobControl,
) -> Result<()> {
    if change.new_secret.is_some() {
        return Err(Error::invalid(
            "'new-secret' must not be given when erasing keyslots",
        ));
    }
    if change.iter_time.is_some() {
        return Err(Error::invalid(
            "'iter-time' must not be given when erasing keyslots",
        ));
    }
    let doomed = match (named_slot(change)?, change.old_secret) {
        (None, None) => {
            return Err(Error::invalid(
                "To erase keyslot(s), either explicit keyslot index or the password currently \
                 contained in them must be given",
            ));
        }
        (Some(index), secret) => {
            let opened = match secret {
                Some(secret) => opens(io, header, index, secret, control)?,
                None => true,
            };
            check_doomed(header, index, opened, change.force)?;
            vec![index]
        }
        (None, Some(secret)) => matching_slots(io, header, secret, change.force, control)?,
    };
    for index in doomed {
        deactivate(io, header, index)?;
    }
    Ok(())
}

/// Whether the passphrase opens the slot.
fn opens(
    io: &dyn HeaderIo,
    header: &Header,
    index: usize,
    secret: &[u8],
    control: &JobControl,
) -> Result<bool> {
    let slot = &header.slots[index];
    Ok(slot.active && open_slot(io, header, slot, secret, control)?.is_some())
}

/// Checks that the slot with that index may be erased; `opened` is false if an old secret was given that does not open
/// it.
fn check_doomed(header: &Header, index: usize, opened: bool, force: bool) -> Result<()> {
    if !opened {
        return Err(Error::new(
            ErrorKind::WrongSecret,
            format!(
                "Given keyslot {index} doesn't contain the given old password for erase operation"
            ),
        ));
    }
    if !header.slots[index].active && !force {
        return Err(Error::invalid(format!(
            "Given keyslot {index} is already erased (inactive) "
        )));
    }
    if active_slots(header).eq([index]) && !force {
        return Err(Error::invalid(format!(
            "Attempt to erase the only active keyslot {index} which will erase all the data in \
             the image irreversibly - refusing operation"
        )));
    }
    Ok(())
}

/// The slots that the passphrase opens.
fn matching_slots(
    io: &dyn HeaderIo,
    header: &Header,
    secret: &[u8],
    force: bool,
    control: &JobControl,
) -> Result<Vec<usize>> {
    let mut matching = Vec::new();
    for index in active_slots(header) {
        if opens(io, header, index, secret, control)? {
            matching.push(index);
        }
    }
    if matching.is_empty() {
        return Err(Error::new(
            ErrorKind::WrongSecret,
            "No keyslots match given (old) password for erase operation",
        ));
    }
    if active_slots(header).eq(matching.iter().copied()) && !force {
        return Err(Error::invalid(
            "All the active keyslots match the (old) password that was given and erasing them \
             will erase all the data in the image irreversibly - refusing operation",
        ));
    }
    Ok(matching)
}

/// Fills an inactive slot on disk.
fn publish(io: &dyn HeaderIo, header: &mut Header, filled: &Filled) -> Result<()> {
    filled.write(io, header)?;
    header.slots[filled.index].active = false;
    write_header(io, header)?;
    header.slots[filled.index].active = true;
    write_state(io, header, filled.index)
}

/// Marks a slot inactive on disk, then overwrites its salt, iterations and material.
fn deactivate(io: &dyn HeaderIo, header: &mut Header, index: usize) -> Result<()> {
    let len = (header.material_sectors() * SECTOR_LEN) as usize;
    header.slots[index].active = false;
    write_state(io, header, index)?;
    let slot = &mut header.slots[index];
    slot.iterations = 0;
    slot.salt.fill(0);
    let offset = u64::from(slot.material_sector) * SECTOR_LEN;
    write_header(io, header)?;
    let mut noise = memory::zeroed(len)?;
    fill_random(&mut noise)?;
    io.write(&noise, offset)?;
    io.sync()
}

/// Writes the state of a slot, after everything written before is durable.
fn write_state(io: &dyn HeaderIo, header: &Header, index: usize) -> Result<()> {
    let bytes = header.to_bytes();
    let at = Header::slot_offset(index);
    let state = bytes.get(at as usize..at as usize + STATE_LEN);
    io.sync()?;
    io.write(state.unwrap_or_default(), at)?;
    io.sync()
}

/// Writes the key slots of the header; the fields before them never change.
fn write_header(io: &dyn HeaderIo, header: &Header) -> Result<()> {
    let bytes = header.to_bytes();
    let at = Header::slot_offset(0);
    io.write(bytes.get(at as usize..HEADER_LEN).unwrap_or_default(), at)?;
    io.sync()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::cipher::{Algorithm, CipherSpec, Mode};
    use crate::crypto::hash::Hash;
    use crate::crypto::ivgen::IvGenerator;
    use crate::crypto::luks::NewVolume;
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
            iter_time: (state == AmendState::Active).then_some(Duration::ZERO),
            force: false,
        }
    }

    #[test]
    fn keys_are_added_erased_and_the_last_is_kept() {
        let idle = &JobControl::default();
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
        let new = NewVolume::new(&options, false, b"one", idle).unwrap();
        let made = new.write(&area).unwrap();
        let mut data = vec![5; 1024];
        made.cipher().encrypt(&mut data, 3);
        let unlocked = Volume::unlock(&area, b"one", idle).unwrap();
        unlocked.cipher().decrypt(&mut data, 3);
        assert_eq!(data, vec![5; 1024]);
        assert_eq!(
            Volume::unlock(&area, b"two", idle).unwrap_err().kind(),
            ErrorKind::WrongSecret
        );

        let add = KeyslotChange {
            new_secret: Some(b"two"),
            ..change(AmendState::Active)
        };
        assert!(Volume::amend(&area, &add, b"three", idle).is_err());
        Volume::amend(&area, &add, b"one", idle).unwrap();
        Volume::unlock(&area, b"two", idle).unwrap();
        let drop_one = KeyslotChange {
            old_secret: Some(b"one"),
            ..change(AmendState::Inactive)
        };
        Volume::amend(&area, &drop_one, b"one", idle).unwrap();
        assert!(Volume::unlock(&area, b"one", idle).is_err());
        let drop_two = KeyslotChange {
            old_secret: Some(b"two"),
            ..change(AmendState::Inactive)
        };
        assert!(Volume::amend(&area, &drop_two, b"two", idle).is_err());
        Volume::unlock(&area, b"two", idle).unwrap();
    }
}
