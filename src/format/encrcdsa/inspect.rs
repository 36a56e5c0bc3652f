//! Inspecting encrypted images: what surrounds the encrypted data, without unlocking anything.

use crate::error::Result;
use crate::format::inspect::{InspectContext, Inspection, Requirement, Verdict};

use super::disk::Volume;
use super::read;

/// What can be said about an encrypted image; None if it is not encrypted.
///
/// # Errors
/// If reading fails.
pub(crate) fn inspect(ctx: &InspectContext<'_>, format: &str) -> Result<Option<Inspection>> {
    let mut found = Inspection {
        encrypted: true,
        ..Inspection::default()
    };
    let volume = match read(&*ctx.storage, ctx.file_len) {
        Ok(None) => return Ok(None),
        Ok(Some(volume)) => Ok(volume),
        Err(error) => Err(error),
    };
    if let Some(volume) = found.taken(volume)? {
        found.understood = true;
        judge(&mut found, ctx, &volume, format);
    }
    Ok(Some(found))
}

fn judge(found: &mut Inspection, ctx: &InspectContext<'_>, volume: &Volume, format: &str) {
    let reason = format!("encryption of version {}", volume.version);
    found.find(Requirement::KnownFeatures, Verdict::Pass, reason);
    let most = volume.locks.iter().map(|lock| lock.iterations).max();
    let most = u64::from(most.unwrap_or_default());
    found.judge(
        Requirement::KeyDerivation,
        ctx.policy
            .check_key_iterations(most)
            .map(|()| format!("{most} iterations at most"))
            .map_err(|error| error.to_string()),
    );
    let (at, len) = volume.data;
    let placed = volume.check_place(ctx.file_len);
    found.judge(
        Requirement::HeaderConsistent,
        placed
            .map(|()| format!("{len} encrypted bytes stand at {at}"))
            .map_err(|error| error.to_string()),
    );
    let end = at.saturating_add(len);
    found.explain_length(ctx.file_len, end, "the encrypted data");
    for requirement in [Requirement::TableSizes, Requirement::DecompressedSize] {
        let reason = "what the encrypted data holds is not known without its key";
        found.find(requirement, Verdict::Unknown, reason);
    }
    found.has_none(format, &[Requirement::SnapshotCount, Requirement::Clean]);
}
