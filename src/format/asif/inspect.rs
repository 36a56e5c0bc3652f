//! Inspecting an untrusted image: its header, its directory and its tables.

use crate::error::{Error, Result};
use crate::format::inspect::{InspectContext, Inspection, Requirement, Verdict};
use crate::format::read_only::SizedStorage;
use crate::format::uses::Uses;

use super::disk::{CHUNK, COVERED, Directory, Entry, GROUP, GROUPS, Header, chunk_of_bitmap};
use super::{read_group, read_header};

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    let mut found = Inspection::default();
    let source = SizedStorage {
        storage: ctx.storage.clone(),
        len: ctx.file_len,
    };
    let Some(header) = found.taken(read_header(&source))? else {
        return Ok(found);
    };
    found.understood = true;
    found.virtual_size = Some(header.len);
    let reason = "an ASIF image of version 1";
    found.find(Requirement::KnownFeatures, Verdict::Pass, reason);
    judge_tables(&mut found, ctx, &source, &header)?;
    let none = [
        Requirement::KeyDerivation,
        Requirement::DecompressedSize,
        Requirement::SnapshotCount,
        Requirement::Clean,
    ];
    found.has_none("asif", &none);
    Ok(found)
}

fn judge_tables(
    found: &mut Inspection,
    ctx: &InspectContext<'_>,
    source: &SizedStorage,
    header: &Header,
) -> Result<()> {
    let file = (&*ctx.storage, ctx.file_len);
    // Apple's systems store metadata of their own past the end of the disk.
    let read = Directory::read(file, header, header.max_tables(), ctx.policy);
    let Some(directory) = found.taken(read)? else {
        return Ok(());
    };
    let bytes = (directory.tables().count() as u64).saturating_mul(CHUNK);
    let tables = ctx.policy.check_table("Tables", bytes);
    let Some(()) = found.taken(tables)? else {
        return Ok(());
    };
    let reason = format!("the tables take {bytes} bytes");
    found.find(Requirement::TableSizes, Verdict::Pass, reason);
    let end = survey(source, header, &directory);
    let Some(end) = found.taken(end)? else {
        return Ok(());
    };
    let reason = "every chunk has a place of its own in the file";
    found.find(Requirement::HeaderConsistent, Verdict::Pass, reason);
    found.explain_length(ctx.file_len, end, "the chunks");
    Ok(())
}

/// Scans the tables; returns where the last chunk ends.
fn survey(source: &SizedStorage, header: &Header, directory: &Directory) -> Result<u64> {
    let chunks = source.len.div_ceil(CHUNK);
    let mut uses = Uses::of(chunks);
    uses.mark(0)?;
    let mut last = 0;
    let mut mark = |chunk: u64, what: &str| {
        if chunk >= chunks {
            let why = format!("Chunk {chunk}, {what}, is behind the end of the file");
            return Err(Error::corrupt(why));
        }
        last = last.max(chunk);
        match uses.mark(chunk)? {
            true => Ok(()),
            false => Err(Error::corrupt(format!(
                "Chunk {chunk}, {what}, has two uses"
            ))),
        }
    };
    for (index, table) in directory.tables() {
        mark(table, "a table")?;
        let covered = (header.max_len - index * COVERED).min(COVERED);
        for group in 0..covered.div_ceil(GROUP * CHUNK).min(GROUPS) {
            let entries = read_group(source, table, group)?;
            for word in entries.words().take(GROUP as usize) {
                match Entry::of(word).map(Entry::chunk) {
                    Ok(None) => {}
                    Ok(Some(chunk)) => mark(chunk, "a part of the disk")?,
                    Err(reason) => {
                        let why = format!("An entry of table {index} {reason}");
                        return Err(Error::unsupported(why));
                    }
                }
            }
            match chunk_of_bitmap(entries.get(GROUP)) {
                Ok(None) => {}
                Ok(Some(chunk)) => mark(chunk, "a bitmap")?,
                Err(reason) => {
                    let why = format!("A bitmap of table {index} {reason}");
                    return Err(Error::unsupported(why));
                }
            }
        }
    }
    Ok((last + 1).saturating_mul(CHUNK))
}
