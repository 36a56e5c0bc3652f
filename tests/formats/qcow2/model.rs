//! Random operations on qcow2 images against a byte-array model, judged by `qemu-img` at the end.

use crate::common;
use crate::common::{Dir, Random};
use platter::storage::{CacheMode, ZeroFlags};
use platter::{Image, Location, OpenOptions, OpenPolicy};

/// Operations per configuration.
const OPERATIONS: u32 = 2_200;

#[derive(Clone, Copy)]
struct Config {
    name: &'static str,
    /// Options of `qemu-img create`.
    options: &'static str,
    cluster: u64,
    size: u64,
    backing: bool,
    /// Compressed writes are among the operations.
    compress: bool,
    /// The image has two snapshots and a bitmap before the run.
    history: bool,
    cache: CacheMode,
}

const BASE: Config = Config {
    name: "default",
    options: "",
    cluster: 65536,
    size: (6 << 20) + 1536,
    backing: false,
    compress: true,
    history: false,
    cache: CacheMode::Unsafe,
};

struct Run {
    dir: Dir,
    config: Config,
    random: Random,
    model: Vec<u8>,
}

impl Run {
    fn new(config: Config) -> Self {
        let dir = Dir::new();
        let size = config.size.to_string();
        let mut args = vec!["create", "-q", "-f", "qcow2"];
        let mut model = vec![0; config.size as usize];
        if config.backing {
            // Shorter than the overlay, and with holes.
            let base_size = config.size * 3 / 4 / 512 * 512;
            dir.qemu_img_ok(&[
                "create",
                "-q",
                "-f",
                "qcow2",
                "base",
                &base_size.to_string(),
            ]);
            let half = base_size / 2 / 512 * 512;
            let write = format!("write -P 0xb5 512 {half}");
            let zero = format!("write -z {half} 70k");
            let more = format!("write -P 0x5b {} 100k", half + (90 << 10));
            dir.qemu_io("qcow2", "base", &[&write, &zero, &more]);
            dir.qemu_img_ok(&["convert", "-O", "raw", "base", "base.raw"]);
            let bytes = std::fs::read(dir.path("base.raw")).unwrap();
            model[..bytes.len()].copy_from_slice(&bytes);
            args.extend(["-b", "base", "-F", "qcow2"]);
        }
        // A data file's name is taken relative to the working directory of whoever opens it.
        let data = format!("data_file={}", dir.str("data"));
        let options = config.options.replace("data_file=data", &data);
        if !options.is_empty() {
            args.extend(["-o", &options]);
        }
        args.extend(["image", &size]);
        dir.qemu_img_ok(&args);
        let mut run = Self {
            dir,
            config,
            random: Random(0x9E37_79B9_7F4A_7C15 ^ config.size ^ config.cluster << 32),
            model,
        };
        if config.history {
            run.add_history();
        }
        run
    }

    /// Writes, a snapshot, more writes, a second snapshot, and bitmaps: by QEMU's tools.
    fn add_history(&mut self) {
        let quarter = self.config.size / 4 / 512 * 512;
        for (pattern, name) in [(0x11u8, "one"), (0x22, "two")] {
            let start = quarter * u64::from(pattern & 1) + 1024;
            let write = format!("write -P {pattern} {start} {quarter}");
            self.dir.qemu_io("qcow2", "image", &[&write]);
            self.model[start as usize..(start + quarter) as usize].fill(pattern);
            self.dir.qemu_img_ok(&["snapshot", "-c", name, "image"]);
        }
        if !self.config.options.contains("0.10") {
            self.dir.qemu_img_ok(&["bitmap", "--add", "image", "live"]);
            self.dir
                .qemu_img_ok(&["bitmap", "--add", "--disable", "image", "still"]);
        }
    }

    fn open(&self) -> Image {
        let options = OpenOptions {
            format: Some("qcow2".to_owned()),
            writable: true,
            cache: self.config.cache,
            policy: OpenPolicy::permissive(),
            ..OpenOptions::default()
        };
        Image::open(&Location::from_path(self.dir.path("image")), &options).unwrap()
    }

    fn range(&mut self) -> (u64, u64) {
        let size = self.config.size;
        let offset = match self.random.below(4) {
            0 => self.random.below(size),
            1 => self.random.below(size) / 512 * 512,
            2 => self.random.below(size) / 4096 * 4096,
            _ => self.random.below(size) / self.config.cluster * self.config.cluster,
        };
        let most = match self.random.below(4) {
            0 => 700,
            1 => 5000,
            2 => self.config.cluster + 1,
            _ => self.config.cluster * 3 + 1,
        };
        let len = match self.random.below(3) {
            0 => self.config.cluster.min(most),
            _ => 1 + self.random.below(most),
        };
        (offset, len.min(size - offset))
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        let seed = self.random.next();
        match seed % 4 {
            // Compresses well.
            0..2 => (0..len).map(|i| (seed >> (i / 64 % 8)) as u8).collect(),
            2 => vec![seed as u8 | 1; len as usize],
            _ => {
                let mut random = Random(seed);
                (0..len).map(|_| random.next() as u8).collect()
            }
        }
    }

