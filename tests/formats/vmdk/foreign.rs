//! Images that other products write, as far as they can be had or made by hand.

use std::io::{Read, Write};

use platter::ErrorKind;

use super::{contents, open, sample_bytes};
use crate::common::Dir;

const SECTOR: usize = 512;

#[test]
fn a_disk_of_another_product_reads_as_qemu_reads_it() {
    let dir = Dir::new();
    let packed = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../shared/images/ext2.vmdk.bz2"
    );
    if let Ok(file) = std::fs::File::open(packed) {
        let ran = std::process::Command::new("bunzip2")
            .stdin(file)
            .output()
            .expect("bunzip2");
        std::fs::write(dir.path("e.vmdk"), ran.stdout).expect("an image");
        dir.qemu_img_ok(&["convert", "-O", "raw", "e.vmdk", "e.raw"]);
        let image = open(&dir, "e.vmdk", false).expect("it opens");
        assert!(contents(&image) == std::fs::read(dir.path("e.raw")).expect("bytes"));
    }
}

/// Puts words of four bytes at an offset.
fn put32(bytes: &mut [u8], at: usize, words: &[u32]) {
    for (n, word) in words.iter().enumerate() {
        bytes[at + n * 4..at + n * 4 + 4].copy_from_slice(&word.to_le_bytes());
    }
}

fn put64(bytes: &mut [u8], at: usize, words: &[u64]) {
    for (n, word) in words.iter().enumerate() {
        bytes[at + n * 8..at + n * 8 + 8].copy_from_slice(&word.to_le_bytes());
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
}

fn stream_header(capacity: u64, directory: u64) -> Vec<u8> {
    let mut bytes = vec![0; SECTOR];
    bytes[..4].copy_from_slice(b"KDMV");
    put32(&mut bytes, 4, &[3, 0x3_0001]);
    put64(&mut bytes, 12, &[capacity, 128, 1, 20]);
    put32(&mut bytes, 44, &[512]);
    put64(&mut bytes, 48, &[0, directory, 128]);
    bytes[73..77].copy_from_slice(b"\n \r\n");
    bytes[77] = 1;
    bytes
}

fn marker(sectors: u64, kind: u32) -> Vec<u8> {
    let mut bytes = vec![0; SECTOR];
    put64(&mut bytes, 0, &[sectors]);
    put32(&mut bytes, 12, &[kind]);
    bytes
}

/// A stream as it leaves a pipe: the directory behind the grains, and a footer that names it.
fn stream(guest: &[u8], raw_deflate: bool) -> Vec<u8> {
    let capacity = (guest.len() / SECTOR) as u64;
    let mut bytes = stream_header(capacity, u64::MAX);
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
         createType=\"streamOptimized\"\nRDONLY {capacity} SPARSE \"x.vmdk\"\n"
    );
    bytes.extend(text.as_bytes());
    bytes.resize(128 * SECTOR, 0);
    let mut table = vec![0u8; 2048];
    for (n, grain) in guest.chunks(65536).enumerate() {
        if grain.iter().all(|byte| *byte == 0) {
            continue;
        }
        let level = flate2::Compression::default();
        let packed = if raw_deflate {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
            encoder.write_all(grain).expect("bytes");
            encoder.finish().expect("a stream")
        } else {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(grain).expect("bytes");
            encoder.finish().expect("a stream")
        };
        put32(&mut table, n * 4, &[(bytes.len() / SECTOR) as u32]);
        bytes.extend((n as u64 * 128).to_le_bytes());
        bytes.extend((packed.len() as u32).to_le_bytes());
        bytes.extend(packed);
        pad(&mut bytes);
    }
    bytes.extend(marker(4, 1));
    let table_at = (bytes.len() / SECTOR) as u32;
    bytes.extend(table);
    bytes.extend(marker(1, 2));
    let directory = (bytes.len() / SECTOR) as u64;
    let mut entries = vec![0; SECTOR];
    put32(&mut entries, 0, &[table_at]);
    bytes.extend(entries);
    bytes.extend(marker(1, 3));
    bytes.extend(stream_header(capacity, directory));
    bytes.extend(marker(0, 0));
    bytes
}

