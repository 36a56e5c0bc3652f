//! The descriptor and its place: in a file of its own, or in reserved space within the extent. While another text
//! replaces it, the file holds a complete descriptor at any time: the old one or the new one.

use std::sync::Arc;

use bstr::BStr;

use crate::error::{Error, ErrorKind, Result};
use crate::memory;
use crate::size::SECTOR;
use crate::storage::{Durability, Preallocation, Storage};

use super::disk::Descriptor;
use super::disk::sparse_header::DESCRIPTOR_AT;

/// Size of a sector, which is written as a whole or not at all.
const UNIT: usize = SECTOR as usize;

/// Maximum number of sectors that are written one after the other; the result of each has to be checked.
const MOST_STEPS: usize = 16;

/// The descriptor and its place.
#[derive(Debug)]
pub(super) struct PlacedDescriptor {
    /// The file that holds it.
    pub(super) file: Arc<dyn Storage>,
    pub(super) descriptor: Descriptor,
    pub(super) offset: u64,
    /// Its maximum length; `None` if the file contains nothing else.
    pub(super) room: Option<u64>,
    /// The last change wrote something.
    pub(super) has_begun: bool,
}

/// How another text replaces the current one.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// Sector by sector in this order: after each of them, the descriptor has the old meaning or the new one.
    Sectors(Vec<usize>),
    /// By way of a copy at this offset in the reserved space, to which the header refers in the meantime.
    Aside(u64),
    /// As a new file under the same name.
    Successor,
}

impl PlacedDescriptor {
    /// Rejects a text for which there is no space, or which cannot replace the old one safely.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] and [`ErrorKind::Unsupported`].
    pub(super) fn check(&self, new: &Descriptor) -> Result<()> {
        self.way(new).map(drop)
    }

    /// Durably replaces the text by another one.
    ///
    /// # Errors
    /// As [`PlacedDescriptor::check`]; if I/O fails.
    pub(super) fn replace(&mut self, new: Descriptor, durability: Durability) -> Result<()> {
        self.has_begun = false;
        match self.way(&new)? {
            Way::Sectors(order) => {
                for sector in order {
                    self.write_sector(&new, sector)?;
                    self.has_begun = true;
                    self.file.sync(durability)?;
                }
                self.cut(&new)?;
            }
            Way::Aside(offset) => self.move_by(offset, &new, durability)?,
            Way::Successor => {
                let file = self.file.host().map(|host| host.succeed(new.text()));
                self.file = file.unwrap_or_else(|| Err(unsafe_change()))?;
            }
        }
        self.descriptor = new;
        self.file.sync(durability)
    }

    /// After [`PlacedDescriptor::replace`] has failed: whether the file certainly holds the old text, which is
    /// rewritten if it may not.
    pub(super) fn take_back(&self, new: &Descriptor, durability: Durability) -> bool {
        match self.way(new) {
            Ok(Way::Sectors(order)) => {
                let mut back = order.iter().rev();
                let back = back.try_for_each(|sector| self.write_sector(&self.descriptor, *sector));
                let back = back.and_then(|()| self.file.sync(durability));
                back.is_ok() || !self.has_begun && self.holds_old().unwrap_or(false)
            }
            // The name still refers to the old file.
            Ok(Way::Successor) => self.file.host().is_some_and(|host| host.can_be_succeeded()),
            Ok(Way::Aside(_)) | Err(_) => false,
        }
    }

    fn holds_old(&self) -> Result<bool> {
        let text = self.descriptor.text();
        let mut bytes = memory::zeroed(text.len())?;
        self.file.read_at(&mut bytes, self.offset)?;
        Ok(*bytes == **text)
    }

    fn way(&self, new: &Descriptor) -> Result<Way> {
        let (old_len, len) = (self.descriptor.text().len(), new.text().len());
        if let Some(room) = self.room.filter(|room| len as u64 > *room) {
            return Err(Error::new(
                ErrorKind::Limit,
                format!("The descriptor would take {len} bytes, and there is room for {room}"),
            ));
        }
        let (sectors, old_sectors) = (len.div_ceil(UNIT), old_len.div_ceil(UNIT));
        let differs = |n: &usize| sector(self.descriptor.text(), *n) != sector(new.text(), *n);
        let changed: Vec<usize> = (0..sectors.max(old_sectors)).filter(differs).collect();
        if changed.len() <= 1 || self.stays_whole(new, &changed)? {
            return Ok(Way::Sectors(changed));
        }
        let back: Vec<usize> = changed.into_iter().rev().collect();
        if self.stays_whole(new, &back)? {
            return Ok(Way::Sectors(back));
        }
        if let Some(room) = self.room {
            // A zero byte terminates each of the two texts.
            let before = (len.max(old_len) as u64 + 1).next_multiple_of(SECTOR);
            if before + (sectors as u64 * SECTOR) <= room {
                return Ok(Way::Aside(before));
            }
        } else if self.file.host().is_some_and(|host| host.can_be_succeeded()) {
            return Ok(Way::Successor);
        }
        Err(unsafe_change())
    }

