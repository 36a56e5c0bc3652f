//! Inspecting a raw disk, which contains nothing but the disk.

use crate::error::Result;
use crate::format::inspect::{InspectContext, Inspection, Requirement, Verdict};

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    let mut found = Inspection {
        virtual_size: Some(super::round_up(ctx.file_len)?),
        understood: true,
        ..Inspection::default()
    };
    for requirement in Requirement::OF_FORMAT {
        match requirement {
            Requirement::FileSize => {
                found.find(*requirement, Verdict::Pass, "the file is the disk")
            }
            _ => found.find(
                *requirement,
                Verdict::NotApplicable,
                "a raw disk has no metadata",
            ),
        }
    }
    Ok(found)
}
