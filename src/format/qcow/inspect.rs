//! Inspecting an untrusted image: its header, the backing file name, and its tables in pieces.

use crate::error::{Error, ErrorKind, Result};
use crate::format::blocks::check::{Findings, Repairable};
use crate::format::inspect::{InspectContext, Inspection, Reference, Requirement, Verdict};
use crate::format::{Lineage, RepairMode};
use crate::policy::ImplicitRole;
use crate::storage::Durability;

use super::Qcow;
use super::disk::{Crypt, HEADER_LEN, Header};
use super::open::{How, build};

/// Maximum excess of the file over what its clusters explain; a longer file hides something.
const SLACK: u64 = 64 << 20;

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    let mut head = [0; HEADER_LEN];
    ctx.storage.read_at(&mut head, 0)?;
    let mut found = Inspection::default();
    let image = Header::from_bytes(&head).and_then(|header| {
        found.virtual_size = Some(header.guest_size());
        found.cluster_size = Some(header.geometry().cluster());
        found.encrypted = header.crypt != Crypt::None;
        let words = |error: Error| error.to_string();
        let bytes = header.tables() * 8;
        let tables = ctx.policy.check_table("L1 table", bytes);
        found.judge(
            Requirement::TableSizes,
            tables
                .map(|()| format!("the L1 table takes {bytes} bytes"))
                .map_err(words),
        );
        let cluster = header.geometry().cluster();
        let unit = ctx.policy.check_decompressed(cluster);
        found.judge(
            Requirement::DecompressedSize,
            unit.map(|()| format!("{cluster} bytes at most"))
                .map_err(words),
        );
        let how = How {
            read_only: true,
            durability: Durability::None,
            compression_level: None,
            cipher: None,
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
    if let Some(parent) = image.parent() {
        for name in &parent.names {
            found.references.push(Reference {
                role: ImplicitRole::Backing,
                name: name.name.to_vec(),
                format: None,
                offset: header.name_offset,
            });
        }
    }
    found.find(
        Requirement::KnownFeatures,
        Verdict::Pass,
        "an image of the first version",
    );
    judge_tables(&mut found, ctx, &image)?;
    for requirement in [
        Requirement::KeyDerivation,
        Requirement::SnapshotCount,
        Requirement::Clean,
    ] {
        found.find(requirement, Verdict::NotApplicable, "a qcow image has none");
    }
    Ok(found)
}

fn judge_tables(found: &mut Inspection, ctx: &InspectContext<'_>, image: &Qcow) -> Result<()> {
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
        match looked.first() {
            None => Ok("every cluster has a place in the file".to_owned()),
            Some(damage) => Err(damage),
        },
    );
    let unused = looked.leaks() * image.geometry.cluster();
    let text = format!("{unused} of {} bytes have no use", ctx.file_len);
    found.judge(
        Requirement::FileSize,
        match unused <= SLACK {
            true => Ok(text),
            false => Err(text),
        },
    );
    Ok(())
}
