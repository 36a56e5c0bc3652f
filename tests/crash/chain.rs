//! Operations on chains of images, whose files share one log: commit, rebase, amend, snapshots, and
//! resize of an overlay over a longer base.

use std::sync::Arc;

use platter::format::{NewParent, RepairMode};
use platter::ops::amend::{AmendRequest, amend};
use platter::ops::commit::{CommitRequest, commit};
use platter::ops::rebase::{RebaseRequest, rebase};
use platter::ops::resize::{NewSize, ResizeRequest, resize};
use platter::ops::snapshot;
use platter::storage::memory::MemoryStorage;
use platter::storage::testing::Log;
use platter::storage::{CacheMode, Durability, Preallocation, Storage, ZeroFlags};
use platter::{Image, Job, Location, OpenOptions, OpenPolicy, Options, Result};

use crate::random::Random;
use crate::rig::{self, New, SECTOR, Shelf};
use crate::states;

/// An image of a chain.
struct Layer {
    name: &'static str,
    /// Sectors.
    len: usize,
    /// The name and format of what lies below.
    backing: Option<(&'static str, &'static str)>,
    /// `raw`, or options of a qcow2 image, or those of another format behind its name and a space.
    options: &'static str,
}

const fn layer(
    name: &'static str,
    len: usize,
    backing: Option<(&'static str, &'static str)>,
    options: &'static str,
) -> Layer {
    Layer {
        name,
        len,
        backing,
        options,
    }
}

impl Layer {
    fn format(&self) -> &'static str {
        match self.options.split_once(' ') {
            Some((format, _)) => format,
            None if self.options == "raw" => "raw",
            None => "qcow2",
        }
    }

    /// The options of creation.
    fn creation(&self) -> &'static str {
        match self.options.split_once(' ') {
            Some((_, options)) => options,
            None => self.options.trim_start_matches("raw"),
        }
    }

    fn is_encrypted(&self) -> bool {
        self.options.contains("encrypt")
    }

    /// The format, where the location does not tell it.
    fn format_to_name(&self) -> Option<String> {
        let is_told = self.is_encrypted() || ["vhdx", "vdi"].contains(&self.format());
        (!is_told).then(|| self.format().to_owned())
    }
}

const SMALL: &str = "cluster_size=4096";
const LARGE: &str = "cluster_size=16384";
const LUKS: &str = "cluster_size=4096,encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1";

const VHD: &str = "vpc force_size=on";
const VHDX: &str = "vhdx block_size=1M";
const VHDX_4K: &str = "vhdx block_size=1M,logical_sector_size=4096";
const VDI: &str = "vdi ";
const VMDK: &str = "vmdk ";
/// Whose descriptor takes several sectors.
const LONG: &str = concat!(
    "vmdk toolsversion=",
    "1000000000200000000030000000004000000000500000000060000000007000000000800000000090000000000",
    "1000000000200000000030000000004000000000500000000060000000007000000000800000000090000000000",
    "1000000000200000000030000000004000000000500000000060000000007000000000800000000090000000000",
    "1000000000200000000030000000004000000000500000000060000000007000000000800000000090000000000",
    "1000000000200000000030000000004000000000500000000060000000007000000000800000000090000000000",
);
/// Names of 400 and 430 bytes.
const LONG_OLD: &str = concat!(
    "old/012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345",
    "old/012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345",
    "old/012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345",
    "old/012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345",
);
const LONG_NEW: &str = concat!(
    "another/012345678901234567890123456789012345678901234567890123456789012345678901234567",
    "another/012345678901234567890123456789012345678901234567890123456789012345678901234567",
    "another/012345678901234567890123456789012345678901234567890123456789012345678901234567",
    "another/012345678901234567890123456789012345678901234567890123456789012345678901234567",
    "another/012345678901234567890123456789012345678901234567890123456789012345678901234567",
);
const QED: &str = "qed cluster_size=4096,table_size=1";
const QCOW: &str = "qcow ";
const STREAM: &str = "vmdk subformat=streamOptimized";

