//! `compare`: verdicts and exit codes.

use crate::pair::Pair;

fn images() -> Pair {
    let pair = Pair::with(&[
        "create -q zero.raw 4M",
        "create -q -f qcow2 zero.qcow2 4M",
        "create -q a.raw 4M",
        "create -q -f qcow2 small.qcow2 2M",
        "create -q big.raw 6M",
        "create -q none.raw 0",
    ]);
    pair.qemu_io(
        "raw",
        "a.raw",
        &[
            "write -P 1 0 64k",
            "write -P 2 1M 128k",
            "write -P 7 4194303 1",
        ],
    );
    pair.qemu("convert -O qcow2 a.raw a.qcow2");
    pair.qemu("convert -c -O qcow2 a.raw c.qcow2");
    pair.qemu("convert -O qcow2 -S 0 a.raw full.qcow2");
    pair.qemu("create -q -f qcow2 -b a.raw -F raw o.qcow2");
    pair.qemu("create -q -f qcow2 -b a.raw -F raw long.qcow2 8M");
    pair.qemu("create -q -f qcow2 -b a.raw -F raw d.qcow2");
    pair.qemu_io("qcow2", "d.qcow2", &["write -P 9 1234567 1"]);
    pair.qemu("create -q -f qcow2 z.qcow2 4M");
    pair.qemu_io("qcow2", "z.qcow2", &["write -z 0 4M"]);
    pair.file("odd.raw", &[5; 1000]);
    pair
}

#[test]
fn every_pair_of_images() {
    let pair = images();
    let images = [
        "zero.raw",
        "zero.qcow2",
        "a.raw",
        "a.qcow2",
        "c.qcow2",
        "full.qcow2",
        "o.qcow2",
        "long.qcow2",
        "d.qcow2",
        "small.qcow2",
        "big.raw",
        "none.raw",
        "z.qcow2",
        "odd.raw",
    ];
    let mut lines = Vec::new();
    for a in images {
        for b in images {
            lines.push(format!("compare {a} {b}"));
            lines.push(format!("compare -s {a} {b}"));
        }
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

/// What one look at the tables answers for differs from format to format, and the verdict with it.
#[test]
fn strict_comparisons_of_unlike_tables() {
    let pair = Pair::with(&["create -q full.raw 20M", "create -q some.raw 20M"]);
    pair.qemu_io("raw", "full.raw", &["write -P 5 0 20M"]);
    pair.qemu_io(
        "raw",
        "some.raw",
        &["write -P 1 0 64k", "write -P 7 9M 64k"],
    );
    let shapes = [
        ("qcow2", ""),
        ("qcow2", "-o cluster_size=4k"),
        ("qcow2", "-o cluster_size=16k,extended_l2=on"),
        ("vmdk", ""),
        ("vdi", ""),
        ("qcow", ""),
        ("parallels", ""),
    ];
    let mut images = vec![
        ("raw", "full.raw".to_owned()),
        ("raw", "some.raw".to_owned()),
    ];
    for (number, (format, options)) in shapes.into_iter().enumerate() {
        for content in ["full", "some"] {
            let image = format!("{content}{number}.{format}");
            pair.qemu(&format!(
                "convert -f raw -O {format} {options} {content}.raw {image}"
            ));
            images.push((format, image));
        }
    }
    // Larger than what one table maps.
    for format in ["qcow2", "qed", "vmdk", "qcow"] {
        let image = format!("large.{format}");
        pair.qemu(&format!("create -q -f {format} {image} 3G"));
        images.push((format, image));
    }
    let mut lines = Vec::new();
    let stem = |image: &str| image.get(..4).map(str::to_owned);
    for (index, a) in images.iter().enumerate() {
        let same = images[index..].iter().filter(|b| stem(&b.1) == stem(&a.1));
        for b in same {
            lines.push(format!("compare -s -f {} -F {} {} {}", a.0, b.0, a.1, b.1));
        }
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

#[test]
fn options() {
    let pair = images();
    pair.all_same(&[
        "compare -q a.raw zero.raw",
        "compare -q a.raw a.qcow2",
        "compare -q -s a.raw big.raw",
        "compare -f raw -F qcow2 a.raw a.qcow2",
        "compare -f qcow2 -F raw a.raw a.qcow2",
        "compare --left-format raw --right-format qcow2 a.raw a.qcow2",
        "compare --a-format=raw --b-format=raw a.raw a.qcow2",
        "compare -T none a.raw a.qcow2",
        "compare -T directsync a.raw a.qcow2",
        "compare -T unsafe a.raw a.qcow2",
        "compare -U a.raw a.qcow2",
        "compare --image-opts file.filename=a.raw driver=qcow2,file.filename=a.qcow2",
        "compare --image-opts driver=raw,offset=512,size=1k,file.filename=a.raw file.filename=odd.raw",
        "compare -T bogus a.raw a.qcow2",
        "compare -T bogus nope a.qcow2",
        "compare -T None a.raw a.qcow2",
        "compare --image-opts -f raw a.raw b",
        "compare --image-opts -F raw a.raw b",
        "compare --image-opts a.raw b",
    ]);
}

#[test]
fn errors() {
    let pair = images();
    pair.qemu("create -q -f qcow2 -u -b nope.raw -F raw missing.qcow2 1M");
    pair.directory("dir");
    pair.all_same(&[
        "compare",
        "compare a.raw",
        "compare a.raw a.raw a.raw",
        "compare nope a.raw",
        "compare a.raw nope",
        "compare nope nope2",
        "compare -f bogus a.raw a.qcow2",
        "compare -F bogus a.raw a.qcow2",
        "compare -f qcow2 a.raw a.qcow2",
        "compare a.raw missing.qcow2",
        "compare '' a.raw",
        "compare dir a.raw",
        "compare foo:x a.raw",
        "compare --zz a.raw a.qcow2",
        "compare -q nope a.raw",
    ]);
}

#[test]
fn an_unreadable_cluster() {
    let pair = images();
    // A compressed cluster whose bytes are no deflate stream.
    let bytes = std::fs::read(pair.ours().path("c.qcow2")).expect("the image");
    let at = |offset: usize| u64::from_be_bytes(bytes[offset..offset + 8].try_into().expect("8"));
    let l1 = at(40) as usize;
    let l2 = (at(l1) & 0x00ff_ffff_ffff_fe00) as usize;
    let data = at(l2) & ((1 << 54) - 1);
    pair.patch("c.qcow2", data, &[0xff; 16]);
    for line in [
        "compare c.qcow2 a.raw",
        "compare a.raw c.qcow2",
        "compare -q c.qcow2 a.raw",
    ] {
        assert_eq!(pair.same(line).code, 4, "{line}");
    }
}
