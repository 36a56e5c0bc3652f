//! Inspecting an untrusted disk: its footers, its header, and the table of blocks in pieces.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::format::blocks::{ByteOrder, Entry, Layout};
use crate::format::inspect::{InspectContext, Inspection, Reference, Requirement, Verdict};
use crate::memory;
use crate::policy::ImplicitRole;

use super::disk::{DiskType, DynamicHeader, FOOTER_LEN, VpcLayout, without_dot};
use super::open::{Damage, Found, find};
use super::{check_header, check_names, name_places, parent};

/// The table is read in pieces of this many bytes.
const PIECE: u64 = 64 << 10;

/// Maximum excess of the file over what its blocks explain; a longer file hides something.
const SLACK: u64 = 64 << 20;

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    let mut found = Inspection::default();
    let disk = match find(&*ctx.storage, ctx.file_len) {
        Ok(disk) => disk,
        Err(error) if error.kind() == ErrorKind::Os => return Err(error),
        Err(error) => {
            refuse(&mut found, &error);
            return Ok(found);
        }
    };
    found.virtual_size = Some(disk.footer.size(None));
    match &disk.header {
        Some(header) => {
            found.cluster_size = Some(u64::from(header.block_size));
            let len = disk.footer.size(None);
            if let Err(error) = check_header(&disk.footer, header, len, ctx.file_len) {
                refuse(&mut found, &error);
                return Ok(found);
            }
            if disk.footer.disk_type == DiskType::Differencing {
                let layout = VpcLayout::of(header, disk.footer.data_offset);
                if let Err(error) = check_names(&layout, header, ctx.file_len) {
                    refuse(&mut found, &error);
                    return Ok(found);
                }
                list_parent(&mut found, ctx, header)?;
            }
            found.understood = true;
            judge_tables(&mut found, ctx, &disk, header)?;
        }
        None => {
            found.understood = true;
            judge_fixed(&mut found, &disk);
        }
    }
    found.find(
        Requirement::KnownFeatures,
        Verdict::Pass,
        format!("a VHD of the type {:?}", disk.footer.disk_type),
    );
    for requirement in [
        Requirement::KeyDerivation,
        Requirement::DecompressedSize,
        Requirement::SnapshotCount,
        Requirement::Clean,
    ] {
        found.find(requirement, Verdict::NotApplicable, "a VHD has none");
    }
    Ok(found)
}

/// Adds every name of the parent, or its UUID if it has no name.
fn list_parent(
    found: &mut Inspection,
    ctx: &InspectContext<'_>,
    header: &DynamicHeader,
) -> Result<()> {
    let parent = parent::read(&*ctx.storage, header, ctx.file_len)?;
    let mut names: Vec<Vec<u8>> = parent
        .names
        .iter()
        .map(|name| without_dot(&name.here().unwrap_or_else(|| name.name.clone())).to_vec())
        .collect();
    if names.is_empty() {
        names.push(header.parent.braced().to_string().into_bytes());
    }
    for name in names {
        found.references.push(Reference {
            role: ImplicitRole::ParentLocator,
            name,
            format: parent.format.clone(),
            offset: 0,
        });
    }
    Ok(())
}

/// Reports headers that cannot be understood.
fn refuse(found: &mut Inspection, error: &Error) {
    let (bad, other) = match error.kind() {
        ErrorKind::Unsupported => (Requirement::KnownFeatures, Requirement::HeaderConsistent),
        _ => (Requirement::HeaderConsistent, Requirement::KnownFeatures),
    };
    found.find(bad, Verdict::Fail, error.to_string());
    found.find(other, Verdict::Unknown, "the headers cannot be understood");
}

