//! Parallels bundles, forensic images and the sparse images of macOS, which other programs make.

use super::{Questions, left_out};
use crate::bundle::made::{MIXED, Made, Shape};
use crate::common::Dir;
use crate::kit::given;
use crate::products::unpack;

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
    questions.agreed();
}
