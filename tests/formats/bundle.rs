//! Parallels bundles: directories of several files and snapshots, made by hand over images of QEMU's tools.

use std::fmt::Write;

use platter::image::{Image, OpenOptions};
use platter::ops::inspect::{InspectReport, inspect};
use platter::{Error, ErrorKind, Location, OpenPolicy};

use crate::common::Dir;

const TOP: &str = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
const ROOT: &str = "{11111111-1111-1111-1111-111111111111}";
const MIDDLE: &str = "{22222222-2222-2222-2222-222222222222}";
/// A snapshot that is no part of what the guest sees.
const ASIDE: &str = "{33333333-3333-3333-3333-333333333333}";
const NONE: &str = "{00000000-0000-0000-0000-000000000000}";

const MIB: usize = 1 << 20;

/// A disk of 4 MiB in two parts, the first of 3 MiB, with two snapshots; the last one of the second part is
/// plain.
struct Made {
    dir: Dir,
    /// What the guest sees.
    model: Vec<u8>,
}

impl Made {
    fn new() -> Self {
        let dir = Dir::new();
        std::fs::create_dir(dir.path("disk.hdd")).expect("a directory");
        let mut model = vec![0; 4 * MIB];
        // Each covers what the one before has written in part.
        for (n, name) in ["root", "middle", "top"].iter().enumerate() {
            for (part, len, start) in [(0, "3M", 0), (1, "1M", 3 * MIB)] {
                let name = format!("disk.hdd/{name}.{part}.hds");
                if (n, part) == (0, 1) {
                    std::fs::write(dir.path(&name), vec![7; MIB]).expect("a file");
                    model[3 * MIB..].fill(7);
                    continue;
                }
                dir.qemu_img_ok(&[
                    "create",
                    "-q",
                    "-f",
                    "parallels",
                    "-o",
                    "cluster_size=64k",
                    &name,
                    len,
                ]);
                let cluster = 64 << 10;
                for at in (n * cluster..MIB).step_by((n + 2) * cluster) {
                    let byte = (n * 16 + part + 1) as u8;
                    let line = format!("write -P {byte} {at} 64k");
                    dir.qemu_io("parallels", &name, &[&line]);
                    model[start + at..][..cluster].fill(byte);
                }
            }
        }
        let made = Self { dir, model };
        made.describe(&made.descriptor());
        made
    }

    fn describe(&self, text: &str) {
        std::fs::write(self.dir.path("disk.hdd/DiskDescriptor.xml"), text).expect("a file");
    }

    fn descriptor(&self) -> String {
        let mut text = "<?xml version='1.0' encoding='UTF-8'?>\n\
            <Parallels_disk_image Version=\"1.0\">\n\
            <Disk_Parameters><Disk_size>8192</Disk_size><Cylinders>16</Cylinders><Heads>16</Heads>\
            <Sectors>32</Sectors><Padding>0</Padding></Disk_Parameters>\n<StorageData>"
            .to_owned();
        for (part, start, end) in [(1, 6144, 8192), (0, 0, 6144)] {
            write!(
                text,
                "<Storage><Start>{start}</Start><End>{end}</End><Blocksize>128</Blocksize>"
            )
            .expect("text");
            for (id, name) in [
                (ROOT, "root"),
                (TOP, "top"),
                (MIDDLE, "middle"),
                (ASIDE, "aside"),
            ] {
                let kind = if (name, part) == ("root", 1) {
                    "Plain"
                } else {
                    "Compressed"
                };
                write!(
                    text,
                    "<Image><GUID>{id}</GUID><Type>{kind}</Type><File>{name}.{part}.hds</File></Image>"
                )
                .expect("text");
            }
            text += "</Storage>";
        }
        text += "</StorageData>\n<Snapshots>";
        for (id, parent) in [(TOP, MIDDLE), (MIDDLE, ROOT), (ROOT, NONE), (ASIDE, ROOT)] {
            write!(
                text,
                "<Shot><GUID>{id}</GUID><ParentGUID>{parent}</ParentGUID></Shot>"
            )
            .expect("text");
        }
        text + "</Snapshots>\n</Parallels_disk_image>\n"
    }

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
    let made = Made::new();
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
fn a_snapshot_that_is_named_as_the_top_is_what_the_guest_sees() {
    let made = Made::new();
    let named = format!("<Snapshots><TopGUID>{ROOT}</TopGUID>");
    made.describe(&made.descriptor().replace("<Snapshots>", &named));
    let image = made.open_as("disk.hdd", None, false).expect("it opens");
    let now = contents(&image);
    assert!(now[3 * MIB..].iter().all(|byte| *byte == 7));
    assert_eq!((now[0], now[64 << 10]), (1, 0));
}

#[test]
fn what_the_descriptor_names_is_a_file_beside_it_or_nothing() {
    let made = Made::new();
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
    let made = Made::new();
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
