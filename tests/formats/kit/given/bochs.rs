//! Writes disks of Bochs that grow.

/// The image of a disk, in extents of that many bytes; sectors of zeroes are left out.
pub fn write(guest: &[u8], version: u32, extent: usize, bitmap: usize) -> Vec<u8> {
    // An entry more than there are extents, as the product leaves some.
    let count = guest.len().div_ceil(extent) + 1;
    let mut image = vec![0; 512];
    for (at, text) in [
        (0, &b"Bochs Virtual HD Image"[..]),
        (32, b"Redolog"),
        (48, b"Growing"),
    ] {
        image[at..at + text.len()].copy_from_slice(text);
    }
    let numbers = [version, 512, count as u32, bitmap as u32, extent as u32];
    for (n, number) in numbers.into_iter().enumerate() {
        image[64 + n * 4..68 + n * 4].copy_from_slice(&number.to_le_bytes());
    }
    let at = if version == 0x1_0000 { 84 } else { 88 };
    image[at..at + 8].copy_from_slice(&(guest.len() as u64).to_le_bytes());
    let mut catalog = vec![u32::MAX; count];
    let mut extents = Vec::new();
    // Extents lie in the order in which they were first written: here the last one first.
    for (index, data) in guest.chunks(extent).enumerate().rev() {
        if data.iter().all(|byte| *byte == 0) {
            continue;
        }
        catalog[index] = extents.len() as u32;
        let mut bits = vec![0_u8; bitmap.next_multiple_of(512)];
        for (sector, bytes) in data.chunks(512).enumerate() {
            if bytes.iter().any(|byte| *byte != 0) {
                bits[sector / 8] |= 1 << (sector % 8);
            }
        }
        // What no bit stands for does not count.
        let mut bytes = data.to_vec();
        for (sector, bytes) in bytes.chunks_mut(512).enumerate() {
            if bits[sector / 8] >> (sector % 8) & 1 == 0 {
                bytes.fill(0xee);
            }
        }
        bytes.resize(extent, 0xee);
        extents.push([bits, bytes].concat());
    }
    image.extend(catalog.iter().flat_map(|entry| entry.to_le_bytes()));
    image.extend(extents.concat());
    image
}