    /// Whether the file holds a descriptor with the old or the new meaning after each of these sectors.
    fn stays_whole(&self, new: &Descriptor, order: &[usize]) -> Result<bool> {
        if order.len() > MOST_STEPS {
            return Ok(false);
        }
        let old = &self.descriptor;
        let count = old.text().len().max(new.text().len()).div_ceil(UNIT);
        let mut bytes = memory::zeroed(count * UNIT)?;
        for (to, from) in bytes.iter_mut().zip(old.text().iter()) {
            *to = *from;
        }
        for n in order {
            if let Some(place) = bytes.get_mut(n * UNIT..(n + 1) * UNIT) {
                place.copy_from_slice(&sector(new.text(), *n));
            }
            let now = Descriptor::parse(&bytes);
            if !now.is_ok_and(|now| now.says_as(old) || now.says_as(new)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes one sector of a text; a file that contains nothing else does not become longer than the text.
    fn write_sector(&self, new: &Descriptor, n: usize) -> Result<()> {
        let longer = new.text().len().max(self.descriptor.text().len());
        let end = match self.room {
            Some(_) => u64::MAX,
            None => self.file.len()?.max(longer as u64),
        };
        let at = (n * UNIT) as u64;
        let len = end.saturating_sub(at).min(SECTOR) as usize;
        let bytes = sector(new.text(), n);
        let part = bytes.get(..len).unwrap_or_default();
        self.file.write_at(part, self.offset + at)
    }

    /// Truncates a file that contains nothing else to the length of its text.
    fn cut(&self, new: &Descriptor) -> Result<()> {
        let (old, len) = (self.descriptor.text().len() as u64, new.text().len() as u64);
        let whole = self.room.is_none() && !self.file.limits().fixed_len;
        if whole && len < old && self.file.len()? == old {
            self.file.set_len(len, Preallocation::Off)?;
        }
        Ok(())
    }

    /// Has the header refer to a copy of the text in the reserved space until the text is in the place of the old one.
    fn move_by(&mut self, offset: u64, new: &Descriptor, durability: Durability) -> Result<()> {
        let (first, room) = (self.offset, self.room.unwrap_or_default());
        let aside = (first + offset, room - offset);
        let ended = (new.text().len() as u64 + 1).next_multiple_of(SECTOR);
        self.write_text(new, (aside.0, ended.min(aside.1)))?;
        self.file.sync(durability)?;
        self.point(aside, durability)?;
        self.descriptor = new.clone();
        self.write_text(new, (first, offset))?;
        self.file.sync(durability)?;
        self.point((first, room), durability)?;
        // Nothing refers to the copy any more.
        let bytes = memory::zeroed(new.text().len())?;
        self.file.write_at(&bytes, aside.0)
    }

    /// Writes a whole text, followed by zeroes.
    fn write_text(&self, new: &Descriptor, (at, len): (u64, u64)) -> Result<()> {
        let mut bytes = memory::zeroed(len as usize)?;
        for (to, from) in bytes.iter_mut().zip(new.text().iter()) {
            *to = *from;
        }
        self.file.write_at(&bytes, at)
    }

    /// Has the header refer to a place in the reserved space: a single write within its sector.
    fn point(&mut self, (offset, room): (u64, u64), durability: Durability) -> Result<()> {
        let mut bytes = [0; 16];
        let (place, len) = bytes.split_at_mut(8);
        place.copy_from_slice(&(offset / SECTOR).to_le_bytes());
        len.copy_from_slice(&(room / SECTOR).to_le_bytes());
        self.file.write_at(&bytes, DESCRIPTOR_AT)?;
        (self.offset, self.room) = (offset, Some(room));
        self.file.sync(durability)
    }
}

/// A sector of a text, padded with zeroes.
fn sector(text: &BStr, n: usize) -> [u8; UNIT] {
    let mut bytes = [0; UNIT];
    let rest = text.get(n * UNIT..).unwrap_or_default();
    for (to, from) in bytes.iter_mut().zip(rest) {
        *to = *from;
    }
    bytes
}

fn unsafe_change() -> Error {
    Error::unsupported(
        "A descriptor of several sectors would be torn by a crash amid this change, and no other can take its place here; open it by its name, or convert the image",
    )
}
