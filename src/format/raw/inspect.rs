//! Inspecting a raw disk: there is nothing in it but the disk.

use crate::error::Result;
use crate::format::inspect::{Guard, InspectContext, Inspection, Verdict};

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    let mut found = Inspection {
        virtual_size: Some(super::round_up(ctx.file_len)?),
        understood: true,
        ..Inspection::default()
    };
    for guard in Guard::OF_FORMAT {
        match guard {
            Guard::FileSize => found.find(*guard, Verdict::Pass, "the file is the disk"),
            _ => found.find(*guard, Verdict::NotApplicable, "a raw disk has no metadata"),
        }
    }
    Ok(found)
}
