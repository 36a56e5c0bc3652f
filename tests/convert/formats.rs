//! Every kind of new target, and every kind of source.

use std::fs;

use crate::common::Dir;
use crate::support::{check, disk, request, run_ok, verify, with_options};

#[test]
fn raw_to_every_kind_of_qcow2() {
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    for options in [
        "",
        "cluster_size=512",
        "cluster_size=4k",
        "cluster_size=2M",
        "compat=0.10",
        "refcount_bits=1",
        "refcount_bits=64,cluster_size=1k",
        "lazy_refcounts=on",
        "extended_l2=on",
        "extended_l2=on,cluster_size=16k",
        "extended_l2=on,cluster_size=2M",
        "compression_type=zstd",
        "preallocation=metadata",
        "preallocation=falloc",
        "preallocation=full",
    ] {
        run_ok(&with_options(&dir, "a.raw", "b.qcow2", "qcow2", options));
        verify(&dir, "a.raw", "b.qcow2", "qcow2");
        fs::remove_file(dir.path("b.qcow2")).expect(options);
    }
}

#[test]
fn the_data_may_go_to_a_file_of_its_own() {
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    for raw in ["off", "on"] {
        let options = format!("data_file={},data_file_raw={raw}", dir.str("b.data"));
        run_ok(&with_options(&dir, "a.raw", "b.qcow2", "qcow2", &options));
        verify(&dir, "a.raw", "b.qcow2", "qcow2");
        if raw == "on" {
            verify(&dir, "a.raw", "b.data", "raw");
        }
        run_ok(&request(&dir, "b.qcow2", "c.raw", "raw"));
        verify(&dir, "a.raw", "c.raw", "raw");
    }
}

#[test]
fn compressed_targets() {
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    for options in [
        "",
        "cluster_size=4k",
        "cluster_size=512",
        "cluster_size=2M",
        "compat=0.10",
        "compression_type=zstd",
        "compression_type=zstd,cluster_size=2M",
        "extended_l2=on",
        "refcount_bits=8",
    ] {
        let mut request = with_options(&dir, "a.raw", "b.qcow2", "qcow2", options);
        request.target.compress = true;
        let report = run_ok(&request);
        assert!(report.compressed_units > 0, "{options}: {report:?}");
        verify(&dir, "a.raw", "b.qcow2", "qcow2");
        // And back, from clusters of our own compression.
        run_ok(&self::request(&dir, "b.qcow2", "c.raw", "raw"));
        verify(&dir, "a.raw", "c.raw", "raw");
        fs::remove_file(dir.path("b.qcow2")).expect(options);
    }
}

#[test]
fn sources_that_qemu_has_made() {
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    for options in [
        &["-o", "cluster_size=64k"] as &[&str],
        &["-o", "cluster_size=512"],
        &["-o", "cluster_size=2M"],
        &["-o", "compat=0.10"],
        &["-o", "extended_l2=on"],
        &["-o", "refcount_bits=1"],
        &["-c"],
        &["-c", "-o", "compression_type=zstd"],
        &["-c", "-W", "-m", "16"],
        &["-S", "0"],
    ] {
        let args = [
            &["convert", "-f", "raw", "-O", "qcow2"],
            options,
            &["a.raw", "b.qcow2"],
        ]
        .concat();
        dir.qemu_img_ok(&args);
        for (target, format) in [("c.raw", "raw"), ("c.qcow2", "qcow2")] {
            run_ok(&request(&dir, "b.qcow2", target, format));
            verify(&dir, "a.raw", target, format);
        }
    }
}

#[test]
fn the_layout_does_not_depend_on_the_number_of_workers() {
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    for (options, compress) in [
        ("", false),
        ("cluster_size=4k", false),
        ("extended_l2=on", false),
        ("", true),
        ("cluster_size=8k", true),
        ("compression_type=zstd", true),
    ] {
        let mut first = Vec::new();
        for workers in [1, 2, 5, 16] {
            let mut request = with_options(&dir, "a.raw", "b.qcow2", "qcow2", options);
            request.target.compress = compress;
            request.tuning.parallel = Some(workers);
            run_ok(&request);
            let bytes = fs::read(dir.path("b.qcow2")).expect("the target");
            fs::remove_file(dir.path("b.qcow2")).expect("the target");
            if first.is_empty() {
                first = bytes;
            } else {
                assert!(bytes == first, "{options} with {workers} workers differs");
            }
        }
    }
}

#[test]
fn sizes_at_the_edges() {
    let dir = Dir::new();
    for size in ["0", "512", "4096", "65536", "66048", "2097152", "2097664"] {
        dir.qemu_img_ok(&["create", "-q", "-f", "raw", "a.raw", size]);
        for fill in [false, true] {
            if fill && size != "0" {
                dir.qemu_io("raw", "a.raw", &[&format!("write -q -P 5 0 {size}")]);
            }
            for (format, compress) in [("raw", false), ("qcow2", false), ("qcow2", true)] {
                let mut request = request(&dir, "a.raw", "b.img", format);
                request.source.options.format = Some("raw".to_owned());
                request.target.compress = compress;
                let report = run_ok(&request);
                assert_eq!(report.virtual_size.to_string(), size);
                verify(&dir, "a.raw", "b.img", format);
            }
        }
    }
}

