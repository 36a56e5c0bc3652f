//! Inspecting an untrusted image: the header cluster and the tables that it points to, each read once. The files that
//! it names are listed even if the header cannot be understood.

mod areas;
mod names;
mod numbers;
mod tables;

use crate::error::{ErrorKind, Result};
use crate::format::crypt;
use crate::format::inspect::{InspectContext, Inspection, Requirement, Verdict};
use crate::memory;
use crate::storage::BoundedStorage;

use super::disk::{Extension, ImageHeader, MAGIC, SnapshotEntry, read_snapshot_table};
use numbers::Numbers;

/// Maximum number of snapshots that passes: a check walks the tables of every one.
const MAX_PLAUSIBLE_SNAPSHOTS: u32 = 1024;

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    let head = read_head(ctx)?;
    if !head.starts_with(&MAGIC) {
        return Ok(not_qcow2());
    }
    let numbers = Numbers::read(&head);
    let mut found = Inspection {
        virtual_size: Some(numbers.size),
        cluster_size: numbers.cluster_size(),
        encrypted: numbers.crypt_method != 0,
        snapshots: Some(u64::from(numbers.snapshots)),
        references: names::references(&head, &numbers),
        ..Inspection::default()
    };
    numbers.judge(&mut found, ctx.policy);
    match ImageHeader::from_bytes(&head, ctx.file_len) {
        Ok(image) => {
            found.understood = true;
            judge_image(&mut found, ctx, &image)?;
        }
        Err(error) => {
            let unread = "the header cannot be understood";
            found.doubt(unread);
            let (bad, other) = if error.kind() == ErrorKind::Unsupported {
                (Requirement::KnownFeatures, Requirement::HeaderConsistent)
            } else {
                (Requirement::HeaderConsistent, Requirement::KnownFeatures)
            };
            found.find(bad, Verdict::Fail, error.to_string());
            for requirement in [other, Requirement::FileSize, Requirement::KeyDerivation] {
                found.find(requirement, Verdict::Unknown, unread);
            }
        }
    }
    Ok(found)
}

/// The first cluster, or what exists of it; at least as long as the header's fixed part.
fn read_head(ctx: &InspectContext<'_>) -> Result<Vec<u8>> {
    let mut head = vec![0; numbers::FIXED_LEN];
    ctx.storage.read_at(&mut head, 0)?;
    let cluster = Numbers::read(&head).cluster_size().unwrap_or(0).max(4096);
    let len = ctx.file_len.min(cluster) as usize;
    memory::resize(&mut head, len, 0)?;
    ctx.storage.read_at(&mut head, 0)?;
    Ok(head)
}

fn not_qcow2() -> Inspection {
    let mut found = Inspection::default();
    found.find(
        Requirement::HeaderConsistent,
        Verdict::Fail,
        "Image is not in qcow2 format",
    );
    found
}

/// Judges what requires a header that is understood.
fn judge_image(
    found: &mut Inspection,
    ctx: &InspectContext<'_>,
    image: &ImageHeader,
) -> Result<()> {
    let header = &image.header;
    match image.crypto() {
        // The encryption header has features of its own.
        Some(place) if crypt::judge_header(found, ctx, place.offset)?.is_none() => {
            found.find(
                Requirement::FileSize,
                Verdict::Unknown,
                "the encryption header cannot be read",
            );
            return Ok(());
        }
        Some(_) => {}
        None => {
            let version = format!("qcow2 version {}", header.version);
            found.find(Requirement::KnownFeatures, Verdict::Pass, version);
            let reason = "no key is derived";
            found.find(Requirement::KeyDerivation, Verdict::NotApplicable, reason);
        }
    }
    let snapshots = match read_snapshots(ctx, image) {
        Ok(snapshots) => snapshots,
        Err(error) => {
            found.find(
                Requirement::HeaderConsistent,
                verdict_of(&error),
                error.to_string(),
            );
            let unread = "the snapshot table cannot be read";
            found.find(Requirement::FileSize, Verdict::Unknown, unread);
            return Ok(());
        }
    };
    let size = check_file_size(ctx.file_len, image, &snapshots.0);
    found.judge(Requirement::FileSize, size);
    let repeated = |extension: &&Extension| !matches!(extension, Extension::Padding(_));
    if let Some(extension) = image.superseded.iter().find(repeated) {
        let reason = format!(
            "the header extension for the {} is repeated",
            extension.what()
        );
        found.find(Requirement::HeaderConsistent, Verdict::Fail, reason);
        return Ok(());
    }
    match check_tables(ctx, image, &snapshots) {
        Ok(()) => found.find(
            Requirement::HeaderConsistent,
            Verdict::Pass,
            "tables lie inside the file and apart from each other",
        ),
        Err(error) => found.find(
            Requirement::HeaderConsistent,
            verdict_of(&error),
            error.to_string(),
        ),
    }
    Ok(())
}

/// What is too large to examine is not known to be damaged.
fn verdict_of(error: &crate::Error) -> Verdict {
    match error.kind() {
        ErrorKind::Limit | ErrorKind::Os => Verdict::Unknown,
        _ => Verdict::Fail,
    }
}

/// The snapshots and the length of their table.
fn read_snapshots(
    ctx: &InspectContext<'_>,
    image: &ImageHeader,
) -> Result<(Vec<SnapshotEntry>, u64)> {
    if image.header.snapshots == 0 {
        return Ok((Vec::new(), 0));
    }
    // Names may be long: the table may be no longer than the policy allows.
    let view = BoundedStorage::new(ctx.storage.clone(), ctx.policy.max_table_bytes);
    read_snapshot_table(&view, &image.header)
}

fn check_tables(
    ctx: &InspectContext<'_>,
    image: &ImageHeader,
    snapshots: &(Vec<SnapshotEntry>, u64),
) -> Result<()> {
    let geometry = image.header.validate(false)?;
    let areas = areas::Areas::of(ctx, image, geometry, snapshots)?;
    tables::check(ctx, image, geometry, &areas)
}

/// Every guest byte of every snapshot may take space once, along with tables and what deleted snapshots left behind; a
/// file that is much longer hides something else.
fn check_file_size(
    file_len: u64,
    image: &ImageHeader,
    snapshots: &[SnapshotEntry],
) -> std::result::Result<String, String> {
    const SLACK: u64 = 64 << 20;
    let of_snapshots = snapshots.iter().map(|snapshot| {
        let disk = snapshot.extra.disk_size.unwrap_or(image.header.size);
        disk.saturating_add(snapshot.vm_state_size())
    });
    let guest = of_snapshots.fold(image.header.size, u64::saturating_add);
    let most = guest.saturating_mul(2).saturating_add(SLACK);
    if file_len <= most {
        Ok(format!("{file_len} bytes for {guest} guest bytes"))
    } else {
        Err(format!(
            "{file_len} bytes are more than {guest} guest bytes can take"
        ))
    }
}
