//! New qcow2 images against `qemu-img`: same description, clean check, same contents.

use std::path::Path;

use crate::common::{Dir, Random};
use platter::codec::Encoder;
use platter::error::Result;
use platter::format::qcow2::DRIVER;
use platter::format::{BackingRef, Bulk};
use platter::object::Objects;
use platter::ops::create::{TargetRequest, option_table, target};
use platter::options::{Options, Values};
use platter::storage::{CacheMode, Durability};
use platter::{Location, OpenPolicy};
use serde_json::Value;

/// Creates an image and lets `fill` write it.
fn make(
    path: &Path,
    size: u64,
    options: &str,
    backing: Option<&str>,
    fill: impl FnOnce(&dyn Bulk) -> Result<()>,
) -> Result<()> {
    let location = Location::from_path(path);
    let table = option_table(&DRIVER, &location)?;
    let options = if options.is_empty() {
        Options::new()
    } else {
        Options::parse(options)?
    };
    let values = Values::check(&options, &table)?;
    let backing = backing.map(|name| BackingRef {
        name: name.into(),
        format: Some("raw".into()),
    });
    let request = TargetRequest {
        location: &location,
        driver: &DRIVER,
        size,
        values: &values,
        backing: backing.as_ref(),
        exclusive: false,
        cache: CacheMode::Writeback,
        objects: &Objects::default(),
        policy: &OpenPolicy::permissive(),
        storages: None,
        is_filled: false,
        control: &std::sync::Arc::default(),
        package: None,
    };
    request.plan()?;
    let new = target(&request)?;
    fill(new.bulk())?;
    new.finish(Durability::Ordered)
}

/// The description by `qemu-img info`, without what may differ.
fn info(dir: &Dir, image: &str) -> Value {
    let text = dir.qemu_img_ok(&["info", "--output=json", "-f", "qcow2", image]);
    let mut info: Value = serde_json::from_str(&text).unwrap();
    // Files of ours end with a whole cluster.
    for child in info["children"].as_array_mut().into_iter().flatten() {
        child["info"]["virtual-size"] = Value::Null;
    }
    strip(&mut info);
    info
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("filename");
            map.remove("actual-size");
            map.values_mut().for_each(strip);
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}

fn check_clean(dir: &Dir, image: &str) {
    let ran = dir.qemu_img(&["check", "-f", "qcow2", image]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
}

/// Guest bytes in runs of text, noise and zeroes.
fn contents(random: &mut Random, size: usize, cluster: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let mut at = 0;
    while at < size {
        let len = (random.below(12) as usize + 1) * cluster / 8;
        let end = (at + len).min(size);
        match random.below(3) {
            0 => {}
            1 => {
                for (byte, n) in bytes[at..end].iter_mut().zip(0u64..) {
                    *byte = b"a line of text, again and again\n"[(n % 32) as usize] ^ (at as u8);
                }
            }
            _ => bytes[at..end].fill_with(|| random.below(251) as u8 + 1),
        }
        at = end;
    }
    bytes
}

/// Writes `bytes` to where they are reserved, in as many runs as that takes.
fn write(bulk: &dyn Bulk, bytes: &[u8], at: usize) -> Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let place = bulk.reserve((at + done) as u64, (bytes.len() - done) as u64)?;
        let end = done + place.len as usize;
        let storage = bulk.storage(place.slot)?;
        storage.write_at(&bytes[done..end], place.offset)?;
        done = end;
    }
    Ok(())
}

