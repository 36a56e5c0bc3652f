//! Decoding data that will be read soon, through the chain.

use crate::error::Result;
use crate::extent::ExtentKind;
use crate::format::DecodeAhead;
use crate::image::Image;

impl Image {
    /// Whether [`Image::decode_ahead`] has any effect for some layer.
    pub(crate) fn decodes_ahead(&self) -> bool {
        self.decoders().next().is_some()
    }

    /// Decodes and caches compressed data from `offset` up to `end`, unit by unit: before each unit, `next` returns the
    /// offset at which to continue, or None to stop; units of more than `most` bytes are left to their readers. Returns
    /// whether there is any compressed data.
    ///
    /// # Errors
    /// Those of the formats.
    pub(crate) fn decode_ahead(
        &self,
        offset: u64,
        end: u64,
        most: u64,
        next: impl Fn(u64) -> Option<u64>,
    ) -> Result<bool> {
        let end = end.min(self.len());
        let (mut at, mut any) = (offset, false);
        while at < end {
            let found = self.map(at, end - at)?;
            let behind = match (found.extent.kind, found.layer.format.decode_ahead()) {
                (ExtentKind::Encoded { compressed: true }, Some(decoder)) => {
                    any = true;
                    match next(at) {
                        None => break,
                        Some(later) if later > at => later,
                        Some(_) => decoder.decode_ahead(at, most)?,
                    }
                }
                _ => at.saturating_add(found.extent.len),
            };
            at = behind.max(at.saturating_add(1));
        }
        Ok(any)
    }

    /// Allows the layers together to cache this many bytes of decoded units beyond the usual limit.
    pub(crate) fn keep_more_decoded(&self, bytes: usize) {
        let layers = self.decoders().count().max(1);
        for decoder in self.decoders() {
            decoder.keep_more(bytes / layers);
        }
    }

    fn decoders(&self) -> impl Iterator<Item = &dyn DecodeAhead> {
        self.layers()
            .filter_map(|layer| layer.format.decode_ahead())
    }
}
