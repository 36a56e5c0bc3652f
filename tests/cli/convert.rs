//! `convert`: options, targets, errors.

use crate::pair::{Loose, Pair, ours, ours_command, words};

fn images() -> Pair {
    let pair = Pair::with(&[
        "create -q a.raw 4M",
        "create -q -f qcow2 empty.qcow2 4M",
        "create -q none.raw 0",
    ]);
    pair.qemu_io(
        "raw",
        "a.raw",
        &[
            "write -P 1 0 64k",
            "write -P 2 1M 100k",
            "write -z 2M 64k",
            "write -P 7 4194303 1",
        ],
    );
    pair.qemu("convert -O qcow2 a.raw a.qcow2");
    pair.qemu("convert -c -O qcow2 a.raw c.qcow2");
    pair.qemu("convert -c -O qcow2 -o compression_type=zstd a.raw cz.qcow2");
    pair.qemu("create -q -f qcow2 -b a.raw -F raw o.qcow2");
    pair.qemu_io(
        "qcow2",
        "o.qcow2",
        &["write -P 9 32k 64k", "write -z 1M 64k", "discard 0 4k"],
    );
    pair.qemu("create -q -f qcow2 -b o.qcow2 -F qcow2 long.qcow2 6M");
    pair.file("odd.raw", &[5; 1000]);
    pair.directory("dir");
    pair
}

#[test]
fn to_raw() {
    let pair = images();
    for (number, source) in [
        "a.raw",
        "-f raw a.raw",
        "a.qcow2",
        "-f qcow2 a.qcow2",
        "c.qcow2",
        "cz.qcow2",
        "o.qcow2",
        "long.qcow2",
        "empty.qcow2",
        "none.raw",
        "odd.raw",
        "-S 0 a.qcow2",
        "-S 512 a.qcow2",
        "-S 64k a.raw",
        "-m 1 a.qcow2",
        "-m 16 -W a.qcow2",
        "-C a.raw",
        "-W -C a.raw",
        "-r 1G a.raw",
        "-t none -T none a.qcow2",
        "-t writeback a.raw",
        "-t directsync a.raw",
        "-t writethrough -T directsync a.raw",
        "-U a.qcow2",
        "--salvage a.qcow2",
        "-o preallocation=falloc a.qcow2",
        "-o preallocation=full a.qcow2",
        "-q a.raw",
        "-o size=64M a.raw",
        "a.raw odd.raw c.qcow2",
        "odd.raw odd.raw",
        "--image-opts driver=qcow2,file.filename=o.qcow2",
        "--image-opts driver=raw,offset=512,size=64k,file.filename=a.raw",
        "json:{'driver':'qcow2','file.filename':'c.qcow2'}",
    ]
    .iter()
    .enumerate()
    {
        pair.same(&format!("convert {source} {number}.raw"));
        pair.same_image(&format!("{number}.raw"), "raw");
    }
}

#[test]
fn to_qcow2() {
    let pair = images();
    for (number, source) in [
        "a.raw",
        "a.qcow2",
        "c.qcow2",
        "o.qcow2",
        "long.qcow2",
        "empty.qcow2",
        "none.raw",
        "odd.raw",
        "-c a.raw",
        "-c o.qcow2",
        "-c -o compression_type=zstd a.raw",
        "-c -W -m 16 a.raw",
        "-c -o cluster_size=4k a.raw",
        "-c -o cluster_size=2M a.raw",
        "-o cluster_size=512 a.raw",
        "-o extended_l2=on a.raw",
        "-c -o extended_l2=on a.raw",
        "-o compat=0.10 a.raw",
        "-o refcount_bits=1 a.raw",
        "-o refcount_bits=64 a.raw",
        "-o preallocation=metadata a.raw",
        "-o preallocation=full a.raw",
        "-o lazy_refcounts=on a.raw",
        "-S 0 a.raw",
        "-S 0 -c a.raw",
        "-S 512 a.raw",
        "-m 1 a.raw",
        "-W a.raw",
        "-t none -T none a.raw",
        "-t writethrough o.qcow2",
        "a.raw o.qcow2 odd.raw",
        "-o size=64M a.raw",
        "-o data_file=df.raw a.raw",
        "-o data_file=dr.raw,data_file_raw=on a.raw",
        "--bitmaps a.qcow2",
    ]
    .iter()
    .enumerate()
    {
        pair.same(&format!("convert -O qcow2 {source} {number}.qcow2"));
        pair.same_image(&format!("{number}.qcow2"), "qcow2");
    }
}

