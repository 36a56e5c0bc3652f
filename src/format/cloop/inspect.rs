//! Inspecting an untrusted image: its header and its table.

use crate::error::Result;
use crate::format::inspect::{InspectContext, Inspection, Requirement, Verdict};

use super::disk::{HEADER_LEN, Header, Table};

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    let mut head = [0; HEADER_LEN];
    ctx.storage.read_at(&mut head, 0)?;
    let mut found = Inspection::default();
    let Some(header) = found.taken(Header::from_bytes(&head))? else {
        return Ok(found);
    };
    found.understood = true;
    found.virtual_size = Some(header.virtual_size());
    let reason = "a cloop image of version 2";
    found.find(Requirement::KnownFeatures, Verdict::Pass, reason);
    let block = u64::from(header.block_size);
    found.judge(
        Requirement::DecompressedSize,
        ctx.policy
            .check_decompressed(block)
            .map(|()| format!("a block decodes to {block} bytes"))
            .map_err(|error| error.to_string()),
    );
    judge_table(&mut found, ctx, &header)?;
    let none = [
        Requirement::KeyDerivation,
        Requirement::SnapshotCount,
        Requirement::Clean,
    ];
    found.has_none("cloop", &none);
    Ok(found)
}

fn judge_table(found: &mut Inspection, ctx: &InspectContext<'_>, header: &Header) -> Result<()> {
    let read = Table::read(&*ctx.storage, ctx.file_len, header, ctx.policy);
    let Some(table) = found.taken(read)? else {
        return Ok(());
    };
    let reason = format!("the table of offsets takes {} bytes", header.table_len());
    found.find(Requirement::TableSizes, Verdict::Pass, reason);
    let (end, len) = (table.end(), ctx.file_len);
    let first = table.block(0).map_or(end, |(first, _)| first);
    found.judge(
        Requirement::HeaderConsistent,
        if first < HEADER_LEN as u64 + header.table_len() && header.blocks > 0 {
            Err("the first block stands within the table of offsets".to_owned())
        } else if end > len && header.blocks > 0 {
            Err("the last block ends behind the end of the file".to_owned())
        } else {
            Ok("the blocks follow each other in the file".to_owned())
        },
    );
    found.explain_length(len, end, "the blocks");
    Ok(())
}
