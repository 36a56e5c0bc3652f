//! Writes sparse images of macOS.

const SECTOR: usize = 512;
const NODE: usize = 4096;

/// The image of a disk, its bands from the last to the first.
pub fn write(guest: &[u8], band: usize) -> Vec<u8> {
    let mut image = node(0);
    image[8..12].copy_from_slice(&((band / SECTOR) as u32).to_be_bytes());
    let sectors = (guest.len() / SECTOR) as u64;
    image[16..20].copy_from_slice(&(sectors as u32).to_be_bytes());
    image[28..36].copy_from_slice(&sectors.to_be_bytes());
    // Where the node is, its number, and where its next entry goes.
    let (mut at, mut number, mut entry) = (0, 0, 64);
    for (n, bytes) in guest
        .chunks(band)
        .enumerate()
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
    {
        if bytes.iter().all(|byte| *byte == 0) {
            continue;
        }
        if entry == NODE {
            let next = image.len();
            let field = at + if number == 0 { 20 } else { 12 };
            image[field..field + 8].copy_from_slice(&(next as u64).to_be_bytes());
            number += 1;
            image.extend(node(number));
            (at, entry) = (next, 56);
        }
        image[at + entry..at + entry + 4].copy_from_slice(&(n as u32 + 1).to_be_bytes());
        entry += 4;
        let mut bytes = bytes.to_vec();
        bytes.resize(band, 0);
        image.extend(bytes);
    }
    image
}

fn node(number: u32) -> Vec<u8> {
    let mut node = b"sprs".to_vec();
    let word = if number == 0 { 3 } else { number };
    node.extend(word.to_be_bytes());
    node.resize(NODE, 0);
    node[15] = u8::from(number == 0);
    node
}