    fn step(&mut self, image: &mut Image) {
        let (offset, len) = self.range();
        let (from, to) = (offset as usize, (offset + len) as usize);
        match self.random.below(100) {
            0..45 => {
                let bytes = self.bytes(len);
                image.write_at(&bytes, offset).unwrap();
                self.model[from..to].copy_from_slice(&bytes);
            }
            45..60 => {
                let flags = if self.random.below(2) == 0 {
                    ZeroFlags::MAY_UNMAP
                } else {
                    ZeroFlags::empty()
                };
                image.write_zeroes(offset, len, flags).unwrap();
                self.model[from..to].fill(0);
            }
            60..70 => {
                image
                    .format()
                    .writer()
                    .unwrap()
                    .discard(offset, len)
                    .unwrap();
                let cluster = self.config.cluster;
                let start = offset.next_multiple_of(cluster) as usize;
                let end = if to as u64 == self.config.size {
                    to
                } else {
                    (to as u64 / cluster * cluster) as usize
                };
                let hides = !(self.config.backing && self.config.options.contains("0.10"));
                if hides && start < end {
                    self.model[start..end].fill(0);
                }
            }
            70..80 if self.config.compress => {
                let start = offset / self.config.cluster * self.config.cluster;
                let len = self.config.cluster.min(self.config.size - start);
                let bytes = self.bytes(len);
                let compressor = image.compressor().unwrap();
                compressor.write_compressed(&bytes, start).unwrap();
                self.model[start as usize..(start + len) as usize].copy_from_slice(&bytes);
            }
            70..96 => {
                let mut bytes = vec![0xee; len as usize];
                image.read_at(&mut bytes, offset).unwrap();
                self.same(&bytes, offset);
            }
            96..99 => image.flush().unwrap(),
            _ => {
                let old = std::mem::replace(image, {
                    image.flush().unwrap();
                    // Two writers exclude each other: the old one goes first.
                    self.placeholder()
                });
                old.close().unwrap();
                *image = self.open();
            }
        }
    }

    /// Some image to hold the place of one that is reopened.
    fn placeholder(&self) -> Image {
        let path = self.dir.path("placeholder");
        if !path.exists() {
            std::fs::write(&path, [0; 512]).unwrap();
        }
        let options = OpenOptions {
            format: Some("raw".to_owned()),
            ..OpenOptions::default()
        };
        Image::open(&Location::from_path(path), &options).unwrap()
    }

    fn same(&self, bytes: &[u8], offset: u64) {
        let model = &self.model[offset as usize..offset as usize + bytes.len()];
        if bytes != model {
            let mut pairs = bytes.iter().zip(model);
            let at = pairs.position(|(a, b)| a != b).expect("a difference");
            panic!(
                "{}: byte {} is {:#x}, not {:#x}",
                self.config.name,
                offset + at as u64,
                bytes[at],
                model[at]
            );
        }
    }

    fn whole(&self, image: &Image) {
        let mut bytes = vec![0; self.model.len()];
        image.read_at(&mut bytes, 0).unwrap();
        self.same(&bytes, 0);
    }

    /// QEMU's own verdict on the file.
    fn judge(&self) {
        let name = self.config.name;
        let check = self.dir.qemu_img(&["check", "image"]);
        assert_eq!(check.code, 0, "{name}: {check:?}");
        std::fs::write(self.dir.path("model.raw"), &self.model).unwrap();
        let compare =
            self.dir
                .qemu_img(&["compare", "-f", "raw", "-F", "qcow2", "model.raw", "image"]);
        assert_eq!(compare.code, 0, "{name}: {compare:?}");
    }

    /// A bitmap has all that changed since `before`; the other is untouched.
    fn judge_bitmaps(&self, before: &[u8]) {
        if !self.config.history || self.config.options.contains("0.10") {
            return;
        }
        let info = self.dir.qemu_img_ok(&["info", "--output=json", "image"]);
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        let bitmaps = &info["format-specific"]["data"]["bitmaps"];
        let flags = |name| {
            let all = bitmaps.as_array().unwrap();
            all.iter().find(|b| b["name"] == name).unwrap()["flags"].clone()
        };
        assert_eq!(flags("live"), serde_json::json!(["auto"]));
        assert_eq!(flags("still"), serde_json::json!([]));
        let mut recorded = self.model.clone();
        for (offset, len) in common::dirty_ranges(&self.dir, "image", "live") {
            let range = offset as usize..(offset + len) as usize;
            recorded[range.clone()].copy_from_slice(&before[range]);
        }
        let missed = recorded.iter().zip(before).position(|(a, b)| a != b);
        assert_eq!(missed, None, "{}: not recorded", self.config.name);
    }

