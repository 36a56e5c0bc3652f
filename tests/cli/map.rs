//! `map`: both forms over chains, ranges, compressed and external data.

use crate::pair::{Loose, Pair, ours};

fn images() -> Pair {
    let pair = Pair::with(&[
        "create -q a.raw 4M",
        "create -q -f qcow2 b.qcow2 4M",
        "create -q -f qcow2 -o preallocation=metadata p.qcow2 4M",
        "create -q -f qcow2 -o extended_l2=on,cluster_size=64k e.qcow2 4M",
        "create -q -f qcow2 -o cluster_size=512 s.qcow2 1M",
        "create -q -f qcow2 -o data_file=d.raw d.qcow2 4M",
        "create -q -f qcow2 -o data_file=dr.raw,data_file_raw=on dr.qcow2 4M",
        "create -q -f qcow2 zero.qcow2 0",
        "create -q -f raw zero.raw 0",
    ]);
    pair.qemu_io(
        "raw",
        "a.raw",
        &["write -P 1 0 64k", "write -P 2 1M 128k", "write -z 2M 64k"],
    );
    pair.qemu_io(
        "qcow2",
        "b.qcow2",
        &[
            "write -P 1 64k 192k",
            "write -z 1M 128k",
            "write -P 3 3M 1k",
            "discard 128k 64k",
        ],
    );
    pair.qemu_io("qcow2", "p.qcow2", &["write -P 1 64k 192k"]);
    pair.qemu_io(
        "qcow2",
        "e.qcow2",
        &["write -P 1 2k 6k", "write -z 1M 4k", "write 3M 100k"],
    );
    pair.qemu_io(
        "qcow2",
        "s.qcow2",
        &["write -P 1 0 3k", "write -P 2 100k 70k"],
    );
    pair.qemu_io(
        "qcow2",
        "d.qcow2",
        &["write -P 1 1M 64k", "write -z 2M 64k"],
    );
    pair.qemu_io("qcow2", "dr.qcow2", &["write -P 1 1M 64k"]);
    pair.qemu("create -q -f qcow2 -b a.raw -F raw o.qcow2");
    pair.qemu_io(
        "qcow2",
        "o.qcow2",
        &["write -P 9 32k 64k", "write -z 1M 64k"],
    );
    pair.qemu("create -q -f qcow2 -b o.qcow2 -F qcow2 t.qcow2 6M");
    pair.qemu_io("qcow2", "t.qcow2", &["write -P 8 5M 64k", "discard 0 64k"]);
    pair.qemu("convert -c -O qcow2 a.raw c.qcow2");
    pair.file("odd.raw", &[5; 1000]);
    pair.file("random.raw", &[0x5a; 65536]);
    pair.file("empty", b"");
    pair
}

