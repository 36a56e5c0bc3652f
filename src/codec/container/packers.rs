//! Writes files as the tool of each kind does, for the tests here and the fuzz targets.

use std::io::Write;

use liblzma::stream::Stream;
use lz4_flex::frame::{FrameEncoder, FrameInfo};

pub fn xz(stream: Result<Stream, liblzma::stream::Error>, bytes: &[u8]) -> Vec<u8> {
    let stream = stream.expect("an encoder");
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::fast();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// A block as bgzip writes it: a member that records its length.
pub fn bgzf_block(bytes: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::fast();
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).expect("memory");
    let packed = encoder.finish().expect("memory");
    let mut block = vec![
        0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 6, 0, b'B', b'C', 2, 0,
    ];
    block.extend((packed.len() as u16 + 25).to_le_bytes());
    block.extend(packed);
    block.extend(libdeflater::crc32(bytes).to_le_bytes());
    block.extend((bytes.len() as u32).to_le_bytes());
    block
}

pub fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let level = bzip2::Compression::fast();
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// One frame, whose header may or may not record its decompressed length.
pub fn zstd(bytes: &[u8], says_len: bool) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("memory");
    encoder.include_checksum(true).expect("an option");
    let len = says_len.then_some(bytes.len() as u64);
    encoder.set_pledged_src_size(len).expect("an option");
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// A frame for each part, followed by the table of the seekable format.
pub fn seekable_zstd<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut file, mut table) = (Vec::new(), Vec::new());
    for part in parts {
        let frame = zstd(part, false);
        table.extend((frame.len() as u32).to_le_bytes());
        table.extend((part.len() as u32).to_le_bytes());
        file.extend(frame);
    }
    file.extend(0x184d_2a5e_u32.to_le_bytes());
    file.extend((table.len() as u32 + 9).to_le_bytes());
    file.extend(&table);
    file.extend((table.len() as u32 / 8).to_le_bytes());
    file.push(0);
    file.extend(0x8f92_eab1_u32.to_le_bytes());
    file
}

pub fn lz4(info: FrameInfo, bytes: &[u8]) -> Vec<u8> {
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}
