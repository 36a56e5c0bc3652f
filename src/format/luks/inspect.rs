//! Inspecting a LUKS volume: its header, without unlocking anything.

use crate::crypto::luks::Header;
use crate::error::{Error, ErrorKind, Result};
use crate::format::inspect::{InspectContext, Inspection, Requirement, Verdict};
use crate::policy::OpenPolicy;

/// Bytes of a header without its key material.
const HEADER_LEN: usize = 592;

/// The reason of requirements that only the header could answer.
const UNREAD: &str = "the LUKS header cannot be read";

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

/// Judges the header at `base`: the features that it uses and the work that it asks for, and where it
/// cannot be understood also whether it is consistent.
///
/// # Errors
/// Of reading.
pub(crate) fn judge_header(
    found: &mut Inspection,
    ctx: &InspectContext<'_>,
    base: u64,
) -> Result<Option<Header>> {
    let mut bytes = [0; HEADER_LEN];
    ctx.storage.read_at(&mut bytes, base)?;
    let parsed = match ctx.file_len.checked_sub(base) {
        Some(len) if len >= HEADER_LEN as u64 => Header::from_bytes(&bytes),
        _ => Err(Error::corrupt("the file ends within the LUKS header")),
    };
    match parsed {
        Ok(header) => {
            found.find(Requirement::KnownFeatures, Verdict::Pass, "LUKS version 1");
            found.judge(
                Requirement::KeyDerivation,
                check_work(&header, ctx.policy)
                    .map(|most| format!("{most} iterations at most"))
                    .map_err(|error| error.to_string()),
            );
            Ok(Some(header))
        }
        Err(error) => {
            let text = error.to_string();
            found.find(Requirement::KeyDerivation, Verdict::Unknown, UNREAD);
            if error.kind() == ErrorKind::Unsupported {
                found.find(Requirement::KnownFeatures, Verdict::Fail, text);
                found.find(Requirement::HeaderConsistent, Verdict::Unknown, UNREAD);
            } else {
                found.find(Requirement::KnownFeatures, Verdict::Unknown, UNREAD);
                found.find(Requirement::HeaderConsistent, Verdict::Fail, text);
            }
            Ok(None)
        }
    }
}

/// The most iterations that one step of unlocking takes.
///
/// # Errors
/// [`ErrorKind::Limit`] where the policy does not allow as many.
pub(crate) fn check_work(header: &Header, policy: &OpenPolicy) -> Result<u64> {
    let slots = header.slots.iter().filter(|slot| slot.active);
    let most = slots
        .map(|slot| slot.iterations)
        .chain([header.digest_iterations])
        .max()
        .map_or(0, u64::from);
    policy.check_key_iterations(most)?;
    Ok(most)
}
