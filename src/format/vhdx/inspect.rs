//! Inspects an untrusted image: each structure at its beginning is read once. The file names in it are listed even if
//! the rest cannot be understood.

use crate::error::{Error, ErrorKind, Result};
use crate::format::inspect::{InspectContext, Inspection, Reference, Requirement, Verdict};
use crate::policy::ImplicitRole;

use super::disk::{Header, Metadata, RegionTable};
use super::open::{Front, read_headers, read_region_tables};
use super::parent;

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    let mut found = Inspection::default();
    for requirement in [
        Requirement::KeyDerivation,
        Requirement::DecompressedSize,
        Requirement::SnapshotCount,
    ] {
        found.find(requirement, Verdict::NotApplicable, "a VHDX has none");
    }
    list_names(&mut found, ctx)?;
    let header = match header(ctx) {
        Ok(header) => header,
        Err(error) => return doubtful(found, error),
    };
    let clean = match header.has_log() {
        false => Ok("the log is empty".to_owned()),
        true => Err("the log has to be replayed before the image can be read".to_owned()),
    };
    found.judge(Requirement::Clean, clean);
    match Front::read(&*ctx.storage, header) {
        Ok(front) => {
            judge(&mut found, ctx, &front);
            Ok(found)
        }
        Err(error) => doubtful(found, error),
    }
}

fn header(ctx: &InspectContext<'_>) -> Result<Header> {
    let (_, header) = Header::current(read_headers(&*ctx.storage)?)?;
    header.check()?;
    Ok(header)
}

/// Lists the names of the parent and records the size, as far as they can be found.
fn list_names(found: &mut Inspection, ctx: &InspectContext<'_>) -> Result<()> {
    for table in read_region_tables(&*ctx.storage)?.into_iter().flatten() {
        let Ok(regions) = RegionTable::from_bytes(&table) else {
            continue;
        };
        let metadata = match Metadata::read(&*ctx.storage, regions.metadata) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::Os => return Err(error),
            Err(_) => continue,
        };
        found.virtual_size = Some(metadata.items.size);
        found.cluster_size = Some(u64::from(metadata.items.block_size));
        let place = metadata.locator_place().map_or(0, |item| item.offset);
        if let Some(locator) = &metadata.items.locator {
            let names = parent::names(locator);
            found.references = names
                .map(|name| Reference {
                    role: ImplicitRole::Backing,
                    name: name.here().unwrap_or(name.name).into(),
                    format: Some(super::DRIVER.name.into()),
                    offset: regions.metadata.offset + u64::from(place),
                })
                .collect();
        }
        return Ok(());
    }
    Ok(())
}

fn judge(found: &mut Inspection, ctx: &InspectContext<'_>, front: &Front) {
    found.understood = true;
    found.find(Requirement::KnownFeatures, Verdict::Pass, "VHDX version 1");
    let locator = front.metadata.items.locator.as_ref();
    let parent = locator.map(parent::of_locator).transpose();
    found.judge(
        Requirement::HeaderConsistent,
        match parent {
            Ok(_) => Ok("the parts of the file lie inside it and apart from each other".to_owned()),
            Err(error) => Err(error.to_string()),
        },
    );
    let size = front.metadata.items.size;
    let table = front.geometry.entries(size) * 8;
    found.judge(
        Requirement::TableSizes,
        match ctx.policy.check_table("Block allocation table", table) {
            Ok(()) => Ok(format!("a block allocation table of {table} bytes")),
            Err(error) => Err(error.to_string()),
        },
    );
    found.judge(Requirement::FileSize, file_size(ctx.file_len, front));
}

/// The file may contain every block once, with a bitmap for each chunk, in addition to the regions and freed space.
fn file_size(file_len: u64, front: &Front) -> std::result::Result<String, String> {
    const SLACK: u64 = 64 << 20;
    let geometry = &front.geometry;
    let size = front.metadata.items.size;
    let data = geometry.blocks(size).saturating_mul(geometry.block_size());
    let regions = front
        .regions
        .regions()
        .map(|(_, region)| u64::from(region.len));
    let log = u64::from(front.header.log_len);
    let rest = regions.fold(log, u64::saturating_add);
    let most = data
        .saturating_mul(2)
        .saturating_add(rest)
        .saturating_add(SLACK);
    match file_len <= most {
        true => Ok(format!("{file_len} bytes for {size} guest bytes")),
        false => Err(format!(
            "{file_len} bytes are more than {size} guest bytes can take"
        )),
    }
}

/// The verdicts on a file that cannot be opened.
fn doubtful(mut found: Inspection, error: Error) -> Result<Inspection> {
    if error.kind() == ErrorKind::Os {
        return Err(error);
    }
    let unread = "the VHDX cannot be understood";
    found.doubt(unread);
    let (bad, other) = match error.kind() {
        ErrorKind::Unsupported => (Requirement::KnownFeatures, Requirement::HeaderConsistent),
        _ => (Requirement::HeaderConsistent, Requirement::KnownFeatures),
    };
    found.find(bad, Verdict::Fail, error.to_string());
    for requirement in [
        other,
        Requirement::TableSizes,
        Requirement::FileSize,
        Requirement::Clean,
    ] {
        if !found
            .findings
            .iter()
            .any(|finding| finding.requirement == requirement)
        {
            found.find(requirement, Verdict::Unknown, unread);
        }
    }
    Ok(found)
}
