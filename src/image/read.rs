//! Reading through the chain.

use std::io::IoSliceMut;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::{ExtentKind, StorageSlot};
use crate::format::Below;
use crate::image::reads::{Pieces, Reads};
use crate::image::{Backing, Image, align};
use crate::storage::{ReadRange, Step, Storage, steps};

/// How often a read is repeated if the mapping changes while it is in progress.
const MAX_REMAPS: u32 = 100;

impl Image {
    /// Fills `buf` with the guest bytes at `offset`. There are no short reads: the range must lie within the image.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] outside the image, otherwise those of the formats and of I/O.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        self.read_layer(buf, offset)
    }

    /// As [`Image::read_at`], into several buffers in turn.
    ///
    /// # Errors
    /// As [`Image::read_at`].
    pub fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        let total = bufs
            .iter()
            .try_fold(0u64, |sum, buf| sum.checked_add(buf.len() as u64))
            .ok_or_else(|| Error::invalid("The buffers are too long"))?;
        self.check_range(offset, total)?;
        if total == 0 {
            return Ok(());
        }
        let _held = self.format.begin_io();
        let extent = self.of_its_file(self.format.locate(offset, total))?;
        if let ExtentKind::Data { slot, host_offset } = extent.kind
            && extent.len >= total
        {
            let storage = self.format.storage(slot)?;
            self.announce_read(&**storage);
            return self.of_its_file(storage.read_vectored_at(bufs, host_offset));
        }
        let mut at = offset;
        for buf in bufs {
            self.read_layer(buf, at)?;
            at += buf.len() as u64;
        }
        Ok(())
    }

    /// As [`Image::read_at`] for several ranges, which are requested together from storages that prefer many requests.
    ///
    /// # Errors
    /// As [`Image::read_at`]; the contents of the other buffers are undefined then.
    pub fn read_many_at(&self, ranges: &mut [ReadRange<'_>]) -> Result<()> {
        for (offset, buf) in &*ranges {
            self.check_range(*offset, buf.len() as u64)?;
        }
        self.read_ranges(ranges.iter_mut().map(|(offset, buf)| (*offset, &mut **buf)))
    }

    /// Reads a range that is known to lie within this layer.
    pub(super) fn read_layer(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read_ranges(std::iter::once((offset, buf)))
    }

    /// Iterates over the layers: the length of the chain must not affect the use of stack.
    fn read_ranges<'b>(&self, ranges: impl ExactSizeIterator<Item = ReadRange<'b>>) -> Result<()> {
        let single = ranges.len() == 1;
        let mut layer = self;
        let mut below = layer.of_its_file(layer.read_held(ranges, single))?;
        while !below.is_empty() {
            layer = layer.backing().ok_or_else(|| layer.backing_closed())?;
            let single = below.is_single();
            below = layer.of_its_file(layer.read_held(below.into_iter(), single))?;
        }
        Ok(())
    }

    /// Reads what this layer contains; returns what must be read from the next one.
    fn read_held<'b>(
        &self,
        ranges: impl Iterator<Item = ReadRange<'b>>,
        single: bool,
    ) -> Result<Pieces<'b>> {
        // Until the I/O has completed, the host clusters named by the mapping keep their contents.
        let _held = self.format.begin_io();
        let mut reads = Reads::new(single, !self.is_filter());
        for (offset, buf) in ranges {
            self.read_range(buf, offset, &mut reads)?;
        }
        reads.finish()
    }

    /// Zeroes what is past the end of the layer below, or everything if there is none; returns the part that must be
    /// read from it.
    fn fill_beyond<'b>(&self, buf: &'b mut [u8], offset: u64) -> Result<&'b mut [u8]> {
        let len_below = match &self.backing {
            Backing::Open(base) => base.len(),
            Backing::None => 0,
            Backing::Closed => return Err(self.backing_closed()),
        };
        let left = len_below.saturating_sub(offset);
        let inside = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let (inside, beyond) = buf.split_at_mut(inside);
        beyond.fill(0);
        Ok(inside)
    }

    fn read_range<'a, 'b>(
        &'a self,
        mut rest: &'b mut [u8],
        mut at: u64,
        reads: &mut Reads<'a, 'b>,
    ) -> Result<()> {
        let mut remapped = 0;
        let total = rest.len();
        while !rest.is_empty() {
            let extent = self.format.locate(at, rest.len() as u64)?;
            let len = usize::try_from(extent.len).map_or(rest.len(), |len| len.min(rest.len()));
            if len == 0 {
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!("'{}' has an empty extent at {at}", self.filename),
                ));
            }
            let whole = len == total;
            if matches!(extent.kind, ExtentKind::Encoded { .. }) {
                let part = rest.get_mut(..len).unwrap_or_default();
                match align::read_encoded(&*self.format, part, at) {
                    Err(error) if error.kind() == ErrorKind::Busy && remapped < MAX_REMAPS => {
                        // This layer no longer contains it: look it up again.
                        remapped += 1;
                        continue;
                    }
                    read => read?,
                }
            }
            if matches!(extent.kind, ExtentKind::Unallocated { .. }) {
                self.announce_below();
            }
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(len);
            match extent.kind {
                ExtentKind::Data { slot, host_offset } => {
                    let storage = self.format.storage(slot)?;
                    reads.take(storage, (host_offset, part), whole)?;
                }
                ExtentKind::Zero { .. } => part.fill(0),
                ExtentKind::Unallocated { .. } => {
                    let inside = self.fill_beyond(part, at)?;
                    reads.below.push((at, inside))?;
                }
                ExtentKind::Encoded { .. } => {}
            }
            (rest, at) = (behind, at + len as u64);
        }
        Ok(())
    }
}

impl Image {
    /// Announces a read of guest data of this layer. A filter in place of the format has no steps.
    fn announce_read(&self, storage: &dyn Storage) {
        if !self.is_filter() {
            steps::announce(storage, Step::ReadAio);
        }
    }

    /// Announces a read of data below, if there is a layer below, to the storage of this layer.
    fn announce_below(&self) {
        if let (Backing::Open(_), Ok(storage)) =
            (&self.backing, self.format.storage(StorageSlot::MAIN))
        {
            steps::announce(&**storage, Step::ReadBackingAio);
        }
    }
}

/// To its format, the image itself provides what lies below a layer: the chain, or zeroes.
impl Below for Image {
    fn read_below(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let inside = self.fill_beyond(buf, offset)?;
        match self.backing() {
            Some(base) if !inside.is_empty() => base.read_layer(inside, offset),
            _ => Ok(()),
        }
    }

    fn is_zero_below(&self, offset: u64, len: u64) -> Result<bool> {
        match &self.backing {
            Backing::Open(base) => base.is_known_zero(offset, len),
            Backing::None => Ok(true),
            Backing::Closed => Ok(false),
        }
    }

    fn len_below(&self) -> u64 {
        match &self.backing {
            Backing::Open(base) => base.len(),
            Backing::None => 0,
            Backing::Closed => u64::MAX,
        }
    }
}
