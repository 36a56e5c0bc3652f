//! Inspecting an untrusted image: its header and its catalog.

use crate::error::{ErrorKind, Result};
use crate::format::inspect::{Guard, InspectContext, Inspection, Verdict};
use crate::memory;

use super::disk::{Catalog, HEADER_LEN, Header};

/// A file that is longer than its extents explain by more than this hides something.
const SLACK: u64 = 64 << 10;

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    let mut head = [0; HEADER_LEN];
    ctx.storage.read_at(&mut head, 0)?;
    let mut found = Inspection::default();
    let header = match Header::from_bytes(&head) {
        Ok(header) => header,
        Err(error) => {
            let guard = match error.kind() {
                ErrorKind::Unsupported => Guard::KnownFeatures,
                _ => Guard::HeaderConsistent,
            };
            found.find(guard, Verdict::Fail, error.to_string());
            return Ok(found);
        }
    };
    found.understood = true;
    found.virtual_size = Some(header.len);
    let reason = "a disk of Bochs that grows";
    found.find(Guard::KnownFeatures, Verdict::Pass, reason);
    judge_catalog(&mut found, ctx, &header)?;
    for guard in [
        Guard::KeyDerivation,
        Guard::DecompressedSize,
        Guard::SnapshotCount,
        Guard::Clean,
    ] {
        found.find(guard, Verdict::NotApplicable, "a bochs image has none");
    }
    Ok(found)
}

fn judge_catalog(found: &mut Inspection, ctx: &InspectContext<'_>, header: &Header) -> Result<()> {
    let read = Catalog::read(&*ctx.storage, ctx.file_len, header, ctx.policy);
    let catalog = match read {
        Ok(catalog) => catalog,
        Err(error) if error.kind() == ErrorKind::Limit => {
            found.find(Guard::TableSizes, Verdict::Fail, error.to_string());
            let reason = "the catalog is too large to be looked at";
            found.find(Guard::HeaderConsistent, Verdict::Unknown, reason);
            found.find(Guard::FileSize, Verdict::Unknown, reason);
            return Ok(());
        }
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            found.find(Guard::HeaderConsistent, Verdict::Fail, error.to_string());
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let reason = format!("the catalog takes {} bytes", u64::from(header.catalog) * 4);
    found.find(Guard::TableSizes, Verdict::Pass, reason);
    let len = ctx.file_len;
    let extents = header.len.div_ceil(header.extent);
    let mut end = header.catalog_end();
    let mut numbers = Vec::new();
    let mut wrong = None;
    for (index, number) in catalog.present() {
        let data = header.extent_at(number) + header.bitmap;
        end = end.max(data + header.extent);
        if index < extents && data > len {
            wrong.get_or_insert(format!("extent {index} stands behind the end of the file"));
        }
        memory::push(&mut numbers, number)?;
    }
    numbers.sort_unstable();
    if numbers.windows(2).any(|pair| pair[0] == pair[1]) {
        wrong.get_or_insert("two extents stand at the same place".to_owned());
    }
    found.judge(
        Guard::HeaderConsistent,
        match wrong {
            None => Ok("every extent has a place of its own in the file".to_owned()),
            Some(reason) => Err(reason),
        },
    );
    found.judge(
        Guard::FileSize,
        match len <= end.saturating_add(SLACK) {
            true => Ok(format!("{len} bytes, and {end} with all extents")),
            false => Err(format!(
                "{len} bytes are more than the {end} that the extents explain"
            )),
        },
    );
    Ok(())
}
