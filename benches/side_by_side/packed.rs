//! Compressed images that are only read, and files that were compressed as a whole.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use base64::Engine;

use crate::rows::{Row, measure_row, remove, wanted};
use crate::{Setup, run};

const SECTOR: usize = 512;

/// Bytes of a compressed chunk or block.
const CHUNK: usize = 256 << 10;

/// A file that was compressed as a whole.
pub struct Packing {
    pub name: &'static str,
    /// What the name of the file ends in: the format of the image, and that of the file.
    ending: &'static str,
    pack: &'static str,
    unpack: &'static str,
}

const fn packing(
    name: &'static str,
    ending: &'static str,
    pack: &'static str,
    unpack: &'static str,
) -> Packing {
    Packing {
        name,
        ending,
        pack,
        unpack,
    }
}

pub const PACKED: [Packing; 5] = [
    packing("raw in xz to raw", "raw.xz", "xz -1 -T0 -c", "xz -dc"),
    packing("qcow2 in xz to raw", "qcow2.xz", "xz -1 -T0 -c", "xz -dc"),
    packing("raw in bzip2 to raw", "raw.bz2", "bzip2 -1 -c", "bzip2 -dc"),
    packing("raw in gzip to raw", "raw.gz", "gzip -1 -c", "gzip -dc"),
    packing(
        "raw in zstd to raw",
        "raw.zst",
        "zstd -q -3 -c",
        "zstd -q -dc",
    ),
];

impl Packing {
    /// The format of the image in it.
    pub fn format(&self) -> &'static str {
        self.ending.split('.').next().unwrap_or_default()
    }

    /// The file; `source` is a qcow2 image of the disk.
    pub fn file(&self, setup: &Setup, source: &str) -> Result<String, String> {
        let disk = setup.disk.display().to_string();
        let from = match self.format() {
            "qcow2" => source,
            _ => disk.as_str(),
        };
        let pack = self.pack;
        kept(setup, self.ending, |fresh| {
            run::quiet(&["sh", "-c", &format!("{pack} '{from}' > '{fresh}'")])
        })
    }
}

/// The compressed image of the disk in a format that is only read.
pub fn image(setup: &Setup, format: &str) -> Result<String, String> {
    let make = match format {
        "dmg" => make_dmg,
        _ => make_cloop,
    };
    kept(setup, format, |fresh| make(&setup.disk, fresh))
}

/// Measures them on the way to a raw disk; `source` is a qcow2 image of it.
pub fn measure(setup: &Setup, source: &str) -> Result<(), String> {
    for (name, ending) in [("dmg to raw", "dmg"), ("cloop to raw", "cloop")] {
        if !wanted(setup, name) {
            continue;
        }
        let image = image(setup, ending)?;
        let out = setup.path("out.raw");
        let read = ["convert", "-f", ending, "-O", "raw", &image, &out];
        let row = Row {
            name,
            ours: [&[setup.platter.as_str()], read.as_slice()].concat(),
            theirs: vec![("", [&[setup.qemu.as_str()], read.as_slice()].concat(), 0.4)],
            output: Some(&out),
            format: None,
            equals: None,
            over: false,
            before: vec![],
        };
        measure_row(setup, &row)?;
    }
    for packing in &PACKED {
        let name = packing.name;
        if !wanted(setup, name) {
            continue;
        }
        let packed = packing.file(setup, source)?;
        let (out, temporary) = (setup.path("out.raw"), setup.path("temporary"));
        let q = &setup.qemu;
        let (format, unpack) = (packing.format(), packing.unpack);
        let theirs = format!(
            "{unpack} '{packed}' > '{temporary}' && {q} convert -f {format} -O raw '{temporary}' '{out}' && rm '{temporary}'"
        );
        let row = Row {
            name,
            ours: vec![
                &setup.platter,
                "convert",
                "--decompress",
                "-f",
                format,
                "-O",
                "raw",
                &packed,
                &out,
            ],
            theirs: vec![("", vec!["sh", "-c", &theirs], 0.6)],
            output: Some(&out),
            format: None,
            equals: None,
            over: false,
            before: vec![],
        };
        measure_row(setup, &row)?;
        remove(&temporary)?;
    }
    Ok(())
}

/// The file that an earlier run has made, or a new one.
fn kept(
    setup: &Setup,
    ending: &str,
    make: impl FnOnce(&str) -> Result<(), String>,
) -> Result<String, String> {
    let path = format!("{}.{ending}", setup.disk.with_extension("").display());
    if !Path::new(&path).exists() {
        eprintln!("making {path}");
        let fresh = format!("{path}.new");
        make(&fresh)?;
        fs::rename(&fresh, &path).map_err(|e| format!("{path}: {e}"))?;
    }
    Ok(path)
}

