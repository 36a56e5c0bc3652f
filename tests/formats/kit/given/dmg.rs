//! Writes DMG images.

use std::io::Write;

use base64::Engine;

/// Compresses a chunk.
pub type Pack = fn(&[u8]) -> Vec<u8>;

/// How an image is written.
#[derive(Debug)]
pub struct Layout {
    /// The type of compressed chunks.
    pub kind: u32,
    pub pack: Pack,
    /// Bytes of a chunk.
    pub chunk: usize,
    /// The tables are in a resource fork rather than in a property list.
    pub fork: bool,
    /// The tables come in any order, and overlap.
    pub mixed: bool,
}

/// What stands before the data.
const BEFORE: usize = 1000;
const SECTOR: usize = 512;

/// The image of a disk, in three partitions.
pub fn write(guest: &[u8], layout: &Layout) -> Vec<u8> {
    let mut image = vec![0xbb; BEFORE];
    let borders = [0, SECTOR, 40 * SECTOR, guest.len()];
    let mut tables = Vec::new();
    for pair in borders.windows(2) {
        let end = match layout.mixed {
            // Behind another partition this one has nothing to say.
            true => (pair[1] + 7 * SECTOR).min(guest.len()),
            false => pair[1],
        };
        let mut bytes = guest[pair[0]..end].to_vec();
        bytes[pair[1] - pair[0]..].fill(0x99);
        tables.push(table(&mut image, pair[0], &bytes, layout));
    }
    if layout.mixed {
        tables.reverse();
    }
    let at = image.len() as u64;
    let (fork, plist) = match layout.fork {
        true => (resource_fork(&tables), Vec::new()),
        false => (Vec::new(), property_list(&tables).into_bytes()),
    };
    image.extend(&fork);
    image.extend(&plist);
    let mut trailer = vec![0; 512];
    trailer[..4].copy_from_slice(b"koly");
    trailer[7] = 4;
    trailer[10] = 2;
    trailer[15] = 1;
    let data = crc32(&image[BEFORE..at as usize]);
    trailer[80..92].copy_from_slice(&checksum(data));
    let sums: Vec<u8> = tables
        .iter()
        .flat_map(|table| table[72..76].to_vec())
        .collect();
    trailer[352..364].copy_from_slice(&checksum(crc32(&sums)));
    for (place, number) in [
        (24, BEFORE as u64),
        (32, at - BEFORE as u64),
        (40, if layout.fork { at } else { 0 }),
        (48, fork.len() as u64),
        (216, if layout.fork { 0 } else { at }),
        (224, plist.len() as u64),
        (492, (guest.len() / SECTOR) as u64),
    ] {
        trailer[place..place + 8].copy_from_slice(&number.to_be_bytes());
    }
    image.extend(trailer);
    image
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The kind, the bits and the value of a CRC-32.
fn checksum(value: u32) -> [u8; 12] {
    let words = [2, 32, value].map(u32::to_be_bytes);
    words.concat().try_into().expect("three words")
}

fn table(image: &mut Vec<u8>, start: usize, bytes: &[u8], layout: &Layout) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut summed = Vec::new();
    let mut entry = |kind: u32, sector: usize, sectors: usize, at: usize, len: usize| {
        entries.extend(kind.to_be_bytes());
        entries.extend([0; 4]);
        for number in [sector, sectors, at, len] {
            entries.extend((number as u64).to_be_bytes());
        }
    };
    for (n, chunk) in bytes.chunks(layout.chunk).enumerate() {
        let sector = n * layout.chunk / SECTOR;
        let at = image.len() - BEFORE;
        if n % 3 == 1 {
            entry(0x7fff_fffe, sector, 0, at, 0);
        }
        let (kind, held) = if chunk.iter().all(|byte| *byte == 0) {
            (if n % 2 == 0 { 0 } else { 2 }, Vec::new())
        } else {
            let packed = (layout.pack)(chunk);
            match packed.len() < chunk.len() {
                true => (layout.kind, packed),
                false => (1, chunk.to_vec()),
            }
        };
        entry(kind, sector, chunk.len() / SECTOR, at, held.len());
        if kind != 2 {
            summed.extend(chunk);
        }
        image.extend(held);
    }
    entry(
        0xffff_ffff,
        bytes.len() / SECTOR,
        0,
        image.len() - BEFORE,
        0,
    );
    let mut table = b"mish\0\0\0\x01".to_vec();
    for number in [start / SECTOR, bytes.len() / SECTOR, 0] {
        table.extend((number as u64).to_be_bytes());
    }
    table.resize(64, 0);
    table.extend(checksum(crc32(&summed)));
    table.resize(200, 0);
    table.extend((entries.len() as u32 / 40).to_be_bytes());
    table.extend(entries);
    table
}