#[test]
fn a_stream_with_its_directory_at_the_end_is_read_in_either_compression() {
    let dir = Dir::new();
    // The last grain is short.
    let guest = sample_bytes(700_000 / SECTOR * SECTOR);
    for raw_deflate in [false, true] {
        std::fs::write(dir.path("s.vmdk"), stream(&guest, raw_deflate)).expect("a stream");
        let image = open(&dir, "s.vmdk", false).expect("it opens");
        assert!(contents(&image) == guest);
        // Small reads decode a grain once; they see the same.
        let mut small = [0; 700];
        for at in (0..guest.len() - 700).step_by(50_123) {
            image.read_at(&mut small, at as u64).expect("a read");
            assert_eq!(small[..], guest[at..at + 700]);
        }
        if !raw_deflate {
            dir.qemu_img_ok(&["convert", "-O", "raw", "s.vmdk", "s.raw"]);
            assert!(std::fs::read(dir.path("s.raw")).expect("bytes") == guest);
        }
    }
}

#[test]
fn a_stream_that_was_cut_off_or_mixed_up_is_refused() {
    let dir = Dir::new();
    let guest = sample_bytes(262_144);
    let whole = stream(&guest, false);
    for len in [whole.len() - SECTOR, whole.len() / 2, 130 * SECTOR] {
        std::fs::write(dir.path("cut.vmdk"), &whole[..len]).expect("a stream");
        let error = open(&dir, "cut.vmdk", false).expect_err("a refusal");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    // A grain that says that it is another one.
    let mut mixed = whole;
    mixed[128 * SECTOR] ^= 0x80;
    std::fs::write(dir.path("mixed.vmdk"), &mixed).expect("a stream");
    let image = open(&dir, "mixed.vmdk", false).expect("it opens");
    let mut bytes = vec![0; guest.len()];
    let error = image.read_at(&mut bytes, 0).expect_err("a refusal");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn a_redo_log_of_esx_is_read_over_its_base() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "vmdk", "base.vmdk", "4M"]);
    dir.qemu_io("vmdk", "base.vmdk", &["write -P 7 0 4M"]);
    let info = dir.qemu_img_ok(&["info", "base.vmdk"]);
    let cid: u32 = info
        .lines()
        .find_map(|line| line.trim().strip_prefix("cid: "))
        .and_then(|number| number.parse().ok())
        .expect("a content ID");
    let mut delta = vec![0; 80 * SECTOR];
    delta[..4].copy_from_slice(b"COWD");
    put32(&mut delta, 4, &[1, 3, 8192, 1, 4, 2, 81, 0]);
    put32(&mut delta, 4 * SECTOR, &[5, 37]);
    // Sector 3 of the first table's span, and the last sector of the disk.
    put32(&mut delta, 5 * SECTOR + 12, &[80]);
    put32(&mut delta, 37 * SECTOR + 4095 * 4, &[81]);
    delta.extend([0x11; SECTOR]);
    delta.extend([0x22; SECTOR]);
    std::fs::write(dir.path("x-delta.vmdk"), delta).expect("an extent");
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID={cid:08x}\ncreateType=\"vmfsSparse\"\n\
         parentFileNameHint=\"base.vmdk\"\n# Extent description\nRW 8192 VMFSSPARSE \"x-delta.vmdk\"\n"
    );
    std::fs::write(dir.path("x.vmdk"), text).expect("a descriptor");
    let image = open(&dir, "x.vmdk", false).expect("it opens");
    let mut guest = vec![7; 4 << 20];
    guest[3 * SECTOR..4 * SECTOR].fill(0x11);
    guest[8191 * SECTOR..].fill(0x22);
    assert!(contents(&image) == guest);
    dir.qemu_img_ok(&["convert", "-O", "raw", "x.vmdk", "x.raw"]);
    assert!(std::fs::read(dir.path("x.raw")).expect("bytes") == guest);
    assert!(open(&dir, "x.vmdk", true).is_err());
}