/// Writes `bytes` as convert does, in runs of random length.
fn fill(bulk: &dyn Bulk, bytes: &[u8], compress: bool, random: &mut Random) -> Result<()> {
    let unit = bulk.encode_unit().expect("a unit") as usize;
    let piece = bulk.zero_unit() as usize;
    let mut encoder = Encoder::new();
    let mut packed = platter::memory::IoBuf::new();
    let zero = |range: &[u8]| range.iter().all(|&b| b == 0);
    let mut at = 0;
    while at < bytes.len() {
        let one = &bytes[at..(at + unit).min(bytes.len())];
        if zero(one) {
            bulk.reserve_zero(at as u64, one.len() as u64)?;
            at += one.len();
        } else if compress && bulk.encode(&mut encoder, at as u64, one, &mut packed)? {
            let (slot, host) = bulk.reserve_encoded(at as u64, packed.len() as u32)?;
            bulk.storage(slot)?.write_at(&packed, host)?;
            at += one.len();
        } else if piece < unit && random.below(2) == 0 {
            // Runs of subclusters, across the borders of clusters.
            let len = unit * (random.below(40) as usize + 1);
            let end = (at + len).min(bytes.len());
            while at < end {
                let is_zero = zero(&bytes[at..(at + piece).min(end)]);
                let mut to = at;
                while to < end && zero(&bytes[to..(to + piece).min(end)]) == is_zero {
                    to = (to + piece).min(end);
                }
                if is_zero {
                    bulk.reserve_zero(at as u64, (to - at) as u64)?;
                } else {
                    write(bulk, &bytes[at..to], at)?;
                }
                at = to;
            }
        } else if piece < unit && random.below(2) == 0 {
            for part in one.chunks(piece) {
                if zero(part) {
                    bulk.reserve_zero(at as u64, part.len() as u64)?;
                } else {
                    write(bulk, part, at)?;
                }
                at += part.len();
            }
        } else {
            let len = unit * (random.below(80) as usize + 1);
            let run = &bytes[at..(at + len).min(bytes.len())];
            write(bulk, run, at)?;
            at += run.len();
        }
    }
    Ok(())
}

#[test]
fn empty_images_are_described_alike() {
    let dir = Dir::new();
    for (options, size) in [
        ("", 0),
        ("", 1 << 20),
        ("", 10 << 30),
        ("", 64 << 40),
        ("compat=0.10", 1 << 30),
        ("compat=v3,lazy_refcounts=on", 1 << 30),
        ("cluster_size=512", 1 << 30),
        ("cluster_size=512,refcount_bits=64", 64 << 20),
        ("cluster_size=4k,refcount_bits=1", 1 << 30),
        ("cluster_size=2M", 1 << 40),
        ("extended_l2=on,cluster_size=16k", 1 << 30),
        ("compression_type=zstd", 1 << 30),
        ("preallocation=metadata", 64 << 20),
        ("preallocation=metadata,extended_l2=on", 64 << 20),
        ("preallocation=falloc", 8 << 20),
        ("preallocation=full,cluster_size=4k", (1 << 20) + 512),
    ] {
        dir.qemu_img_ok(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            if options.is_empty() {
                "compat=1.1"
            } else {
                options
            },
            "theirs",
            &size.to_string(),
        ]);
        make(&dir.path("ours"), size, options, None, |_| Ok(())).unwrap();
        check_clean(&dir, "ours");
        assert_eq!(info(&dir, "ours"), info(&dir, "theirs"), "{options} {size}");
        let whole = |image| {
            let text = dir.qemu_img_ok(&["map", "--output=json", image]);
            let map: Vec<Value> = serde_json::from_str(&text).unwrap();
            let bytes = |key: &str| -> u64 {
                let of = |extent: &&Value| extent[key] == Value::Bool(true);
                let len = |extent: &Value| extent["length"].as_u64();
                map.iter().filter(of).filter_map(len).sum()
            };
            (bytes("present"), bytes("data"))
        };
        assert_eq!(whole("ours"), whole("theirs"), "{options} {size}");
    }
}