#[test]
fn reports() {
    let pair = images();
    let mut lines = Vec::new();
    for image in [
        "a.raw",
        "b.qcow2",
        "p.qcow2",
        "e.qcow2",
        "s.qcow2",
        "d.qcow2",
        "dr.qcow2",
        "zero.qcow2",
        "zero.raw",
        "o.qcow2",
        "t.qcow2",
        "c.qcow2",
        "odd.raw",
        "empty",
        "random.raw",
        "./b.qcow2",
        "json:{'driver':'raw','file.filename':'a.raw','offset':4096}",
    ] {
        for options in [
            "",
            "--output=json",
            "-U --output human",
            "-f raw --output=json",
        ] {
            lines.push(format!("map {options} {image}"));
        }
    }
    for image in ["a.raw", "b.qcow2", "t.qcow2", "c.qcow2", "s.qcow2"] {
        for range in [
            "-s 0 -l 0",
            "-s 1 -l 1",
            "-s 1k",
            "-l 1k",
            "-s 63k -l 2k",
            "-s 1M -l 1M",
            "-s 4M",
            "-s 100M",
            "-s 3M -l 100M",
            "-s 511 -l 1025",
            "--start-offset=1M --max-length=64k",
            "-l 0x200",
            "-s 0.5k",
        ] {
            lines.push(format!("map {range} --output=json {image}"));
            lines.push(format!("map {range} {image}"));
        }
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

#[test]
fn image_options() {
    let pair = images();
    pair.all_same(&[
        "map --image-opts file.filename=a.raw",
        "map --image-opts driver=qcow2,file.filename=b.qcow2",
        "map --output=json --image-opts driver=raw,offset=64k,size=1M,file.filename=a.raw",
        "map --output=json --image-opts driver=qcow2,file.filename=o.qcow2,backing.driver=null-co",
        "map --image-opts driver=file,filename=a.raw",
        // What is neither there nor zero.
        "map --output=json --image-opts driver=null-co,size=1M",
        "map --image-opts driver=null-aio,size=1M",
        "map --output=json --image-opts driver=null-co,size=1M,read-zeroes=on",
        "map --output=json --image-opts driver=raw,offset=512,file.driver=null-co,file.size=1M",
        "measure -O qcow2 --image-opts driver=null-co,size=1M",
        "compare --image-opts driver=null-co,size=1M driver=null-co,size=1M,read-zeroes=on",
        "convert -O raw --image-opts driver=null-co,size=1M null.raw",
        "map --image-opts bogus=x,file.filename=a.raw",
    ]);
}

#[test]
fn errors() {
    let pair = images();
    pair.qemu("create -q -f qcow2 -u -b nope.raw -F raw missing.qcow2 1M");
    pair.qemu("create -q -f qcow2 -u -b a.raw -F qcow2 unknown.qcow2 1M");
    pair.replace("unknown.qcow2", "qcow2", "bogus");
    pair.directory("dir");
    pair.all_same(&[
        "map",
        "map a.raw b.qcow2",
        "map nope",
        "map ''",
        "map dir",
        "map foo:x",
        "map -f bogus a.raw",
        "map -f qcow2 a.raw",
        "map missing.qcow2",
        "map unknown.qcow2",
        "map --output=zz a.raw",
        "map --output zz -s x a.raw",
        "map -s x --output zz a.raw",
        "map -s x a.raw",
        "map -s -1 a.raw",
        "map -s 9E a.raw",
        "map -s 1.5 a.raw",
        "map -l x a.raw",
        "map -l -1 a.raw",
        "map -l 16E a.raw",
        "map -l 1kb a.raw",
        "map --start a.raw",
        "map --image-opts -f raw a.raw",
    ]);
    for dir in [pair.theirs(), pair.ours()] {
        std::fs::remove_file(dir.path("d.raw")).expect("to remove the data file");
    }
    pair.same("map d.qcow2");
}

#[test]
fn a_loop_of_backing_files_is_refused() {
    let pair = Pair::with(&[
        "create -q -f qcow2 -u -b loop.qcowX -F qcow2 loop.qcow2 1M",
        "create -q -f qcow2 -u -b two.qcow2 -F qcow2 one.qcow2 1M",
        "create -q -f qcow2 -u -b one.qcow2 -F qcow2 two.qcow2 1M",
    ]);
    pair.replace("loop.qcow2", "loop.qcowX", "loop.qcow2");
    // QEMU's tool opens these for ever.
    let dir = pair.ours().root();
    for image in ["loop.qcow2", "one.qcow2"] {
        for args in [
            vec!["map", image],
            vec!["check", image],
            vec!["compare", image, "loop.qcow2"],
            vec!["convert", image, "out.raw"],
            vec!["info", "--backing-chain", image],
        ] {
            let ran = ours(&args, dir);
            let code = if args[0] == "compare" { 2 } else { 1 };
            assert_eq!(
                (ran.code, ran.out.as_str()),
                (code, ""),
                "{args:?}: {ran:?}"
            );
            assert!(ran.err.contains("infinite loop"), "{args:?}: {ran:?}");
            assert_eq!(ran.err.lines().count(), 1, "{args:?}: {ran:?}");
        }
        assert_eq!(ours(&["info", image], dir).code, 0);
    }
    assert!(!pair.ours().path("out.raw").exists());
}

#[test]
fn untrusted_follows_no_backing_or_data_file() {
    let pair = images();
    let dir = pair.ours().root();
    for image in ["o.qcow2", "t.qcow2", "d.qcow2"] {
        let ran = ours(&["map", "--untrusted", image], dir);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{image}: {ran:?}");
        assert!(
            ran.err
                .starts_with(&format!("qemu-img: Could not open '{image}'")),
            "{ran:?}"
        );
    }
    pair.same_but("map b.qcow2", Loose::Exact);
    let plain = ours(&["map", "b.qcow2"], dir);
    assert_eq!(ours(&["map", "--untrusted", "b.qcow2"], dir), plain);
}

#[test]
fn options_that_tune_the_driver() {
    let pair = images();
    let lines: Vec<String> = [
        "l2-cache-size=1M",
        "l2-cache-size=xx",
        "lazy-refcounts=on",
        "lazy-refcounts=maybe",
        "overlap-check=none",
        "overlap-check=bogus",
        "cache-size=1M",
        "l2-cache-entry-size=3",
        "l2-cache-entry-size=4096",
        "cache-clean-interval=10",
        "pass-discard-request=on",
        "discard-no-unref=on",
        "refcount-cache-size=1M",
    ]
    .map(|option| format!("map --image-opts driver=qcow2,{option},file.filename=b.qcow2"))
    .into();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}
