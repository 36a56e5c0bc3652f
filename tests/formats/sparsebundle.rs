//! Sparse bundles of macOS: directories, which the kit does not have.

use std::path::Path;

use platter::ops::inspect::inspect;
use platter::{ErrorKind, Image, Location, OpenOptions, OpenPolicy, Result};

use crate::common::Dir;
use crate::kit::shelf::contents;
use crate::random::Random;

const BAND: usize = 64 << 10;

/// Writes a bundle; bands of zeroes are left out, and zeroes at the end of others.
fn bundle(root: &Path, guest: &[u8], token: &[u8]) {
    std::fs::create_dir_all(root.join("bands")).expect("directories");
    let list = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
         \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n<dict>\n\
         \t<key>CFBundleInfoDictionaryVersion</key>\n\t<string>6.0</string>\n\
         \t<key>band-size</key>\n\t<integer>{BAND}</integer>\n\
         \t<key>bundle-backingstore-version</key>\n\t<integer>1</integer>\n\
         \t<key>diskimage-bundle-type</key>\n\t<string>com.apple.diskimage.sparsebundle</string>\n\
         \t<key>size</key>\n\t<integer>{}</integer>\n</dict>\n</plist>\n",
        guest.len()
    );
    std::fs::write(root.join("Info.plist"), list).expect("a list");
    std::fs::write(root.join("token"), token).expect("a token");
    for (n, band) in guest.chunks(BAND).enumerate() {
        if let Some(last) = band.iter().rposition(|byte| *byte != 0) {
            std::fs::write(root.join(format!("bands/{n:x}")), &band[..=last]).expect("a band");
        }
    }
}

fn disk() -> Vec<u8> {
    let mut bytes = vec![0; 90 * BAND + 512];
    for (n, band) in bytes.chunks_mut(BAND).enumerate() {
        let len = band.len();
        match n % 4 {
            0 => band
                .iter_mut()
                .enumerate()
                .for_each(|(at, byte)| *byte = (at * 7 + n) as u8 | 1),
            1 => band[..len.min(700)].fill(n as u8 | 1),
            _ => {}
        }
    }
    bytes
}

fn open(path: &Path, format: Option<&str>) -> Result<Image> {
    let options = OpenOptions {
        policy: OpenPolicy::permissive(),
        format: format.map(str::to_owned),
        ..OpenOptions::default()
    };
    Image::open(&Location::from_path(path), &options)
}

#[test]
fn a_directory_is_opened_as_the_disk_that_it_holds() {
    let dir = Dir::new();
    let root = dir.path("a.sparsebundle");
    let guest = disk();
    bundle(&root, &guest, b"");
    for (path, format) in [
        (root.clone(), None),
        (root.clone(), Some("sparsebundle")),
        (root.join("Info.plist"), None),
    ] {
        let image = open(&path, format).expect("a bundle");
        assert_eq!(
            (image.format_name(), image.len()),
            ("sparsebundle", guest.len() as u64)
        );
        assert!(contents(&image).expect("it is read") == guest);
        std::thread::scope(|scope| {
            for seed in 1..4 {
                let (image, guest) = (&image, &guest);
                scope.spawn(move || {
                    let mut random = Random(seed);
                    for _ in 0..40 {
                        let from = random.below(guest.len());
                        let len = (1 + random.below(3 * BAND)).min(guest.len() - from);
                        let mut buf = vec![9; len];
                        image.read_at(&mut buf, from as u64).expect("a read");
                        assert!(buf == guest[from..from + len]);
                    }
                });
            }
        });
    }
    open(&root, Some("raw")).expect_err("a directory is no disk");
}

#[test]
fn its_files_are_opened_where_the_policy_allows_it() {
    let dir = Dir::new();
    let root = dir.path("a.sparsebundle");
    bundle(&root, &disk(), b"");
    let location = Location::from_path(&root);
    let error = Image::open(&location, &OpenOptions::default()).expect_err("no further files");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let list = Location::from_path(root.join("Info.plist"));
    let report = inspect(&list, &OpenOptions::default()).expect("a report");
    let names: Vec<_> = report
        .references
        .iter()
        .map(|found| found.name_text())
        .collect();
    assert_eq!(names, ["token", "bands"]);
}

#[test]
fn what_lacks_a_part_or_is_encrypted_is_refused() {
    let dir = Dir::new();
    let root = dir.path("a.sparsebundle");
    bundle(&root, &disk(), b"encrcdsa\0\0\0\x02");
    let error = open(&root, None).expect_err("it is encrypted");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    // What is asked about it alone is told.
    for (token, encrypted) in [(&b"encrcdsa\0\0\0\x02"[..], true), (b"", false)] {
        std::fs::write(root.join("token"), token).expect("a token");
        let options = OpenOptions {
            metadata_only: true,
            policy: OpenPolicy::permissive(),
            ..OpenOptions::default()
        };
        let image = Image::open(&Location::from_path(&root), &options).expect("it opens");
        assert_eq!(image.info().expect("a report").encrypted, encrypted);
    }
    std::fs::remove_file(root.join("token")).expect("a token");
    let error = open(&root, None).expect_err("there is no token");
    assert!(error.to_string().contains("'token'"), "{error}");
    std::fs::write(root.join("token"), b"").expect("a token");
    std::fs::rename(root.join("bands"), root.join("other")).expect("a rename");
    let error = open(&root, None).expect_err("there are no bands");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}