#[test]
fn onto_a_backing_file() {
    let pair = images();
    for (number, line) in [
        "-B a.raw -F raw o.qcow2",
        "-B a.raw -F raw a.raw",
        "-o backing_file=a.raw,backing_fmt=raw o.qcow2",
        "-c -B a.raw -F raw o.qcow2",
        "-B o.qcow2 -F qcow2 long.qcow2",
        "-o backing_file=a.raw,backing_fmt=raw -B a.raw o.qcow2",
    ]
    .iter()
    .enumerate()
    {
        pair.same(&format!("convert -O qcow2 {line} b{number}.qcow2"));
        pair.same_image(&format!("b{number}.qcow2"), "qcow2");
        pair.same(&format!("map --output=json -l 0 b{number}.qcow2"));
    }
}

#[test]
fn onto_a_file_that_is_not_the_backing_file_of_the_source() {
    // QEMU's tool leaves out whatever the source's own backing file holds.
    let pair = images();
    let dir = pair.ours();
    for (backing, source) in [("a.raw", "long.qcow2"), ("none.raw", "o.qcow2")] {
        let options = ["-B", backing, "-F", "raw", source, "t.qcow2"];
        let args = [&["convert", "-O", "qcow2"], &options[..]].concat();
        let ran = ours(&args, dir.root());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        dir.qemu_img_ok(&["compare", source, "t.qcow2"]);
        dir.qemu_img_ok(&["check", "t.qcow2"]);
    }
}

#[test]
fn into_an_existing_image() {
    let pair = images();
    for (line, target, format) in [
        ("-n a.raw", "t0.qcow2", "qcow2"),
        ("-n -O qcow2 a.raw", "t1.qcow2", "qcow2"),
        ("-n -O qcow2 --target-is-zero a.raw", "t2.qcow2", "qcow2"),
        ("-n -c -O qcow2 a.raw", "t3.qcow2", "qcow2"),
        ("-n -O qcow2 -B a.raw -F raw o.qcow2", "t4.qcow2", "qcow2"),
        ("-n -O raw o.qcow2", "t5.raw", "raw"),
        ("-n -O raw --target-is-zero a.qcow2", "t6.raw", "raw"),
    ] {
        if format == "qcow2" {
            let backing = if line.contains("-B") {
                "-b a.raw -F raw"
            } else {
                ""
            };
            pair.qemu(&format!("create -q -f qcow2 {backing} {target} 8M"));
        } else {
            pair.qemu(&format!("create -q {target} 8M"));
        }
        if !line.contains("is-zero") && !line.contains("-c") {
            pair.qemu_io(
                format,
                target,
                &["write -P 0x77 128k 1M", "write -P 0x66 7M 64k"],
            );
        }
        pair.same(&format!("convert {line} {target}"));
        pair.same_image(target, format);
    }
    pair.qemu("create -q -f qcow2 ti.qcow2 8M");
    pair.same("convert -n --target-image-opts a.raw driver=qcow2,file.filename=ti.qcow2");
    pair.same_image("ti.qcow2", "qcow2");
}

#[test]
fn help_on_options() {
    let pair = images();
    pair.all_same(&[
        "convert -o help",
        "convert -O qcow2 -o help",
        "convert -O qcow2 -o ?",
        "convert -O qcow2 -o help a.raw y",
        "convert -O qcow2 -o help nope y",
        "convert -O qcow2 -o help a.raw",
        "convert -O qcow2 -o help nope",
        "convert -O raw -o help a.raw",
        "convert -O raw -o help a.raw y",
        "convert -O bogus -o help",
        "convert -q -o help a.raw y",
        "convert -O qcow2 -o cluster_size=4k -o help a.raw y",
        "convert -O qcow2 -o backing_file=x,,help a.raw y",
        "convert -O qcow2 -o backing_file=x,,help,help a.raw y",
        "convert -O qcow2 -o backing_file=x,,,help a.raw y",
        "convert -O qcow2 -o backing_file=x,,,,help a.raw y",
        "convert -O qcow2 -o a,,help a.raw y",
        "convert -O qcow2 -o size=,? a.raw y",
        "convert -O qcow2 -o help,,x=1 a.raw y",
        "convert -O qcow2 -o size=1M,,help a.raw y",
        "convert -O qcow2 -o ?=1 a.raw y",
    ]);
}

