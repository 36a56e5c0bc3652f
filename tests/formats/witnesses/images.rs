//! Images by themselves.

use std::sync::Arc;

use platter::Job;
use platter::format::RepairMode;
use platter::ops::convert::{NamedFd, convert};

use super::{Questions, contents, conversion, converted, left_out, open, scribble, script};
use crate::common::Dir;
use crate::kit::sample::objects;
use crate::products;
use crate::random::Random;

const MIB: usize = 1 << 20;

/// A format, options of creation, and who reads what they make.
struct Kind {
    format: &'static str,
    options: &'static str,
    /// QEMU's tools can make it.
    by_peer: bool,
    readers: &'static [&'static str],
}

const VHD: &[&str] = &["libvhdi", "dissect_vhd", "7-Zip VHD"];
const VHDX: &[&str] = &["libvhdi", "dissect_vhdx", "7-Zip VHDX"];
const VDI: &[&str] = &["dissect_vdi", "7-Zip VDI"];
const VMDK: &[&str] = &["libvmdk", "dissect_vmdk", "7-Zip VMDK"];

const HDS: &[&str] = &["dissect_hds"];
const QCOW: &[&str] = &["libqcow", "7-Zip QCOW"];

const fn kind(
    format: &'static str,
    options: &'static str,
    readers: &'static [&'static str],
) -> Kind {
    Kind {
        format,
        options,
        by_peer: true,
        readers,
    }
}

const fn ours_alone(kind: Kind) -> Kind {
    Kind {
        by_peer: false,
        ..kind
    }
}

const KINDS: &[Kind] = &[
    kind("vpc", "force_size=on", VHD),
    kind("vpc", "subformat=fixed,force_size=on", VHD),
    kind("vhdx", "", VHDX),
    kind("vhdx", "block_size=1M,block_state_zero=off", VHDX),
    kind("vhdx", "subformat=fixed,block_size=2M", VHDX),
    ours_alone(kind("vhdx", "logical_sector_size=4096", VHDX)),
    kind("vdi", "", VDI),
    kind("vdi", "static=on", VDI),
    kind("parallels", "", HDS),
    kind("parallels", "cluster_size=64k", HDS),
    kind("vmdk", "subformat=monolithicSparse", VMDK),
    kind("vmdk", "zeroed_grain=on", VMDK),
    kind("vmdk", "compat6=on", VMDK),
    kind("vmdk", "subformat=monolithicFlat", VMDK),
    kind("vmdk", "subformat=twoGbMaxExtentSparse", VMDK),
    kind("vmdk", "subformat=twoGbMaxExtentFlat", VMDK),
    ours_alone(kind("vmdk", "subformat=vmfs", VMDK)),
    // libqcow 20260703 reads nothing of an image with clusters of 512 bytes, whoever made it: no chains.
    kind("qcow", "", QCOW),
    // 7-Zip 26.02 takes streams with the directory at the end alone, whoever made them.
    kind(
        "vmdk",
        "subformat=streamOptimized",
        &["libvmdk", "dissect_vmdk"],
    ),
];

/// Bytes that compress, noise, and gaps.
fn guest(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut random = Random(0x3e11);
    for (n, chunk) in bytes.chunks_mut(40_000).enumerate() {
        match n % 4 {
            1 => chunk.fill(n as u8 | 1),
            2 => (0..).zip(chunk).for_each(|(n, byte)| *byte = (n / 7) as u8),
            3 => chunk
                .iter_mut()
                .for_each(|byte| *byte = random.next() as u8),
            _ => {}
        }
    }
    bytes
}

#[test]
fn images_that_either_side_made_read_the_same_everywhere() {
    if left_out() {
        return;
    }
    let dir = Dir::new();
    std::fs::write(dir.path("r.raw"), guest(7 * MIB)).expect("a source");
    let mut questions = Questions::new(&dir);
    for (n, kind) in KINDS.iter().enumerate() {
        let ours = format!("ours-{n}.{}", kind.format);
        converted(&dir, ("raw", "r.raw"), (kind.format, &ours), kind.options);
        let label = format!("ours, {} {}", kind.format, kind.options);
        questions.ask(&label, kind.readers, &[&ours], "r.raw");
        if !kind.by_peer {
            continue;
        }
        let theirs = format!("theirs-{n}.{}", kind.format);
        let mut args = vec!["convert", "-f", "raw", "-O", kind.format];
        if !kind.options.is_empty() {
            args.extend(["-o", kind.options]);
        }
        args.extend(["r.raw", &theirs]);
        dir.qemu_img_ok(&args);
        let label = format!("QEMU's, {} {}", kind.format, kind.options);
        questions.ask(&label, kind.readers, &[&theirs], "r.raw");
        let seen = contents(&dir.path(&theirs), kind.format);
        assert!(seen == guest(7 * MIB), "ours: {label}");
    }
    questions.agreed();
}

