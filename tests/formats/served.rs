//! Compressed images behind our NBD server: what is decoded serves all who ask for a part of it, and those who read
//! on find it decoded.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use platter::net::Address;
use platter::serve::{Export, ExportOptions, Limits, Server};
use platter::storage::memory::MemoryStorage;
use platter::storage::testing::FaultyStorage;
use platter::storage::{Step, Storage};
use platter::{Image, Location, OpenOptions, OpenPolicy};

use crate::common::Dir;
use crate::kit::given;

const LEN: u64 = 16 << 20;
const PIECE: u64 = 256 << 10;

/// A served image whose steps are counted.
struct Served {
    dir: Dir,
    server: Server,
    steps: Arc<FaultyStorage>,
    bytes: Vec<u8>,
}

impl Served {
    fn new(format: &str, options: &[&str]) -> Self {
        let dir = Dir::new();
        let mut bytes = Vec::new();
        for word in 0..LEN / 8 {
            bytes.extend((word / 16 * 7919).to_le_bytes());
        }
        std::fs::write(dir.path("raw"), &bytes).unwrap();
        let mut args = vec!["convert", "-f", "raw", "-O", format];
        args.extend(options);
        args.extend(["raw", "image"]);
        let made = dir.qemu_img(&args);
        // For a compressed qcow, QEMU's tool tells a failure when all is written; the reads below compare.
        assert!(made.code == 0 || format == "qcow", "{made:?}");
        let image = std::fs::read(dir.path("image")).unwrap();
        Self::of(dir, format, bytes, image)
    }

    /// Of an image that holds those bytes.
    fn of(dir: Dir, format: &str, bytes: Vec<u8>, image: Vec<u8>) -> Self {
        let memory = Arc::new(MemoryStorage::with_bytes("image", image));
        let steps = Arc::new(FaultyStorage::new(memory));
        let storage: Arc<dyn Storage> = steps.clone();
        let options = OpenOptions {
            format: Some(format.to_owned()),
            policy: OpenPolicy::permissive(),
            ..OpenOptions::default()
        };
        let image = Arc::new(Image::open_storage(storage, &options).unwrap());
        let server = Server::new(Limits::default()).unwrap();
        let export = Export::new(image, ExportOptions::default()).unwrap();
        server.add_export(export).unwrap();
        let socket = Address::unix(dir.str("socket").as_bytes());
        server.listen(&socket).unwrap();
        steps.take_steps();
        Self {
            dir,
            server,
            steps,
            bytes,
        }
    }

    fn client(&self) -> Image {
        let name = format!("nbd+unix:///?socket={}", self.dir.str("socket"));
        let options = OpenOptions {
            format: Some("raw".to_owned()),
            policy: OpenPolicy::permissive(),
            ..OpenOptions::default()
        };
        Image::open(&Location::parse(&name).unwrap(), &options).unwrap()
    }

    fn read(&self, client: &Image, at: u64) {
        self.read_to(client, at, at + PIECE);
    }

    fn read_to(&self, client: &Image, at: u64, end: u64) {
        let mut buf = vec![0; (end - at) as usize];
        client.read_at(&mut buf, at).unwrap();
        let at = at as usize;
        assert!(buf == self.bytes[at..at + buf.len()], "at {at}");
    }

    fn decoded(&self) -> u64 {
        self.steps.times(Step::ReadCompressed)
    }
}

#[test]
fn a_large_cluster_that_four_clients_read_by_pieces_is_decoded_once() {
    const CLUSTER: u64 = 2 << 20;
    let served = Served::new("qcow2", &["-c", "-o", "cluster_size=2M"]);
    // None is a cluster ahead of the others, nor leaves before they come: nothing is kept for those who are not there.
    let together = Barrier::new(4);
    std::thread::scope(|scope| {
        for first in 0..4 {
            let (served, together) = (&served, &together);
            scope.spawn(move || {
                let client = served.client();
                for cluster in (0..LEN).step_by(CLUSTER as usize) {
                    together.wait();
                    for piece in (first..CLUSTER / PIECE).step_by(4) {
                        served.read(&client, cluster + piece * PIECE);
                    }
                }
                together.wait();
            });
        }
    });
    assert_eq!(served.decoded(), LEN / CLUSTER);
}

#[test]
fn large_blocks_and_chunks_that_four_clients_read_by_pieces_are_decoded_once() {
    const UNIT: u64 = 3 << 20;
    // Where the first of them begins: behind the small partitions of a DMG.
    for (name, first) in [
        ("cloop of large blocks", 0),
        ("dmg with a resource fork", 40 * 512),
    ] {
        let given = given::by_name(name);
        let (bytes, image) = given.make();
        let len = bytes.len() as u64;
        let served = Served::of(Dir::new(), given.format, bytes, image);
        let together = Barrier::new(4);
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (served, together) = (&served, &together);
                scope.spawn(move || {
                    let client = served.client();
                    for unit in (first..len).step_by(UNIT as usize) {
                        together.wait();
                        let end = (unit + UNIT).min(len);
                        for at in (unit + n * PIECE..end).step_by(4 * PIECE as usize) {
                            served.read_to(&client, at, (at + PIECE).min(end));
                        }
                    }
                    together.wait();
                });
            }
        });
        assert_eq!(served.decoded(), (len - first).div_ceil(UNIT), "{name}");
    }
}

#[test]
fn who_reads_on_finds_the_rest_decoded_and_the_memory_goes_back() {
    // Several units of a VMDK are read by one step.
    for (format, options, unit, pieces) in [
        ("qcow2", &["-c"][..], 64 << 10, 10),
        ("qcow2", &["-c", "-o", "cluster_size=2M"], 2 << 20, 10),
        ("qcow", &["-c"], 4 << 10, 10),
        ("vmdk", &["-o", "subformat=streamOptimized"], 64 << 10, 6),
    ] {
        let units = |bytes: u64| bytes.div_ceil(unit);
        let served = Served::new(format, options);
        let client = served.client();
        for at in (0..4 * PIECE).step_by(PIECE as usize) {
            served.read(&client, at);
        }
        let late = Instant::now() + Duration::from_secs(60);
        // All of a window, without anyone asking.
        while served.decoded() < units(pieces * PIECE) {
            assert!(Instant::now() < late, "{format} {options:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(served.server.statistics().memory >= 1 << 20);
        for at in (4 * PIECE..LEN).step_by(PIECE as usize) {
            served.read(&client, at);
        }
        // Who reads a whole unit by itself may do so while it is decoded ahead.
        if unit > PIECE {
            assert_eq!(served.decoded(), units(LEN), "{format} {options:?}");
        }
        drop(client);
        while served.server.statistics().memory > 0 {
            let now = served.server.statistics();
            assert!(Instant::now() < late, "{format} {options:?}: {now:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
