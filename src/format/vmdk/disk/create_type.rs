//! The types of disks as named by descriptors.

use bstr::{BStr, ByteSlice};

use crate::error::{Error, Result};
use crate::printable::printable;

/// Disks in a single file.
const ONE_FILE: [&str; 2] = ["monolithicSparse", "streamOptimized"];

/// Disks whose extents are in other files.
const WITH_EXTENTS: [&str; 10] = [
    "monolithicFlat",
    "twoGbMaxExtentFlat",
    "twoGbMaxExtentSparse",
    "2GbMaxExtentFlat",
    "2GbMaxExtentSparse",
    "vmfs",
    "vmfsThin",
    "vmfsPreallocated",
    "vmfsEagerZeroedThick",
    "vmfsSparse",
];

/// All its extents are of the same kind.
const SE_SPARSE: &str = "seSparse";

/// Rejects a disk of an unknown type; the error names the type.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`].
pub(in crate::format::vmdk) fn check_type(found: &BStr, one_file: bool) -> Result<()> {
    let is = |name: &str| found.eq_ignore_ascii_case(name.as_bytes());
    let known = match one_file {
        true => ONE_FILE.iter().any(|name| is(name)),
        false => is(SE_SPARSE) || WITH_EXTENTS.iter().any(|name| is(name)),
    };
    match known {
        true => Ok(()),
        false => Err(Error::unsupported(format!(
            "Unsupported image type '{}'",
            printable(&found.to_str_lossy())
        ))),
    }
}

/// As [`check_type`], if it is not known whether the descriptor is inside an extent.
///
/// # Errors
/// As [`check_type`].
pub(super) fn check_any_type(found: &BStr) -> Result<()> {
    check_type(found, true).or_else(|_| check_type(found, false))
}