#[test]
fn argument_errors() {
    let pair = images();
    pair.all_same(&[
        "convert",
        "convert a.raw",
        "convert -p",
        "convert nope y",
        "convert '' y",
        "convert dir y",
        "convert foo:bar y",
        "convert a.raw foo:bar",
        "convert a.raw ''",
        "convert a.raw dir",
        "convert a.raw /nonexistent/y",
        "convert -O qcow2 a.raw /nonexistent/y",
        "convert -O bogus a.raw y",
        "convert -O bogus nope y",
        "convert -f bogus a.raw y",
        "convert -f qcow2 a.raw y",
        "convert -c a.raw y",
        "convert -c -O qcow2 -o preallocation=metadata a.raw y",
        "convert -C -c -O qcow2 a.raw y",
        "convert -C -S 4k a.raw y",
        "convert -C -S 4k -c -O qcow2 a.raw y",
        "convert -C --salvage a.raw y",
        "convert -n -o size=1 a.raw y",
        "convert --target-is-zero a.raw y",
        "convert --target-image-opts a.raw y",
        "convert --target-image-opts -n -O raw a.raw y",
        "convert --image-opts -f raw a.raw y",
        "convert --image-opts a.raw y",
        "convert --skip-broken-bitmaps a.raw y",
        "convert -B a.raw a.raw a.qcow2 -O qcow2 y",
        "convert -B a.raw -F raw a.raw a.qcow2 -O qcow2 y",
        "convert -B json:{bad -F raw a.raw -O qcow2 y",
        "convert -B a.raw -O qcow2 a.raw y",
        "convert -F raw -O qcow2 a.raw y",
        "convert -B nope -F raw -O qcow2 a.raw y",
        "convert -B a.raw -F bogus -O qcow2 a.raw y",
        "convert -B a.raw -F raw a.raw y",
        "convert -o backing_file=a.raw -O qcow2 a.raw y",
        "convert -l x a.raw a.qcow2 y",
        "convert -l x a.raw y",
        "convert -m 0 a.raw y",
        "convert -m 17 a.raw y",
        "convert -m -1 a.raw y",
        "convert -m x a.raw y",
        "convert -m 1k a.raw y",
        "convert -m 0x20 a.raw y",
        "convert -S 1 a.raw y",
        "convert -S x a.raw y",
        "convert -S -512 a.raw y",
        "convert -S 32M a.raw y",
        "convert -S 1.5 a.raw y",
        "convert -r x a.raw y",
        "convert -r -1 a.raw y",
        "convert -r 1e3 a.raw y",
        "convert -t x a.raw y",
        "convert -T x a.raw y",
        "convert -T x nope y",
        "convert -t x -T x nope y",
        "convert -n a.raw nope",
        "convert -n -O raw a.raw nope",
        "convert -n -O raw a.raw none.raw",
        "convert -n -O qcow2 a.raw a.raw",
        "convert -c -n -O raw a.raw none.raw",
        "convert --bitmaps a.raw y",
        "convert --bitmaps -O raw a.qcow2 y",
        "convert --bitmaps -O qcow2 a.raw y",
        "convert -o bogus=1 a.raw y",
        "convert -O qcow2 -o bogus=1 a.raw y",
        "convert -O qcow2 -o cluster_size=1 a.raw y",
        "convert -O qcow2 -o extended_l2=x a.raw y",
        "convert -o '' a.raw y",
        "convert -o a=b, a.raw y",
        "convert -s x a.raw y",
        "convert --progress a.raw y",
        "convert a.raw a.raw",
        "convert -O qcow2 a.qcow2 a.qcow2",
        "convert -n a.raw a.raw",
        "convert -O qcow2 a.raw nope a.qcow2 y",
        "convert -q nope y",
    ]);
}

#[test]
fn a_refused_run_leaves_an_existing_file_alone() {
    // QEMU's tool removes it.
    let pair = images();
    let dir = pair.ours();
    std::fs::write(dir.path("old"), [1; 4096]).expect("a file");
    let args = [
        "convert",
        "-O",
        "qcow2",
        "-o",
        "cluster_size=1",
        "a.raw",
        "old",
    ];
    let ran = ours(&args, dir.root());
    assert_eq!(ran.code, 1);
    assert_eq!(std::fs::read(dir.path("old")).expect("the file"), [1; 4096]);
}

