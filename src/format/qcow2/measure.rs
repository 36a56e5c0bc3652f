//! Measuring how large a new image will be.

use crate::crypto::luks::required_header_len;
use crate::error::{Error, ErrorKind, Result};
use crate::format::driver::preallocation;
use crate::format::{Contents, CreateParams, Measured};
use crate::options::Values;
use crate::storage::Preallocation;

use super::disk::{Geometry, RefcountWidth};
use super::spec::{Encryption, Spec};

/// Length of a bitmap directory entry up to its name, in bytes.
const BITMAP_ENTRY_LEN: u64 = 24;

/// Measures a new image; see [`crate::format::FormatDriver::measure`].
pub(super) fn measure(params: &CreateParams<'_>, contents: &mut Contents<'_>) -> Result<Measured> {
    check_words(params.values)?;
    let spec = Spec::to_measure(params).map_err(|error| match error.kind() {
        ErrorKind::Limit => too_large(),
        _ => error,
    })?;
    let geometry = &spec.geometry;
    let data = match &mut contents.data_units {
        Some(count) => count(geometry.cluster_size())?,
        None => 0,
    };
    let header = encryption_clusters(&spec);
    let (required, fully_allocated) = sizes(geometry, params.size, data, header)?;
    let whole = matches!(
        spec.preallocation,
        Preallocation::Falloc | Preallocation::Full
    );
    // With a backing file of its own, ranges that are zero in the source must be recorded as such.
    let overlay = contents.data_units.is_some() && params.values.name("backing_file").is_some();
    let bitmaps = contents.bitmaps.filter(|_| spec.version >= 3);
    Ok(Measured {
        required: if whole || overlay {
            fully_allocated
        } else {
            required
        },
        fully_allocated,
        bitmaps: bitmaps.map(|list| bitmaps_size(geometry, params.size, list)),
    })
}

/// Minimum file size of a new image in bytes, whatever is written to the image.
///
/// # Errors
/// [`ErrorKind::Limit`] if the size overflows.
pub(super) fn least_len(spec: &Spec, size: u64) -> Result<u64> {
    let geometry = &spec.geometry;
    let header = encryption_clusters(spec);
    let preallocated = spec.preallocation != Preallocation::Off;
    if preallocated && spec.data_file.is_none() {
        return sizes(geometry, size, 0, header).map(|(_, whole)| whole);
    }
    // Header, refcount table and one block; further blocks and tables are allocated along with the data.
    let l2 = geometry.l1_entries(size);
    let tables = if preallocated { l2 } else { 0 };
    (3 + header)
        .checked_add(tables)
        .and_then(|clusters| clusters.checked_mul(geometry.cluster_size()))
        .and_then(|bytes| bytes.checked_add(l2.checked_mul(8)?))
        .ok_or_else(too_large)
}

/// Number of clusters for the encryption header.
fn encryption_clusters(spec: &Spec) -> u64 {
    match &spec.encryption {
        Some(Encryption {
            luks: Some(options),
            ..
        }) => spec
            .geometry
            .clusters_for(required_header_len(&options.cipher)),
        _ => 0,
    }
}

/// Checks for which `measure` has its own messages; programs match on them.
fn check_words(values: &Values) -> Result<()> {
    let wrong = |text| Err(Error::invalid(text));
    let compat = values.str("compat").unwrap_or("1.1");
    if !matches!(compat, "0.10" | "1.1" | "v2" | "v3") {
        return wrong(format!("Invalid compatibility level: '{compat}'"));
    }
    if let Err(word) = preallocation(values) {
        return wrong(format!("invalid parameter value: {word}"));
    }
    let bits = values.num("refcount_bits").unwrap_or(16);
    if matches!(compat, "0.10" | "v2") && RefcountWidth::from_bits(bits).is_some() && bits != 16 {
        return wrong(
            "Different refcount widths than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)"
                .to_owned(),
        );
    }
    Ok(())
}

/// Bytes for bitmaps of these name lengths and granularities: data, tables and one directory.
fn bitmaps_size(geometry: &Geometry, size: u64, bitmaps: &[(u64, u64)]) -> u64 {
    let mut clusters = 0u64;
    let mut directory = 0;
    for (name_len, granularity) in bitmaps {
        let bytes = size.div_ceil((*granularity).max(1)).div_ceil(8);
        let data = geometry.clusters_for(bytes);
        clusters += data + geometry.clusters_for(data * 8);
        directory += (BITMAP_ENTRY_LEN + name_len).next_multiple_of(8);
    }
    (clusters + geometry.clusters_for(directory)) * geometry.cluster_size()
}

/// Host clusters of the metadata of a fully allocated image: header, tables and refcounts.
fn metadata_clusters(geometry: &Geometry, size: u64, extra: u64) -> Option<u64> {
    let guest = geometry.guest_clusters(size);
    let l2 = geometry.l1_entries(size);
    let l1 = geometry.clusters_for(l2.checked_mul(8)?);
    let counted = guest
        .checked_add(l2)?
        .checked_add(l1)?
        .checked_add(extra)?
        .checked_add(1)?;
    let (mut table, mut blocks) = (0, 0);
    // The refcounts count their own clusters too: grow until they fit.
    loop {
        let total = counted.checked_add(table)?.checked_add(blocks)?;
        let next_blocks = total.div_ceil(geometry.refcount_block_entries());
        let next_table = geometry.clusters_for(next_blocks.checked_mul(8)?);
        if (next_table, next_blocks) == (table, blocks) {
            return total.checked_sub(guest);
        }
        (table, blocks) = (next_table, next_blocks);
    }
}

/// Size in bytes of an image of `size` guest bytes with `data_clusters` clusters written, and with all written. `extra`
/// clusters hold something else, such as an encryption header.
fn sizes(geometry: &Geometry, size: u64, data_clusters: u64, extra: u64) -> Result<(u64, u64)> {
    let bytes = |clusters: u64| clusters.checked_mul(geometry.cluster_size());
    metadata_clusters(geometry, size, extra)
        .and_then(|metadata| {
            let required = bytes(metadata.checked_add(data_clusters)?)?;
            let full = bytes(metadata.checked_add(geometry.guest_clusters(size))?)?;
            Some((required, full))
        })
        .ok_or_else(too_large)
}

fn too_large() -> Error {
    Error::new(
        ErrorKind::Limit,
        "The image size is too large (try using a larger cluster size)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_a_gibibyte() {
        let default = Geometry::new(16, false, 4).unwrap();
        assert_eq!(
            sizes(&default, 1 << 30, 0, 0).unwrap(),
            (393_216, 1_074_135_040)
        );
        assert_eq!(sizes(&default, 0, 0, 0).unwrap(), (196_608, 196_608));
        assert_eq!(
            sizes(&default, 1 << 30, 0, 32).unwrap(),
            (2_490_368, 1_076_232_192)
        );
        let small = Geometry::new(12, false, 4).unwrap();
        assert_eq!(
            sizes(&small, 1 << 30, 0, 0).unwrap(),
            (2_637_824, 1_076_379_648)
        );
        let extended = Geometry::new(16, true, 4).unwrap();
        assert_eq!(
            sizes(&extended, 1 << 30, 0, 0).unwrap(),
            (524_288, 1_074_266_112)
        );
    }
}
