//! Images that other products write, as far as they can be had or made by hand.

use std::io::Read;
use std::os::unix::fs::symlink;

use platter::policy::ImplicitFiles;
use platter::{ErrorKind, Image, Location, OpenOptions, OpenPolicy};

use super::by_hand::{SECTOR, redo_log, se_sparse, stream};
use super::{contents, open, sample_bytes};
use crate::common::Dir;
use crate::products::unpack;

#[test]
fn a_disk_of_another_product_reads_as_qemu_reads_it() {
    let dir = Dir::new();
    unpack(&dir, "ext2.vmdk");
    dir.qemu_img_ok(&["convert", "-O", "raw", "ext2.vmdk", "e.raw"]);
    let image = open(&dir, "ext2.vmdk", false).expect("it opens");
    assert!(contents(&image) == std::fs::read(dir.path("e.raw")).expect("bytes"));
}

#[test]
fn a_stream_that_is_cut_off_within_a_grain_does_not_read_as_zeroes() {
    let dir = Dir::new();
    let mut random = crate::random::Random(3);
    let guest: Vec<u8> = (0..1 << 20).map(|_| random.next() as u8).collect();
    std::fs::write(dir.path("r.raw"), &guest).expect("a disk");
    // The last grain stands at the end.
    let options = "convert -f raw -O vmdk -o subformat=streamOptimized r.raw s.vmdk";
    dir.qemu_img_ok(&options.split(' ').collect::<Vec<_>>());
    let whole = open(&dir, "s.vmdk", false).expect("it opens");
    assert!(contents(&whole) == guest);
    let bytes = std::fs::read(dir.path("s.vmdk")).expect("the stream");
    for cut in [3 * SECTOR, 20_000] {
        std::fs::write(dir.path("s.vmdk"), &bytes[..bytes.len() - cut]).expect("a stream");
        let image = open(&dir, "s.vmdk", false).expect("it opens");
        let (head, tail) = guest.split_at(guest.len() - (64 << 10));
        let mut read = vec![0; head.len()];
        image.read_at(&mut read, 0).expect("a read");
        assert!(read == head);
        let mut read = vec![0; tail.len()];
        let error = image.read_at(&mut read, head.len() as u64);
        let error = error.expect_err("a refusal");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{cut}: {error}");
        assert!(error.to_string().contains("ends within it"), "{error}");
    }
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
fn a_stream_with_a_footer_takes_no_writes_whatever_its_headers_say() {
    let dir = Dir::new();
    let guest = sample_bytes(262_144);
    let whole = stream(&guest, false);
    let header = 0;
    let footer = whole.len() - 2 * SECTOR;
    let edit = |places: &[usize], at: usize, bytes: &[u8]| {
        let mut edited = whole.clone();
        for place in places {
            edited[place + at..place + at + bytes.len()].copy_from_slice(bytes);
        }
        edited
    };
    let sectors = (whole.len() / SECTOR) as u64;
    let streams = [
        whole.clone(),
        // The metadata is said to end behind all that is there.
        edit(&[footer], 64, &(u64::MAX >> 1).to_le_bytes()),
        edit(&[header, footer], 64, &sectors.to_le_bytes()),
        // Grains are said to be plain.
        edit(&[header, footer], 8, &1u32.to_le_bytes()),
    ];
    for (n, bytes) in streams.iter().enumerate() {
        std::fs::write(dir.path("s.vmdk"), bytes).expect("a stream");
        let error = open(&dir, "s.vmdk", true).expect_err("a refusal");
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{n}: {error}");
        assert!(
            std::fs::read(dir.path("s.vmdk")).expect("bytes") == *bytes,
            "{n}"
        );
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
    std::fs::write(dir.path("x-delta.vmdk"), redo_log()).expect("an extent");
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

/// A link leads where its name may not lead by itself.
#[test]
fn a_link_to_an_extent_elsewhere_is_refused_and_one_beside_the_image_is_followed() {
    let dir = Dir::new();
    for directory in ["in", "in/deep", "out"] {
        std::fs::create_dir(dir.path(directory)).expect("a directory");
    }
    dir.qemu_img_ok(&[
        "create",
        "-q",
        "-f",
        "vmdk",
        "-o",
        "subformat=monolithicFlat",
        "in/d.vmdk",
        "1M",
    ]);
    let flat = dir.path("in/d-flat.vmdk");
    let link_to = |target: &str| {
        let _ = std::fs::remove_file(&flat);
        symlink(target, &flat).expect("a link");
    };
    std::fs::rename(&flat, dir.path("out/flat")).expect("another name");
    std::fs::copy(dir.path("out/flat"), dir.path("in/deep/flat")).expect("a copy");
    let absolute = dir.str("out/flat");
    for target in ["../out/flat", &absolute] {
        link_to(target);
        for writable in [false, true] {
            let error = open(&dir, "in/d.vmdk", writable).expect_err(target);
            assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
            assert!(error.to_string().contains("is a link to"), "{error}");
        }
    }
    link_to("deep/flat");
    open(&dir, "in/d.vmdk", true).expect("it stands below the image");

    // The user, or a policy that lists directories, has said so.
    link_to("../out/flat");
    let located = |policy: OpenPolicy, text: &str| {
        let options = OpenOptions {
            policy,
            ..OpenOptions::default()
        };
        let text = text.replace("DIR", dir.root().to_str().expect("a name"));
        Location::from_image_opts(&text).and_then(|location| Image::open(&location, &options))
    };
    let described = "driver=vmdk,file.filename=DIR/in/d.vmdk,extents.0.filename=DIR/out/flat";
    located(OpenPolicy::permissive(), described).expect("a described extent");
    let listed = OpenPolicy {
        implicit_files: ImplicitFiles::Below(vec![dir.root().into()]),
        ..OpenPolicy::permissive()
    };
    located(listed, "driver=vmdk,file.filename=DIR/in/d.vmdk").expect("a listed directory");

    // A directory of links to an image and its extents is as good as theirs.
    std::fs::rename(dir.path("in/d.vmdk"), dir.path("out/d.vmdk")).expect("another name");
    symlink("../out/d.vmdk", dir.path("in/d.vmdk")).expect("a link");
    open(&dir, "in/d.vmdk", true).expect("both are links");
}
