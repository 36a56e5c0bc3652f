//! Writes ASIF images as the public description of the format has them.

const CHUNK: usize = 1 << 20;
const SECTOR: usize = 512;
/// Where the entry of the bitmap stands in a group.
const BITMAP: usize = 2048;

/// How an image is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The directory of which is live.
    pub live: usize,
    /// Chunks that have sectors of zeroes are there in part, with something else in the place of those.
    pub partly: bool,
}

/// The image of a disk, its chunks from the last to the first.
pub fn write(guest: &[u8], layout: &Layout) -> Vec<u8> {
    let mut image = vec![0; CHUNK];
    let max_sectors = 1_u64 << 28;
    // A sector is more than the entries of two tables take.
    let directories = [0x200, 0x400];
    for (at, value) in [
        (16, directories[0] as u64),
        (24, directories[1] as u64),
        (48, (guest.len() / SECTOR) as u64),
        (56, max_sectors),
    ] {
        image[at..at + 8].copy_from_slice(&value.to_be_bytes());
    }
    image[..16].copy_from_slice(b"shdw\0\0\0\x01\0\0\x02\0\0\0\0\0");
    image[32..48].copy_from_slice(b"an identity here");
    image[64..70].copy_from_slice(&[0, 0x10, 0, 0, 2, 0]);
    for (n, at) in directories.into_iter().enumerate() {
        // What counts no more names a table that is none.
        let (version, table) = match n == layout.live {
            true => (9_u64, 1_u64),
            false => (8, 0),
        };
        image[at..at + 8].copy_from_slice(&version.to_be_bytes());
        image[at + 8..at + 16].copy_from_slice(&table.to_be_bytes());
    }
    // The table, and the bitmap of its first group.
    image.resize(3 * CHUNK, 0);
    let entry = |image: &mut [u8], index: usize, word: u64| {
        let at = CHUNK + index * 8;
        image[at..at + 8].copy_from_slice(&word.to_be_bytes());
    };
    entry(&mut image, BITMAP, 2);
    let chunks: Vec<_> = guest.chunks(CHUNK).enumerate().collect();
    for (n, bytes) in chunks.into_iter().rev() {
        let is_written = |sector: &[u8]| sector.iter().any(|byte| *byte != 0);
        if !is_written(bytes) {
            continue;
        }
        let at = (image.len() / CHUNK) as u64;
        let status = if layout.partly { 3 } else { 1 };
        entry(&mut image, n, status << 62 | at);
        let mut chunk = bytes.to_vec();
        chunk.resize(CHUNK, 0);
        for (sector, bytes) in chunk.chunks_mut(SECTOR).enumerate() {
            if !layout.partly {
                continue;
            }
            match is_written(bytes) {
                true => {
                    let at = 2 * CHUNK + n * 512 + sector / 4;
                    image[at] |= 1 << (sector % 4 * 2);
                }
                false => bytes.fill(0xee),
            }
        }
        image.extend(chunk);
    }
    image
}
