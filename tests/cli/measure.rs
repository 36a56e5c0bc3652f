//! `measure`: sizes of new images, empty or with the contents of another.

use crate::pair::{Pair, ours, words};

fn images() -> Pair {
    let pair = Pair::with(&[
        "create -q -f qcow2 a.qcow2 100M",
        "create -q -f qcow2 -o compat=0.10 v2.qcow2 100M",
        "create -q -f qcow2 bits.qcow2 10G",
        "bitmap --add bits.qcow2 b0",
        "bitmap --add -g 512 bits.qcow2 another_longer_name",
        "create -q -f raw r.raw 5M",
        "create -q -f qcow2 -b a.qcow2 -F qcow2 top.qcow2",
        "create -q -f qcow2 -o preallocation=metadata sparse.qcow2 50M",
    ]);
    let writes = [
        "write 0 1M",
        "write -z 5M 1M",
        "write 20000000 512",
        "write 40M 3k",
    ];
    pair.qemu_io("qcow2", "a.qcow2", &writes);
    pair.qemu_io("qcow2", "v2.qcow2", &writes[..1]);
    pair.qemu_io("qcow2", "sparse.qcow2", &["write 5M 1M", "write 20M 512"]);
    pair.qemu_io("raw", "r.raw", &["write 1M 64k", "write 3M 4k"]);
    pair.qemu_io("qcow2", "top.qcow2", &["write 0 64k", "write 50M 1M"]);
    pair
}

