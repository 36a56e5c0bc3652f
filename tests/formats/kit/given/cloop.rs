//! Writes cloop images.

use std::io::Write;

const SCRIPT: &[u8] =
    b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";

/// The image of a disk of whole blocks.
pub fn write(guest: &[u8], block: usize) -> Vec<u8> {
    let blocks: Vec<_> = guest.chunks(block).map(zlib).collect();
    let mut image = SCRIPT.to_vec();
    image.resize(128, 0);
    image.extend((block as u32).to_be_bytes());
    image.extend((blocks.len() as u32).to_be_bytes());
    let mut offset = image.len() + (blocks.len() + 1) * 8;
    for block in &blocks {
        image.extend((offset as u64).to_be_bytes());
        offset += block.len();
    }
    image.extend((offset as u64).to_be_bytes());
    image.extend(blocks.concat());
    image
}

fn zlib(block: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
    encoder.write_all(block).expect("memory takes bytes");
    encoder.finish().expect("a stream")
}
