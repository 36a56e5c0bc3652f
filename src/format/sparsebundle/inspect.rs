//! Inspecting an untrusted bundle, from its property list alone.

use crate::error::Result;
use crate::format::inspect::{InspectContext, Inspection, Reference, Requirement, Verdict};
use crate::policy::ImplicitRole;

use super::info::Info;
use super::{BANDS, TOKEN};

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    let mut found = Inspection::default();
    let info = Info::read(&*ctx.storage, ctx.file_len);
    let Some(info) = found.taken(info)? else {
        return Ok(found);
    };
    found.understood = true;
    found.virtual_size = Some(info.len);
    let reason = "a sparse bundle of version 1";
    found.find(Requirement::KnownFeatures, Verdict::Pass, reason);
    let reason = format!("its bands have {} bytes each", info.band);
    found.find(Requirement::HeaderConsistent, Verdict::Pass, reason);
    let reason = "the list is no longer than lists may be";
    found.find(Requirement::FileSize, Verdict::Pass, reason);
    let reason = format!("whether it is encrypted stands in '{TOKEN}', which is not looked at");
    found.find(Requirement::KeyDerivation, Verdict::Unknown, reason);
    for name in [TOKEN, BANDS] {
        found.references.push(Reference {
            role: ImplicitRole::Extent,
            name: name.into(),
            format: None,
            offset: 0,
        });
    }
    let none = [
        Requirement::TableSizes,
        Requirement::DecompressedSize,
        Requirement::SnapshotCount,
        Requirement::Clean,
    ];
    found.has_none("sparsebundle", &none);
    Ok(found)
}
