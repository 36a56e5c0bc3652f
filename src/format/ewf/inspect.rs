//! Inspecting an untrusted image: the sections of its first segment.

use crate::error::Result;
use crate::format::inspect::{InspectContext, Inspection, Reference, Requirement, Verdict};
use crate::format::read_only::SizedStorage;
use crate::job::JobControl;
use crate::policy::ImplicitRole;

use super::disk::Volume;
use super::names;
use super::segments::{End, Limits, Sections};

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    let mut found = Inspection::default();
    let source = SizedStorage {
        storage: ctx.storage.clone(),
        len: ctx.file_len,
    };
    let limits = Limits {
        policy: ctx.policy,
        control: &JobControl::default(),
    };
    let mut sections = Sections::default();
    let taken = sections.take(&source, 0, 1, &limits);
    let Some(end) = found.taken(taken)? else {
        return Ok(found);
    };
    let Some(volume) = sections.volume else {
        let reason = "no section of the image describes the disk";
        found.find(Requirement::HeaderConsistent, Verdict::Fail, reason);
        return Ok(found);
    };
    found.understood = true;
    found.virtual_size = Some(volume.len);
    let reason = "an EWF image of the first version";
    found.find(Requirement::KnownFeatures, Verdict::Pass, reason);
    found.judge(
        Requirement::DecompressedSize,
        ctx.policy
            .check_decompressed(volume.chunk)
            .map(|()| format!("a chunk decodes to {} bytes", volume.chunk))
            .map_err(|error| error.to_string()),
    );
    let reason = "a table of chunks is read at a time";
    found.find(Requirement::TableSizes, Verdict::Pass, reason);
    found.judge(Requirement::HeaderConsistent, fits(&sections, &volume, end));
    found.explain_length(ctx.file_len, sections.ended, "the sections");
    if end == End::Next
        && let Some(name) = names::segment(ctx.storage.name(), 2)
    {
        found.references.push(Reference {
            role: ImplicitRole::Extent,
            name: name.into(),
            format: None,
            offset: 0,
        });
    }
    let none = [
        Requirement::KeyDerivation,
        Requirement::SnapshotCount,
        Requirement::Clean,
    ];
    found.has_none("EWF", &none);
    Ok(found)
}

fn fits(sections: &Sections, volume: &Volume, end: End) -> Result<String, String> {
    let chunks = sections.tables.last().map_or(0, |table| table.end);
    match chunks < volume.chunks() && end == End::Done {
        true => Err(format!(
            "the tables have {chunks} chunks, and the disk has {}",
            volume.chunks()
        )),
        false => Ok("the tables have the chunks of the disk".to_owned()),
    }
}