#[test]
fn backing_and_data_files_are_recorded_alike() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "base.raw", "1M"]);
    let base = dir.str("base.raw");
    for options in [
        "compat=1.1",
        "compat=0.10",
        "cluster_size=512",
        "extended_l2=on,preallocation=metadata",
    ] {
        dir.qemu_img_ok(&[
            "create", "-q", "-f", "qcow2", "-o", options, "-b", &base, "-F", "raw", "theirs",
        ]);
        make(&dir.path("ours"), 1 << 20, options, Some(&base), |_| Ok(())).unwrap();
        check_clean(&dir, "ours");
        assert_eq!(info(&dir, "ours"), info(&dir, "theirs"), "{options}");
        dir.qemu_img_ok(&["compare", "-f", "qcow2", "-F", "raw", "ours", "base.raw"]);
    }
    for options in ["", ",data_file_raw=on", ",preallocation=full"] {
        let data = dir.str("data.raw");
        let options = format!("data_file={data}{options}");
        dir.qemu_img_ok(&[
            "create", "-q", "-f", "qcow2", "-o", &options, "theirs", "1M",
        ]);
        let theirs = info(&dir, "theirs");
        let len = std::fs::metadata(&data).unwrap().len();
        make(&dir.path("ours"), 1 << 20, &options, None, |_| Ok(())).unwrap();
        check_clean(&dir, "ours");
        assert_eq!(info(&dir, "ours"), theirs, "{options}");
        assert_eq!(std::fs::metadata(&data).unwrap().len(), len, "{options}");
    }
}

#[test]
fn filled_images_hold_what_was_written() {
    let dir = Dir::new();
    let data = dir.str("data.raw");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (cluster, options, compress) in [
        (65536, "", false),
        (65536, "", true),
        (65536, "compression_type=zstd", true),
        (65536, "compat=0.10", true),
        (512, "cluster_size=512", false),
        (512, "cluster_size=512,refcount_bits=64", true),
        (4096, "cluster_size=4k,refcount_bits=1", true),
        (
            4096,
            "cluster_size=4k,refcount_bits=2,compression_type=zstd",
            true,
        ),
        (1024, "cluster_size=1k,refcount_bits=8", true),
        (2 << 20, "cluster_size=2M,refcount_bits=32", true),
        (16384, "cluster_size=16k,extended_l2=on", false),
        (
            16384,
            "cluster_size=16k,extended_l2=on,refcount_bits=64",
            true,
        ),
        (65536, "extended_l2=on", true),
        (65536, "preallocation=metadata", false),
        (4096, "cluster_size=4k,preallocation=full", false),
        (
            16384,
            "cluster_size=16k,extended_l2=on,preallocation=falloc",
            false,
        ),
        (65536, "DATA", false),
        (
            16384,
            "DATA,data_file_raw=on,cluster_size=16k,extended_l2=on",
            false,
        ),
        (65536, "DATA,data_file_raw=on", false),
    ] {
        let size = (cluster * 75).clamp(3 << 20, 40 << 20) + 1536;
        let bytes = contents(&mut random, size, cluster);
        std::fs::write(dir.path("raw"), &bytes).unwrap();
        let options = options.replace("DATA", &format!("data_file={data}"));
        make(&dir.path("ours"), size as u64, &options, None, |bulk| {
            fill(bulk, &bytes, compress, &mut random)
        })
        .unwrap();
        check_clean(&dir, "ours");
        let ran = dir.qemu_img(&["compare", "-f", "qcow2", "-F", "raw", "ours", "raw"]);
        assert_eq!(ran.code, 0, "{options}: {ran:?}");
        if options.contains("data_file_raw") {
            dir.qemu_img_ok(&["compare", "-f", "raw", "-F", "raw", &data, "raw"]);
        }
    }
}

#[test]
fn matches_at_the_longest_distance_decode() {
    // Deflate may refer back 32 KiB; a reader with a smaller window would fail here.
    let dir = Dir::new();
    let mut random = Random(5);
    let noise: Vec<u8> = (0..30_000).map(|_| random.below(256) as u8).collect();
    let bytes: Vec<u8> = noise.iter().copied().cycle().take(4 << 20).collect();
    std::fs::write(dir.path("raw"), &bytes).unwrap();
    for (options, cluster) in [
        ("", 1u64 << 16),
        ("cluster_size=2M", 2 << 20),
        ("compression_type=zstd", 1 << 16),
    ] {
        make(
            &dir.path("ours"),
            bytes.len() as u64,
            options,
            None,
            |bulk| fill(bulk, &bytes, true, &mut random),
        )
        .unwrap();
        check_clean(&dir, "ours");
        dir.qemu_img_ok(&["compare", "-f", "qcow2", "-F", "raw", "ours", "raw"]);
        let len = std::fs::metadata(dir.path("ours")).unwrap().len();
        let tables = 6 * cluster;
        assert!(
            len < bytes.len() as u64 * 3 / 4 + tables,
            "{options}: {len}"
        );
    }
}

