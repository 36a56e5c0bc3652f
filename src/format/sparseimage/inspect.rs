//! Inspecting an untrusted image: its header and its nodes.

use crate::error::Result;
use crate::format::encrcdsa;
use crate::format::inspect::{InspectContext, Inspection, Requirement, Verdict};
use crate::format::read_only::SizedStorage;

use super::Bands;

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    if let Some(found) = encrcdsa::inspect(ctx, "sparse")? {
        return Ok(found);
    }
    let mut found = Inspection::default();
    let source = SizedStorage {
        storage: ctx.storage.clone(),
        len: ctx.file_len,
    };
    let Some(image) = found.taken(Bands::read(&source, ctx.policy))? else {
        return Ok(found);
    };
    found.understood = true;
    found.virtual_size = Some(image.header.len);
    let reason = "a sparse image of version 3";
    found.find(Requirement::KnownFeatures, Verdict::Pass, reason);
    let reason = format!("the list of bands takes {} bytes", image.places.len() * 8);
    found.find(Requirement::TableSizes, Verdict::Pass, reason);
    found.judge(
        Requirement::HeaderConsistent,
        match image.end > ctx.file_len {
            true => Err("a band ends behind the end of the file".to_owned()),
            false => Ok("every band has a place of its own in the file".to_owned()),
        },
    );
    // The file grows by more than is needed at a time.
    let spare = image.end.saturating_add(image.header.band);
    found.explain_length(ctx.file_len, spare, "the bands");
    let none = [
        Requirement::KeyDerivation,
        Requirement::DecompressedSize,
        Requirement::SnapshotCount,
        Requirement::Clean,
    ];
    found.has_none("sparse", &none);
    Ok(found)
}