/// What is done to the topmost layer.
enum Task {
    /// Into the layer of that name, or the one below.
    Commit(Option<&'static str>),
    /// Onto the layer of that name and format, or none; copies are compressed or not.
    Rebase(Option<(&'static str, &'static str)>, bool),
    /// Onto that layer, or none, whatever the guest sees then.
    Rename(Option<(&'static str, &'static str)>),
    /// To so many sectors.
    Resize(usize),
    /// With these options.
    Amend(&'static str),
    /// Creates one, applies it, deletes it.
    Snapshot,
}

struct Chain {
    layers: &'static [Layer],
    task: Task,
}

impl Chain {
    fn top(&self) -> &Layer {
        self.layers.last().unwrap()
    }
}

const CHAINS: &[Chain] = &[
    Chain {
        layers: &[
            layer("base", 700, None, LARGE),
            layer("top", 700, Some(("base", "qcow2")), SMALL),
        ],
        task: Task::Commit(None),
    },
    // The base grows.
    Chain {
        layers: &[
            layer("base", 300, None, SMALL),
            layer("top", 700, Some(("base", "qcow2")), LARGE),
        ],
        task: Task::Commit(None),
    },
    Chain {
        layers: &[
            layer("base", 300, None, "raw"),
            layer("top", 700, Some(("base", "raw")), SMALL),
        ],
        task: Task::Commit(None),
    },
    // Past a layer that is shorter than both.
    Chain {
        layers: &[
            layer("base", 700, None, SMALL),
            layer("mid", 400, Some(("base", "qcow2")), SMALL),
            layer("top", 600, Some(("mid", "qcow2")), SMALL),
        ],
        task: Task::Commit(Some("base")),
    },
    Chain {
        layers: &[
            layer("old", 700, None, SMALL),
            layer("new", 500, None, LARGE),
            layer("top", 700, Some(("old", "qcow2")), SMALL),
        ],
        task: Task::Rebase(Some(("new", "qcow2")), false),
    },
    Chain {
        layers: &[
            layer("old", 700, None, "raw"),
            layer("new", 700, None, LARGE),
            layer("top", 600, Some(("old", "raw")), LARGE),
        ],
        task: Task::Rebase(Some(("new", "qcow2")), true),
    },
    Chain {
        layers: &[
            layer("base", 400, None, SMALL),
            layer("mid", 700, Some(("base", "qcow2")), SMALL),
            layer("top", 700, Some(("mid", "qcow2")), SMALL),
        ],
        task: Task::Rebase(Some(("base", "qcow2")), false),
    },
    Chain {
        layers: &[
            layer("old", 700, None, SMALL),
            layer("top", 700, Some(("old", "qcow2")), SMALL),
        ],
        task: Task::Rebase(None, false),
    },
    // Another name, in the second sector of the header; in a cluster with space for two headers, and for one.
    Chain {
        layers: &[
            layer("old", 300, None, SMALL),
            layer("another", 300, None, SMALL),
            layer("top", 300, Some(("old", "qcow2")), SMALL),
        ],
        task: Task::Rebase(Some(("another", "qcow2")), false),
    },
    Chain {
        layers: &[
            layer("old", 100, None, SMALL),
            layer("another", 100, None, SMALL),
            layer("top", 100, Some(("old", "qcow2")), "cluster_size=1024"),
        ],
        task: Task::Rebase(Some(("another", "qcow2")), false),
    },
    // In a cluster that has space for two only without the names of features, at changing places; in the older
    // version there are none.
    Chain {
        layers: &[
            layer(LONG_OLD, 100, None, SMALL),
            layer(LONG_NEW, 100, None, SMALL),
            layer("top", 100, Some((LONG_OLD, "qcow2")), "cluster_size=1024"),
        ],
        task: Task::Rebase(Some((LONG_NEW, "qcow2")), false),
    },
    Chain {
        layers: &[
            layer(LONG_OLD, 100, None, SMALL),
            layer(LONG_NEW, 100, None, SMALL),
            layer(
                "top",
                100,
                Some((LONG_OLD, "qcow2")),
                "cluster_size=1024,compat=0.10",
            ),
        ],
        task: Task::Rebase(Some((LONG_NEW, "qcow2")), false),
    },
    // Disks that lose their parent, or get one.
    Chain {
        layers: &[
            layer("old", 300, None, VHD),
            layer("top", 300, Some(("old", "vpc")), VHD),
        ],
        task: Task::Rebase(None, false),
    },
    Chain {
        layers: &[
            layer("old", 300, None, VHD),
            layer("top", 300, Some(("old", "vpc")), VHD),
        ],
        task: Task::Rename(None),
    },
    Chain {
        layers: &[layer("new", 300, None, VHD), layer("top", 300, None, VHD)],
        task: Task::Rebase(Some(("new", "vpc")), false),
    },
    Chain {
        layers: &[
            layer("old", 300, None, VHDX),
            layer("top", 300, Some(("old", "vhdx")), VHDX),
        ],
        task: Task::Rebase(None, false),
    },
    Chain {
        layers: &[
            layer("old", 300, None, VHDX),
            layer("top", 300, Some(("old", "vhdx")), VHDX),
        ],
        task: Task::Rename(None),
    },
    Chain {
        layers: &[layer("new", 300, None, VHDX), layer("top", 300, None, VHDX)],
        task: Task::Rebase(Some(("new", "vhdx")), false),
    },
    Chain {
        layers: &[
            layer("new", 304, None, VHDX_4K),
            layer("top", 304, None, VHDX_4K),
        ],
        task: Task::Rebase(Some(("new", "vhdx")), false),
    },
    // Commits, each into a disk of the same format.
    Chain {
        layers: &[
            layer("base", 300, None, VHD),
            layer("top", 300, Some(("base", "vpc")), VHD),
        ],
        task: Task::Commit(None),
    },
    Chain {
        layers: &[
            layer("base", 300, None, VHDX),
            layer("top", 300, Some(("base", "vhdx")), VHDX),
        ],
        task: Task::Commit(None),
    },
    Chain {
        layers: &[
            layer("base", 304, None, VHDX_4K),
            layer("top", 304, Some(("base", "vhdx")), VHDX_4K),
        ],
        task: Task::Commit(None),
    },
    Chain {
        layers: &[
            layer("base", 300, None, VDI),
            layer("top", 300, Some(("base", "vdi")), VDI),
        ],
        task: Task::Commit(None),
    },
    Chain {
        layers: &[
            layer("base", 700, None, SMALL),
            layer("top", 300, Some(("base", "qcow2")), SMALL),
        ],
        task: Task::Resize(650),
    },
    Chain {
        layers: &[
            layer("base", 700, None, VMDK),
            layer("top", 700, Some(("base", "vmdk")), VMDK),
        ],
        task: Task::Commit(None),
    },
    Chain {
        layers: &[
            layer("old", 700, None, VMDK),
            layer("new", 500, None, VMDK),
            layer("top", 700, Some(("old", "vmdk")), VMDK),
        ],
        task: Task::Rebase(Some(("new", "vmdk")), false),
    },
    Chain {
        layers: &[
            layer("old", 700, None, VMDK),
            layer("top", 700, Some(("old", "vmdk")), VMDK),
        ],
        task: Task::Rebase(None, false),
    },
    // Lines come and go in a descriptor that a crash can tear.
    Chain {
        layers: &[
            layer("old", 300, None, VMDK),
            layer("top", 300, Some(("old", "vmdk")), LONG),
        ],
        task: Task::Rebase(None, false),
    },
    Chain {
        layers: &[layer("new", 300, None, VMDK), layer("top", 300, None, LONG)],
        task: Task::Rebase(Some(("new", "vmdk")), false),
    },
    Chain {
        layers: &[
            layer("base", 300, None, LONG),
            layer("top", 300, Some(("base", "vmdk")), LONG),
        ],
        task: Task::Commit(None),
    },
    Chain {
        layers: &[
            layer("old", 700, None, VMDK),
            layer("top", 700, Some(("old", "vmdk")), STREAM),
        ],
        task: Task::Rebase(None, false),
    },
    Chain {
        layers: &[
            layer("base", 700, None, VMDK),
            layer("top", 300, Some(("base", "vmdk")), VMDK),
        ],
        task: Task::Resize(650),
    },
    Chain {
        layers: &[
            layer("base", 700, None, QED),
            layer("top", 700, Some(("base", "qed")), QED),
        ],
        task: Task::Commit(None),
    },
    Chain {
        layers: &[
            layer("old", 700, None, QED),
            layer("new", 500, None, QED),
            layer("top", 700, Some(("old", "qed")), QED),
        ],
        task: Task::Rebase(Some(("new", "qed")), false),
    },
    Chain {
        layers: &[
            layer("old", 700, None, QED),
            layer("top", 700, Some(("old", "qed")), QED),
        ],
        task: Task::Rebase(None, false),
    },
    Chain {
        layers: &[
            layer("base", 700, None, QCOW),
            layer("top", 700, Some(("base", "qcow")), QCOW),
        ],
        task: Task::Commit(None),
    },
    Chain {
        layers: &[
            layer("old", 700, None, QCOW),
            layer("new", 500, None, QCOW),
            layer("top", 700, Some(("old", "qcow")), QCOW),
        ],
        task: Task::Rebase(Some(("new", "qcow")), false),
    },
    Chain {
        layers: &[
            layer("old", 700, None, QCOW),
            layer("top", 700, Some(("old", "qcow")), QCOW),
        ],
        task: Task::Rebase(None, false),
    },
    Chain {
        layers: &[
            layer("base", 700, None, QED),
            layer("top", 300, Some(("base", "qed")), QED),
        ],
        task: Task::Resize(650),
    },
    Chain {
        layers: &[
            layer("base", 300, None, QED),
            layer("top", 700, Some(("base", "qed")), QED),
        ],
        task: Task::Commit(None),
    },
    // An encrypted overlay.
    Chain {
        layers: &[
            layer("base", 300, None, SMALL),
            layer("top", 400, Some(("base", "qcow2")), LUKS),
        ],
        task: Task::Commit(None),
    },
    Chain {
        layers: &[
            layer("old", 300, None, SMALL),
            layer("new", 200, None, "raw"),
            layer("top", 300, Some(("old", "qcow2")), LUKS),
        ],
        task: Task::Rebase(Some(("new", "raw")), false),
    },
    Chain {
        layers: &[
            layer("base", 400, None, SMALL),
            layer("top", 200, Some(("base", "qcow2")), LUKS),
        ],
        task: Task::Resize(300),
    },
    Chain {
        layers: &[
            layer("base", 700, None, SMALL),
            layer("top", 300, Some(("base", "qcow2")), SMALL),
        ],
        task: Task::Amend("refcount_bits=64,size=332800"),
    },
    Chain {
        layers: &[
            layer("base", 400, None, SMALL),
            layer("top", 400, Some(("base", "qcow2")), SMALL),
        ],
        task: Task::Amend("compat=0.10"),
    },
    Chain {
        layers: &[
            layer("base", 400, None, SMALL),
            layer("top", 700, Some(("base", "qcow2")), LARGE),
        ],
        task: Task::Snapshot,
    },
];

fn options(shelf: Shelf, cache: CacheMode) -> OpenOptions {
    OpenOptions {
        cache,
        objects: rig::objects(),
        storages: Some(Arc::new(shelf)),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

fn location(layer: &Layer) -> Location {
    let driver = match layer.format() {
        "vhdx" => r#""driver":"vhdx","replay-log":true"#,
        // It knows its parent by a number, for which a directory would be searched.
        "vdi" if layer.backing.is_some() => {
            r#""driver":"vdi","backing.driver":"vdi","backing.file.driver":"file","backing.file.filename":"base""#
        }
        "vdi" => r#""driver":"vdi""#,
        _ if layer.is_encrypted() => r#""driver":"qcow2","encrypt.key-secret":"s""#,
        _ => return Location::from_path(layer.name),
    };
    let tree = format!(
        r#"json:{{{driver},"file.driver":"file","file.filename":"{}"}}"#,
        layer.name
    );
    Location::parse(&tree).unwrap()
}

fn open(layer: &Layer, options: &OpenOptions) -> Result<Image> {
    let options = OpenOptions {
        format: layer.format_to_name(),
        ..options.clone()
    };
    Image::open(&location(layer), &options)
}

fn contents(image: &Image) -> Result<Vec<Option<u64>>> {
    let mut bytes = vec![0; image.len() as usize];
    image.read_at(&mut bytes, 0)?;
    Ok(bytes.chunks_exact(SECTOR).map(rig::tag_of).collect())
}

/// The bytes of a chain's files, each layer with some data and zeroes of its own.
fn fill(layers: &[Layer], random: &mut Random) -> Vec<Vec<u8>> {
    let files = layers.iter().map(|layer| layer.name);
    let files: Vec<_> = files
        .map(|name| (name, Arc::new(MemoryStorage::new(name))))
        .collect();
    let named = || {
        let file = |(name, file): &(&'static str, Arc<MemoryStorage>)| {
            (*name, file.clone() as Arc<dyn Storage>)
        };
        Shelf(files.iter().map(file).collect())
    };
    for (n, layer) in layers.iter().enumerate() {
        let new = New {
            format: layer.format(),
            options: layer.creation(),
            len: (layer.len * SECTOR) as u64,
            backing: layer.backing,
        };
        let file: [Arc<dyn Storage>; 1] = [files[n].1.clone()];
        let mut below = layers.iter();
        let below = below.find(|other| layer.backing.is_some_and(|(name, _)| name == other.name));
        let parent = below.map(|below| {
            let image = open(below, &options(named(), CacheMode::Unsafe)).unwrap();
            NewParent {
                size: image.len(),
                id: image.format().parent_id(),
                disk_id: image.format().disk_id(),
                ..NewParent::default()
            }
        });
        new.create_over(parent, &file, Durability::None, |_| Ok(()))
            .unwrap();
        let options = OpenOptions {
            writable: true,
            ..options(named(), CacheMode::Unsafe)
        };
        let image = open(layer, &options).unwrap();
        for _ in 0..layer.len / 20 {
            let start = random.below(layer.len);
            let count = 1 + random.below(16.min(layer.len - start));
            let (offset, len) = ((start * SECTOR) as u64, (count * SECTOR) as u64);
            if random.below(4) == 0 {
                image.write_zeroes(offset, len, ZeroFlags::empty()).unwrap();
            } else {
                let bytes = rig::sector_of(random.next()).repeat(count);
                image.write_at(&bytes, offset).unwrap();
            }
        }
        image.close().unwrap();
    }
    files.iter().map(|(_, file)| file.to_vec()).collect()
}

fn onto(location: Location, options: &OpenOptions, backing: Option<(&str, &str)>) -> RebaseRequest {
    RebaseRequest {
        location,
        options: options.clone(),
        backing: backing.map(|(name, _)| name.into()),
        backing_format: backing.map(|(_, format)| format.to_owned()),
        backing_cache: CacheMode::Writeback,
        share_backing: false,
        name_only: false,
        compress: false,
    }
}

fn carry_out(chain: &Chain, options: &OpenOptions) -> Result<()> {
    let mut job = Job::new();
    let top = chain.top();
    let location = location(top);
    let options = &OpenOptions {
        format: top.format_to_name(),
        ..options.clone()
    };
    let writable = OpenOptions {
        writable: true,
        ..options.clone()
    };
    match &chain.task {
        Task::Commit(base) => commit(
            &CommitRequest {
                location,
                options: options.clone(),
                base: base.map(Into::into),
                keep: false,
            },
            &mut job,
        ),
        Task::Rebase(backing, compress) => {
            let request = RebaseRequest {
                compress: *compress,
                ..onto(location, options, *backing)
            };
            rebase(&request, &mut job)
        }
        Task::Rename(backing) => {
            let request = RebaseRequest {
                name_only: true,
                ..onto(location, options, *backing)
            };
            rebase(&request, &mut job)
        }
        Task::Resize(sectors) => {
            let image = Image::open(&location, &writable)?;
            let request = ResizeRequest {
                size: NewSize::Exactly((sectors * SECTOR) as u64),
                preallocation: Preallocation::Off,
                shrink: false,
            };
            resize(&image, &request, &mut job)?;
            image.close()
        }
        Task::Amend(changes) => {
            let image = Image::open(&location, &writable)?;
            let changes = Options::parse(changes)?;
            let request = AmendRequest::new(&image, &changes, &rig::objects(), false)?;
            amend(&image, &request, &mut job)?;
            image.close()
        }
        Task::Snapshot => {
            let image = Image::open(&location, &writable)?;
            let id = snapshot::create(&image, "taken", &mut job)?;
            snapshot::apply(&image, &id, &mut Job::new())?;
            snapshot::delete(&image, "taken", &mut Job::new())?;
            image.close()
        }
    }
}

/// What the topmost image shows before and after the task.
struct Shown {
    before: Vec<Option<u64>>,
    after: Vec<Option<u64>>,
}

fn judge(chain: &Chain, bytes: &[Vec<u8>], shown: &Shown, done: bool) -> Result<(), String> {
    let files = chain.layers.iter().zip(bytes);
    let file = |(layer, bytes): (&Layer, &Vec<u8>)| {
        let file = MemoryStorage::with_bytes(layer.name, bytes.clone());
        (layer.name, Arc::new(file) as Arc<dyn Storage>)
    };
    let files: Vec<_> = files.map(file).collect();
    let options = || options(Shelf(files.clone()), CacheMode::Writeback);
    let open = |layer: &Layer| {
        open(layer, &options()).map_err(|error| format!("{}: {error:?}", layer.name))
    };
    if let Err(text) = open(chain.top()) {
        // Base and overlay are two files: between the change of the one and its record in the other the chain
        // is refused, which naming the base again cures.
        let base = chain
            .top()
            .backing
            .filter(|_| matches!(chain.task, Task::Commit(_)));
        if base.is_none() || done || !text.contains("was changed since") {
            return Err(text);
        }
        let again = RebaseRequest {
            name_only: true,
            ..onto(
                location(chain.top()),
                &OpenOptions {
                    format: chain.top().format_to_name(),
                    ..options()
                },
                base,
            )
        };
        rebase(&again, &mut Job::new()).map_err(|error| format!("named again: {error:?}"))?;
    }
    let top = open(chain.top())?;
    let tags = contents(&top).map_err(|error| format!("cannot be read: {error:?}"))?;
    let before = !done && tags == shown.before;
    if !before && tags != shown.after {
        let differ = |other: &[Option<u64>]| tags.iter().zip(other).position(|(a, b)| a != b);
        return Err(format!(
            "the contents have changed at {:?}",
            differ(&shown.after)
        ));
    }
    drop(top);
    for layer in chain.layers.iter().filter(|layer| layer.format() != "raw") {
        let image = open(layer)?;
        let (report, notes) = rig::check(image.format(), RepairMode::Report)
            .map_err(|error| format!("{}: {error:?}", layer.name))?;
        // With the dirty bit set, refcounts and flags are put in order before the next write.
        let dirty = image.format().info().unwrap().dirty == Some(true);
        if report.check_errors != 0 || report.corruptions != 0 && !dirty {
            return Err(format!("{}: {report:?} {notes:?}", layer.name));
        }
    }
    if !done {
        // Done again, it comes to the same.
        carry_out(chain, &options()).map_err(|error| format!("again: {error:?}"))?;
    }
    Ok(())
}

/// Interrupts the task of each chain at every event; returns the number of states.
pub fn run(cache: CacheMode) -> usize {
    let mut total = 0;
    for (n, chain) in CHAINS.iter().enumerate() {
        let mut random = Random(n as u64);
        let bytes = fill(chain.layers, &mut random);
        let log = Log::new();
        let files = chain.layers.iter().zip(bytes);
        let files: Vec<_> = files
            .map(|(layer, bytes)| (layer.name, log.file(layer.name, bytes)))
            .collect();
        let shelf = || {
            let files = files.iter();
            Shelf(
                files
                    .map(|(name, file)| (*name, file.clone() as _))
                    .collect(),
            )
        };
        let show = || {
            let options = options(shelf(), cache);
            contents(&open(chain.top(), &options).unwrap()).unwrap()
        };
        let before = show();
        carry_out(chain, &options(shelf(), cache)).unwrap();
        let after = show();
        match chain.task {
            Task::Resize(_) | Task::Amend(_) => {
                assert!(after[..before.len()] == before, "chain {n}");
                assert!(after[before.len()..].iter().all(|tag| *tag == Some(0)));
            }
            Task::Rename(_) => assert!(before != after, "chain {n}"),
            _ => assert!(before == after, "chain {n}"),
        }
        let shown = Shown { before, after };
        let end = log.count();
        total += states::each(&log, cache.durability(), &mut random, 1, |crash| {
            if let Err(text) = judge(chain, &crash.files, &shown, crash.count == end) {
                panic!(
                    "chain {n}: {} of the first {} events of {end}: {text}",
                    crash.what, crash.count
                );
            }
        });
    }
    total
}
