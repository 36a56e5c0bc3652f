//! What a guest may write to a directory that is shown as a disk: any file system, of which nothing may reach what is
//! outside of the directory.
#![no_main]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use platter::{Image, Location, OpenOptions, OpenPolicy};
use platter_fuzz::policy;

/// Steps of one run.
const MOST: usize = 24;
const OUTSIDE: &[u8] = b"what no guest may touch";

#[derive(Arbitrary, Debug)]
enum Step {
    /// A byte of the boot sector.
    Boot {
        at: u16,
        value: u8,
    },
    /// An entry of the table.
    Table {
        cluster: u16,
        value: u16,
    },
    /// An entry of a directory: the root, or what stands in a cluster.
    Entry {
        cluster: u8,
        index: u8,
        name: [u8; 11],
        attributes: u8,
        first: u16,
        size: u32,
    },
    /// A name that is one for sure.
    Named {
        cluster: u8,
        index: u8,
        name: u8,
        directory: bool,
        first: u8,
        size: u16,
    },
    /// A piece of a long name, or anything else in an entry.
    Piece {
        cluster: u8,
        index: u8,
        bytes: [u8; 32],
    },
    Bytes {
        at: u32,
        bytes: Vec<u8>,
    },
    Copy {
        from: u16,
        to: u16,
        sectors: u8,
    },
    /// The whole disk of another directory.
    Other,
    Flush,
}

#[derive(Arbitrary, Debug)]
struct Case {
    floppy: bool,
    fat: u8,
    steps: Vec<Step>,
}

/// Where the structures stand, in bytes.
struct Places {
    boot: u64,
    table: u64,
    root: u64,
    data: u64,
    cluster: u64,
}

fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let name = format!("platter-fuzz-vvfat-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a scratch directory");
        path
    })
}

/// A directory with files, one of them outside by a link.
fn fill(directory: &Path, other: bool) {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory.join("sub/deep")).expect("a directory");
    fs::write(directory.join("FILE"), [1; 3000]).expect("a file");
    fs::write(directory.join("sub/a long name.txt"), [2; 700]).expect("a file");
    symlink("../outside", directory.join("link")).expect("a link");
    symlink("..", directory.join("up")).expect("a link");
    if other {
        fs::remove_file(directory.join("FILE")).expect("to remove a file");
        fs::write(directory.join("sub/deep/NEW"), [3; 9000]).expect("a file");
    }
}

fn open(directory: &Path, case: &Case, writable: bool) -> platter::Result<Image> {
    let fat = match (case.floppy, case.fat % 3) {
        (true, _) | (_, 0) => 12,
        (_, 1) => 16,
        _ => 32,
    };
    let (floppy, rw) = (on(case.floppy), on(writable));
    let options = format!(
        "driver=raw,file.driver=vvfat,file.dir={},file.fat-type={fat},file.floppy={floppy},file.rw={rw}",
        directory.display()
    );
    let options_of_open = OpenOptions {
        writable,
        policy: OpenPolicy {
            max_spool_bytes: 64 << 20,
            max_table_bytes: 1 << 20,
            ..OpenPolicy {
                implicit_files: OpenPolicy::permissive().implicit_files,
                ..policy()
            }
        },
        ..OpenOptions::default()
    };
    Image::open(&Location::from_image_opts(&options)?, &options_of_open)
}

fn on(set: bool) -> &'static str {
    if set { "on" } else { "off" }
}

fn places(image: &Image, floppy: bool) -> Places {
    let mut sector = [0; 512];
    let mut boot = 0;
    if !floppy {
        image.read_at(&mut sector, 0).expect("the partition table");
        boot = 512
            * u64::from(u32::from_le_bytes(
                sector[454..458].try_into().expect("four"),
            ));
    }
    image.read_at(&mut sector, boot).expect("the boot sector");
    let pair = |at: usize| u64::from(u16::from_le_bytes([sector[at], sector[at + 1]]));
    let per_table = match pair(22) {
        0 => pair(36) | pair(38) << 16,
        small => small,
    };
    let table = boot + pair(14) * 512;
    let root = table + u64::from(sector[16]) * per_table * 512;
    Places {
        boot,
        table,
        root,
        data: root + pair(17) * 32,
        cluster: u64::from(sector[13]) * 512,
    }
}

impl Places {
    fn entry(&self, cluster: u8, index: u8) -> u64 {
        let start = match cluster {
            0 => self.root,
            cluster => self.data + u64::from(cluster - 1) * self.cluster,
        };
        start + u64::from(index) * 32
    }
}

fn entry(name: &[u8; 11], attributes: u8, first: u16, size: u32) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..11].copy_from_slice(name);
    bytes[11] = attributes;
    bytes[26..28].copy_from_slice(&first.to_le_bytes());
    bytes[28..].copy_from_slice(&size.to_le_bytes());
    bytes
}

