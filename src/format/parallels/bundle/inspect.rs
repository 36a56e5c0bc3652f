//! Inspecting a descriptor: every file that it names is listed, but none is opened.

use crate::error::{ErrorKind, Result};
use crate::format::inspect::{InspectContext, Inspection, Reference, Requirement, Verdict};
use crate::memory;
use crate::policy::ImplicitRole;

use super::super::DRIVER;
use super::descriptor::{self, Descriptor};

/// Inspects a descriptor.
///
/// # Errors
/// If reading fails.
pub(in super::super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    let mut found = Inspection::default();
    let parsed = descriptor::read(&*ctx.storage).and_then(|text| Descriptor::parse(&text));
    let descriptor = match parsed {
        Ok(descriptor) => descriptor,
        Err(error) => {
            let (bad, other) = match error.kind() {
                ErrorKind::Os => return Err(error),
                ErrorKind::Unsupported => {
                    (Requirement::KnownFeatures, Requirement::HeaderConsistent)
                }
                ErrorKind::Limit => (Requirement::TableSizes, Requirement::HeaderConsistent),
                _ => (Requirement::HeaderConsistent, Requirement::KnownFeatures),
            };
            found.find(bad, Verdict::Fail, error.to_string());
            found.find(
                other,
                Verdict::Unknown,
                "the descriptor cannot be understood",
            );
            return Ok(found);
        }
    };
    found.understood = true;
    found.virtual_size = Some(descriptor.size);
    found.snapshots = Some(descriptor.snapshots());
    let most = ctx.policy.chain_limit();
    let mut wrong = None;
    for part in &descriptor.parts {
        found.cluster_size = Some(part.cluster);
        if let Err(error) = descriptor.chain(part, most) {
            wrong.get_or_insert(error.to_string());
        }
        for image in &part.images {
            let reference = Reference {
                role: ImplicitRole::Extent,
                name: image.name.as_bytes().to_vec(),
                format: (!image.is_plain).then(|| DRIVER.name.into()),
                offset: image.at,
            };
            memory::push(&mut found.references, reference)?;
        }
    }
    found.find(
        Requirement::KnownFeatures,
        Verdict::Pass,
        "the descriptor of a Parallels disk",
    );
    found.judge(
        Requirement::HeaderConsistent,
        match wrong {
            None => Ok("every part of the disk has an image of each snapshot".to_owned()),
            Some(reason) => Err(reason),
        },
    );
    found.judge(
        Requirement::FileSize,
        Ok(format!("{} bytes of text", ctx.file_len)),
    );
    found.judge(
        Requirement::SnapshotCount,
        Ok(format!("{} snapshots", descriptor.snapshots())),
    );
    for requirement in [
        Requirement::TableSizes,
        Requirement::KeyDerivation,
        Requirement::DecompressedSize,
        Requirement::Clean,
    ] {
        found.find(requirement, Verdict::NotApplicable, "a descriptor has none");
    }
    Ok(found)
}
