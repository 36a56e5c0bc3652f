//! Parallels bundles.

use std::sync::{Arc, Mutex};

use platter::format::RepairMode;
use platter::image::{Image, OpenOptions};
use platter::ops::check::check;
use platter::ops::inspect::{InspectReport, inspect};
use platter::policy::{ImplicitAnswer, ImplicitFile, ImplicitFiles};
use platter::{Error, ErrorKind, Job, Location, OpenPolicy};

#[path = "../common/bundle.rs"]
pub mod made;

use made::{MIXED, Made, NONE, ROOT, TOP};

const MIB: usize = 1 << 20;

impl Made {
    fn open_as(&self, name: &str, format: Option<&str>, writable: bool) -> Result<Image, Error> {
        let options = OpenOptions {
            format: format.map(str::to_owned),
            writable,
            policy: OpenPolicy::permissive(),
            ..OpenOptions::default()
        };
        Image::open(&Location::from_path(self.dir.path(name)), &options)
    }

    fn refused(&self, writable: bool) -> Error {
        match self.open_as("disk.hdd", None, writable) {
            Ok(_) => panic!("it is taken"),
            Err(error) => error,
        }
    }

    fn inspected(&self) -> InspectReport {
        let options = OpenOptions {
            policy: OpenPolicy::permissive(),
            ..OpenOptions::default()
        };
        inspect(&Location::from_path(self.dir.path("disk.hdd")), &options).expect("a report")
    }
}

fn contents(image: &Image) -> Vec<u8> {
    let mut bytes = vec![0; image.len() as usize];
    image.read_at(&mut bytes, 0).expect("a read");
    bytes
}

#[test]
fn a_directory_shows_the_top_of_its_snapshots_in_all_its_parts() {
    let made = Made::new(MIXED);
    for (name, format) in [
        ("disk.hdd", None),
        ("disk.hdd", Some("parallels")),
        ("disk.hdd/DiskDescriptor.xml", None),
        ("disk.hdd/DiskDescriptor.xml", Some("parallels")),
    ] {
        let image = made.open_as(name, format, false).expect(name);
        assert_eq!(image.format_name(), "parallels");
        assert!(contents(&image) == made.model, "{name}");
        // Across the border of the parts, and of clusters.
        let mut few = [0; 1000];
        for at in [3 * MIB - 500, (64 << 10) - 500] {
            image.read_at(&mut few, at as u64).expect("a read");
            assert_eq!(few[..], made.model[at..at + 1000]);
        }
    }
    assert_eq!(made.refused(true).kind(), ErrorKind::ReadOnly);
    // Elsewhere the text is a disk like any other, unless the format is named.
    let text = std::fs::read(made.dir.path("disk.hdd/DiskDescriptor.xml")).expect("a file");
    std::fs::write(made.dir.path("disk.hdd/plain"), &text).expect("a file");
    let plain = made
        .open_as("disk.hdd/plain", None, false)
        .expect("it opens");
    assert_eq!(plain.format_name(), "raw");
    let named = made.open_as("disk.hdd/plain", Some("parallels"), false);
    assert!(contents(&named.expect("it opens")) == made.model);
}

#[test]
fn what_was_cut_off_from_a_file_of_a_bundle_does_not_read_as_zeroes() {
    for cut in [512, 32 << 10, 64 << 10, (64 << 10) + 512, 200 << 10] {
        let made = Made::new(MIXED);
        let path = made.dir.path("disk.hdd/top.0.hds");
        let len = path.metadata().expect("a file").len();
        let file = std::fs::OpenOptions::new().write(true).open(&path);
        file.and_then(|file| file.set_len(len - cut))
            .expect("a shorter file");
        let image = made.open_as("disk.hdd", None, false).expect("it opens");
        let mut bytes = vec![0; made.model.len()];
        let error = image.read_at(&mut bytes, 0).expect_err("a refusal");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{cut}: {error}");
        assert!(error.to_string().contains("top.0.hds"), "{cut}: {error}");
        // What is there is read: each cluster is what it was, or cannot be read.
        let mut lost = 0;
        for (number, model) in made.model.chunks(4096).enumerate() {
            let mut piece = vec![0; model.len()];
            match image.read_at(&mut piece, number as u64 * 4096) {
                Ok(()) => assert!(piece == model, "{cut}: {number}"),
                Err(_) => lost += 1,
            }
        }
        assert_eq!(lost, cut.div_ceil(4096), "{cut}");
    }
}

#[test]
fn a_snapshot_that_is_named_as_the_top_is_what_the_guest_sees() {
    let made = Made::new(MIXED);
    let named = format!("<Snapshots><TopGUID>{ROOT}</TopGUID>");
    made.describe(&made.descriptor().replace("<Snapshots>", &named));
    let image = made.open_as("disk.hdd", None, false).expect("it opens");
    let now = contents(&image);
    assert!(now[3 * MIB..].iter().all(|byte| *byte == 7));
    assert_eq!((now[0], now[64 << 10]), (1, 0));
}

