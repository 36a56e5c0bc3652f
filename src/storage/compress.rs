//! Writing compressed units: to images, and to storages that pass them on to one.

use crate::error::Result;

/// Writing compressed units, reached through [`Storage::compressor`](crate::storage::Storage::compressor) and
/// [`FormatWrite::compressor`](crate::format::FormatWrite::compressor).
pub trait Compress: Send + Sync {
    /// Guest bytes per unit.
    fn encode_unit(&self) -> u32;

    /// Whether this is the only way to write to the image: its units are compressed, or it is of a kind
    /// that takes each of them once.
    fn is_required(&self) -> bool {
        false
    }

    /// Whether units are to come in guest order: readers expect them so in the file.
    fn is_ordered(&self) -> bool {
        false
    }

    /// Writes one unit (or the shorter end of the image) compressed; stores it plain where
    /// compression does not shrink it.
    ///
    /// # Errors
    /// As of a write of the same bytes.
    fn write_compressed(&self, buf: &[u8], offset: u64) -> Result<()>;
}
