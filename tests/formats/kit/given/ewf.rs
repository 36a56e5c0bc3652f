//! Writes EWF images of one segment.

use std::io::Write;

use md5::{Digest, Md5};
use sha1::Sha1;

/// How an image is written.
#[derive(Debug)]
pub struct Layout {
    /// Sectors of a chunk.
    pub chunk: usize,
    /// The most chunks of a table.
    pub table: usize,
    /// Offsets in tables are counted from their data rather than from the beginning.
    pub based: bool,
    /// The first of each pair of tables is damaged.
    pub second_only: bool,
    /// As SMART writes it: chunks in the tables, all of them compressed, without copies.
    pub smart: bool,
}

const SECTOR: usize = 512;

fn adler(bytes: &[u8]) -> [u8; 4] {
    libdeflater::adler32(bytes).to_le_bytes()
}

fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = adler(&bytes);
    bytes.extend(sum);
    bytes
}

fn section(image: &mut Vec<u8>, kind: &str, data: &[u8]) {
    let mut head = kind.as_bytes().to_vec();
    head.resize(16, 0);
    let is_last = matches!(kind, "next" | "done");
    let len = if is_last { 0 } else { 76 + data.len() };
    head.extend(((image.len() + len) as u64).to_le_bytes());
    head.extend((len as u64).to_le_bytes());
    head.resize(72, 0);
    image.extend(summed(head));
    image.extend(data);
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).expect("memory takes bytes");
    encoder.finish().expect("a stream")
}

fn volume(guest: &[u8], layout: &Layout) -> Vec<u8> {
    let chunks = guest.len().div_ceil(layout.chunk * SECTOR);
    let mut data = vec![1, 0, 0, 0];
    for word in [chunks, layout.chunk, SECTOR, guest.len() / SECTOR] {
        data.extend((word as u32).to_le_bytes());
    }
    if layout.smart {
        data.resize(85, 0);
        data.extend(b"SMART");
    } else {
        data.resize(1048, 0);
    }
    summed(data)
}

/// The image of a disk.
pub fn write(guest: &[u8], layout: &Layout) -> Vec<u8> {
    let mut image = b"EVF\x09\x0d\x0a\xff\x00\x01\x01\x00\x00\x00".to_vec();
    section(&mut image, "header", &zlib(b"1\nmain\n"));
    section(&mut image, "volume", &volume(guest, layout));
    let chunks: Vec<_> = guest.chunks(layout.chunk * SECTOR).collect();
    for group in chunks.chunks(layout.table) {
        tables(&mut image, group, layout);
    }
    let (md5, sha1) = (Md5::digest(guest), Sha1::digest(guest));
    let mut hash = md5.to_vec();
    hash.resize(32, 0);
    section(&mut image, "hash", &summed(hash));
    let mut digest = [&md5[..], &sha1[..]].concat();
    digest.resize(76, 0);
    section(&mut image, "digest", &summed(digest));
    section(&mut image, "done", b"");
    image
}

fn tables(image: &mut Vec<u8>, chunks: &[&[u8]], layout: &Layout) {
    let before = match layout.smart {
        true => 76 + 24 + 4 * chunks.len(),
        false => 76,
    };
    let start = image.len() + before;
    let base = if layout.based { start } else { 0 };
    let mut data = Vec::new();
    let mut entries = Vec::new();
    for chunk in chunks {
        let at = (start - base + data.len()) as u32;
        let packed = zlib(chunk);
        if packed.len() < chunk.len() || layout.smart {
            entries.extend((at | 1 << 31).to_le_bytes());
            data.extend(packed);
        } else {
            entries.extend(at.to_le_bytes());
            data.extend(summed(chunk.to_vec()));
        }
    }
    let mut head = (chunks.len() as u32).to_le_bytes().to_vec();
    head.resize(8, 0);
    head.extend((base as u64).to_le_bytes());
    head.resize(20, 0);
    let head = summed(head);
    if layout.smart {
        section(image, "table", &[head, entries, data].concat());
        return;
    }
    section(image, "sectors", &data);
    let table = [head, summed(entries)].concat();
    let mut first = table.clone();
    if layout.second_only {
        // Once in what stands before the entries, once in the entries.
        let at = if chunks.len().is_multiple_of(2) {
            5
        } else {
            30
        };
        first[at] ^= 1;
    }
    section(image, "table", &first);
    section(image, "table2", &table);
}
