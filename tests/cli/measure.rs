//! `measure`: sizes of new images, empty or with the contents of another.

use crate::pair::Pair;

fn images() -> Pair {
    let pair = Pair::with(&[
        "create -q -f qcow2 a.qcow2 100M",
        "create -q -f qcow2 -o compat=0.10 v2.qcow2 100M",
        "create -q -f qcow2 bits.qcow2 10G",
        "bitmap --add bits.qcow2 b0",
        "bitmap --add -g 512 bits.qcow2 another_longer_name",
        "create -q -f raw r.raw 5M",
        "create -q -f qcow2 -b a.qcow2 -F qcow2 top.qcow2",
    ]);
    let writes = [
        "write 0 1M",
        "write -z 5M 1M",
        "write 20000000 512",
        "write 40M 3k",
    ];
    pair.qemu_io("qcow2", "a.qcow2", &writes);
    pair.qemu_io("qcow2", "v2.qcow2", &writes[..1]);
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
