//! Inspecting an untrusted image: its trailer and its tables.

use crate::error::Result;
use crate::format::encrcdsa;
use crate::format::inspect::{InspectContext, Inspection, Requirement, Verdict};

use super::Dmg;
use super::disk::{Checksum, Chunk, Coding, Trailer};
use super::open::{read_tables, read_trailer};
use super::runs::Runs;

/// The only known version of the trailer.
const VERSION: u32 = 4;

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    if let Some(found) = encrcdsa::inspect(ctx, "dmg")? {
        return Ok(found);
    }
    let mut found = Inspection::default();
    let trailer = read_trailer(&*ctx.storage, ctx.file_len);
    let Some(trailer) = found.taken(trailer)? else {
        return Ok(found);
    };
    let tables = read_tables(&*ctx.storage, &trailer, ctx.policy);
    let Some(tables) = found.taken(tables)? else {
        return Ok(found);
    };
    let image = Dmg::new(&trailer, tables)?;
    let runs = &image.runs;
    found.understood = true;
    found.virtual_size = Some(trailer.len);
    found.judge(Requirement::KnownFeatures, known(&trailer, runs));
    let table = trailer.fork.1.max(trailer.plist.1);
    let reason = format!("the tables of chunks take {table} bytes");
    found.find(Requirement::TableSizes, Verdict::Pass, reason);
    let packed = |chunk: &&Chunk| matches!(chunk.coding, Coding::Packed(_));
    let largest = runs.chunks().iter().filter(packed).map(|chunk| chunk.len);
    let reason = format!("a chunk decodes to {} bytes", largest.max().unwrap_or(0));
    found.find(Requirement::DecompressedSize, Verdict::Pass, reason);
    judge_chunks(&mut found, ctx, &trailer, &image);
    let none = [
        Requirement::KeyDerivation,
        Requirement::SnapshotCount,
        Requirement::Clean,
    ];
    found.has_none("dmg", &none);
    Ok(found)
}

fn known(trailer: &Trailer, runs: &Runs) -> std::result::Result<String, String> {
    let unknown = runs.chunks().iter().find_map(|chunk| match chunk.coding {
        Coding::Unknown(kind) => Some(kind),
        _ => None,
    });
    match unknown {
        Some(kind) => Err(format!("chunks are of the unknown type {kind:x}")),
        None if trailer.version != VERSION => {
            Err(format!("the trailer is of version {}", trailer.version))
        }
        None => Ok("a dmg image whose chunks are all of known types".to_owned()),
    }
}

fn judge_chunks(found: &mut Inspection, ctx: &InspectContext<'_>, trailer: &Trailer, image: &Dmg) {
    let runs = &image.runs;
    let held =
        |chunk: &&Chunk| !matches!(chunk.coding, Coding::Zero | Coding::Free) && chunk.held > 0;
    let ends = runs.chunks().iter().filter(held);
    let end = ends
        .map(|chunk| chunk.host.saturating_add(chunk.held))
        .max();
    let end = end.unwrap_or(0);
    found.judge(
        Requirement::HeaderConsistent,
        if end > ctx.file_len {
            Err("a chunk ends behind the end of the file".to_owned())
        } else if !runs.cover(trailer.len) {
            Err("the tables do not describe all sectors of the disk".to_owned())
        } else if is_wrong(image) {
            Err("the tables do not have the checksum that the trailer says".to_owned())
        } else {
            Ok("the chunks lie in the file and describe the whole disk".to_owned())
        },
    );
    let tables = [trailer.fork, trailer.plist].map(|(at, len)| at.saturating_add(len));
    let explained = tables.into_iter().fold(end, u64::max);
    found.explain_length(ctx.file_len, explained, "chunks and tables");
}

/// Whether the tables do not match the checksum in the trailer.
fn is_wrong(image: &Dmg) -> bool {
    match (image.master, image.master_found) {
        (Checksum::Crc32(recorded), Some(found)) => recorded != found,
        _ => false,
    }
}
