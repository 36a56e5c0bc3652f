//! What inspection finds in the header of a volume, and how much work it is to unlock it.

use crate::crypto::luks::Header;
use crate::error::{Error, ErrorKind, Result};
use crate::format::inspect::{InspectContext, Inspection, Requirement, Verdict};
use crate::policy::OpenPolicy;

/// Length of a header without its key material.
const HEADER_LEN: usize = 592;

/// The reason given for requirements that depend on the unreadable header.
pub(crate) const UNREAD: &str = "the LUKS header cannot be read";

/// Judges the header at `base`: the features that it uses and the work that it requires, and if it cannot be parsed,
/// also whether it is consistent.
///
/// # Errors
/// If reading fails.
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

/// Maximum number of iterations of one step of unlocking.
///
/// # Errors
/// [`ErrorKind::Limit`] if that exceeds the policy.
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
