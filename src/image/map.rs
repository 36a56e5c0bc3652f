//! Looking up guest ranges through the chain.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentKind};
use crate::image::{ChainExtent, Image, ReadsAs};
use crate::storage::Storage;

/// How far the layers are queried at first: a layer that contains nothing over a much longer range than the extents of
/// the layers below it must not be queried for all of that range again and again.
pub(super) const FIRST_QUESTION: u64 = 64 << 10;
/// Growth factor of each further query of one lookup.
const GROWTH: u64 = 4;

/// How one layer is queried.
type LookAtLayer = fn(&Image, u64, u64) -> Result<Extent>;

impl Image {
    /// The longest run that starts at `offset`, limited to `len` bytes, looked up through the chain. The time taken is
    /// proportional to the result, so looking up all runs takes time proportional to the image.
    ///
    /// If a backing file ends before the layer above it, the rest is `Unallocated` in the layer above: nothing contains
    /// it, and it reads as zeroes. The same applies if the backing file is not open.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] outside the image, otherwise those of the formats.
    pub fn map(&self, offset: u64, len: u64) -> Result<ChainExtent<'_>> {
        self.map_upper(offset, len, u32::MAX)
    }

    /// As [`Image::map`], but only through the first `layers` layers: what none of them contains is `Unallocated` in
    /// the last one.
    ///
    /// # Errors
    /// As [`Image::map`].
    pub(crate) fn map_upper(&self, offset: u64, len: u64, layers: u32) -> Result<ChainExtent<'_>> {
        self.look_up(offset, len, (layers, Self::map_layer))
    }

    /// As [`Image::map`], for an immediate read: where a server's cached extents report holes, they count as data.
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

    /// Whether a file of this layer caches extents: see [`Limits::remembers_extents`].
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
            // An error will be reported when this range itself is requested.
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

    /// Finds what contains the beginning of a range, and how much of it; further queries up to `end` follow.
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

    /// Where the range is stored verbatim in a host file, if that place stays valid even while the kernel takes its
    /// time to send it: it must not be reused for other guest bytes in the meantime.
    ///
    /// # Errors
    /// Those of the formats.
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
        // A file that ends before the disk does is only zero-filled by reads.
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
    /// Those of the formats.
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

    /// Refuses a range that does not lie within the image.
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
