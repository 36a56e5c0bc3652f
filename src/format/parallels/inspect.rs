//! Inspecting an untrusted image: its header, its extension, and its table in pieces.

use crate::error::{ErrorKind, Result};
use crate::format::RepairMode;
use crate::format::blocks::check::{Findings, Repairable};
use crate::format::inspect::{InspectContext, Inspection, Requirement, Verdict};
use crate::storage::Durability;

use super::disk::Closing;
use super::open::{Use, build, read_header};

/// Maximum excess of the file over what its clusters explain; a longer file hides something.
const SLACK: u64 = 192 << 20;

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    let mut found = Inspection::default();
    let image = read_header(&*ctx.storage).and_then(|header| {
        found.virtual_size = Some(header.size());
        found.cluster_size = Some(header.cluster_size());
        let bytes = u64::from(header.entries) * 4;
        let fits = ctx.policy.check_table("BAT", bytes);
        found.judge(
            Requirement::TableSizes,
            match &fits {
                Ok(()) => Ok(format!("the BAT takes {bytes} bytes")),
                Err(error) => Err(error.to_string()),
            },
        );
        fits?;
        let how = Use {
            writable: false,
            for_check: false,
            durability: Durability::None,
            ahead: None,
        };
        build(&ctx.storage, header.clone(), ctx.policy, how).map(|image| (header, image))
    });
    let (header, image) = match image {
        Ok(image) => image,
        Err(error) if error.kind() == ErrorKind::Os => return Err(error),
        Err(error) => {
            let (bad, other) = match error.kind() {
                ErrorKind::Unsupported => {
                    (Requirement::KnownFeatures, Requirement::HeaderConsistent)
                }
                _ => (Requirement::HeaderConsistent, Requirement::KnownFeatures),
            };
            found.find(bad, Verdict::Fail, error.to_string());
            found.find(other, Verdict::Unknown, "the header cannot be understood");
            return Ok(found);
        }
    };
    found.understood = true;
    found.find(
        Requirement::KnownFeatures,
        Verdict::Pass,
        "a Parallels image",
    );
    found.judge(
        Requirement::Clean,
        match header.closing() {
            Closing::Open => Err("the image was not closed".to_owned()),
            _ => Ok("the image was closed".to_owned()),
        },
    );
    let looked = image.look(RepairMode::Report, None)?;
    // That it was not closed has been reported above.
    let damage = looked.corruptions() - u64::from(header.closing() == Closing::Open);
    found.judge(
        Requirement::HeaderConsistent,
        match damage {
            0 => Ok("every cluster has a place of its own in the file".to_owned()),
            count => Err(format!(
                "{count} numbers of the header and the BAT name no place, or one that is taken"
            )),
        },
    );
    let unused = looked.leaks().saturating_mul(header.cluster_size());
    let text = format!("{unused} of {} bytes have no use", ctx.file_len);
    found.judge(
        Requirement::FileSize,
        if unused <= SLACK { Ok(text) } else { Err(text) },
    );
    for requirement in [
        Requirement::KeyDerivation,
        Requirement::DecompressedSize,
        Requirement::SnapshotCount,
    ] {
        found.find(
            requirement,
            Verdict::NotApplicable,
            "a Parallels image has none",
        );
    }
    Ok(found)
}