fn property_list(tables: &[Vec<u8>]) -> String {
    let mut list = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
         \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n<dict>\n\t<key>resource-fork</key>\n\
         \t<dict>\n\t\t<key>blkx</key>\n\t\t<array>\n",
    );
    for (n, table) in tables.iter().enumerate() {
        let text = base64::engine::general_purpose::STANDARD.encode(table);
        let lines: Vec<_> = text
            .as_bytes()
            .chunks(52)
            .map(String::from_utf8_lossy)
            .collect();
        list += &format!(
            "\t\t\t<dict>\n\t\t\t\t<key>Attributes</key>\n\t\t\t\t<string>0x0050</string>\n\
             \t\t\t\t<key>CFName</key>\n\t\t\t\t<string>a &amp; b ({n})</string>\n\
             \t\t\t\t<key>Data</key>\n\t\t\t\t<data>\n\t\t\t\t{}\n\t\t\t\t</data>\n\
             \t\t\t\t<key>ID</key>\n\t\t\t\t<string>{n}</string>\n\t\t\t</dict>\n",
            lines.join("\n\t\t\t\t")
        );
    }
    list += "\t\t</array>\n\t\t<key>plst</key>\n\t\t<array>\n\t\t\t<dict>\n\t\t\t\t<key>Data</key>\n\t\t\t\t<data>\n\
             \t\t\t\tAAAA\n\t\t\t\t</data>\n\t\t\t</dict>\n\t\t</array>\n\t</dict>\n</dict>\n</plist>\n";
    list
}

fn resource_fork(tables: &[Vec<u8>]) -> Vec<u8> {
    let mut data = Vec::new();
    let mut entries = Vec::new();
    for (n, table) in tables.iter().enumerate() {
        entries.extend((n as u16).to_be_bytes());
        entries.extend([0xff, 0xff]);
        entries.extend((0x5000_0000 | data.len() as u32).to_be_bytes());
        entries.extend([0; 4]);
        data.extend((table.len() as u32).to_be_bytes());
        data.extend(table);
    }
    let mut map = vec![0; 24];
    map.extend(28_u16.to_be_bytes());
    map.extend((28 + 10 + entries.len() as u16).to_be_bytes());
    // One type, and the last entry of its list.
    map.extend([0, 0]);
    map.extend(b"blkx");
    map.extend((tables.len() as u16 - 1).to_be_bytes());
    map.extend(10_u16.to_be_bytes());
    map.extend(entries);
    let mut fork = Vec::new();
    for number in [256, 256 + data.len(), data.len(), map.len()] {
        fork.extend((number as u32).to_be_bytes());
    }
    fork.resize(256, 0);
    fork.extend(data);
    fork.extend(map);
    fork
}

pub fn zlib(chunk: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
    encoder.write_all(chunk).expect("memory takes bytes");
    encoder.finish().expect("a stream")
}

pub fn bzip2(chunk: &[u8]) -> Vec<u8> {
    let level = bzip2::Compression::fast();
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), level);
    encoder.write_all(chunk).expect("memory takes bytes");
    encoder.finish().expect("a stream")
}

pub fn xz(chunk: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(chunk).expect("memory takes bytes");
    encoder.finish().expect("a stream")
}

pub fn lzfse(chunk: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    lzfse_rust::encode_bytes(chunk, &mut packed).expect("a stream");
    packed
}

/// Runs of a byte become copies of all three lengths, all else is literal.
pub fn adc(chunk: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut at = 0;
    while at < chunk.len() {
        // Texts repeat after as many bytes.
        let distance = if at >= 35 { 35 } else { 1 };
        let same = |n: &usize| at >= distance && chunk[at + n] == chunk[at + n - distance];
        // No copy is longer.
        let most = (chunk.len() - at).min(67);
        let len = (0..most).take_while(same).count();
        let far = (distance - 1) as u8;
        match len {
            3..=18 => packed.extend([(len as u8 - 3) << 2, far]),
            19.. => packed.extend([0x40 | (len as u8 - 4), 0, far]),
            _ => {
                let len = (chunk.len() - at).min(16);
                packed.push(0x80 | (len as u8 - 1));
                packed.extend(&chunk[at..at + len]);
                at += len;
                continue;
            }
        }
        at += len;
    }
    packed
}
