//! Inspecting an untrusted image: its header and its catalog.

use crate::error::Result;
use crate::format::inspect::{InspectContext, Inspection, Requirement, Verdict};
use crate::memory;

use super::disk::{Catalog, HEADER_LEN, Header};

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    let mut head = [0; HEADER_LEN];
    ctx.storage.read_at(&mut head, 0)?;
    let mut found = Inspection::default();
    let Some(header) = found.taken(Header::from_bytes(&head))? else {
        return Ok(found);
    };
    found.understood = true;
    found.virtual_size = Some(header.len);
    let reason = "a disk of Bochs that grows";
    found.find(Requirement::KnownFeatures, Verdict::Pass, reason);
    judge_catalog(&mut found, ctx, &header)?;
    let none = [
        Requirement::KeyDerivation,
        Requirement::DecompressedSize,
        Requirement::SnapshotCount,
        Requirement::Clean,
    ];
    found.has_none("bochs", &none);
    Ok(found)
}

fn judge_catalog(found: &mut Inspection, ctx: &InspectContext<'_>, header: &Header) -> Result<()> {
    let read = Catalog::read(&*ctx.storage, ctx.file_len, header, ctx.policy);
    let Some(catalog) = found.taken(read)? else {
        return Ok(());
    };
    let reason = format!("the catalog takes {} bytes", u64::from(header.catalog) * 4);
    found.find(Requirement::TableSizes, Verdict::Pass, reason);
    let len = ctx.file_len;
    let extents = header.len.div_ceil(header.extent);
    let mut end = header.catalog_end();
    let mut numbers = Vec::new();
    let mut wrong = None;
    for (index, number) in catalog.present() {
        let data = header.extent_at(number) + header.bitmap;
        end = end.max(data + header.extent);
        if index < extents && data > len {
            wrong.get_or_insert(format!("extent {index} stands behind the end of the file"));
        }
        memory::push(&mut numbers, number)?;
    }
    numbers.sort_unstable();
    if numbers.windows(2).any(|pair| pair[0] == pair[1]) {
        wrong.get_or_insert("two extents stand at the same place".to_owned());
    }
    found.judge(
        Requirement::HeaderConsistent,
        match wrong {
            None => Ok("every extent has a place of its own in the file".to_owned()),
            Some(reason) => Err(reason),
        },
    );
    found.explain_length(len, end, "the extents");
    Ok(())
}
