//! Extents that no tool here writes.

use std::io::Write;

/// Bytes of a sector.
pub const SECTOR: usize = 512;

/// Puts words of four bytes at an offset.
fn put32(bytes: &mut [u8], at: usize, words: &[u32]) {
    for (n, word) in words.iter().enumerate() {
        bytes[at + n * 4..at + n * 4 + 4].copy_from_slice(&word.to_le_bytes());
    }
}

fn put64(bytes: &mut [u8], at: usize, words: &[u64]) {
    for (n, word) in words.iter().enumerate() {
        bytes[at + n * 8..at + n * 8 + 8].copy_from_slice(&word.to_le_bytes());
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
}

fn stream_header(capacity: u64, directory: u64) -> Vec<u8> {
    let mut bytes = vec![0; SECTOR];
    bytes[..4].copy_from_slice(b"KDMV");
    put32(&mut bytes, 4, &[3, 0x3_0001]);
    put64(&mut bytes, 12, &[capacity, 128, 1, 20]);
    put32(&mut bytes, 44, &[512]);
    put64(&mut bytes, 48, &[0, directory, 128]);
    bytes[73..77].copy_from_slice(b"\n \r\n");
    bytes[77] = 1;
    bytes
}

fn marker(sectors: u64, kind: u32) -> Vec<u8> {
    let mut bytes = vec![0; SECTOR];
    put64(&mut bytes, 0, &[sectors]);
    put32(&mut bytes, 12, &[kind]);
    bytes
}

/// A stream as it leaves a pipe: the directory behind the grains, and a footer that names it.
pub fn stream(guest: &[u8], raw_deflate: bool) -> Vec<u8> {
    let capacity = (guest.len() / SECTOR) as u64;
    let mut bytes = stream_header(capacity, u64::MAX);
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
         createType=\"streamOptimized\"\nRDONLY {capacity} SPARSE \"x.vmdk\"\n"
    );
    bytes.extend(text.as_bytes());
    bytes.resize(128 * SECTOR, 0);
    let mut table = vec![0u8; 2048];
    for (n, grain) in guest.chunks(65536).enumerate() {
        if grain.iter().all(|byte| *byte == 0) {
            continue;
        }
        let level = flate2::Compression::default();
        let packed = if raw_deflate {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
            encoder.write_all(grain).expect("bytes");
            encoder.finish().expect("a stream")
        } else {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(grain).expect("bytes");
            encoder.finish().expect("a stream")
        };
        put32(&mut table, n * 4, &[(bytes.len() / SECTOR) as u32]);
        bytes.extend((n as u64 * 128).to_le_bytes());
        bytes.extend((packed.len() as u32).to_le_bytes());
        bytes.extend(packed);
        pad(&mut bytes);
    }
    bytes.extend(marker(4, 1));
    let table_at = (bytes.len() / SECTOR) as u32;
    bytes.extend(table);
    bytes.extend(marker(1, 2));
    let directory = (bytes.len() / SECTOR) as u64;
    let mut entries = vec![0; SECTOR];
    put32(&mut entries, 0, &[table_at]);
    bytes.extend(entries);
    bytes.extend(marker(1, 3));
    bytes.extend(stream_header(capacity, directory));
    bytes.extend(marker(0, 0));
    bytes
}

/// A redo log of 4 MiB, which has sector 3 and the last one.
pub fn redo_log() -> Vec<u8> {
    let mut delta = vec![0; 80 * SECTOR];
    delta[..4].copy_from_slice(b"COWD");
    put32(&mut delta, 4, &[1, 3, 8192, 1, 4, 2, 81, 0]);
    put32(&mut delta, 4 * SECTOR, &[5, 37]);
    // Sector 3 of the first table's span, and the last sector of the disk.
    put32(&mut delta, 5 * SECTOR + 12, &[80]);
    put32(&mut delta, 37 * SECTOR + 4095 * 4, &[81]);
    delta.extend([0x11; SECTOR]);
    delta.extend([0x22; SECTOR]);
    delta
}

/// A space-efficient extent of 16 MiB and 4 KiB whose journal waits or not.
pub fn se_sparse(replay: u64) -> Vec<u8> {
    let mut bytes = vec![0; 2048 * SECTOR];
    let capacity = 32768 + 8;
    put64(
        &mut bytes,
        0,
        &[0xcafe_babe, 0x2_0000_0001, capacity, 8, 64],
    );
    // Pairs: volatile header, journal header, journal, directory, tables, bitmap, backmap, grains.
    let pairs = [1, 1, 2, 2, 4, 4, 8, 8, 16, 128, 144, 4, 148, 4, 152, 1000];
    put64(&mut bytes, 80, &pairs);
    put64(&mut bytes, SECTOR, &[0xcafe_cafe, 0, 0, replay]);
    put64(&mut bytes, 8 * SECTOR, &[1 << 60, 1 << 60 | 1]);
    let entry = |kind: u64, grain: u64| kind << 60 | (grain & 0xfff) << 48 | grain >> 12;
    put64(
        &mut bytes,
        16 * SECTOR,
        &[entry(3, 1), entry(2, 0), entry(1, 0), 0, entry(3, 0)],
    );
    put64(&mut bytes, 80 * SECTOR, &[entry(3, 2)]);
    for (grain, byte) in [(0, 0x33), (1, 0x44), (2, 0x55)] {
        bytes[(152 + grain * 8) * SECTOR..(160 + grain * 8) * SECTOR].fill(byte);
    }
    bytes
}