#[test]
fn a_target_in_its_own_backing_chain_is_refused() {
    // QEMU's tool empties the file and makes it name itself.
    let pair = images();
    let dir = pair.ours();
    for line in [
        "convert -O qcow2 -B a.raw -F raw odd.raw a.raw",
        "convert -O qcow2 -B ./o.qcow2 -F qcow2 odd.raw a.raw",
    ] {
        let before = std::fs::read(dir.path("a.raw")).expect("the file");
        let ran = ours(&words(line), dir.root());
        assert_eq!(ran.code, 1, "{line}");
        assert_eq!(
            ran.err,
            "qemu-img: a.raw: error while converting qcow2: \
             Error: Trying to create an image over a file of its own backing chain\n",
            "{line}"
        );
        assert!(
            std::fs::read(dir.path("a.raw")).expect("the file") == before,
            "{line}"
        );
    }
}

#[test]
fn a_target_that_is_zero_and_has_a_backing_file() {
    // QEMU's tool prints the error and ends with 0.
    let pair = images();
    pair.qemu("create -q -f qcow2 -b a.raw -F raw t.qcow2");
    let ran = ours(
        &[
            "convert",
            "-n",
            "-O",
            "qcow2",
            "--target-is-zero",
            "-B",
            "a.raw",
            "-F",
            "raw",
            "a.raw",
            "t.qcow2",
        ],
        pair.ours().root(),
    );
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.err,
        "qemu-img: Cannot use --target-is-zero when the destination image has a backing file\n"
    );
}

#[test]
fn unreadable_sources() {
    let pair = images();
    let bytes = std::fs::read(pair.ours().path("c.qcow2")).expect("the image");
    let at = |offset: usize| u64::from_be_bytes(bytes[offset..offset + 8].try_into().expect("8"));
    let l1 = at(40) as usize;
    let l2 = (at(l1) & 0x00ff_ffff_ffff_fe00) as usize;
    let data = at(l2) & ((1 << 54) - 1);
    pair.patch("c.qcow2", data, &[0xff; 16]);
    let ran = ours(&["convert", "c.qcow2", "out.raw"], pair.ours().root());
    assert_eq!(ran.code, 1);
    let line = "qemu-img: error while reading at byte 0: Input/output error\n";
    assert!(ran.err.starts_with(line), "{ran:?}");
    assert!(
        !pair.ours().path("out.raw").exists(),
        "the partial target is removed"
    );
    let ran = pair.same_but("convert --salvage c.qcow2 salvaged.raw", Loose::Exact);
    assert_eq!(ran.code, 0);
    pair.same_image("salvaged.raw", "raw");
    pair.same("convert -q --salvage c.qcow2 quiet.raw");
}

#[test]
fn to_standard_devices() {
    let pair = images();
    let ran = ours(
        &["convert", "-O", "raw", "a.raw", "/dev/null"],
        pair.ours().root(),
    );
    assert!(!ran.err.contains("panicked"), "{ran:?}");
}

#[test]
fn untrusted_sources() {
    let pair = images();
    let dir = pair.ours().root();
    for image in ["o.qcow2", "long.qcow2"] {
        let ran = ours(&["convert", "--untrusted", image, "out.raw"], dir);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(
            ran.err
                .starts_with(&format!("qemu-img: Could not open '{image}'")),
            "{ran:?}"
        );
        assert!(!pair.ours().path("out.raw").exists());
    }
    let ran = ours(
        &[
            "convert",
            "--untrusted",
            "-O",
            "qcow2",
            "a.qcow2",
            "fine.qcow2",
        ],
        dir,
    );
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(
        pair.ours()
            .qemu_img(&["compare", "a.qcow2", "fine.qcow2"])
            .code,
        0
    );
}

