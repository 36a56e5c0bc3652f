//! Lazy refcounts: the dirty bit stands while refcounts are late, and a crash is repaired on opening.

use crate::common::Dir;
use platter::storage::CacheMode;
use platter::{Image, Location, OpenOptions, OpenPolicy};

fn open(dir: &Dir, name: &str) -> Image {
    let options = OpenOptions {
        format: Some("qcow2".to_owned()),
        writable: true,
        cache: CacheMode::Writeback,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Image::open(&Location::from_path(dir.path(name)), &options).unwrap()
}

fn dirty(dir: &Dir, name: &str) -> bool {
    std::fs::read(dir.path(name)).unwrap()[79] & 1 != 0
}

#[test]
fn a_crash_under_the_dirty_bit_is_mended_on_opening() {
    for options in [
        "lazy_refcounts=on",
        "lazy_refcounts=on,cluster_size=512",
        "lazy_refcounts=on,extended_l2=on,cluster_size=16k",
    ] {
        let dir = Dir::new();
        dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "-o", options, "image", "4M"]);
        dir.qemu_io("qcow2", "image", &["write -P 1 0 256k"]);
        let image = open(&dir, "image");
        assert!(!dirty(&dir, "image"), "{options}: nothing was written yet");
        let mut model = vec![0; 4 << 20];
        model[..256 << 10].fill(1);
        for n in 0..40u64 {
            let offset = (n * 99_991 % (3 << 20)) as usize;
            image
                .write_at(&vec![2 + n as u8; 70_000], offset as u64)
                .unwrap();
            model[offset..offset + 70_000].fill(2 + n as u8);
        }
        image.flush().unwrap();
        // What a crash leaves now.
        std::fs::copy(dir.path("image"), dir.path("crashed")).unwrap();
        image.close().unwrap();
        assert!(!dirty(&dir, "image") && dirty(&dir, "crashed"), "{options}");
        let repaired = open(&dir, "crashed");
        let mut bytes = vec![0; 4 << 20];
        repaired.read_at(&mut bytes, 0).unwrap();
        assert!(bytes == model, "{options}");
        repaired.write_at(&[0xee; 9000], 3_500_000).unwrap();
        model[3_500_000..3_509_000].fill(0xee);
        repaired.close().unwrap();
        std::fs::write(dir.path("model.raw"), &model).unwrap();
        let args = [
            "compare",
            "-f",
            "raw",
            "-F",
            "qcow2",
            "model.raw",
            "crashed",
        ];
        let compare = dir.qemu_img(&args);
        assert_eq!(compare.code, 0, "{options}: {compare:?}");
        for name in ["image", "crashed"] {
            let check = dir.qemu_img(&["check", name]);
            assert_eq!(check.code, 0, "{options} {name}: {check:?}");
        }
    }
}

/// Unknown autoclear bits go when the image is opened for writing; unknown extensions stay.
#[test]
fn unknown_autoclear_bits_go_and_unknown_extensions_stay() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "image", "1M"]);
    let mut bytes = std::fs::read(dir.path("image")).unwrap();
    bytes[88..96].copy_from_slice(&(1u64 << 40).to_be_bytes());
    // In front of the feature name table stands a new extension of eight bytes.
    let header = u32::from_be_bytes(bytes[100..104].try_into().unwrap()) as usize;
    let old: Vec<u8> = bytes[header..header + 1024].to_vec();
    bytes[header..header + 8].copy_from_slice(&[0x12, 0x34, 0x56, 0x78, 0, 0, 0, 8]);
    bytes[header + 8..header + 16].copy_from_slice(b"untouchd");
    bytes[header + 16..header + 1040].copy_from_slice(&old);
    std::fs::write(dir.path("image"), &bytes).unwrap();
    let image = open(&dir, "image");
    image.write_at(&[1; 4096], 0).unwrap();
    image.close().unwrap();
    let after = std::fs::read(dir.path("image")).unwrap();
    assert_eq!(after[88..96], [0; 8]);
    assert_eq!(after[header..header + 1040], bytes[header..header + 1040]);
    assert_eq!(dir.qemu_img(&["check", "image"]).code, 0);
}

/// The whole of a huge empty image is one run, found at once.
#[test]
fn huge_images_are_mapped_at_once() {
    let dir = Dir::new();
    let args = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "cluster_size=2M",
        "image",
        "60000T",
    ];
    dir.qemu_img_ok(&args);
    let image = open(&dir, "image");
    let run = image.map(0, image.len()).unwrap();
    assert_eq!(run.extent.len, image.len());
    let last = image.len() - 5000;
    image.write_at(&[7; 5000], last).unwrap();
    assert_eq!(
        image.map(0, image.len()).unwrap().extent.len,
        last / (2 << 20) * (2 << 20)
    );
    image.discard(0, image.len()).unwrap();
    let mut bytes = [1; 5000];
    image.read_at(&mut bytes, last).unwrap();
    assert_eq!(bytes, [0; 5000]);
    image.close().unwrap();
}