/// Guests that write here into what was created here and by QEMU.
#[test]
fn what_is_written_into_images_is_seen_by_all() {
    if left_out() {
        return;
    }
    let dir = Dir::new();
    let mut questions = Questions::new(&dir);
    let mut random = Random(0xbead);
    for (n, kind) in KINDS.iter().enumerate() {
        if !kind.by_peer || kind.options.contains("streamOptimized") {
            continue;
        }
        let name = format!("{n}.{}", kind.format);
        let mut args = vec!["create", "-q", "-f", kind.format];
        if !kind.options.is_empty() {
            args.extend(["-o", kind.options]);
        }
        args.extend([&name, "5M"]);
        dir.qemu_img_ok(&args);
        let mut model = vec![0; 5 * MIB];
        for _ in 0..2 {
            let image = open(&dir.path(&name), kind.format, true);
            scribble(&image, &mut model, &mut random, 1);
            image.close().expect("a close");
        }
        let raw = format!("{n}.raw");
        std::fs::write(dir.path(&raw), &model).expect("a model");
        let label = format!("{} {}", kind.format, kind.options);
        questions.ask(&label, kind.readers, &[&name], &raw);
    }
    questions.agreed();
}

/// 7-Zip 26.02 reads neither.
#[test]
fn compressed_and_encrypted_clusters_read_the_same() {
    if left_out() {
        return;
    }
    let dir = Dir::new();
    std::fs::write(dir.path("r.raw"), guest(3 * MIB + 1536)).expect("a source");
    let mut questions = Questions::new(&dir);
    for (reader, compress, options) in [
        ("libqcow", true, ""),
        ("libqcow", true, "compression_level=12"),
        (
            "libqcow_aes",
            false,
            "encrypt.format=aes,encrypt.key-secret=s",
        ),
    ] {
        let name = format!("{reader}-{}.qcow", options.len());
        let mut request = conversion(&dir, ("raw", "r.raw"), ("qcow", &name), options);
        request.target.compress = compress;
        request.target.objects = objects();
        convert(&request, &mut Job::new()).expect("a conversion");
        questions.ask(options, &[reader], &[&name], "r.raw");
    }
    questions.agreed();
}

/// The last grain, block or sector is a part of one.
#[test]
fn odd_sizes_read_the_same() {
    if left_out() {
        return;
    }
    let dir = Dir::new();
    std::fs::write(dir.path("r.raw"), guest(3 * MIB + 1536)).expect("a source");
    let mut questions = Questions::new(&dir);
    for (n, kind) in KINDS.iter().enumerate() {
        if kind.options.contains("sector_size") {
            continue;
        }
        let name = format!("{n}.{}", kind.format);
        converted(&dir, ("raw", "r.raw"), (kind.format, &name), kind.options);
        // dissect.hypervisor 3.21 fails behind the last whole 8 KiB of a VMDK, and 7-Zip 26.02 takes no
        // VHDX of an odd number of sectors; those of QEMU neither.
        let takes = |reader: &&&str| !matches!(**reader, "dissect_vmdk" | "7-Zip VHDX");
        let readers: Vec<_> = kind.readers.iter().filter(takes).copied().collect();
        let label = format!("{} {}", kind.format, kind.options);
        questions.ask(&label, &readers, &[&name], "r.raw");
    }
    questions.agreed();
}

#[test]
fn a_stream_that_left_through_a_pipe_reads_the_same_everywhere() {
    if left_out() {
        return;
    }
    let dir = Dir::new();
    std::fs::write(dir.path("r.raw"), guest(7 * MIB)).expect("a source");
    let (mut read, write) = std::io::pipe().expect("a pipe");
    let mut request = conversion(
        &dir,
        ("raw", "r.raw"),
        ("vmdk", "unused"),
        "subformat=streamOptimized",
    );
    request.target.fd = Some(NamedFd {
        fd: Arc::new(write.into()),
        name: "pipe".to_owned(),
    });
    let path = dir.path("s.vmdk");
    let reader = std::thread::spawn(move || {
        let mut file = std::fs::File::create(path).expect("a file");
        std::io::copy(&mut read, &mut file).expect("all of it")
    });
    convert(&request, &mut Job::new()).expect("a conversion");
    drop(request);
    reader.join().expect("a stream");
    let mut questions = Questions::new(&dir);
    questions.ask("a stream", VMDK, &["s.vmdk"], "r.raw");
    questions.agreed();
}

