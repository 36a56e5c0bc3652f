//! A disk in parts that gets another one and loses it again: at every instant it has the old size or the new
//! one, and its bytes.

use std::path::Path;
use std::sync::Arc;

use platter::format::RepairMode;
use platter::ops::create::{CreatePlan, CreateRequest};
use platter::storage::memory::MemoryStorage;
use platter::storage::testing::Log;
use platter::storage::{Durability, NamedStorages, Preallocation, Storage, StorageOpen, ZeroFlags};
use platter::{Error, Image, Job, Location, OpenOptions, OpenPolicy, Options, Result};

use crate::random::Random;
use crate::rig;
use crate::states::{self, Crash};

const NAMES: [&str; 3] = ["disk.vmdk", "disk-s001.vmdk", "disk-s002.vmdk"];
/// The size at first, which ends within a grain, and the size with another part.
const SIZES: [u64; 2] = [(5 << 20) + 512, (2 << 30) + (1 << 20)];
/// Where the second part begins.
const EDGE: u64 = 2 << 30;

/// Files by their names. What an image has not got yet is empty.
#[derive(Debug)]
struct Files(Vec<Arc<dyn Storage>>);

impl NamedStorages for Files {
    fn find(&self, name: &Path, _: &StorageOpen) -> Option<Result<Arc<dyn Storage>>> {
        let at = NAMES.iter().position(|known| Path::new(known) == name)?;
        Some(Ok(self.0[at].clone()))
    }
}

fn open(files: &Arc<Files>, writable: bool) -> Result<Image> {
    let options = OpenOptions {
        format: Some("vmdk".to_owned()),
        writable,
        for_check: !writable,
        storages: Some(files.clone()),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Image::open(&Location::from_path(NAMES[0]), &options)
}

/// What was written durably, and what is being written.
struct Expected {
    sure: Vec<(u64, u8)>,
    maybe: Vec<(u64, u8)>,
    sizes: Vec<u64>,
}

impl Expected {
    fn judge(&self, crash: &Crash) -> std::result::Result<(), String> {
        let files = NAMES.iter().zip(&crash.files);
        let files = files.map(|(name, bytes)| {
            Arc::new(MemoryStorage::with_bytes(*name, bytes.clone())) as Arc<dyn Storage>
        });
        let fail = |error: Error| format!("{error:?}");
        let image = open(&Arc::new(Files(files.collect())), false).map_err(fail)?;
        if !self.sizes.contains(&image.len()) {
            return Err(format!("it has {} bytes", image.len()));
        }
        let (report, notes) = rig::check(image.format(), RepairMode::Report).map_err(fail)?;
        // A redundant table is written before the one that counts.
        let dirty = image.format().info().map_err(fail)?.dirty == Some(true);
        if report.check_errors != 0 || report.corruptions != 0 && !dirty {
            return Err(format!("{report:?} {notes:?}"));
        }
        // Where something is, and where nothing is.
        let empty = [SIZES[0], EDGE - 4096, EDGE + 4096].map(|at| (at, 0));
        for (at, byte) in self.sure.iter().chain(&self.maybe).chain(&empty) {
            let mut read = [0; 512];
            if at + 512 > image.len() {
                continue;
            }
            image.read_at(&mut read, *at).map_err(fail)?;
            let may_lack = !self.sure.contains(&(*at, *byte));
            if read != [*byte; 512] && !(may_lack && read == [0; 512]) {
                return Err(format!("{at} holds {:x?}", &read[..8]));
            }
        }
        Ok(())
    }

    fn replay(&self, log: &Log, durability: Durability, what: &str) -> usize {
        states::each(log, durability, &mut Random(7), 1, |crash| {
            if let Err(text) = self.judge(&crash) {
                let Crash {
                    count, what: how, ..
                } = crash;
                panic!("{what}: {how} of the first {count} events: {text}");
            }
        })
    }
}

fn logged(files: Vec<Vec<u8>>) -> (Arc<Log>, Arc<Files>) {
    let log = Log::new();
    let files = NAMES.iter().zip(files);
    let files = files.map(|(name, bytes)| log.file(*name, bytes) as Arc<dyn Storage>);
    let files = Arc::new(Files(files.collect()));
    (log, files)
}

/// Interrupts both changes at every event; returns the number of states.
pub fn run(durability: Durability) -> usize {
    let empty = NAMES.iter().map(|_| Vec::new()).collect();
    let (_, files) = logged(empty);
    let request = CreateRequest {
        location: Location::from_path(NAMES[0]),
        format: "vmdk".to_owned(),
        size: Some(SIZES[0]),
        options: Options::parse("subformat=twoGbMaxExtentSparse").unwrap(),
        backing_file: None,
        backing_format: None,
        backing_unsafe: false,
        exclusive: false,
        objects: rig::objects(),
        policy: OpenPolicy::permissive(),
        storages: Some(files.clone()),
    };
    let mut job = Job::new();
    CreatePlan::new(request, &mut job)
        .unwrap()
        .run(&mut job)
        .unwrap();
    let image = open(&files, true).unwrap();
    let mut sure = vec![(0, 1), (SIZES[0] - 512, 2)];
    for (at, byte) in &sure {
        image.write_at(&[*byte; 512], *at).unwrap();
    }
    image.close().unwrap();

    let (log, files) = logged(rig::bytes_of(&files.0));
    let image = open(&files, true).unwrap();
    image.resize(SIZES[1], Preallocation::Off).unwrap();
    assert_eq!(image.len(), SIZES[1]);
    let more = [(EDGE - 512, 3), (EDGE, 4), (SIZES[1] - 512, 5)];
    for (at, byte) in more {
        image.write_at(&[byte; 512], at).unwrap();
    }
    image.close().unwrap();
    let grown = Expected {
        sure: sure.clone(),
        maybe: more.to_vec(),
        sizes: SIZES.to_vec(),
    };
    let states = grown.replay(&log, durability, "growth");

    sure.extend(more);
    let (log, files) = logged(rig::bytes_of(&files.0));
    let image = open(&files, true).unwrap();
    image.resize(SIZES[0], Preallocation::Off).unwrap();
    image.write_zeroes(0, 512, ZeroFlags::empty()).unwrap();
    image.write_at(&[1; 512], 0).unwrap();
    image.close().unwrap();
    let (maybe, sure) = sure
        .into_iter()
        .partition(|(at, _)| *at == 0 || *at == EDGE - 512);
    let shrunk = Expected {
        sure,
        maybe,
        sizes: SIZES.to_vec(),
    };
    states + shrunk.replay(&log, durability, "shrinking")
}