#[test]
fn zeroes_hide_a_backing_file() {
    let dir = Dir::new();
    let mut random = Random(77);
    for options in [
        "cluster_size=64k",
        "cluster_size=16k,extended_l2=on",
        "cluster_size=16k,extended_l2=on,preallocation=metadata",
    ] {
        let size = (4 << 20) + 512;
        let below: Vec<u8> = (0..size).map(|n| (n % 251) as u8 + 1).collect();
        std::fs::write(dir.path("base"), &below).unwrap();
        let bytes = contents(&mut random, size, 16384);
        std::fs::write(dir.path("raw"), &bytes).unwrap();
        let base = dir.str("base");
        make(
            &dir.path("ours"),
            size as u64,
            options,
            Some(&base),
            |bulk| fill(bulk, &bytes, false, &mut random),
        )
        .unwrap();
        check_clean(&dir, "ours");
        let ran = dir.qemu_img(&["compare", "-f", "qcow2", "-F", "raw", "ours", "raw"]);
        assert_eq!(ran.code, 0, "{options}: {ran:?}");
    }
}

#[test]
fn an_unfinished_image_does_not_open() {
    let dir = Dir::new();
    for options in ["", "preallocation=metadata"] {
        make(&dir.path("done"), 1 << 20, options, None, |bulk| {
            write(bulk, &[5; 65536], 0)?;
            std::fs::copy(dir.path("done"), dir.path("cut")).unwrap();
            Ok(())
        })
        .unwrap();
        let ran = dir.qemu_img(&["info", "-f", "qcow2", "cut"]);
        assert_eq!(
            ran.err,
            "qemu-img: Could not open 'cut': Image is not in qcow2 format\n"
        );
    }
}

#[test]
fn wrong_options_have_the_same_words() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "base", "1M"]);
    let long = "a".repeat(1024);
    for (options, size, backing) in [
        ("compat=0.9", "1M", None),
        ("preallocation=foo", "1M", None),
        ("compression_type=foo", "1M", None),
        ("refcount_bits=3", "1M", None),
        ("refcount_bits=0", "1M", None),
        ("refcount_bits=128", "1M", None),
        ("compat=0.10,refcount_bits=8", "1M", None),
        ("compat=v2,lazy_refcounts=on", "1M", None),
        ("compat=v2,extended_l2=on", "1M", None),
        ("compat=v2,compression_type=zstd", "1M", None),
        ("compat=v2,data_file=nope", "1M", None),
        ("extended_l2=on,cluster_size=8k", "1M", None),
        ("cluster_size=3000", "1M", None),
        ("cluster_size=256", "1M", None),
        ("cluster_size=4M", "1M", None),
        ("data_file_raw=on", "1M", None),
        ("cluster_size=512", "129G", None),
        ("extended_l2=on,cluster_size=16k", "65T", None),
        ("encryption=on", "1M", None),
        ("encrypt.format=foo", "1M", None),
        ("encrypt.iter-time=5", "1M", None),
        ("encrypt.format=aes,encryption=on", "1M", None),
        ("preallocation=metadata", "1M", Some("base")),
        ("data_file_raw=on,data_file=nope", "1M", Some("base")),
        ("compat=1.1", "1M", Some(long.as_str())),
    ] {
        let mut args = vec!["create", "-q", "-f", "qcow2", "-o", options];
        if let Some(name) = backing {
            args.extend(["-u", "-b", name, "-F", "raw"]);
        }
        args.extend(["theirs", size]);
        let ran = dir.qemu_img(&args);
        let bytes = platter::size::parse_size(size).unwrap();
        let error = make(&dir.path("ours"), bytes, options, backing, |_| Ok(()));
        let error = error.expect_err(options);
        assert_eq!(format!("qemu-img: theirs: {error}\n"), ran.err, "{options}");
        assert!(!dir.path("ours").exists(), "{options}");
    }
}