#[test]
fn what_the_descriptor_names_is_a_file_beside_it_or_nothing() {
    let made = Made::new(MIXED);
    for name in ["/etc/passwd", "../top.0.hds", "top.0", "", "middle.1.hds"] {
        made.describe(&made.descriptor().replace("top.0.hds", name));
        let error = made.refused(false);
        let kind = match name {
            "top.0" => ErrorKind::NotFound,
            // It is too small.
            "middle.1.hds" => ErrorKind::Corrupt,
            _ => error.kind(),
        };
        assert_eq!(error.kind(), kind, "{name}: {error}");
    }
    made.describe(
        &made
            .descriptor()
            .replace("<Blocksize>128", "<Blocksize>256"),
    );
    assert_eq!(made.refused(false).kind(), ErrorKind::Corrupt);
    // One that only the policy can allow.
    made.describe(&made.descriptor());
    let options = OpenOptions {
        format: Some("parallels".to_owned()),
        ..OpenOptions::default()
    };
    match Image::open(&Location::from_path(made.dir.path("disk.hdd")), &options) {
        Ok(_) => panic!("it is taken"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Denied, "{error}"),
    }
}

#[test]
fn inspecting_lists_every_file_and_opens_none() {
    let made = Made::new(MIXED);
    let report = made.inspected();
    assert_eq!(report.format, "parallels");
    let names: Vec<_> = report.references.iter().map(|it| it.name_text()).collect();
    assert_eq!(names.len(), 8, "{names:?}");
    assert!(names.contains(&"aside.0.hds".to_owned()));
    made.describe(&made.descriptor().replace(NONE, TOP));
    assert!(!made.inspected().passed());
    made.describe("<Parallels_disk_image><");
    assert!(!made.inspected().passed());
}

#[test]
fn a_check_goes_through_all_files_and_names_the_one_with_damage() {
    let made = Made::new(MIXED);
    let checked = || {
        let path = made.dir.path("disk.hdd");
        let options = OpenOptions {
            for_check: true,
            policy: OpenPolicy::permissive(),
            ..OpenOptions::default()
        };
        let image = Image::open(&Location::from_path(path), &options).expect("it opens");
        let notes = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let sink = notes.clone();
        let mut job = Job::new().on_message(Box::new(move |message| {
            if let platter::job::Message::Note(line) = message {
                sink.lock().expect("the notes").push(line.clone());
            }
        }));
        let outcome = check(&image, RepairMode::Report, &mut job).expect("a check");
        let code = outcome.exit_code();
        drop(job);
        let notes = std::mem::take(&mut *notes.lock().expect("the notes"));
        (code, notes)
    };
    assert_eq!(checked(), (0, Vec::new()));
    // An entry that leads out of its file, of a snapshot in the middle.
    let name = made.dir.path("disk.hdd/middle.0.hds");
    let mut bytes = std::fs::read(&name).expect("an image");
    bytes[64..68].copy_from_slice(&0x1000_u32.to_le_bytes());
    std::fs::write(&name, bytes).expect("an image");
    let (code, notes) = checked();
    assert_eq!(code, 2);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].ends_with("middle.0.hds': cluster 0 is outside image"),
        "{notes:?}"
    );
}

/// Overlays of a bundle that is named by its directory.
#[test]
fn an_overlay_finds_what_its_backing_directory_stands_for() {
    let made = Made::new(MIXED);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let ask = ImplicitFiles::Ask(Arc::new(move |file: &ImplicitFile<'_>| {
        seen.lock().expect("a list").push(file.name.to_string());
        Ok(ImplicitAnswer::Open)
    }));
    for (format, fits) in [("parallels", true), ("raw", false)] {
        let size = made.model.len().to_string();
        let create = ["create", "-q", "-u", "-f", "qcow2", "-b", "disk.hdd"];
        let rest = ["-F", format, "over.qcow2", &size];
        made.dir.qemu_img_ok(&[&create[..], &rest].concat());
        let open = |implicit_files| {
            let options = OpenOptions {
                policy: OpenPolicy {
                    implicit_files,
                    ..OpenPolicy::permissive()
                },
                ..OpenOptions::default()
            };
            Image::open(&Location::from_path(made.dir.path("over.qcow2")), &options)
        };
        asked.lock().expect("a list").clear();
        let below = [made.dir.path("")].to_vec();
        for policy in [
            ImplicitFiles::Allow,
            ask.clone(),
            ImplicitFiles::Below(below),
        ] {
            let image = match (fits, open(policy)) {
                (true, image) => image.expect("the disk of the directory"),
                (false, Err(_)) => continue,
                (false, Ok(_)) => panic!("a directory is no raw disk"),
            };
            assert!(contents(&image) == made.model, "{format}");
        }
        // What is opened is what the policy was asked about.
        let asked = asked.lock().expect("a list");
        let first = asked.first().map(String::as_str);
        let name = match fits {
            true => "disk.hdd/DiskDescriptor.xml",
            false => "disk.hdd",
        };
        assert_eq!(first, Some(name));
        open(ImplicitFiles::Deny).expect_err("nothing further is opened");
    }
}
