//! Checksums of damaged images put right, so that they do not end what is tried before it begins.

/// Puts right the checksums of a file of that format; a format without any stays as it is.
pub fn seal(format: &str, bytes: &mut [u8]) {
    match format {
        "vpc" => seal_vpc(bytes),
        "vhdx" => seal_vhdx(bytes),
        _ => {}
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let field = bytes.get(at..at.saturating_add(N)).unwrap_or(&[0; N]);
    field.try_into().expect("as many bytes")
}

/// The complement of the sum of all bytes, without those of the field.
fn put_sum(bytes: &mut [u8], at: usize, len: usize, field: usize) {
    let Some(bytes) = bytes.get_mut(at..at.saturating_add(len)) else {
        return;
    };
    bytes[field..field + 4].fill(0);
    let sum = bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    bytes[field..field + 4].copy_from_slice(&(!sum).to_be_bytes());
}

/// The footers at both ends, and the headers that they name.
fn seal_vpc(bytes: &mut [u8]) {
    for at in [0, bytes.len().saturating_sub(512)] {
        if &number(bytes, at) != b"conectix" {
            continue;
        }
        put_sum(bytes, at, 512, 64);
        let header = u64::from_be_bytes(number(bytes, at + 16)) as usize;
        if &number(bytes, header) == b"cxsparse" {
            put_sum(bytes, header, 1024, 36);
        }
    }
}

fn put_crc(bytes: &mut [u8], at: usize, len: usize) {
    let Some(bytes) = bytes.get_mut(at..at.saturating_add(len)) else {
        return;
    };
    bytes[4..8].fill(0);
    let crc = crc32c::crc32c(bytes);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Headers, region tables and the entries of the logs that the headers name.
fn seal_vhdx(bytes: &mut [u8]) {
    for at in [64 << 10, 128 << 10] {
        let log = u64::from_le_bytes(number(bytes, at + 72)) as usize;
        for at in (0..1 << 20).step_by(4096).map(|n| log.saturating_add(n)) {
            let len = u32::from_le_bytes(number(bytes, at.saturating_add(8))) as usize;
            if &number(bytes, at) == b"loge" && (64..=1 << 20).contains(&len) {
                put_crc(bytes, at, len);
            }
        }
        put_crc(bytes, at, 4096);
    }
    for at in [192 << 10, 256 << 10] {
        put_crc(bytes, at, 64 << 10);
    }
}