/// Shows the chunks of a disk in their order.
fn chunks(disk: &Path, mut show: impl FnMut(&[u8]) -> std::io::Result<()>) -> Result<(), String> {
    let mut read = || -> std::io::Result<()> {
        let mut file = File::open(disk)?;
        let mut left = file.metadata()?.len();
        let mut buf = vec![0; CHUNK];
        while left > 0 {
            let len = left.min(CHUNK as u64);
            let chunk = &mut buf[..len as usize];
            file.read_exact(chunk)?;
            show(chunk)?;
            left -= len;
        }
        Ok(())
    };
    read().map_err(|e| format!("{}: {e}", disk.display()))
}

fn zlib(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let level = flate2::Compression::default();
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// One partition of zlib chunks, as `hdiutil` makes for UDZO.
fn make_dmg(disk: &Path, image: &str) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{image}: {e}");
    let mut out = BufWriter::new(File::create(image).map_err(failed)?);
    let mut entries = Vec::new();
    let (mut at, mut sector) = (0u64, 0u64);
    let mut entry = |kind: u32, sector: u64, sectors: u64, at: u64, len: u64| {
        entries.extend(kind.to_be_bytes());
        entries.extend([0; 4]);
        for number in [sector, sectors, at, len] {
            entries.extend(number.to_be_bytes());
        }
    };
    chunks(disk, |chunk| {
        let sectors = (chunk.len() / SECTOR) as u64;
        if chunk.iter().all(|byte| *byte == 0) {
            entry(2, sector, sectors, at, 0);
        } else {
            let packed = zlib(chunk)?;
            let (kind, bytes) = match packed.len() < chunk.len() {
                true => (0x8000_0005, packed.as_slice()),
                false => (1, chunk),
            };
            entry(kind, sector, sectors, at, bytes.len() as u64);
            out.write_all(bytes)?;
            at += bytes.len() as u64;
        }
        sector += sectors;
        Ok(())
    })?;
    entry(0xffff_ffff, sector, 0, at, 0);
    let mut table = b"mish\0\0\0\x01".to_vec();
    for number in [0, sector, 0] {
        table.extend(number.to_be_bytes());
    }
    table.resize(200, 0);
    table.extend((entries.len() as u32 / 40).to_be_bytes());
    table.extend(entries);
    let plist = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<plist version=\"1.0\">\n<dict>\n<key>resource-fork</key>\n<dict>\n\
         <key>blkx</key>\n<array>\n<dict>\n<key>Data</key>\n<data>\n{}\n</data>\n<key>ID</key>\n<string>0</string>\n\
         </dict>\n</array>\n</dict>\n</dict>\n</plist>\n",
        base64::engine::general_purpose::STANDARD.encode(table)
    );
    let mut trailer = vec![0; 512];
    trailer[..4].copy_from_slice(b"koly");
    trailer[7] = 4;
    trailer[10] = 2;
    trailer[15] = 1;
    for (place, number) in [
        (32, at),
        (216, at),
        (224, plist.len() as u64),
        (492, sector),
    ] {
        trailer[place..place + 8].copy_from_slice(&number.to_be_bytes());
    }
    out.write_all(plist.as_bytes()).map_err(failed)?;
    out.write_all(&trailer).map_err(failed)?;
    out.flush().map_err(failed)
}

/// Every block is compressed, also zeroes.
fn make_cloop(disk: &Path, image: &str) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{image}: {e}");
    let len = fs::metadata(disk).map_err(|e| e.to_string())?.len();
    let blocks = len.div_ceil(CHUNK as u64);
    let mut head =
        b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
            .to_vec();
    head.resize(128, 0);
    head.extend((CHUNK as u32).to_be_bytes());
    head.extend((blocks as u32).to_be_bytes());
    let data = format!("{image}.data");
    let mut out = BufWriter::new(File::create(&data).map_err(failed)?);
    let mut offset = head.len() as u64 + (blocks + 1) * 8;
    head.extend(offset.to_be_bytes());
    chunks(disk, |chunk| {
        let packed = zlib(chunk)?;
        offset += packed.len() as u64;
        head.extend(offset.to_be_bytes());
        out.write_all(&packed)
    })?;
    out.flush().map_err(failed)?;
    fs::write(image, head).map_err(failed)?;
    run::quiet(&["sh", "-c", &format!("cat '{data}' >> '{image}'")])?;
    remove(&data)
}
