//! Parallels images with a format extension, which samples do not have.

use md5::{Digest, Md5};

use crate::kit::sample::{SAMPLES, Sample};
use crate::kit::shelf;
use crate::sparse::Pages;

const MAGIC: u64 = 0xab23_4cef_23dc_ea87;
const DIRTY_BITMAP: u64 = 0x2038_5fae_252c_b34a;
const SECTOR: u64 = 512;
/// Larger clusters are not sealed.
const MOST: u64 = 4 << 20;

/// Bytes of a cluster, and where the extension stands.
fn place(file: &Pages) -> Option<(u64, u64)> {
    let cluster = u64::from(u32::from_le_bytes(file.get(28))) * SECTOR;
    let at = u64::from_le_bytes(file.get(56)).checked_mul(SECTOR)?;
    let end = at.checked_add(cluster)?;
    ((64..=MOST).contains(&cluster) && at >= 64 && end <= file.len()).then_some((cluster, at))
}

/// Puts the checksum of the extension right.
pub fn seal(file: &mut Pages) {
    if let Some((cluster, at)) = place(file) {
        let mut body = vec![0; cluster as usize - 24];
        file.read(&mut body, at + 24);
        file.put(&Md5::digest(&body), at + 8);
    }
}

fn section(kind: u64, flags: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(flags.to_le_bytes());
    bytes.extend((data.len() as u64).to_le_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// The samples of small clusters, for the checksum of an extension is over all of its cluster and taken at each opening,
/// with an extension at the end: a dirty bitmap, and a section that nobody knows with those flags.
pub fn with_extensions() -> Vec<(Sample, Vec<Vec<u8>>)> {
    let samples = SAMPLES
        .iter()
        .filter(|it| it.format == "parallels" && it.options.contains("cluster_size"));
    let each = samples.flat_map(|sample| [0, 1, 2].map(|flags| (*sample, flags)));
    each.map(|(sample, flags)| {
        let mut files = shelf::bytes(&shelf::created(&sample));
        let mut file = Pages::of(&files[0]);
        let cluster = u64::from(u32::from_le_bytes(file.get(28))) * SECTOR;
        let at = file.len();
        file.set_len(at + 2 * cluster);
        let sectors = u64::from_le_bytes(file.get(36));
        let mut data = sectors.to_le_bytes().to_vec();
        data.extend([7; 16]);
        data.extend(128_u32.to_le_bytes());
        data.extend(1_u32.to_le_bytes());
        data.extend(((at + cluster) / SECTOR).to_le_bytes());
        let bitmap = section(DIRTY_BITMAP, 0, &data);
        file.put(&MAGIC.to_le_bytes(), at);
        file.put(
            &[bitmap, section(0x77, flags, b"unknown")].concat(),
            at + 24,
        );
        file.put(&[0x0f], at + cluster);
        file.put(&(at / SECTOR).to_le_bytes(), 56);
        seal(&mut file);
        let mut bytes = vec![0; file.len() as usize];
        file.read(&mut bytes, 0);
        files[0] = bytes;
        (sample, files)
    })
    .collect()
}
