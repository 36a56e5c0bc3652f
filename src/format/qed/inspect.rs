//! Inspecting an untrusted image: its header, the backing file name, and its tables in pieces.

use crate::error::{ErrorKind, Result};
use crate::format::blocks::check::{Findings, Repairable};
use crate::format::inspect::{InspectContext, Inspection, Reference, Requirement, Verdict};
use crate::format::{Lineage, RepairMode};
use crate::policy::ImplicitRole;
use crate::storage::Durability;

use super::disk::{FeatureBits, HEADER_LEN, Header};
use super::open::build;

/// Maximum excess of the file over what its clusters explain; a longer file hides something.
const SLACK: u64 = 64 << 20;

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    let mut head = [0; HEADER_LEN];
    ctx.storage.read_at(&mut head, 0)?;
    let mut found = Inspection::default();
    let header = Header::from_bytes(&head);
    let header = header.and_then(|header| header.check(ctx.file_len).map(|()| header));
    let image = header.and_then(|header| {
        found.virtual_size = Some(header.size);
        found.cluster_size = Some(u64::from(header.cluster_size));
        let bytes = header.clusters().div_ceil(header.per_table()) * 8;
        found.judge(
            Requirement::TableSizes,
            ctx.policy
                .check_table("L1 table", bytes)
                .map(|()| format!("the L1 table takes {bytes} bytes"))
                .map_err(|error| error.to_string()),
        );
        let how = (false, Durability::None);
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
    if let Some(parent) = image.parent() {
        for name in &parent.names {
            found.references.push(Reference {
                role: ImplicitRole::Backing,
                name: name.name.to_vec(),
                format: parent.format.clone(),
                offset: u64::from(header.name_offset),
            });
        }
    }
    found.find(Requirement::KnownFeatures, Verdict::Pass, "a QED image");
    let clean = match header.features.contains(FeatureBits::NEED_CHECK) {
        false => Ok("the image was closed".to_owned()),
        true => Err("the image was not closed".to_owned()),
    };
    found.judge(Requirement::Clean, clean);
    judge_tables(&mut found, ctx, &header, &image)?;
    for requirement in [
        Requirement::KeyDerivation,
        Requirement::DecompressedSize,
        Requirement::SnapshotCount,
    ] {
        found.find(requirement, Verdict::NotApplicable, "a QED image has none");
    }
    Ok(found)
}

fn judge_tables(
    found: &mut Inspection,
    ctx: &InspectContext<'_>,
    header: &Header,
    image: &super::Qed,
) -> Result<()> {
    let looked = match image.look(RepairMode::Report, None) {
        Ok(looked) => looked,
        Err(error) if error.kind() == ErrorKind::Os => return Err(error),
        Err(error) => {
            found.find(
                Requirement::HeaderConsistent,
                Verdict::Fail,
                error.to_string(),
            );
            found.find(Requirement::FileSize, Verdict::Unknown, error.to_string());
            return Ok(());
        }
    };
    found.judge(
        Requirement::HeaderConsistent,
        match looked.corruptions() {
            0 => Ok("every cluster has one use and a place in the file".to_owned()),
            count => Err(looked.first().unwrap_or_else(|| {
                format!("{count} entries of the tables name no cluster of their own")
            })),
        },
    );
    let unused = looked.leaks() * u64::from(header.cluster_size);
    found.judge(
        Requirement::FileSize,
        match unused <= SLACK {
            true => Ok(format!("{unused} of {} bytes have no use", ctx.file_len)),
            false => Err(format!("{unused} of {} bytes have no use", ctx.file_len)),
        },
    );
    Ok(())
}