/// As for copies of base images on devices, which record nothing.
#[test]
fn the_difference_goes_into_a_copy_of_the_base() {
    let pair = Pair::with(&[
        "create -q base.raw 1M",
        "create -q -f qcow2 -b base.raw -F raw top.qcow2 2M",
    ]);
    pair.qemu_io("raw", "base.raw", &["write -P 3 0 1M"]);
    pair.qemu_io(
        "qcow2",
        "top.qcow2",
        &["write -P 5 64k 64k", "write -z 512k 64k"],
    );
    for (format, image) in [("raw", "copy.raw"), ("qcow2", "copy.qcow2")] {
        for dir in [pair.ours(), pair.theirs()] {
            let line = format!("convert -f raw -O {format} base.raw {image}");
            dir.qemu_img_ok(&words(&line));
            dir.qemu_img_ok(&words(&format!("resize -q -f {format} {image} 2M")));
            // Where the base holds nothing, the target may hold something.
            dir.qemu_io(format, image, &["write -P 9 1800k 64k"]);
        }
        let line = format!("convert -n -O {format} -B base.raw -F raw top.qcow2 {image}");
        let theirs = pair.theirs().qemu_img(&words(&line));
        let own = ours(&words(&line), pair.ours().root());
        assert_eq!((own.code, theirs.code), (0, 0), "{own:?} {theirs:?}");
        assert!(own.err.contains("records no backing file"), "{own:?}");
        let compare = format!("compare -F {format} top.qcow2 {image}");
        pair.ours().qemu_img_ok(&words(&compare));
    }
    // QEMU's tool does not look at it; without it nobody knows where the copy ends.
    let line = "convert -n -O raw -B nope.raw -F raw top.qcow2 copy.raw";
    let ran = ours(&words(line), pair.ours().root());
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("'nope.raw'"), "{ran:?}");
    // The base itself is no copy of it.
    let line = "convert -n -O raw -B copy.raw -F raw top.qcow2 copy.raw";
    let ran = ours(&words(line), pair.ours().root());
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("own backing chain"), "{ran:?}");
}

#[test]
fn a_chain_goes_into_a_new_directory_layer_by_layer() {
    let pair = Pair::with(&[
        "create -q base.raw 1M",
        "create -q -f qcow2 -b base.raw -F raw top.qcow2 2M",
    ]);
    pair.qemu_io("raw", "base.raw", &["write -P 3 0 1M"]);
    pair.qemu_io("qcow2", "top.qcow2", &["write -P 5 64k 64k"]);
    let root = pair.ours().root();
    let ran = ours(&words("convert -p --chain -O qcow2 top.qcow2 out"), root);
    assert_eq!((ran.code, &*ran.err), (0, ""), "{ran:?}");
    for compare in ["base.raw out/base.qcow2", "top.qcow2 out/top.qcow2"] {
        pair.ours()
            .qemu_img_ok(&words(&format!("compare {compare}")));
    }
    for (line, reason) in [
        ("convert --chain -O qcow2 top.qcow2 out", "'out' exists"),
        (
            "convert --chain top.qcow2 new",
            "not supported for file format 'raw'",
        ),
        (
            "convert --chain -n -O qcow2 top.qcow2 out",
            "--chain goes with",
        ),
        (
            "convert --chain -O qcow2 -B base.raw top.qcow2 new",
            "A whole chain",
        ),
        (
            "convert --chain -O qcow2 top.qcow2 base.raw new",
            "A whole chain",
        ),
    ] {
        let ran = ours(&words(line), root);
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        assert!(ran.err.contains(reason), "{line}: {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{line}: {ran:?}");
        assert!(!root.join("new").exists(), "{line}");
    }
}

#[test]
fn a_stream_of_vmdk_leaves_through_a_pipe_and_the_peer_reads_it() {
    let pair = Pair::new();
    let mut disk = vec![0; (70 << 20) + 512];
    // In the first table, in the third, and in the short grain at the end.
    disk[100_000..400_000].fill(1);
    for (n, byte) in disk[65 << 20..66 << 20].iter_mut().enumerate() {
        *byte = (n * n / 91) as u8;
    }
    disk[70 << 20..].fill(9);
    pair.file("r.raw", &disk);
    let root = pair.ours().root();
    let line = "convert -f raw -O vmdk -o subformat=streamOptimized r.raw /dev/stdout";
    let ran = ours_command(&words(line), root).output().expect("the tool");
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    std::fs::write(root.join("s.vmdk"), &ran.stdout).expect("what came");
    pair.ours()
        .qemu_img_ok(&["compare", "-f", "vmdk", "-F", "raw", "s.vmdk", "r.raw"]);
    let compared = ours(&words("compare -f vmdk -F raw s.vmdk r.raw"), root);
    assert_eq!(compared.out, "Images are identical.\n", "{compared:?}");
    // The directory stands behind everything else.
    assert_eq!(ran.stdout[56..64], [0xff; 8]);
    for (line, words_of) in [
        (
            "convert -f raw -O vmdk r.raw /dev/stdout",
            "format 'vmdk' cannot be",
        ),
        (
            "convert -f raw -O vmdk -o subformat=monolithicFlat r.raw /dev/stdout",
            "format 'vmdk' cannot be",
        ),
    ] {
        let refused = ours(&words(line), root);
        assert!(
            refused.code == 1 && refused.err.contains(words_of),
            "{refused:?}"
        );
    }
}