    fn snapshot(&self, name: &str) -> Vec<u8> {
        self.dir
            .qemu_img_ok(&["convert", "-l", name, "-O", "raw", "image", "snapshot.raw"]);
        std::fs::read(self.dir.path("snapshot.raw")).unwrap()
    }

    fn run(mut self) {
        let before: Vec<_> = if self.config.history {
            ["one", "two"].iter().map(|s| self.snapshot(s)).collect()
        } else {
            Vec::new()
        };
        let start = self.model.clone();
        let mut image = self.open();
        for n in 0..OPERATIONS {
            self.step(&mut image);
            if n % 500 == 499 {
                self.whole(&image);
            }
        }
        self.whole(&image);
        image.close().unwrap();
        self.judge();
        for (bytes, name) in before.iter().zip(["one", "two"]) {
            assert!(
                self.snapshot(name) == *bytes,
                "{}: {name}",
                self.config.name
            );
        }
        self.judge_bitmaps(&start);
        if self.config.history {
            if !self.config.options.contains("0.10") {
                for name in ["live", "still"] {
                    self.dir.qemu_img_ok(&["bitmap", "--remove", "image", name]);
                }
            }
            // Both can still be applied and removed.
            self.dir.qemu_img_ok(&["snapshot", "-a", "one", "image"]);
            self.dir.qemu_img_ok(&["snapshot", "-d", "one", "image"]);
            self.dir.qemu_img_ok(&["snapshot", "-d", "two", "image"]);
            let check = self.dir.qemu_img(&["check", "image"]);
            assert_eq!(check.code, 0, "{}: {check:?}", self.config.name);
        }
    }
}

macro_rules! models {
    ($($name:ident: { $($field:ident: $value:expr),* $(,)? },)*) => {
        $(#[test]
        fn $name() {
            Run::new(Config { name: stringify!($name), $($field: $value,)* ..BASE }).run();
        })*
    };
}

models! {
    defaults: {},
    durable: { cache: CacheMode::Writeback, size: 3 << 20 },
    clusters_of_512: { options: "cluster_size=512", cluster: 512, size: (700 << 10) + 512 },
    clusters_of_512_wide_refcounts: {
        options: "cluster_size=512,refcount_bits=64", cluster: 512, size: 500 << 10,
    },
    clusters_of_4k_narrow_refcounts: {
        options: "cluster_size=4k,refcount_bits=1", cluster: 4096, size: (2 << 20) + 512,
    },
    clusters_of_2m: { options: "cluster_size=2M", cluster: 2 << 20, size: (21 << 20) + 512 },
    refcounts_of_2_bits: { options: "refcount_bits=2,cluster_size=8k", cluster: 8192, size: 2 << 20 },
    refcounts_of_8_bits: { options: "refcount_bits=8" },
    zstd: { options: "compression_type=zstd,cluster_size=32k", cluster: 32768 },
    version_2: { options: "compat=0.10" },
    version_2_backing: { options: "compat=0.10", backing: true },
    backing: { backing: true },
    backing_small_clusters: { options: "cluster_size=1k", cluster: 1024, size: 1 << 20, backing: true },
    extended: { options: "extended_l2=on" },
    extended_backing: { options: "extended_l2=on,cluster_size=128k", cluster: 131_072, backing: true },
    extended_small: {
        options: "extended_l2=on,cluster_size=16k,refcount_bits=32", cluster: 16384, backing: true,
    },
    lazy: { options: "lazy_refcounts=on", cache: CacheMode::Writeback, size: 2 << 20 },
    data_file: { options: "data_file=data", compress: false },
    data_file_raw: { options: "data_file=data,data_file_raw=on", compress: false },
    data_file_extended: {
        options: "data_file=data,extended_l2=on,cluster_size=32k", cluster: 32768, compress: false,
        backing: true,
    },
    preallocated: { options: "preallocation=metadata" },
    history: { history: true },
    history_version_2: { options: "compat=0.10,cluster_size=4k", cluster: 4096, size: 1 << 20, history: true },
    history_extended: { options: "extended_l2=on,cluster_size=16k", cluster: 16384, history: true, backing: true },
    history_small_clusters: { options: "cluster_size=512,refcount_bits=8", cluster: 512, size: 300 << 10, history: true },
}