/// A space-efficient extent of 16 MiB and 4 KiB whose journal waits or not.
fn se_sparse(replay: u64) -> Vec<u8> {
    let mut bytes = vec![0; 2048 * SECTOR];
    let capacity = 32768 + 8;
    put64(
        &mut bytes,
        0,
        &[0xcafe_babe, 0x2_0000_0001, capacity, 8, 64],
    );
    // Pairs: volatile header, journal header, journal, directory, tables, bitmap, backmap, grains.
    let pairs = [1, 1, 2, 2, 4, 4, 8, 8, 16, 128, 144, 4, 148, 4, 152, 1000];
    put64(&mut bytes, 80, &pairs);
    put64(&mut bytes, SECTOR, &[0xcafe_cafe, 0, 0, replay]);
    put64(&mut bytes, 8 * SECTOR, &[1 << 60, 1 << 60 | 1]);
    let entry = |kind: u64, grain: u64| kind << 60 | (grain & 0xfff) << 48 | grain >> 12;
    put64(
        &mut bytes,
        16 * SECTOR,
        &[entry(3, 1), entry(2, 0), entry(1, 0), 0, entry(3, 0)],
    );
    put64(&mut bytes, 80 * SECTOR, &[entry(3, 2)]);
    for (grain, byte) in [(0, 0x33), (1, 0x44), (2, 0x55)] {
        bytes[(152 + grain * 8) * SECTOR..(160 + grain * 8) * SECTOR].fill(byte);
    }
    bytes
}

#[test]
fn a_space_efficient_snapshot_is_read_unless_its_journal_waits() {
    let dir = Dir::new();
    let text = "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType=\"seSparse\"\n\
                RW 32776 SESPARSE \"s-sesparse.vmdk\"\n";
    std::fs::write(dir.path("s.vmdk"), text).expect("a descriptor");
    std::fs::write(dir.path("s-sesparse.vmdk"), se_sparse(0)).expect("an extent");
    let image = open(&dir, "s.vmdk", false).expect("it opens");
    let mut guest = vec![0; 32776 * SECTOR];
    guest[..4096].fill(0x44);
    guest[4 * 4096..5 * 4096].fill(0x33);
    guest[32768 * SECTOR..].fill(0x55);
    assert!(contents(&image) == guest);
    drop(image);
    dir.qemu_img_ok(&["convert", "-O", "raw", "s.vmdk", "s.raw"]);
    assert!(std::fs::read(dir.path("s.raw")).expect("bytes") == guest);
    std::fs::write(dir.path("s-sesparse.vmdk"), se_sparse(1)).expect("an extent");
    let error = open(&dir, "s.vmdk", false).expect_err("a refusal");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

/// A descriptor over a flat file of 1 MiB.
fn described(dir: &Dir, kind: &str, lines: &str) -> Vec<u8> {
    std::fs::write(dir.path("f.raw"), vec![3; 1 << 20]).expect("a flat file");
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType=\"{kind}\"\n{lines}\n"
    )
    .into_bytes()
}

#[test]
fn extents_of_every_kind_make_one_disk() {
    let dir = Dir::new();
    let lines = "RW 1024 FLAT \"f.raw\" 512\nRW 63 ZERO\nRDONLY 512 FLAT \"f.raw\" 0";
    let text = described(&dir, "twoGbMaxExtentFlat", lines);
    std::fs::write(dir.path("d.vmdk"), text).expect("a descriptor");
    let image = open(&dir, "d.vmdk", false).expect("it opens");
    let mut guest = vec![3; 1599 * SECTOR];
    guest[1024 * SECTOR..1087 * SECTOR].fill(0);
    assert!(contents(&image) == guest);
}

#[test]
fn names_in_the_encoding_of_the_descriptor_are_found() {
    let dir = Dir::new();
    for (encoding, stored, name) in [
        ("windows-1252", &b"d\xe9j\xe0.raw"[..], "d\u{e9}j\u{e0}.raw"),
        ("Shift_JIS", b"\x93\xfa\x96\x7b.raw", "\u{65e5}\u{672c}.raw"),
        ("GBK", b"\xd6\xd0.raw", "\u{4e2d}.raw"),
        ("UTF-8", "\u{e9}.raw".as_bytes(), "\u{e9}.raw"),
    ] {
        let mut text = described(
            &dir,
            "vmfs",
            &format!("encoding=\"{encoding}\"\nRW 2048 VMFS \""),
        );
        text.truncate(text.len() - 1);
        text.extend(stored);
        text.extend(b"\"\n");
        std::fs::rename(dir.path("f.raw"), dir.path(name)).expect("another name");
        std::fs::write(dir.path("d.vmdk"), text).expect("a descriptor");
        let image =
            open(&dir, "d.vmdk", false).unwrap_or_else(|error| panic!("{encoding}: {error}"));
        assert!(contents(&image).iter().all(|byte| *byte == 3), "{encoding}");
    }
}

