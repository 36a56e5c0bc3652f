//! Parallels bundles, forensic images and the sparse images of macOS, which other programs make.

use super::{Questions, left_out};
use crate::bundle::made::{MIXED, Made, Shape};
use crate::common::Dir;
use crate::kit::given;
use crate::products::{unpack, unpack_bzip2};

/// What libphdi reads: one part, clusters of 1 MiB and tables that count sectors.
const OLD: Shape = Shape {
    cluster: 1 << 20,
    parts: &[17 << 20],
    mixed: false,
    old: true,
};

#[test]
fn bundles_of_snapshots_read_the_same() {
    if left_out() {
        return;
    }
    for (readers, shape) in [
        (&["dissect_hdd"][..], MIXED),
        (&["dissect_hdd", "libphdi"], OLD),
    ] {
        let made = Made::new(shape);
        std::fs::write(made.dir.path("model"), &made.model).expect("a model");
        let mut questions = Questions::new(&made.dir);
        questions.ask(&format!("{shape:?}"), readers, &["disk.hdd"], "model");
        questions.agreed();
    }
}

#[test]
fn forensic_images_read_the_same() {
    if left_out() {
        return;
    }
    let dir = Dir::new();
    let mut questions = Questions::new(&dir);
    for name in ["ext2.split.E01", "ext2.split.E02"] {
        unpack(&dir, name);
    }
    let disk = super::contents(&dir.path("ext2.split.E01"), "ewf");
    std::fs::write(dir.path("split.raw"), disk).expect("a disk");
    let segments = ["ext2.split.E01", "ext2.split.E02"];
    questions.ask("of two segments", &["libewf"], &segments, "split.raw");
    // Those of the tests say of themselves what libewf wants to know.
    for (n, name) in ["ewf", "ewf with a base, from the copies of its tables"]
        .into_iter()
        .enumerate()
    {
        let (guest, image) = given::by_name(name).make();
        let (file, raw) = (format!("{n}.E01"), format!("{n}.raw"));
        std::fs::write(dir.path(&file), image).expect("an image");
        std::fs::write(dir.path(&raw), guest).expect("a disk");
        questions.ask(name, &["libewf"], &[&file], &raw);
    }
    questions.agreed();
}

#[test]
fn dmg_images_read_the_same() {
    if left_out() {
        return;
    }
    let dir = Dir::new();
    let mut questions = Questions::new(&dir);
    // libmodi 20260902 reads no property list but Apple's, so none of the images that tests write, and has no LZMA; dmg2img 1.6.7 has neither that nor LZFSE.
    for (packing, readers) in [
        ("adc", &["libmodi", "dmg2img", "7-Zip Dmg"][..]),
        ("bzip2", &["libmodi", "dmg2img", "7-Zip Dmg"]),
        ("lzfse", &["libmodi", "7-Zip Dmg"]),
        ("lzma", &["7-Zip Dmg"]),
    ] {
        let (file, raw) = (format!("hfsplus-{packing}.dmg"), format!("{packing}.raw"));
        unpack(&dir, &file);
        let disk = super::contents(&dir.path(&file), "dmg");
        std::fs::write(dir.path(&raw), &disk).expect("a disk");
        let of_disks: Vec<_> = readers
            .iter()
            .copied()
            .filter(|name| *name != "dmg2img")
            .collect();
        questions.ask(packing, &of_disks, &[&file], &raw);
        if readers.contains(&"dmg2img") {
            // The volume begins behind the tables of partitions, which end before the last 36 sectors.
            let part = format!("{packing}.part");
            let volume = &disk[40 * 512..disk.len() - 36 * 512];
            std::fs::write(dir.path(&part), volume).expect("a volume");
            questions.ask(packing, &["dmg2img 4"], &[&file], &part);
        }
    }
    unpack_bzip2(&dir, "simple-dmg.dmg");
    let disk = super::contents(&dir.path("simple-dmg.dmg"), "dmg");
    std::fs::write(dir.path("simple.raw"), disk).expect("a disk");
    questions.ask(
        "of zlib",
        &["libmodi", "7-Zip Dmg"],
        &["simple-dmg.dmg"],
        "simple.raw",
    );
    // Those that tests write.
    for (n, name) in [
        "dmg",
        "dmg of bzip2",
        "dmg of LZFSE",
        "dmg of LZMA",
        "dmg of ADC",
    ]
    .into_iter()
    .enumerate()
    {
        let (guest, image) = given::by_name(name).make();
        let (file, raw) = (format!("{n}.dmg"), format!("{n}.raw"));
        std::fs::write(dir.path(&file), image).expect("an image");
        std::fs::write(dir.path(&raw), guest).expect("a disk");
        questions.ask(name, &["7-Zip Dmg"], &[&file], &raw);
    }
    questions.agreed();
}

#[test]
fn sparse_images_of_macos_read_the_same() {
    if left_out() {
        return;
    }
    let dir = Dir::new();
    let mut questions = Questions::new(&dir);
    // dissect.hypervisor 3.21 takes a chunk that is there in part for a whole one.
    for (n, name) in ["asif", "asif of the second directory"]
        .into_iter()
        .enumerate()
    {
        let (guest, image) = given::by_name(name).make();
        let (file, raw) = (format!("{n}.asif"), format!("{n}.raw"));
        std::fs::write(dir.path(&file), image).expect("an image");
        std::fs::write(dir.path(&raw), guest).expect("a disk");
        questions.ask(name, &["dissect_asif"], &[&file], &raw);
    }
    // Bands of 1 MiB.
    let (guest, image) = given::by_name("sparseimage").make();
    std::fs::write(dir.path("bands.sparseimage"), image).expect("an image");
    std::fs::write(dir.path("bands.raw"), guest).expect("a disk");
    questions.ask(
        "sparseimage",
        &["libmodi"],
        &["bands.sparseimage"],
        "bands.raw",
    );
    questions.agreed();
}