#[test]
fn reports() {
    let mut lines = Vec::new();
    for target in [
        "-O raw",
        "",
        "-O qcow2",
        "-O qcow2 -o cluster_size=1k",
        "-O qcow2 -o compat=0.10",
        "-O qcow2 -o extended_l2=on",
        "-O qcow2 -o refcount_bits=1",
        "-O qcow2 -o preallocation=metadata",
        "-O qcow2 -o preallocation=falloc",
        "-O qcow2 -o preallocation=full,size=3G",
    ] {
        for source in [
            "--size 0",
            "--size 1",
            "--size 513",
            "--size 1G",
            "--size 3T",
            "-f qcow2 a.qcow2",
            "v2.qcow2",
            "bits.qcow2",
            "sparse.qcow2",
            "-f raw r.raw",
            "top.qcow2",
            "--image-opts driver=qcow2,file.filename=a.qcow2",
        ] {
            lines.push(format!("measure {target} {source}"));
            lines.push(format!("measure --output=json {target} -U {source}"));
        }
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    images().all_same(&lines);
}

#[test]
fn mistakes() {
    let lines = [
        "measure",
        "measure a.qcow2 b.qcow2",
        "measure --size 1G a.qcow2",
        "measure -f qcow2 --size 1G",
        "measure --image-opts --size 1G",
        "measure -O bogus --size 1",
        "measure -O qcow2 -o bogus=1 --size 1",
        "measure -O qcow2 -o cluster_size=3k --size 1G",
        "measure --size 1kb",
        "measure --size -1",
        "measure nope.raw",
        "measure --output x --size 1",
    ];
    images().all_same(&lines);
}

#[test]
fn snapshots_and_parts_of_chains() {
    let pair = images();
    pair.qemu("create -q -f qcow2 snap.qcow2 3M");
    pair.qemu_io("qcow2", "snap.qcow2", &["write 0 64k"]);
    pair.qemu("snapshot -c one snap.qcow2");
    pair.qemu_io("qcow2", "snap.qcow2", &["write 1M 1M"]);
    let mut lines = Vec::new();
    for source in [
        "-l one snap.qcow2",
        "-l 1 snap.qcow2",
        "-l two snap.qcow2",
        "-l '' snap.qcow2",
        "-l snapshot.name=one snap.qcow2",
        "-l snapshot.id=1,snapshot.name=one snap.qcow2",
        "-l snapshot.id=2 snap.qcow2",
        "-l snapshot.foo=2 snap.qcow2",
        "--snapshot one snap.qcow2",
        "-l one --image-opts driver=qcow2,file.filename=snap.qcow2",
        "-l one -f raw r.raw",
        "-l one top.qcow2",
        "-l one",
        "-l one --size 1M",
        r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"top.qcow2"},"backing":null}"#,
        r#"json:{"driver":"qcow2","file.filename":"top.qcow2","backing":{"driver":"raw","file.filename":"r.raw"}}"#,
        r#"json:{"driver":"qcow2","file.filename":"top.qcow2","backing":"nope"}"#,
        "--image-opts driver=qcow2,file.filename=top.qcow2,backing.driver=raw,backing.file.filename=r.raw",
        "json:{}",
        "json:{",
        "--image-opts foo",
        "--image-opts driver=bogus",
        "-f bogus a.qcow2",
    ] {
        for target in [
            "",
            "-O qcow2",
            "-O qcow2 -o cluster_size=4k",
            "--output=json -O qcow2",
        ] {
            lines.push(format!("measure {target} {source}"));
        }
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

/// What the tables of a qcow2 image take, over everything that changes their size.
#[test]
fn sizes_by_all_options() {
    let mut lines = Vec::new();
    for (at, size) in ["0", "1", "512", "65537", "100M", "1T"].iter().enumerate() {
        for clusters in ["512", "4k", "64k", "2M"] {
            for bits in ["1", "16", "64"] {
                let extras = [
                    "",
                    ",preallocation=metadata",
                    ",preallocation=full",
                    ",data_file=d.raw",
                    ",data_file=d.raw,data_file_raw=on",
                    ",lazy_refcounts=on",
                ];
                // Each size with each pair of the others, in turn.
                let extra = extras[(at + lines.len()) % extras.len()];
                lines.push(format!(
                    "measure -O qcow2 -o cluster_size={clusters},refcount_bits={bits}{extra} --size {size}"
                ));
            }
        }
        for clusters in ["16k", "2M"] {
            lines.push(format!(
                "measure -O qcow2 -o extended_l2=on,cluster_size={clusters},data_file=d.raw --size {size}"
            ));
        }
    }
    let wrong = [
        "-o help",
        "-O qcow2 -o backing_file=x,,help",
        "-o ?",
        "-o bogus=1",
        "-O qcow2 -o cluster_size=4M",
        "-O qcow2 -o compat=foo",
        "-O qcow2 -o compat=0.10,refcount_bits=8",
        "-O qcow2 -o extended_l2=on,cluster_size=4k",
        "-O qcow2 -o preallocation=foo",
        "-O qcow2 -o backing_file=a.qcow2",
        "-O qcow2 -o backing_fmt=qcow2",
        "-O qcow2 -o backing_file=a.qcow2,backing_fmt=qcow2",
        "-O qcow2 -o ,,",
        "-O qcow2 -o encryption=on",
        "-O qcow2 -o encrypt.format=aes,compat=0.10",
        "-O qcow2 -o encrypt.format=luks",
        "-O raw -o cluster_size=1M",
        "-O qcow2 -o cluster_size=512",
    ];
    for options in wrong {
        for source in ["--size 1M", "a.qcow2"] {
            lines.push(format!("measure {options} {source}"));
        }
    }
    for size in ["16E", "8E", "1.5", "''", "7E", "63T", "64P"] {
        lines.push(format!("measure -O qcow2 -o cluster_size=2M --size {size}"));
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    images().all_same(&lines);
}

/// `qemu-img measure` gives the size of images that it would refuse to create.
#[test]
fn what_cannot_be_created_is_not_measured() {
    let pair = images();
    for (options, text) in [
        (
            "-O qcow2 -o compat=0.10,lazy_refcounts=on",
            "Lazy refcounts only",
        ),
        (
            "-O qcow2 -o compat=0.10,compression_type=zstd",
            "Non-zlib compression",
        ),
        (
            "-O qcow2 -o data_file_raw=on",
            "data-file-raw requires data-file",
        ),
        (
            "-O qcow2 -o encrypt.format=foo",
            "does not accept value 'foo'",
        ),
        (
            "-O qcow2 -o compression_type=foo",
            "does not accept value 'foo'",
        ),
        (
            "-O raw -o preallocation=metadata",
            "Unsupported preallocation mode",
        ),
        ("-O raw --size 9223372036854775807", "too large"),
    ] {
        let size = if options.contains("--size") {
            ""
        } else {
            "--size 1M"
        };
        let line = format!("measure {options} {size}");
        let ran = ours(&words(&line), pair.ours().root());
        assert!(ran.code == 1 && ran.err.contains(text), "{line}: {ran:?}");
    }
}
