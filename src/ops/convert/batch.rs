//! Writes that are adjacent in the target, collected into one system call.

use std::io::IoSlice;

use crate::error::{Result, ResultExt};
use crate::extent::StorageSlot;
use crate::format::Bulk;

use super::piece::TargetPlace;
use super::sink::at_byte;

/// Maximum number of buffers in one system call.
const MAX_VECTORS: usize = 256;

/// Collects writes that are adjacent in the target into one system call.
pub(super) struct Batch<'a, 'b> {
    bulk: &'a dyn Bulk,
    slices: Vec<&'b [u8]>,
    guest: u64,
    start: TargetPlace,
    len: u64,
    by_guest: bool,
}

impl<'a, 'b> Batch<'a, 'b> {
    pub fn new(bulk: &'a dyn Bulk) -> Self {
        Self {
            bulk,
            slices: Vec::new(),
            guest: 0,
            start: TargetPlace {
                slot: StorageSlot::MAIN,
                host: 0,
            },
            len: 0,
            by_guest: !bulk.takes_raw_writes(),
        }
    }

    /// Adds plain guest bytes.
    pub fn push(&mut self, guest: u64, place: TargetPlace, bytes: &'b [u8]) -> Result<()> {
        // A cipher may number its sectors by guest offset.
        let follows = !self.by_guest || guest == self.guest + self.len;
        self.add(guest, place, bytes, follows)
    }

    /// Adds a unit in the encoded form in which the image stores it.
    pub fn push_encoded(&mut self, guest: u64, place: TargetPlace, bytes: &'b [u8]) -> Result<()> {
        self.add(guest, place, bytes, true)
    }

    fn add(
        &mut self,
        guest: u64,
        place: TargetPlace,
        bytes: &'b [u8],
        follows: bool,
    ) -> Result<()> {
        let follows =
            follows && place.slot == self.start.slot && place.host == self.start.host + self.len;
        if !follows || self.slices.len() == MAX_VECTORS {
            self.flush()?;
        }
        if self.slices.is_empty() {
            self.guest = guest;
            self.start = place;
        }
        self.slices.push(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    pub fn flush(&mut self) -> Result<()> {
        if self.slices.is_empty() {
            return Ok(());
        }
        let slices: Vec<IoSlice<'_>> = self.slices.iter().map(|s| IoSlice::new(s)).collect();
        let place = (self.start.slot, self.start.host);
        let written = self.bulk.write_data(place, self.guest, &slices);
        self.slices.clear();
        self.len = 0;
        written.context(at_byte(self.guest))
    }
}
