//! What is odd about dmg images: checksums, and encryption around anything.

use std::sync::Arc;
use std::time::Duration;

use platter::format::RepairMode;
use platter::job::{JobControl, Message};
use platter::object::Objects;
use platter::ops::check::{CheckOutcome, check};
use platter::ops::inspect::inspect_storage;
use platter::secret::Secret;
use platter::storage::memory::MemoryStorage;
use platter::storage::{NamedStorages, Storage};
use platter::{ErrorKind, Image, Job, Location, OpenOptions, OpenPolicy, Result};

use crate::common::Dir;
use crate::encrcdsa::{LOCKS, Lock, PASS, bytes, encrypt, put, words};
use crate::kit::given::{self, GIVEN};
use crate::kit::hostile::damage;
use crate::kit::shelf::{Shelf, contents};
use crate::products::unpack;
use crate::random::Random;

fn shelf(bytes: &[u8]) -> Arc<dyn NamedStorages> {
    let file: Arc<dyn Storage> = Arc::new(MemoryStorage::with_bytes("image", bytes.to_vec()));
    Arc::new(Shelf(vec![file]))
}

fn options(bytes: &[u8], pass: &str) -> OpenOptions {
    let mut objects = Objects::new();
    objects
        .add_secret("s", Secret::new(pass))
        .expect("a new ID");
    OpenOptions {
        policy: OpenPolicy::permissive(),
        storages: Some(shelf(bytes)),
        objects,
        ..OpenOptions::default()
    }
}

fn open(bytes: &[u8], options: &OpenOptions) -> Result<Image> {
    assert!(bytes.len() > 512);
    let name = "driver=dmg,key-secret=s,file.filename=image";
    Image::open(&Location::from_image_opts(name)?, options)
}

#[test]
fn what_is_encrypted_is_read_with_its_passphrase() {
    let image = given::by_name("dmg").make();
    let disk = bytes(9, 300 * 512);
    let sparse = given::by_name("sparseimage").make();
    for (guest, plain) in [&image, &(disk.clone(), disk), &sparse].map(|it| (&it.0, &it.1)) {
        for lock in LOCKS {
            let file = encrypt(plain, lock);
            let image = open(&file, &options(&file, PASS)).expect("the passphrase fits");
            assert_eq!(image.len(), guest.len() as u64, "{lock:?}");
            assert!(contents(&image).expect("it is read") == *guest, "{lock:?}");
            assert!(image.info().expect("information").encrypted, "{lock:?}");
            let mut random = Random(lock.block as u64);
            for _ in 0..30 {
                let from = random.below(guest.len());
                let len = (1 + random.below(9000)).min(guest.len() - from);
                let mut buf = vec![0; len];
                image.read_at(&mut buf, from as u64).expect("a read");
                assert!(buf == guest[from..from + len], "{lock:?}");
            }
        }
    }
}

#[test]
fn without_its_passphrase_an_image_is_not_opened() {
    let plain = bytes(9, 300 * 512);
    for lock in LOCKS {
        let file = encrypt(&plain, lock);
        let error = open(&file, &options(&file, "wrong")).expect_err("another passphrase");
        assert_eq!(error.kind(), ErrorKind::WrongSecret, "{error}");
        let named = Location::from_image_opts("driver=dmg,file.filename=image").expect("a name");
        let error = Image::open(&named, &options(&file, PASS)).expect_err("no passphrase");
        assert_eq!(error.kind(), ErrorKind::NeedsSecret, "{error}");
    }
}

#[test]
fn deriving_a_key_ends_when_it_is_late_and_is_bounded_by_the_policy() {
    let slow = Lock {
        iterations: u32::MAX,
        ..LOCKS[0]
    };
    let mut file = encrypt(&bytes(9, 512), LOCKS[0]);
    put(&mut file, 1008, &words(&[slow.iterations]));
    let control = Arc::new(JobControl::default());
    control.set_deadline(Some(Duration::from_millis(30)));
    let late = OpenOptions {
        control,
        ..options(&file, PASS)
    };
    let error = open(&file, &late).expect_err("no time");
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    let careful = OpenOptions {
        policy: OpenPolicy::strict(),
        ..options(&file, PASS)
    };
    let error = open(&file, &careful).expect_err("too many iterations");
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
}

