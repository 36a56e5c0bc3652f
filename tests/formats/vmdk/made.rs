//! New images: every subformat, both ways across to QEMU's tools.

use std::os::unix::fs::MetadataExt;

use super::{contents, convert_raw, open, sample_bytes};
use crate::common::Dir;

/// Every subformat, with an option that changes what is on disk.
const KINDS: [&str; 10] = [
    "",
    "subformat=monolithicSparse,zeroed_grain=on",
    "subformat=monolithicFlat",
    "subformat=twoGbMaxExtentSparse",
    "subformat=twoGbMaxExtentFlat",
    "subformat=streamOptimized",
    "subformat=streamOptimized,zeroed_grain=on",
    "subformat=vmfs",
    "subformat=monolithicFlat,preallocation=full",
    "preallocation=falloc",
];

#[test]
fn every_subformat_crosses_over() {
    let dir = Dir::new();
    let guest = sample_bytes(5_000_192);
    std::fs::write(dir.path("r.raw"), &guest).expect("a source");
    for (n, options) in KINDS.iter().enumerate() {
        let name = format!("{n}.vmdk");
        convert_raw(&dir, "r.raw", &name, options).unwrap_or_else(|e| panic!("{options}: {e}"));
        let image = open(&dir, &name, false).unwrap_or_else(|e| panic!("{options}: {e}"));
        assert!(contents(&image) == guest, "{options}");
        drop(image);
        let checked = dir.qemu_img(&["check", &name]);
        assert_eq!(checked.code, 0, "{options}: {checked:?}");
        dir.qemu_img_ok(&["convert", "-f", "vmdk", "-O", "raw", &name, "back.raw"]);
        let back = std::fs::read(dir.path("back.raw")).expect("bytes");
        assert!(back == guest, "{options}");
    }
}

#[test]
fn what_qemu_made_reads_the_same() {
    let dir = Dir::new();
    let guest = sample_bytes(5_000_192);
    std::fs::write(dir.path("r.raw"), &guest).expect("a source");
    for kind in [
        "monolithicSparse",
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
        "streamOptimized",
    ] {
        let option = format!("subformat={kind}");
        dir.qemu_img_ok(&["convert", "-O", "vmdk", "-o", &option, "r.raw", "q.vmdk"]);
        let image = open(&dir, "q.vmdk", false).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert!(contents(&image) == guest, "{kind}");
    }
}

#[test]
fn grains_of_a_stream_ascend_and_end_with_a_marker() {
    let dir = Dir::new();
    let guest = sample_bytes(20 << 20);
    std::fs::write(dir.path("r.raw"), &guest).expect("a source");
    convert_raw(&dir, "r.raw", "s.vmdk", "subformat=streamOptimized").expect("a stream");
    let bytes = std::fs::read(dir.path("s.vmdk")).expect("bytes");
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    // No redundant directory, and every grain behind the one before it.
    assert_eq!((word(48), bytes[4]), (0, 3));
    let mut at = word(64) as usize * 512;
    let mut last = None;
    loop {
        let len = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().expect("4 bytes")) as usize;
        if len == 0 {
            break;
        }
        assert!(last.is_none_or(|last| word(at) > last));
        assert_eq!(bytes[at + 12], 0x78);
        last = Some(word(at));
        at += (12 + len).next_multiple_of(512);
    }
    assert_eq!(at + 512, bytes.len());
    assert!(bytes[at..].iter().all(|byte| *byte == 0));
}

#[test]
fn files_of_many_parts_are_made_and_taken_back_together() {
    let dir = Dir::new();
    let file = std::fs::File::create(dir.path("r.raw")).expect("a source");
    file.set_len(5 << 30).expect("a length");
    std::os::unix::fs::FileExt::write_all_at(&file, &[9; 200_000], (2 << 30) - 100_000)
        .expect("bytes");
    for (kind, suffix) in [("twoGbMaxExtentSparse", "s"), ("twoGbMaxExtentFlat", "f")] {
        let name = format!("{kind}.v.vmdk");
        convert_raw(&dir, "r.raw", &name, &format!("subformat={kind}")).expect("an image");
        let image = open(&dir, &name, false).expect("it opens");
        assert_eq!(image.len(), 5 << 30);
        let mut bytes = vec![0; 300_000];
        image
            .read_at(&mut bytes, (2 << 30) - 150_000)
            .expect("a read");
        assert!(bytes[50_000..250_000].iter().all(|byte| *byte == 9));
        assert!(
            bytes[..50_000]
                .iter()
                .chain(&bytes[250_000..])
                .all(|byte| *byte == 0)
        );
        for part in 1..=3 {
            let file = format!("{kind}.v-{suffix}{part:03}.vmdk");
            assert!(dir.path(&file).exists(), "{file}");
        }
        dir.qemu_img_ok(&["compare", "-F", "raw", &name, "r.raw"]);
    }
    // The second part cannot be made: nothing is left of the first.
    std::fs::create_dir(dir.path("x-s002.vmdk")).expect("a directory in the way");
    convert_raw(&dir, "r.raw", "x.vmdk", "subformat=twoGbMaxExtentSparse").expect_err("a refusal");
    assert!(!dir.path("x.vmdk").exists() && !dir.path("x-s001.vmdk").exists());
}

#[test]
fn options_that_cannot_be_had_are_refused_in_the_words_of_the_peer() {
    let dir = Dir::new();
    std::fs::write(dir.path("r.raw"), [1; 512]).expect("a source");
    for (options, words) in [
        ("subformat=bogus", "invalid parameter value: bogus"),
        ("adapter_type=LSILOGIC", "invalid parameter value: LSILOGIC"),
        (
            "compat6=on,hwversion=9",
            "compat6 cannot be enabled with hwversion set",
        ),
        (
            "subformat=vmfs,zeroed_grain=on",
            "Flat image can't enable zeroed grain",
        ),
        (
            "preallocation=metadata",
            "Unsupported preallocation mode: metadata",
        ),
    ] {
        let error = convert_raw(&dir, "r.raw", "x.vmdk", options).expect_err(options);
        assert!(error.to_string().contains(words), "{options}: {error}");
        assert!(!dir.path("x.vmdk").exists());
    }
}

#[test]
fn a_stream_takes_about_what_qemu_takes() {
    let dir = Dir::new();
    let exe = std::fs::read("/proc/self/exe").expect("this program");
    let len = exe.len().min(24 << 20) / 512 * 512;
    std::fs::write(dir.path("r.raw"), &exe[..len]).expect("a source");
    convert_raw(&dir, "r.raw", "s.vmdk", "subformat=streamOptimized").expect("a stream");
    dir.qemu_img_ok(&[
        "convert",
        "-O",
        "vmdk",
        "-o",
        "subformat=streamOptimized",
        "r.raw",
        "q.vmdk",
    ]);
    let size = |name: &str| std::fs::metadata(dir.path(name)).expect("a file").size();
    let (ours, theirs) = (size("s.vmdk"), size("q.vmdk"));
    assert!(ours * 100 <= theirs * 102, "{ours} bytes against {theirs}");
}
