//! Raw disks: the window of a file, and the guard of a first sector whose format was guessed.

use crate::common::Dir;
use platter::storage::ZeroFlags;
use platter::{Error, Image, Location, OpenOptions, OpenPolicy};

fn options(writable: bool) -> OpenOptions {
    OpenOptions {
        writable,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

#[test]
fn a_guessed_raw_disk_never_becomes_an_image_of_another_format() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "a.raw", "1M"]);
    let location = Location::from_path(dir.path("a.raw"));
    let image = Image::open(&location, &options(true)).expect("a raw disk");
    let refused = |result: Result<(), Error>| {
        assert_eq!(result.expect_err("a refusal").os_errno(), Some(libc::EPERM));
    };
    refused(image.write_at(b"QFI\xfb\0\0\0\x03", 0));
    image
        .write_at(b"WithoutFreeSpace\x03\0\0\0", 0)
        .expect("harmless bytes");
    // The signature comes together in pieces, and by zeroing.
    refused(image.write_at(&[2], 16));
    image.write_at(b"QEDx", 0).expect("harmless bytes");
    refused(image.write_zeroes(3, 1, ZeroFlags::empty()));
    refused(image.write_at(&[0], 3));
    image.write_at(b"QED\0", 512).expect("another sector");
    image.close().expect("an end");

    let named = OpenOptions {
        format: Some("raw".to_owned()),
        ..options(true)
    };
    let image = Image::open(&location, &named).expect("a raw disk");
    image
        .write_at(b"QFI\xfb\0\0\0\x01", 0)
        .expect("a format that was named");
    image.close().expect("an end");
    let error = Image::open(&location, &options(false)).expect_err("a damaged qcow image");
    assert!(
        error.to_string().contains("Image size is too small"),
        "{error}"
    );
}

#[test]
fn windows_are_checked_like_those_of_qemu_img() {
    let dir = Dir::new();
    std::fs::write(dir.path("a.raw"), vec![7; 100_000]).expect("a file");
    for window in [
        "offset=511",
        "offset=512",
        "offset=99999",
        "offset=100352",
        "offset=200000",
        "size=512",
        "size=513",
        "size=0",
        "size=100352",
        "size=100864",
        "offset=65536,size=1024",
        "offset=99840,size=1024",
    ] {
        let text = format!("driver=raw,{window},file.filename={}", dir.str("a.raw"));
        let theirs = dir.qemu_img(&["info", "--output=json", "--image-opts", &text]);
        let location = Location::from_image_opts(&text).expect("options");
        match Image::open(&location, &options(false)) {
            Ok(image) => {
                let size = format!("\"virtual-size\": {},", image.len());
                assert!(theirs.out.contains(&size), "{window}: {theirs:?}");
                let mut buf = vec![0; image.len().min(512) as usize];
                image.read_at(&mut buf, 0).expect("a read");
            }
            Err(error) => assert_eq!(theirs.err.trim_end(), format!("qemu-img: {error}")),
        }
    }
}