#[test]
fn long_holes_cost_nothing() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "a.qcow2", "8T"]);
    dir.qemu_io("qcow2", "a.qcow2", &["write -q -P 7 5T 64k"]);
    let report = run_ok(&request(&dir, "a.qcow2", "b.qcow2", "qcow2"));
    assert_eq!(report.data_bytes, 65536);
    verify(&dir, "a.qcow2", "b.qcow2", "qcow2");
}

#[test]
fn every_cache_mode_writes_the_same() {
    use platter::storage::CacheMode;
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    // Direct I/O reserves more than it writes.
    let mut lengths = std::collections::HashMap::new();
    for cache in [
        CacheMode::None,
        CacheMode::Writeback,
        CacheMode::Writethrough,
        CacheMode::Directsync,
        CacheMode::Unsafe,
    ] {
        for (format, compress) in [("raw", false), ("qcow2", false), ("qcow2", true)] {
            let mut request = request(&dir, "a.raw", "b.img", format);
            request.target.cache = cache;
            request.source.options.cache = cache;
            request.target.compress = compress;
            run_ok(&request);
            verify(&dir, "a.raw", "b.img", format);
            let len = std::fs::metadata(dir.path("b.img")).expect("a file").len();
            let first = lengths.entry((format, compress)).or_insert(len);
            assert!(len.abs_diff(*first) < 65536, "{cache:?} {format}: {len}");
        }
    }
}

#[test]
fn several_sources_follow_each_other() {
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    dir.qemu_img_ok(&["convert", "-c", "-O", "qcow2", "a.raw", "a.qcow2"]);
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "empty.raw", "0"]);
    let sources = ["a.raw", "empty.raw", "a.qcow2", "a.raw"];
    dir.qemu_img_ok(
        &[
            &["convert", "-O", "raw"] as &[&str],
            &sources,
            &["expected.raw"],
        ]
        .concat(),
    );
    for (format, compress) in [("raw", false), ("qcow2", false), ("qcow2", true)] {
        let mut request = request(&dir, "a.raw", "b.img", format);
        request.source.images = sources
            .iter()
            .map(|name| platter::Location::from_path(dir.path(name)))
            .collect();
        request.target.compress = compress;
        run_ok(&request);
        verify(&dir, "expected.raw", "b.img", format);
    }
}

#[test]
fn zeroes_stay_sparse_as_far_as_asked() {
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    let mut last = u64::MAX;
    for sparse in [0, 16 << 20, 1 << 20, 64 << 10, 6144, 4096, 1536, 512] {
        let mut taken = 0;
        for (format, compress) in [("raw", false), ("qcow2", false), ("qcow2", true)] {
            let mut request = request(&dir, "a.raw", "b.img", format);
            request.tuning.sparse_size = Some(sparse);
            request.target.compress = compress;
            let report = run_ok(&request);
            verify(&dir, "a.raw", "b.img", format);
            if format == "raw" {
                taken = report.data_bytes;
            }
            if sparse == 0 {
                assert_eq!(report.zero_bytes, 0, "{format}");
                let map = dir.qemu_img_ok(&["map", "--output=json", "-f", format, "b.img"]);
                assert_eq!(map.matches("\"data\": true").count(), map.lines().count());
            }
        }
        if (4096..).contains(&sparse) {
            assert!(taken <= last, "-S {sparse}: {taken} after {last}");
            last = taken;
        }
    }
    check(&dir, "b.img");
}

#[test]
fn formats_of_other_products_hold_what_shrinks_and_what_does_not() {
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    for (format, options) in [
        ("vmdk", ""),
        ("vmdk", "subformat=streamOptimized"),
        ("vmdk", "subformat=twoGbMaxExtentSparse"),
        ("vmdk", "subformat=monolithicFlat"),
        ("vhdx", ""),
        ("vhdx", "subformat=fixed"),
        ("vpc", "force_size=on"),
        ("vpc", "force_size=on,subformat=fixed"),
        ("vdi", ""),
        ("vdi", "static=on"),
        ("qed", ""),
        ("parallels", ""),
        ("qed", "cluster_size=4096,table_size=16"),
        ("qcow", ""),
    ] {
        let name = format!("b.{format}");
        for workers in [1, 4] {
            let mut request = with_options(&dir, "a.raw", &name, format, options);
            request.tuning.parallel = Some(workers);
            run_ok(&request);
            verify(&dir, "a.raw", &name, format);
        }
        let mut back = request(&dir, &name, "c.raw", "raw");
        back.source.options.format = Some(format.to_owned());
        run_ok(&back);
        let ran = dir.qemu_img(&["compare", "-f", "raw", "-F", "raw", "a.raw", "c.raw"]);
        assert!(
            ran.out.contains("Images are identical."),
            "{options}: {ran:?}"
        );
    }
}
