//! The checksums of structures: Adler-32, stored after the bytes that they cover.

use crate::bytes::le32;

/// Whether the last four bytes are the checksum of those before them.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let Some(at) = bytes.len().checked_sub(4) else {
        return false;
    };
    let of = bytes.get(..at).unwrap_or_default();
    le32(bytes, at) == Some(libdeflater::adler32(of))
}