#[test]
fn what_is_elsewhere_or_unknown_is_refused_by_name() {
    let dir = Dir::new();
    let absolute = format!("RW 2048 FLAT \"{}\" 0", dir.str("f.raw"));
    for (kind, lines, words) in [
        (
            "monolithicFlat",
            "RW 2048 FLAT \"/etc/passwd\" 0",
            "not a file beside",
        ),
        ("monolithicFlat", &absolute[..], "not a file beside"),
        (
            "monolithicFlat",
            "RW 2048 FLAT \"../f.raw\" 0",
            "not a file beside",
        ),
        (
            "monolithicFlat",
            "RW 4096 FLAT \"f.raw\" 0",
            "1048576 bytes, and 2097152",
        ),
        ("monolithicFlat", "RW 2048 FLAT \"gone\" 0", "No such file"),
        (
            "monolithicFlat",
            "NOACCESS 2048 FLAT \"f.raw\" 0",
            "may not be accessed",
        ),
        (
            "monolithicFlat",
            "RW 2048 FLAT \"f.raw\"",
            "Invalid extent line",
        ),
        ("monolithicFlat", "", "names no extents"),
        ("vmfsRaw", "RW 2048 VMFSRDM \"f.raw\"", "Unsupported"),
        (
            "fullDevice",
            "RW 2048 FLAT \"f.raw\" 0",
            "Unsupported image type 'fullDevice'",
        ),
        (
            "custom",
            "RW 2048 FLAT \"f.raw\" 0",
            "Unsupported image type 'custom'",
        ),
        (
            "monolithicSparse",
            "RW 2048 SPARSE \"f.raw\"",
            "Unsupported image type",
        ),
        (
            "twoGbMaxExtentSparse",
            "RW 2048 SPARSE \"f.raw\"",
            "Image not in VMDK format",
        ),
    ] {
        let text = described(&dir, kind, lines);
        std::fs::write(dir.path("d.vmdk"), text).expect("a descriptor");
        let error = open(&dir, "d.vmdk", false).expect_err(lines).to_string();
        assert!(error.contains(words), "{lines}: {error}");
    }
    // Described by the user, it may be anywhere.
    let text = described(&dir, "monolithicFlat", &absolute);
    std::fs::write(dir.path("d.vmdk"), text).expect("a descriptor");
    let described = format!(
        "driver=vmdk,file.filename={},extents.0.driver=file,extents.0.filename={}",
        dir.str("d.vmdk"),
        dir.str("f.raw")
    );
    let location = platter::Location::from_image_opts(&described).expect("a location");
    let options = platter::OpenOptions::default();
    let image = platter::Image::open(&location, &options).expect("it opens");
    assert_eq!(contents(&image)[..4], [3; 4]);
}

#[test]
fn an_extent_alone_is_no_disk() {
    let dir = Dir::new();
    dir.qemu_img_ok(&[
        "create",
        "-q",
        "-f",
        "vmdk",
        "-o",
        "subformat=twoGbMaxExtentSparse",
        "t.vmdk",
        "3G",
    ]);
    let error = open(&dir, "t-s001.vmdk", false).expect_err("a refusal");
    assert!(error.to_string().contains("open the descriptor"), "{error}");
    let image = open(&dir, "t.vmdk", false).expect("it opens");
    assert_eq!(image.len(), 3 << 30);
    let mut text = String::new();
    std::fs::File::open(dir.path("t.vmdk"))
        .and_then(|mut file| file.read_to_string(&mut text))
        .expect("a text");
    assert!(text.contains("t-s002.vmdk"));
}
