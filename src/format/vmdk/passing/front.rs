//! What precedes the first grain: the header, the descriptor, and in most files the tables.

use crate::bytes::le32;
use crate::error::{Error, Result};
use crate::memory::{self, IoBuf};
use crate::policy::OpenPolicy;
use crate::size::SECTOR;

use super::super::disk::create_type::check_type;
use super::super::disk::sparse_header::{self, Flags, GD_AT_END, HEADER_LEN};
use super::super::disk::{SparseHeader, cowd_header, not_vmdk};
use super::super::source::{lone_extent, parse_embedded, room_for_text};
use super::bytes::{Bytes, out_of_order};
use super::tables::Tables;

/// Reads up to the first grain.
///
/// # Errors
/// As when opening a file; [`crate::ErrorKind::Unsupported`] for what is not a stream.
pub(super) fn read(
    policy: &OpenPolicy,
    bytes: &mut Bytes<'_, '_>,
) -> Result<(SparseHeader, Tables)> {
    let mut head = [0; HEADER_LEN];
    let got = bytes.some(&mut head)?;
    let head = head.get(..got).unwrap_or_default();
    if !head.starts_with(&sparse_header::MAGIC) {
        return Err(
            match head.starts_with(&cowd_header::MAGIC) || is_text(head) {
                true => no_stream(),
                false => not_vmdk(),
            },
        );
    }
    let header = SparseHeader::from_bytes(head)?;
    header.validate()?;
    if !header.flags.contains(Flags::COMPRESSED | Flags::MARKERS) {
        return Err(no_stream());
    }
    policy.check_decompressed(header.grain_bytes())?;
    let directory_len = header.directory_entries().saturating_mul(4);
    policy.check_table("Grain directory", directory_len)?;
    descriptor(&header, policy, bytes)?;
    let mut tables = Tables::new(&header);
    if header.directory != GD_AT_END {
        header.check_directories()?;
        named_before(&header, &mut tables, bytes)?;
    }
    let begin = bytes.at().next_multiple_of(SECTOR);
    let overhead = header.overhead.saturating_mul(SECTOR);
    bytes.must_go_to(overhead.max(begin), "first grain")?;
    Ok((header, tables))
}

fn descriptor(header: &SparseHeader, policy: &OpenPolicy, bytes: &mut Bytes<'_, '_>) -> Result<()> {
    if header.descriptor == 0 {
        return Err(lone_extent());
    }
    let len = header.descriptor_len.saturating_mul(SECTOR);
    let mut text = room_for_text(len, policy)?;
    bytes.must_go_to(header.descriptor.saturating_mul(SECTOR), "descriptor")?;
    bytes.all(&mut text)?;
    let descriptor = parse_embedded(&text)?;
    check_type(descriptor.create_type.as_ref(), true)?;
    match descriptor.has_parent() {
        true => Err(out_of_order("its parent is needed with it")),
        false => Ok(()),
    }
}

/// Reads the directory before the grains, and the tables that it refers to, which follow it.
fn named_before(
    header: &SparseHeader,
    tables: &mut Tables,
    bytes: &mut Bytes<'_, '_>,
) -> Result<()> {
    let what = "grain directory";
    bytes.must_go_to(header.directory.saturating_mul(SECTOR), what)?;
    let directory = directory(header, bytes)?;
    let mut table = IoBuf::new();
    for (n, word) in (0..).zip(directory.chunks_exact(4)) {
        let sector = le32(word, 0).unwrap_or_default();
        if tables.is_used(sector) {
            bytes.must_go_to(u64::from(sector) * SECTOR, "grain table")?;
            bytes.all(table.room(header.table_entries as usize * 4)?)?;
            tables.numbered(n, &table)?;
        }
    }
    Ok(())
}

/// Reads the entries of the directory, which comes next.
///
/// # Errors
/// If reading fails, or memory cannot be allocated.
pub(super) fn directory(header: &SparseHeader, bytes: &mut Bytes<'_, '_>) -> Result<IoBuf> {
    let len = header.directory_entries().saturating_mul(4);
    let mut directory = memory::zeroed(usize::try_from(len).map_err(|_| memory::lack())?)?;
    bytes.all(&mut directory)?;
    Ok(directory)
}

/// Whether the image is a text, which names files.
fn is_text(head: &[u8]) -> bool {
    head.first() == Some(&b'#')
}

fn no_stream() -> Error {
    out_of_order("it is no stream (streamOptimized)")
}
