//! Looking up guest ranges through the chain.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentKind};
use crate::image::{ChainExtent, Image, ReadsAs};
use crate::storage::Storage;

/// How far the layers are first asked for what they hold. A layer that holds nothing for far longer than
/// the layers below it hold one thing is not asked for all of that again and again.
pub(super) const FIRST_QUESTION: u64 = 64 << 10;
/// How much farther each further question of one look-up goes.
const GROWTH: u64 = 4;

/// How one layer is asked for what it holds.
type LookAtLayer = fn(&Image, u64, u64) -> Result<Extent>;

impl Image {
    /// The longest run that starts at `offset`, at most `len` bytes, looked up through the chain. That
    /// takes time in proportion to what it finds, so looking up one run after the other takes
    /// time in proportion to the image.
    ///
    /// Where a backing file ends before the layer above it, the rest is `Unallocated` in the layer
    /// above: nothing holds it, it reads as zeroes. The same where the backing file is not open.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] outside the image, else of the formats.
    pub fn map(&self, offset: u64, len: u64) -> Result<ChainExtent<'_>> {
        self.map_upper(offset, len, u32::MAX)
    }

    /// As [`Image::map`], through the first `layers` layers alone: what none of them holds is
    /// `Unallocated` in the last one.
    ///
    /// # Errors
    /// As [`Image::map`].
    pub(crate) fn map_upper(&self, offset: u64, len: u64, layers: u32) -> Result<ChainExtent<'_>> {
        self.look_up(offset, len, (layers, Self::map_layer))
    }

    /// As [`Image::map`], to pass for a read at this moment: what a server said of holes a while ago counts as data.
    ///
    /// # Errors
    /// As [`Image::map`].
    pub(crate) fn map_to_read(&self, offset: u64, len: u64) -> Result<ChainExtent<'_>> {
        self.look_up(offset, len, (u32::MAX, Self::map_layer_to_read))
    }

    fn map_layer(&self, offset: u64, len: u64) -> Result<Extent> {
        self.format.map(offset, len)
    }

    fn map_layer_to_read(&self, offset: u64, len: u64) -> Result<Extent> {
        match self.remembers_extents() {
            true => self.format.locate(offset, len),
            false => self.format.map(offset, len),
        }
    }

    /// Whether a file of this layer remembers holes: see [`Limits::remembers_extents`].
    ///
    /// [`Limits::remembers_extents`]: crate::storage::Limits::remembers_extents
    pub(super) fn remembers_extents(&self) -> bool {
        let mut remembers = false;
        self.visit_files(&mut |file| {
            remembers |= file.slot.is_some() && file.storage.limits().remembers_extents;
        });
        remembers
    }

    fn look_up(
        &self,
        offset: u64,
        len: u64,
        (layers, look): (u32, LookAtLayer),
    ) -> Result<ChainExtent<'_>> {
        if len == 0 {
            return Err(Error::invalid("An empty range has no extents"));
        }
        self.check_range(offset, len)?;
        let mut question = match self.backing() {
            Some(_) if layers > 1 => len.min(FIRST_QUESTION),
            _ => len,
        };
        let end = offset.saturating_add(len);
        let mut found = self.ask(offset, question, (layers, end), look)?;
        while found.extent.len == question && question < len {
            let known = found.extent;
            let further = (len - known.len).min(question.saturating_mul(GROWTH - 1));
            // What cannot be looked up is met when it is asked for itself.
            let Ok(next) = self.ask(offset + known.len, further, (layers, end), look) else {
                break;
            };
            if next.depth != found.depth || next.extent.kind != known.kind.advanced(known.len) {
                break;
            }
            question = known.len + further;
            found.extent.len = known.len + next.extent.len;
        }
        Ok(found)
    }

    /// What holds the beginning of a range, and how much of it; more questions follow, up to `end`.
    fn ask(
        &self,
        offset: u64,
        len: u64,
        (layers, end): (u32, u64),
        look: LookAtLayer,
    ) -> Result<ChainExtent<'_>> {
        let (mut layer, mut depth, mut len) = (self, 0, len);
        loop {
            layer.format.map_ahead(offset, end.min(layer.len()));
            let extent = look(layer, offset, len)?;
            len = len.min(extent.len);
            let below = match extent.kind {
                ExtentKind::Unallocated { .. } if depth + 1 < layers => layer.backing(),
                _ => None,
            };
            match below.map(|image| (image, image.len().saturating_sub(offset))) {
                Some((image, left)) if left > 0 => {
                    len = len.min(left);
                    layer = image;
                    depth += 1;
                }
                _ => {
                    return Ok(ChainExtent {
                        depth,
                        layer,
                        offset,
                        extent: Extent { len, ..extent },
                    });
                }
            }
        }
    }

    /// Where the range stands in a host file as it is, if that place keeps its meaning even while the kernel
    /// takes its time to send it: it cannot be given to other guest bytes meanwhile.
    ///
    /// # Errors
    /// Of the formats.
    pub(crate) fn lasting_place(
        &self,
        offset: u64,
        len: u64,
    ) -> Result<Option<(Arc<dyn Storage>, u64)>> {
        let found = self.map(offset, len)?;
        let layer = found.layer;
        let ExtentKind::Data { slot, host_offset } = found.extent.kind else {
            return Ok(None);
        };
        let stays = !layer.writable || layer.format.has_fixed_places();
        if found.extent.len < len || !stays || layer.settings.cache.direct() {
            return Ok(None);
        }
        let storage = layer.format.storage(slot)?;
        // What ends before the disk does is filled up by reads alone.
        let inside = host_offset
            .checked_add(len)
            .zip(storage.len().ok())
            .is_some_and(|(end, len)| end <= len);
        let plain = inside && storage.host().is_some();
        Ok(plain.then(|| (storage.clone(), host_offset)))
    }

    /// Whether the range is known to read as zeroes, without reading data. Parts past the end do.
    ///
    /// # Errors
    /// Of the formats.
    pub fn is_known_zero(&self, mut offset: u64, len: u64) -> Result<bool> {
        let end = offset.saturating_add(len).min(self.len());
        while offset < end {
            let run = self.map(offset, end - offset)?;
            if run.reads_as() != ReadsAs::Zero {
                return Ok(false);
            }
            offset += run.extent.len;
        }
        Ok(true)
    }

    /// Refuses a range that does not lie in the image.
    pub(super) fn check_range(&self, offset: u64, len: u64) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len() => Ok(()),
            _ => Err(Error::invalid(format!(
                "The range at offset {offset}, {len} bytes long, does not lie in '{}', which has {} bytes",
                self.filename,
                self.len()
            ))),
        }
    }
}
