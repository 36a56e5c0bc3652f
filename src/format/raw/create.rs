//! New raw disks: every guest byte has a fixed place, so only the length has to be set.

use std::sync::Arc;

use crate::codec::Encoder;
use crate::error::{Error, Result};
use crate::extent::StorageSlot;
use crate::format::driver::{file_preallocation, outlined_preallocation, own_file};
use crate::format::{
    Bulk, CreateParams, InitialContent, NewImage, PlannedFile, PrepareContext, Reserved,
};
use crate::format::{Contents, Measured, Outline};
use crate::job::JobControl;
use crate::memory::{self, IoBuf};
use crate::options::{OptionKind, OptionSpec, Values};
use crate::storage::{Durability, Preallocation, Storage, grow, shorten};

use super::{SECTOR, main_slot};

pub(super) const OPTIONS: &[OptionSpec] = &[OptionSpec {
    name: "size",
    kind: OptionKind::Size,
    help: "Virtual disk size",
    default: None,
    allowed: &[],
}];

/// `qemu-img` leaves this much of a new sparse disk allocated, which `info` and `map` show.
const FIRST_BLOCK: u64 = 4096;

pub(super) fn outline(values: &Values) -> Outline {
    Outline {
        preallocation: outlined_preallocation(values),
        ..Outline::default()
    }
}

pub(super) fn measure(params: &CreateParams<'_>, _: &mut Contents<'_>) -> Result<Measured> {
    file_preallocation(params.values)?;
    Ok(Measured {
        required: params.size,
        fully_allocated: params.size,
        bitmaps: None,
    })
}

pub(super) fn plan(params: &CreateParams<'_>) -> Result<Box<dyn NewImage>> {
    Ok(Box::new(NewRaw {
        size: params.size,
        preallocation: file_preallocation(params.values)?,
    }))
}

/// A raw disk to be created.
#[derive(Debug)]
struct NewRaw {
    size: u64,
    preallocation: Preallocation,
}

impl NewImage for NewRaw {
    fn files(&self) -> Vec<PlannedFile> {
        vec![PlannedFile::own(self.size)]
    }

    fn prepare(&mut self, _: &PrepareContext<'_>) -> Result<()> {
        Ok(())
    }

    fn start(
        self: Box<Self>,
        files: &[Arc<dyn Storage>],
        control: &Arc<JobControl>,
    ) -> Result<Box<dyn Bulk>> {
        let storage = own_file(files)?.clone();
        let new = RawBulk {
            size: self.size,
            preallocation: self.preallocation,
            fixed: storage.limits().fixed_len,
            storage,
        };
        if new.fixed {
            return Ok(Box::new(new));
        }
        // The last sector is added at the end: until then the disk is shorter than its final size.
        let early = new.size.saturating_sub(SECTOR);
        if new.preallocation == Preallocation::Off {
            let first = memory::zeroed(early.min(FIRST_BLOCK) as usize)?;
            new.storage.write_at(&first, 0)?;
            // Refuse a disk that is too large now rather than at the end. Direct writes past the end of the file are
            // serialised. Never truncate back to 0: that makes ext4 write the file out when it is closed.
            let many = new.storage.limits().in_flight > 1;
            let begun = if many { early } else { first.len() as u64 };
            new.storage.set_len(new.size, Preallocation::Off)?;
            shorten::cut(&*new.storage, begun)?;
        } else {
            grow(&*new.storage, early, new.preallocation, control)?;
        }
        Ok(Box::new(new))
    }
}

/// A new raw disk that is being filled.
#[derive(Debug)]
struct RawBulk {
    storage: Arc<dyn Storage>,
    size: u64,
    preallocation: Preallocation,
    fixed: bool,
}

impl Bulk for RawBulk {
    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        main_slot(&self.storage, slot)
    }

    fn data_storages(&self) -> Vec<&Arc<dyn Storage>> {
        vec![&self.storage]
    }

    fn takes_raw_writes(&self) -> bool {
        true
    }

    fn encode_unit(&self) -> Option<u32> {
        None
    }

    fn zero_unit(&self) -> u32 {
        SECTOR as u32
    }

    fn alignment(&self) -> u64 {
        // Guest offsets are host offsets.
        1 << 63
    }

    fn initial_content(&self) -> InitialContent {
        InitialContent {
            unreserved_is_zero: !self.fixed,
            unwritten_is_zero: !self.fixed,
        }
    }

    fn encode(
        &self,
        _scratch: &mut Encoder,
        _guest_offset: u64,
        _unit: &[u8],
        _out: &mut IoBuf,
    ) -> Result<bool> {
        Err(Error::no_compression())
    }

    fn reserve(&self, guest_offset: u64, len: u64) -> Result<Reserved> {
        match guest_offset.checked_add(len) {
            Some(end) if end <= self.size => Ok(Reserved {
                slot: StorageSlot::MAIN,
                offset: guest_offset,
                len,
            }),
            _ => Err(Error::past_new_disk()),
        }
    }

    fn reserve_encoded(&self, _guest_offset: u64, _encoded_len: u32) -> Result<(StorageSlot, u64)> {
        Err(Error::no_compression())
    }

    fn reserve_zero(&self, _guest_offset: u64, _len: u64) -> Result<()> {
        // There is nothing below a raw disk: what is not written reads as zeroes.
        Ok(())
    }

    fn finish(&self, durability: Durability) -> Result<()> {
        if !self.fixed {
            self.storage.set_len(self.size, self.preallocation)?;
        }
        self.storage.sync(durability)
    }
}
