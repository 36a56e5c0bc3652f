//! VHDX images as a crash leaves them.

use super::Dir;

/// Where the copies of the header are.
pub const HEADERS: [usize; 2] = [64 << 10, 128 << 10];

/// Puts the right checksum into a structure that was changed.
pub fn seal(structure: &mut [u8]) {
    structure[4..8].fill(0);
    let crc = crc32c::crc32c(structure);
    structure[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Where the block allocation table is.
pub fn table(file: &[u8]) -> usize {
    const ID: [u8; 4] = [0x66, 0x77, 0xc2, 0x2d];
    let regions = &file[192 << 10..256 << 10];
    let at = regions[16..]
        .chunks(32)
        .find(|entry| entry.starts_with(&ID));
    let offset = at.expect("a table")[16..24]
        .try_into()
        .expect("eight bytes");
    u64::from_le_bytes(offset) as usize
}

/// Changes an entry of the table.
pub fn set_entry(file: &mut [u8], index: usize, value: u64) {
    let at = table(file) + index * 8;
    file[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Where the log is.
pub const LOG: usize = 1 << 20;

/// An image as a crash of QEMU leaves it: the last entry of its log is not carried out.
pub fn crashed(dir: &Dir) {
    dir.qemu_img_ok(&[
        "create",
        "-q",
        "-f",
        "vhdx",
        "-o",
        "block_size=1M",
        "a.vhdx",
        "8M",
    ]);
    dir.qemu_io("vhdx", "a.vhdx", &["write -P 5 0 64k", "write -P 6 3M 64k"]);
    let mut file = std::fs::read(dir.path("a.vhdx")).expect("the image");
    let mut entries = (LOG..LOG + (1 << 20)).step_by(4096);
    let last = entries.rfind(|at| file[*at..].starts_with(b"loge"));
    let guid = file[last.expect("an entry") + 32..][..16].to_vec();
    for at in HEADERS {
        file[at + 48..at + 64].copy_from_slice(&guid);
        seal(&mut file[at..at + 4096]);
    }
    set_entry(&mut file, 3, 2);
    std::fs::write(dir.path("a.vhdx"), file).expect("the image");
}
