//! Sparse bundles of macOS: directories, which the kit does not have.

use std::path::Path;

use platter::extent::ExtentKind;
use platter::object::Objects;
use platter::ops::inspect::inspect;
use platter::secret::Secret;
use platter::{ErrorKind, Image, Location, OpenOptions, OpenPolicy, Result};

use crate::common::Dir;
use crate::encrcdsa::{LOCKS, Lock, PASS, encrypt, encrypted_blocks};
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
    let mut bytes = vec![0; 88 * BAND + 512];
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

/// The list of the bundle, with other numbers.
fn relisted(root: &Path, band: u64, size: u64) {
    let list = format!(
        "<plist version=\"1.0\"><dict><key>band-size</key><integer>{band}</integer>\
         <key>bundle-backingstore-version</key><integer>1</integer>\
         <key>diskimage-bundle-type</key><string>com.apple.diskimage.sparsebundle</string>\
         <key>size</key><integer>{size}</integer></dict></plist>"
    );
    std::fs::write(root.join("Info.plist"), list).expect("a list");
}

#[test]
fn bands_that_are_not_there_are_passed_over_together() {
    let dir = Dir::new();
    let root = dir.path("a.sparsebundle");
    bundle(&root, &[], b"");
    // More bands than can be looked for.
    let size = (1 << 62) + 512;
    relisted(&root, 512, size);
    let last = size / 512 - 1;
    for name in ["1", "2", "5", &format!("{last:x}"), "A", "07", "6 ", "x"] {
        std::fs::write(root.join("bands").join(name), [7; 512]).expect("a band");
    }
    std::fs::write(root.join("bands/9"), b"").expect("a band");
    let image = open(&root, None).expect("a bundle");
    assert_eq!(image.len(), size);
    let (mut runs, mut at) = (Vec::new(), 0);
    while at < size {
        let extent = image.map(at, size - at).expect("a run").extent;
        runs.push((at / 512, extent.kind == ExtentKind::ZEROES));
        at += extent.len;
        assert!(runs.len() < 20, "{runs:?}");
    }
    runs.dedup_by_key(|(_, zero)| *zero);
    let wanted = [
        (0, true),
        (1, false),
        (3, true),
        (5, false),
        (6, true),
        (last, false),
    ];
    assert_eq!(runs, wanted);
    let mut buf = [0; 1024];
    image.read_at(&mut buf, size - 1024).expect("the end");
    assert_eq!((&buf[..512], &buf[512..]), (&[0; 512][..], &[7; 512][..]));
    relisted(&root, 500, 50_000);
    let error = open(&root, None).expect_err("no sectors");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
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
fn what_lacks_a_part_is_refused() {
    let dir = Dir::new();
    let root = dir.path("a.sparsebundle");
    bundle(&root, &disk(), b"encrcdsa\0\0\0\x02");
    let error = open(&root, None).expect_err("its token is cut off");
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

/// What the blocks of bands are counted from.
#[derive(Clone, Copy, Debug)]
enum Numbers {
    Disk,
    Band,
}

/// Encrypts a bundle: the file of each band that is there, but for its holes, which are whole blocks.
fn encrypted(root: &Path, guest: &[u8], lock: Lock, numbers: Numbers) {
    let header = encrypt(&[], lock);
    bundle(root, guest, &header);
    for (n, band) in guest.chunks(BAND).enumerate() {
        let first = match numbers {
            Numbers::Disk => n * BAND / lock.block,
            Numbers::Band => 0,
        };
        let path = root.join(format!("bands/{n:x}"));
        if !path.exists() {
            continue;
        }
        let mut out = Vec::new();
        for (at, block) in band.chunks(lock.block).enumerate() {
            // Every third block of zeroes was never written.
            let is_hole = block.iter().all(|byte| *byte == 0) && at % 3 == 0;
            out.extend(match is_hole {
                true => vec![0; lock.block],
                false => encrypted_blocks(block, lock, (first + at) as u32),
            });
        }
        std::fs::write(path, out).expect("a band");
    }
}

fn open_with(root: &Path, pass: &str) -> Result<Image> {
    let mut objects = Objects::new();
    objects
        .add_secret("s", Secret::new(pass))
        .expect("a new ID");
    let options = OpenOptions {
        policy: OpenPolicy::permissive(),
        objects,
        ..OpenOptions::default()
    };
    let mut name = b"driver=sparsebundle,key-secret=s,file.filename=".to_vec();
    name.extend(root.as_os_str().as_encoded_bytes());
    let name = std::str::from_utf8(&name).expect("a plain name");
    Image::open(&Location::from_image_opts(name)?, &options)
}

const WITH_HEADER: [Lock; 3] = [LOCKS[0], LOCKS[1], LOCKS[2]];

#[test]
fn an_encrypted_one_is_read_however_its_blocks_are_numbered() {
    let dir = Dir::new();
    let guest = disk();
    for lock in WITH_HEADER {
        for numbers in [Numbers::Disk, Numbers::Band] {
            let root = dir.path(&format!("{}-{numbers:?}", lock.block));
            encrypted(&root, &guest, lock, numbers);
            let image = open_with(&root, PASS).expect("the passphrase fits");
            assert!(
                contents(&image).expect("it is read") == guest,
                "{lock:?} {numbers:?}"
            );
            assert!(image.info().expect("a report").encrypted);
            let mut random = Random(lock.block as u64);
            for _ in 0..40 {
                // What is read first is not always in the first band.
                let image = open_with(&root, PASS).expect("the passphrase fits");
                let from = random.below(guest.len());
                let len = (1 + random.below(3 * BAND)).min(guest.len() - from);
                let mut buf = vec![9; len];
                image.read_at(&mut buf, from as u64).expect("a read");
                assert!(buf == guest[from..from + len], "{lock:?} {numbers:?}");
            }
            let error = open_with(&root, "wrong").expect_err("another passphrase");
            assert_eq!(error.kind(), ErrorKind::WrongSecret, "{error}");
            let error = open(&root, None).expect_err("no passphrase");
            assert_eq!(error.kind(), ErrorKind::NeedsSecret, "{error}");
            std::fs::remove_dir_all(&root).expect("a directory");
        }
    }
}

#[test]
fn encrypted_bands_that_do_not_show_their_numbers_are_refused() {
    let dir = Dir::new();
    let root = dir.path("a.sparsebundle");
    let mut guest = disk();
    let mut random = Random(7);
    guest
        .iter_mut()
        .for_each(|byte| *byte = random.next() as u8);
    encrypted(&root, &guest, LOCKS[1], Numbers::Disk);
    let image = open_with(&root, PASS).expect("the passphrase fits");
    let mut buf = vec![0; BAND];
    image
        .read_at(&mut buf, 0)
        .expect("the first band is certain");
    assert!(buf == guest[..BAND]);
    let error = image.read_at(&mut buf, 5 * BAND as u64).expect_err("noise");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    // One block somewhere else is enough.
    guest[40 * BAND..][..4096].fill(0);
    encrypted(&root, &guest, LOCKS[1], Numbers::Disk);
    let hole = root.join("bands/28");
    let mut band = std::fs::read(&hole).expect("a band");
    band[..4096].copy_from_slice(&encrypted_blocks(
        &[0; 4096],
        LOCKS[1],
        40 * BAND as u32 / 4096,
    ));
    std::fs::write(&hole, band).expect("a band");
    let image = open_with(&root, PASS).expect("the passphrase fits");
    assert!(contents(&image).expect("it is read") == guest);
}

#[test]
fn a_band_that_ends_within_an_encrypted_block_is_told() {
    let dir = Dir::new();
    let root = dir.path("a.sparsebundle");
    let guest = disk();
    encrypted(&root, &guest, LOCKS[1], Numbers::Band);
    let path = root.join("bands/4");
    let band = std::fs::read(&path).expect("a band");
    std::fs::write(&path, &band[..band.len() - 1000]).expect("a band");
    let image = open_with(&root, PASS).expect("the passphrase fits");
    let mut buf = vec![0; BAND - 4096];
    image
        .read_at(&mut buf, 4 * BAND as u64)
        .expect("whole blocks");
    let error = image.read_at(&mut buf, 5 * BAND as u64 - 4096);
    let error = error.expect_err("a cut block");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("Band 4 ends within"), "{error}");
    // Bands of which no whole number of blocks makes one.
    let list = root.join("Info.plist");
    let text = std::fs::read_to_string(&list).expect("a list");
    let other = text.replace(&format!("<integer>{BAND}<"), "<integer>5120<");
    std::fs::write(&list, other).expect("a list");
    let error = open_with(&root, PASS).expect_err("bands of 5120 bytes");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}