#[test]
fn inspection_tells_that_an_image_is_encrypted_and_unlocks_nothing() {
    for lock in LOCKS {
        let file = encrypt(&given::by_name("dmg").make().1, lock);
        let options = OpenOptions {
            format: Some("dmg".to_owned()),
            ..OpenOptions::default()
        };
        let file = Arc::new(MemoryStorage::with_bytes("image", file));
        let report = inspect_storage(file, &options).expect("memory can be read");
        assert!(report.encrypted && report.virtual_size.is_none());
        let bad = |id: &str| {
            report
                .requirements
                .iter()
                .any(|found| found.requirement.id() == id && !found.verdict.is_good())
        };
        assert!(!bad("known-features") && !bad("key-derivation") && !bad("header-consistent"));
        assert!(bad("table-sizes"));
    }
}

#[test]
fn damaged_encryption_is_refused_or_read_and_never_a_panic() {
    for lock in LOCKS {
        let whole = encrypt(
            &given::by_name("dmg").make().1[..40_000],
            Lock {
                iterations: 1,
                ..lock
            },
        );
        let mut random = Random(lock.block as u64 + u64::from(lock.version));
        for _ in 0..200 {
            let mut file = whole.clone();
            let (from, len) = match lock.version {
                1 => (file.len() - 1276, 1276),
                _ => (0, 1616),
            };
            let mut part = file[from..from + len].to_vec();
            damage(&mut random, &mut part);
            part.resize(len, 0);
            put(&mut file, from, &part);
            let limits = OpenPolicy {
                max_key_iterations: 5000,
                ..OpenPolicy::permissive()
            };
            let options = OpenOptions {
                policy: limits,
                ..options(&file, PASS)
            };
            if let Ok(image) = open(&file, &options) {
                let _ = contents(&image);
            }
        }
    }
}

fn checked(bytes: &[u8]) -> (CheckOutcome, Vec<String>) {
    let lines = Arc::new(std::sync::Mutex::new(Vec::new()));
    let notes = lines.clone();
    let mut job = Job::new().on_message(Box::new(move |message| {
        let (Message::Note(line) | Message::Warning(line)) = message;
        notes.lock().expect("no panic").push(line.to_owned());
    }));
    let image = open(bytes, &options(bytes, PASS)).expect("it opens");
    let outcome = check(&image, RepairMode::Report, &mut job).expect("a check");
    let lines = lines.lock().expect("no panic").clone();
    (outcome, lines)
}

#[test]
fn checksums_of_whole_images_fit() {
    for given in GIVEN.iter().filter(|given| given.format == "dmg") {
        let (outcome, lines) = checked(&given.make().1);
        assert_eq!(
            (outcome.exit_code(), lines),
            (0, Vec::new()),
            "{}",
            given.name
        );
    }
    let dir = Dir::new();
    for packing in ["adc", "bzip2", "lzfse", "lzma"] {
        let name = format!("hfsplus-{packing}.dmg");
        unpack(&dir, &name);
        let bytes = std::fs::read(dir.path(&name)).expect("an image");
        let (outcome, lines) = checked(&bytes);
        assert_eq!((outcome.exit_code(), lines), (0, Vec::new()), "{name}");
    }
    let file = encrypt(&given::by_name("dmg").make().1, LOCKS[0]);
    assert_eq!(checked(&file).0.exit_code(), 0);
}

#[test]
fn what_changed_is_found_by_its_checksum() {
    let given = given::by_name("dmg of mixed tables");
    let whole = given.make().1;
    let text = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let (outcome, lines) = checked(&bytes);
        assert_eq!(outcome.exit_code(), 2, "{lines:?}");
        lines.join("\n")
    };
    let trailer = whole.len() - 512;
    assert!(text(trailer + 88).contains("checksum of the data fork"));
    assert!(text(trailer + 360).contains("checksum of all tables"));
    // Noise is kept as it is: every byte of it counts, in the file and in the table.
    let noise = whole[1000..].chunks(4096).position(|piece| {
        let mut seen = [false; 256];
        piece
            .iter()
            .for_each(|byte| seen[usize::from(*byte)] = true);
        seen.iter().filter(|seen| **seen).count() > 250
    });
    let lines = text(1000 + noise.expect("noise") * 4096 + 2000);
    assert!(lines.contains("checksum of the data fork"), "{lines}");
    assert!(lines.lines().count() >= 2, "{lines}");
    let file = Arc::new(MemoryStorage::with_bytes("image", {
        let mut bytes = whole.clone();
        bytes[trailer + 360] ^= 1;
        bytes
    }));
    let options = OpenOptions {
        format: Some("dmg".to_owned()),
        ..OpenOptions::default()
    };
    let report = inspect_storage(file, &options).expect("memory can be read");
    let verdict = report
        .requirements
        .iter()
        .find(|found| found.requirement.id() == "header-consistent");
    assert!(!verdict.expect("a verdict").verdict.is_good());
}