/// VMDK-stream-converter makes streams of raw disks.
#[test]
fn a_stream_of_another_maker_is_read() {
    if left_out() {
        return;
    }
    let dir = Dir::new();
    // It writes whole grains.
    std::fs::write(dir.path("r.raw"), guest(7 * MIB)).expect("a source");
    let ran = script(&dir, &["stream", "r.raw", "s.vmdk"], "");
    assert!(ran.status.success(), "{ran:?}");
    assert!(contents(&dir.path("s.vmdk"), "vmdk") == guest(7 * MIB));
    let mut questions = Questions::new(&dir);
    // Its first line is not the one of VMware, without which libvmdk takes none.
    let readers = ["dissect_vmdk", "7-Zip VMDK"];
    questions.ask("a stream of another maker", &readers, &["s.vmdk"], "r.raw");
    questions.agreed();
}

#[test]
fn disks_of_products_read_the_same_everywhere() {
    if left_out() {
        return;
    }
    let dir = Dir::new();
    let mut questions = Questions::new(&dir);
    for (name, format, readers) in [("ext2.vhd", "vpc", VHD), ("ext2.vmdk", "vmdk", VMDK)] {
        products::unpack(&dir, name);
        let raw = format!("{name}.raw");
        std::fs::write(dir.path(&raw), contents(&dir.path(name), format)).expect("a disk");
        questions.ask(name, readers, &[name], &raw);
    }
    questions.agreed();
}

/// Disks of 127 GiB, in which nothing was written. Programs differ on which of the two sizes in a footer counts.
#[test]
fn large_disks_of_products_read_the_same_and_take_writes() {
    let dir = Dir::new();
    let mut questions = Questions::new(&dir);
    for (name, seen, readers) in LARGE {
        products::unpack_bzip2(&dir, name);
        let info = dir.qemu_img_ok(&["info", "--output=json", name]);
        let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
        let size = open(&dir.path(name), "vpc", false).len();
        assert_eq!(info["virtual-size"], size, "{name}");
        let same = || {
            converted(&dir, ("vpc", name), ("qcow2", "same.qcow2"), "");
            dir.qemu_img_ok(&["compare", "-f", "vpc", name, "same.qcow2"]);
        };
        same();
        let image = open(&dir.path(name), "vpc", true);
        let written = [(0, 1), (100 << 30, 2), (size - 4096, 3)];
        for (offset, byte) in written {
            image.write_at(&[byte; 4096], offset).expect("a write");
        }
        let checker = image.format().checker().expect("a check");
        let report = checker.check(RepairMode::Report, &mut Job::new());
        let report = report.expect("a check");
        assert_eq!((report.corruptions, report.leaks), (0, 0), "{name}");
        image.close().expect("a close");
        same();
        let mut shown = Vec::new();
        let mut ranges = Vec::new();
        for (offset, byte) in written {
            let start = offset.saturating_sub(MIB as u64);
            let end = (offset + 4096 + MIB as u64).min(size);
            ranges.push((start, end - start));
            let from = shown.len() + (offset - start) as usize;
            shown.resize(shown.len() + (end - start) as usize, 0);
            shown[from..from + 4096].fill(byte);
        }
        let raw = format!("{name}.raw");
        std::fs::write(dir.path(&raw), shown).expect("what they show");
        questions.ask_ranges(readers, name, seen, &ranges, &raw);
    }
    if !left_out() {
        questions.agreed();
    }
}

/// A disk, its size by the number in the footer, which others go by, and who reads it. QEMU and this library
/// take the geometry of Virtual PC.
const LARGE: [(&str, u64, &[&str]); 2] = [
    (
        "hyperv2012r2-dynamic.vhd",
        136_365_211_648,
        &["libvhdi", "dissect_vhd"],
    ),
    (
        "virtualpc-dynamic.vhd",
        136_365_211_648,
        &["libvhdi", "dissect_vhd"],
    ),
];
