//! Inspecting an untrusted image: its header, and the table of blocks in pieces.

use crate::error::{ErrorKind, Result};
use crate::format::blocks::{ByteOrder, Entry, Layout};
use crate::format::inspect::{InspectContext, Inspection, Reference, Requirement, Verdict};
use crate::memory;
use crate::policy::ImplicitRole;

use super::disk::{HEAD_LEN, Header, VdiLayout};
use super::virtual_size;

/// The table is read in pieces of this many bytes.
const PIECE: u64 = 64 << 10;

/// Maximum excess of the file over what its blocks explain; a longer file hides something.
const SLACK: u64 = 64 << 20;

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    let mut head = vec![0; HEAD_LEN];
    ctx.storage.read_at(&mut head, 0)?;
    head.truncate(ctx.file_len.min(HEAD_LEN as u64) as usize);
    let mut found = Inspection::default();
    let header = match Header::from_bytes(&head) {
        Ok(header) => header,
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
    found.virtual_size = Some(virtual_size(&header));
    found.cluster_size = Some(u64::from(header.block_size));
    if !header.link.is_nil() {
        found.references.push(Reference {
            role: ImplicitRole::ParentLocator,
            name: header.link.braced().to_string().into_bytes(),
            format: Some("vdi".into()),
            offset: super::disk::LINK_AT,
        });
    }
    found.find(
        Requirement::KnownFeatures,
        Verdict::Pass,
        format!("a VDI image of the type {:?}", header.image_type),
    );
    judge_tables(&mut found, ctx, &header)?;
    for requirement in [
        Requirement::KeyDerivation,
        Requirement::DecompressedSize,
        Requirement::SnapshotCount,
        Requirement::Clean,
    ] {
        found.find(requirement, Verdict::NotApplicable, "a VDI image has none");
    }
    Ok(found)
}

fn judge_tables(found: &mut Inspection, ctx: &InspectContext<'_>, header: &Header) -> Result<()> {
    let table = header.table_end() - u64::from(header.table_offset);
    let fits = ctx.policy.check_table("block map", table);
    let is_loadable = fits.is_ok();
    found.judge(
        Requirement::TableSizes,
        fits.map(|()| format!("the block map takes {table} bytes"))
            .map_err(|error| error.to_string()),
    );
    if header.table_end() > ctx.file_len {
        let reason = "the file ends within the block map";
        found.find(Requirement::HeaderConsistent, Verdict::Fail, reason);
        found.find(Requirement::FileSize, Verdict::Unknown, reason);
        return Ok(());
    }
    if !is_loadable {
        let reason = "the block map is too large to be looked at";
        found.find(Requirement::HeaderConsistent, Verdict::Unknown, reason);
        found.find(Requirement::FileSize, Verdict::Unknown, reason);
        return Ok(());
    }
    let layout = VdiLayout::of(header);
    let most = layout.end_of(u64::from(header.blocks));
    let mut seen = memory::filled((header.blocks as usize).div_ceil(64), 0_u64)?;
    let mut wrong = None;
    let mut at = u64::from(header.table_offset);
    let mut index = 0_u64;
    while at < header.table_end() {
        let len = (header.table_end() - at).min(PIECE);
        let mut bytes = memory::zeroed(len as usize)?;
        ctx.storage.read_at(&mut bytes, at)?;
        for word in ByteOrder::Little.words(&bytes) {
            if let Entry::At(host) = layout.entry(word) {
                let bit = 1 << (word % 64);
                match seen.get_mut((word / 64) as usize) {
                    Some(bits) if word < header.blocks && *bits & bit == 0 => *bits |= bit,
                    Some(_) if word < header.blocks => {
                        wrong.get_or_insert(format!("block {index} stands where another does"));
                    }
                    _ => {
                        wrong.get_or_insert(format!("block {index} stands behind the last one"));
                    }
                }
                if host >= ctx.file_len {
                    wrong.get_or_insert(format!("block {index} stands behind the end of the file"));
                }
            }
            index += 1;
        }
        at += len;
    }
    found.judge(
        Requirement::HeaderConsistent,
        match wrong {
            None => Ok("every block has a place of its own in the file".to_owned()),
            Some(reason) => Err(reason),
        },
    );
    found.judge(
        Requirement::FileSize,
        match ctx.file_len <= most.saturating_add(SLACK) {
            true => Ok(format!(
                "{} bytes, and {most} at most with all blocks",
                ctx.file_len
            )),
            false => Err(format!(
                "{} bytes are more than the {most} that all blocks take",
                ctx.file_len
            )),
        },
    );
    Ok(())
}