fn step(image: &Image, case: &Case, places: &Places, step: &Step) {
    // Outside of the disk nothing is written.
    let put = |bytes: &[u8], at: u64| drop(image.write_at(bytes, at));
    match step {
        Step::Boot { at, value } => put(&[*value], places.boot + u64::from(at % 512)),
        Step::Table { cluster, value } if case.floppy || case.fat % 3 == 0 => {
            let cluster = u64::from(cluster % 4085);
            let at = places.table + cluster * 3 / 2;
            let mut bytes = [0; 2];
            if image.read_at(&mut bytes, at).is_ok() {
                let (old, value) = (u16::from_le_bytes(bytes), value & 0xfff);
                let new = match cluster % 2 {
                    0 => old & 0xf000 | value,
                    _ => old & 0xf | value << 4,
                };
                put(&new.to_le_bytes(), at);
            }
        }
        Step::Table { cluster, value } if case.fat % 3 == 1 => {
            put(&value.to_le_bytes(), places.table + u64::from(*cluster) * 2);
        }
        Step::Table { cluster, value } => {
            let wide = (i32::from(*value as i16) as u32) & 0x0fff_ffff;
            put(&wide.to_le_bytes(), places.table + u64::from(*cluster) * 4);
        }
        Step::Entry {
            cluster,
            index,
            name,
            attributes,
            first,
            size,
        } => {
            let bytes = entry(name, *attributes, *first, *size);
            put(&bytes, places.entry(*cluster, *index));
        }
        Step::Named {
            cluster,
            index,
            name,
            directory,
            first,
            size,
        } => {
            let mut text = *b"NAME_X  TXT";
            text[5] = b'A' + name % 26;
            let attributes = if *directory { 0x10 } else { 0x20 };
            let size = if *directory { 0 } else { u32::from(*size) };
            let bytes = entry(&text, attributes, u16::from(*first), size);
            put(&bytes, places.entry(*cluster, *index));
        }
        Step::Piece {
            cluster,
            index,
            bytes,
        } => put(bytes, places.entry(*cluster, *index)),
        Step::Bytes { at, bytes } => {
            put(bytes, u64::from(*at) % image.len());
        }
        Step::Copy { from, to, sectors } => {
            let mut bytes = vec![0; (usize::from(*sectors) % 16 + 1) * 512];
            if image
                .read_at(&mut bytes, places.boot + u64::from(*from) * 512)
                .is_ok()
            {
                put(&bytes, places.boot + u64::from(*to) * 512);
            }
        }
        Step::Other => {
            let other = scratch().join("other");
            if !other.exists() {
                fill(&other, true);
            }
            let Ok(disk) = open(&other, case, false) else {
                return;
            };
            // The structures and the first clusters.
            let mut bytes = vec![0; (places.data - places.boot + 64 * places.cluster) as usize];
            if disk.read_at(&mut bytes, places.boot).is_ok() {
                put(&bytes, places.boot);
            }
        }
        Step::Flush => drop(image.flush()),
    }
}

/// Nothing but the directory itself has changed, and no file of the work is left in it.
fn nothing_outside(directory: &Path) {
    let outside = fs::read(scratch().join("outside")).expect("the file outside");
    assert_eq!(outside, OUTSIDE, "the file outside");
    for entry in fs::read_dir(scratch()).expect("the scratch directory") {
        let name = entry.expect("an entry").file_name();
        let known = ["disk", "other", "outside"]
            .iter()
            .any(|known| *known == name);
        assert!(known, "{name:?} is new outside of the directory");
    }
    for link in ["link", "up"] {
        let path = directory.join(link);
        assert!(path.is_symlink(), "a link of the host is gone");
    }
    for entry in fs::read_dir(directory).expect("the directory") {
        let name = entry.expect("an entry").file_name();
        let staged = name.to_string_lossy().starts_with(".platter-vvfat-");
        assert!(!staged, "{name:?} was left behind");
    }
}

fuzz_target!(|case: Case| {
    let directory = scratch().join("disk");
    fs::write(scratch().join("outside"), OUTSIDE).expect("a file");
    fill(&directory, false);
    let image = open(&directory, &case, true).expect("the directory opens");
    let places = places(&image, case.floppy);
    for one in case.steps.iter().take(MOST) {
        step(&image, &case, &places, one);
    }
    let _ = image.close();
    nothing_outside(&directory);
    // What is there now is a disk again.
    if let Ok(image) = open(&directory, &case, false) {
        let mut bytes = vec![0; 64 << 10];
        let _ = image.read_at(&mut bytes, 0);
    }
});