fn judge_fixed(found: &mut Inspection, disk: &Found) {
    let len = disk.footer.size(None);
    found.find(
        Requirement::TableSizes,
        Verdict::NotApplicable,
        "there is no table",
    );
    found.judge(
        Requirement::HeaderConsistent,
        match len <= disk.footer_at {
            true => Ok("the disk ends where its footer begins or before".to_owned()),
            false => Err(format!(
                "the footer stands at {}, within a disk of {len} bytes",
                disk.footer_at
            )),
        },
    );
    found.judge(
        Requirement::FileSize,
        match disk.footer_at.saturating_sub(len) <= SLACK {
            true => Ok("the file is the disk and its footer".to_owned()),
            false => Err(format!(
                "{} bytes stand between the disk and its footer",
                disk.footer_at - len
            )),
        },
    );
}

fn judge_tables(
    found: &mut Inspection,
    ctx: &InspectContext<'_>,
    disk: &Found,
    header: &DynamicHeader,
) -> Result<()> {
    let fits = ctx
        .policy
        .check_table("table of blocks", header.table_len());
    let is_loadable = fits.is_ok();
    found.judge(
        Requirement::TableSizes,
        fits.map(|()| format!("the table of blocks takes {} bytes", header.table_len()))
            .map_err(|error| error.to_string()),
    );
    let layout = VpcLayout::of(header, disk.footer.data_offset);
    let unit = layout.block_size() + layout.lead() + 4096;
    let most = layout
        .table()
        .end
        .saturating_add(u64::from(header.entries).saturating_mul(unit))
        .saturating_add(FOOTER_LEN as u64 + SLACK);
    found.judge(
        Requirement::FileSize,
        match ctx.file_len <= most {
            true => Ok(format!("{} bytes", ctx.file_len)),
            false => Err(format!(
                "{} bytes are more than all blocks take",
                ctx.file_len
            )),
        },
    );
    if !is_loadable {
        let reason = "the table of blocks is too large to be looked at";
        found.find(Requirement::HeaderConsistent, Verdict::Unknown, reason);
        return Ok(());
    }
    let wrong = match disk.damage {
        Damage::None => {
            let is_overlay = disk.footer.disk_type == DiskType::Differencing;
            misplaced(ctx, header, &layout, is_overlay)?
        }
        _ => Some("a footer is missing or damaged".to_owned()),
    };
    found.judge(
        Requirement::HeaderConsistent,
        match wrong {
            None => Ok("every block has a place of its own in the file".to_owned()),
            Some(reason) => Err(reason),
        },
    );
    Ok(())
}

/// What is wrong with the place of a block, if anything.
fn misplaced(
    ctx: &InspectContext<'_>,
    header: &DynamicHeader,
    layout: &VpcLayout,
    is_overlay: bool,
) -> Result<Option<String>> {
    let names = name_places(header);
    let stands_over_name = |place: &Range<u64>| {
        let mut names = names.iter();
        names.any(|name| name.start < place.end && place.start < name.end)
    };
    let mut used = Vec::new();
    let end = header.table_offset + header.table_len();
    let mut at = header.table_offset;
    let mut index = 0_u32;
    while at < end {
        let len = (end - at).min(PIECE);
        let mut bytes = memory::zeroed(len as usize)?;
        ctx.storage.read_at(&mut bytes, at)?;
        for word in ByteOrder::Big.words(&bytes) {
            if let Entry::At(host) = layout.entry(word) {
                let place = host - layout.lead()..host + layout.block_size();
                if host >= ctx.file_len || layout.is_headers(&place) {
                    return Ok(Some(format!("block {index} stands outside of the data")));
                }
                if is_overlay && stands_over_name(&place) {
                    let what = format!("block {index} stands over a name of the parent");
                    return Ok(Some(what));
                }
                memory::push(&mut used, (word, index))?;
            }
            index += 1;
        }
        at += len;
    }
    used.sort_unstable();
    let sectors = (layout.lead() + layout.block_size()) / 512;
    let twice = used
        .windows(2)
        .find(|pair| matches!(pair, [(a, _), (b, _)] if u64::from(b - a) < sectors));
    Ok(twice.map(|pair| {
        let block = pair.last().map_or(0, |(_, index)| *index);
        format!("block {block} overlaps another one")
    }))
}
