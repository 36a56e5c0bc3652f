//! Inspecting a LUKS volume: its header, without unlocking anything.

use crate::error::Result;
use crate::format::crypt::{UNREAD, judge_header};
use crate::format::inspect::{InspectContext, Inspection, Requirement, Verdict};

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    let mut found = Inspection {
        encrypted: true,
        ..Inspection::default()
    };
    let header = judge_header(&mut found, ctx, 0)?;
    found.understood = header.is_some();
    if let Some(header) = &header {
        let end = header.payload_offset();
        found.virtual_size = ctx.file_len.checked_sub(end).map(|len| len - len % 512);
        let fits = match found.virtual_size {
            Some(_) => Ok(format!("the payload begins at {end}, behind the key slots")),
            None => Err(format!(
                "the payload begins at {end}, past the end of the file"
            )),
        };
        found.judge(Requirement::HeaderConsistent, fits);
    }
    found.find(
        Requirement::FileSize,
        Verdict::Pass,
        "the file holds the disk",
    );
    for requirement in [
        Requirement::TableSizes,
        Requirement::DecompressedSize,
        Requirement::SnapshotCount,
        Requirement::Clean,
    ] {
        found.find(
            requirement,
            Verdict::NotApplicable,
            "a LUKS volume has none",
        );
    }
    if header.is_none() {
        found.doubt(UNREAD);
    }
    Ok(found)
}
