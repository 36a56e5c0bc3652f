//! How large a new image would be.

use crate::error::Result;
use crate::format::{Contents, CreateParams, Measured};
use crate::size::SECTOR;
use crate::storage::Preallocation;

use super::layout::SparseLayout;
use super::plan::descriptor_len;
use super::spec::{Spec, Subformat};

/// See [`crate::format::FormatDriver::measure`]: all files together. How much compression saves is not known, so grains
/// count in full.
pub(in super::super) fn measure(
    params: &CreateParams<'_>,
    contents: &mut Contents<'_>,
) -> Result<Measured> {
    let spec = Spec::new(params)?;
    let guest = spec.sectors.saturating_mul(SECTOR);
    // For the default name, in whole sectors, which also leave space for names of other lengths.
    let descriptor = match spec.subformat.is_one_file() {
        true => 0,
        false => descriptor_len(Spec::new(params)?)?.next_multiple_of(SECTOR),
    };
    if spec.subformat.is_flat() {
        return Ok(Measured {
            required: guest + descriptor,
            fully_allocated: guest + descriptor,
            bitmaps: None,
        });
    }
    let grain = SparseLayout::GRAIN * SECTOR;
    let tables: u64 = spec
        .parts()
        .into_iter()
        .filter_map(|sectors| spec.layout(sectors))
        .map(|layout| layout.overhead * SECTOR)
        .sum();
    let units = match &mut contents.data_units {
        Some(count) => count(grain)?,
        None => 0,
    };
    // Marker and framing of incompressible data; the end of the stream.
    let (more, end) = match spec.subformat {
        Subformat::StreamOptimized => (SECTOR, SECTOR),
        _ => (0, 0),
    };
    let of = |grains: u64| {
        grains
            .saturating_mul(grain + more)
            .saturating_add(tables + descriptor + end)
    };
    let fully_allocated = of(guest.div_ceil(grain));
    let overlay = contents.data_units.is_some() && params.values.name("backing_file").is_some();
    let whole = spec.preallocation != Preallocation::Off || overlay;
    Ok(Measured {
        required: if whole { fully_allocated } else { of(units) },
        fully_allocated,
        bitmaps: None,
    })
}
