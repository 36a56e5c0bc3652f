//! `amend`: what can be changed, refusals, and what the image is afterwards.

use crate::common::Dir;
use crate::pair::{Loose, Pair, ours};

const SECRETS: &str =
    "--object secret,id=s0,data=zero --object secret,id=s1,data=one --object secret,id=s2,data=two";

/// What the image shows, its own options and its snapshots' included.
fn info(dir: &Dir, name: &str) -> serde_json::Value {
    let text = dir.qemu_img_ok(&["info", "--output=json", name]);
    let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let object = value.as_object_mut().expect("an object");
    for key in ["actual-size", "children"] {
        object.remove(key);
    }
    value
}

/// Both images are clean, show the same, and are the same otherwise.
#[track_caller]
fn agree(pair: &Pair, name: &str, line: &str) {
    let (theirs, ours) = (pair.theirs().str(name), pair.ours().str(name));
    let check = pair.ours().qemu_img(&["check", "-f", "qcow2", &ours]);
    assert!(check.code == 0, "{line}: {check:?}");
    let compared = pair.ours().qemu_img(&["compare", &theirs, &ours]);
    assert_eq!(
        compared.out, "Images are identical.\n",
        "{line}: {compared:?}"
    );
    assert_eq!(info(pair.ours(), name), info(pair.theirs(), name), "{line}");
}

#[test]
fn help() {
    let pair = Pair::with(&["create -q -f qcow2 a.qcow2 1M", "create -q a.raw 1M"]);
    pair.all_same(&[
        "amend -f qcow2 -o help",
        "amend -f luks -o help",
        "amend -f qcow2 -o help nope",
        "amend -f qcow2 -o ? a.qcow2 b",
        "amend -o help a.qcow2",
        "amend -o help,compat=1.1 a.qcow2",
        "amend -o compat=1.1 -o help a.qcow2",
        "amend --image-opts -o help driver=qcow2,file.filename=a.qcow2",
        "amend -o help nope",
        "amend -o help",
        "amend -f raw -o help",
        "amend -f bogus -o help",
        "amend -f raw -o help a.raw",
        "amend -t bogus -o help a.qcow2",
        "amend -f qcow2 -o backing_file=x,,help a.qcow2",
        "amend -f qcow2 -o backing_file=x,,help,help a.qcow2",
        "amend -f qcow2 -o backing_file=x,,,help a.qcow2",
        "amend -f qcow2 -o backing_file=x,,,,help a.qcow2",
        "amend -f qcow2 -o a,,help a.qcow2",
        "amend -f qcow2 -o size=,? a.qcow2",
        "amend -f qcow2 -o help,,x=1 a.qcow2",
        "amend -f qcow2 -o size=1M,,help a.qcow2",
        "amend -f qcow2 -o ?=1 a.qcow2",
    ]);
}

#[test]
fn refusals() {
    let pair = Pair::with(&[
        "create -q -f qcow2 a.qcow2 1M",
        "create -q -f qcow2 -o compat=0.10 v2.qcow2 1M",
        "create -q -f qcow2 -o extended_l2=on e.qcow2 1M",
        "create -q -f qcow2 -o refcount_bits=8 r.qcow2 1M",
        "create -q -f qcow2 -o data_file=d.raw d.qcow2 1M",
        "create -q -f qcow2 -o data_file=dr.raw,data_file_raw=on dr.qcow2 1M",
        "create -q a.raw 1M",
        "create -q -f qcow2 -b gone.raw -F raw -u o.qcow2 1M",
    ]);
    pair.qemu_io("qcow2", "r.qcow2", &["write -P 1 0 100k"]);
    for image in ["r.qcow2", "v2.qcow2"] {
        pair.theirs().qemu_img_ok(&["snapshot", "-c", "s", image]);
        std::fs::copy(pair.theirs().path(image), pair.ours().path(image)).expect("a copy");
    }
    pair.all_same(&[
        "amend",
        "amend a.qcow2",
        "amend -p a.qcow2",
        "amend -o compat=1.1",
        "amend -o compat=1.1 a.qcow2 v2.qcow2",
        "amend -o compat=9 a.qcow2",
        "amend -p -o compat=9 a.qcow2",
        "amend -p -o bogus=1 a.qcow2",
        "amend -p -o compat=1.1 nope",
        "amend -o compat a.qcow2",
        "amend -o nocompat a.qcow2",
        "amend -o compat=1.1,,x a.qcow2",
        "amend -o compat=0.10 e.qcow2",
        "amend -o compat=0.10 r.qcow2",
        "amend -o compat=0.10 d.qcow2",
        "amend -o compat=0.10,lazy_refcounts=on a.qcow2",
        "amend -o compat=0.10,refcount_bits=8 a.qcow2",
        "amend -o refcount_bits=1 r.qcow2",
        "amend -o refcount_bits=8 v2.qcow2",
        "amend -o lazy_refcounts=on v2.qcow2",
        "amend -o size=2M v2.qcow2",
        "amend -o refcount_bits=7 a.qcow2",
        "amend -o refcount_bits=0 a.qcow2",
        "amend -o refcount_bits=128 a.qcow2",
        "amend -o refcount_bits=-1 a.qcow2",
        "amend -o refcount_bits=x a.qcow2",
        "amend -o backing_file=x a.qcow2",
        "amend -o backing_fmt=raw a.qcow2",
        "amend -o backing_file= a.qcow2",
        "amend -o compat=9,backing_file=x a.qcow2",
        "amend -o data_file=x,backing_file=x a.qcow2",
        "amend -o refcount_bits=3,data_file=x a.qcow2",
        "amend -o encrypt.state=active,refcount_bits=3 a.qcow2",
        "amend -o cluster_size=1M a.qcow2",
        "amend -o preallocation=off a.qcow2",
        "amend -o encryption=off a.qcow2",
        "amend -o encrypt.format=luks a.qcow2",
        "amend -o nocow=on a.qcow2",
        "amend -o bogus=1 a.qcow2",
        "amend -o bogus=1,cluster_size=1M a.qcow2",
        "amend -o cluster_size=1M,bogus=1 a.qcow2",
        "amend -o size=x,bogus=1 a.qcow2",
        "amend -o data_file=x a.qcow2",
        "amend -o data_file_raw=on a.qcow2",
        "amend -o data_file_raw=on d.qcow2",
        "amend -o encrypt.iter-time=1 a.qcow2",
        "amend -o encrypt.state=active a.qcow2",
        "amend -o size=1 a.qcow2",
        "amend -o size=-1 a.qcow2",
        "amend -o size=x a.qcow2",
        "amend -o size=8E a.qcow2",
        "amend -o size=7E a.qcow2",
        "amend -o lazy_refcounts=maybe a.qcow2",
        "amend -o '' a.qcow2",
        "amend -o ,x a.qcow2",
        "amend -t bogus -o compat=1.1 a.qcow2",
        "amend -f raw -o compat=1.1 a.qcow2",
        "amend -f qcow2 -o compat=1.1 a.raw",
        "amend -f bogus -o compat=1.1 a.qcow2",
        "amend -o compat=1.1 a.raw",
        "amend -f raw -o bogus=1 a.raw",
        "amend -o compat=1.1 nope",
        "amend -o compat=1.1 o.qcow2",
        "amend --image-opts -f qcow2 -o compat=1.1 driver=qcow2,file.filename=a.qcow2",
        "amend -x",
        "amend -o",
    ]);
    for image in ["a.qcow2", "v2.qcow2", "e.qcow2", "r.qcow2", "d.qcow2"] {
        agree(&pair, image, "refusals");
    }
}

#[test]
fn one_change_after_another() {
    for options in [
        "-o cluster_size=16k",
        "-o cluster_size=512",
        "-o cluster_size=8k,refcount_bits=1",
        "-o compat=0.10,cluster_size=2k",
        "-o lazy_refcounts=on,cluster_size=4k",
        "-b base.raw -F raw -o compat=0.10,cluster_size=8k",
    ] {
        let pair = Pair::with(&[
            "create -q base.raw 1M",
            &format!("create -q -f qcow2 {options} a.qcow2 1M"),
        ]);
        pair.qemu_io(
            "qcow2",
            "a.qcow2",
            &["write -P 1 0 100k", "write -P 2 700k 24k"],
        );
        for line in [
            "amend -o compat=1.1 a.qcow2",
            "amend -o compat=v3,lazy_refcounts=on a.qcow2",
            "amend -o nolazy_refcounts a.qcow2",
            "amend -q -o refcount_bits=1 a.qcow2",
            "amend -o refcount_bits=2 a.qcow2",
            "amend -o refcount_bits=64 a.qcow2",
            "amend -o refcount_bits=8,size=3M,lazy_refcounts=on a.qcow2",
            "amend -o size=900k a.qcow2",
            "amend -o data_file_raw=off a.qcow2",
            "amend -o compat=0.10,refcount_bits=16 a.qcow2",
            "amend -t none -o compat=0.10,refcount_bits=16 a.qcow2",
            "amend --image-opts -o compat=1.1,refcount_bits=32,size=1M driver=qcow2,file.filename=a.qcow2",
            "amend a.qcow2 -o compat=v2 -o refcount_bits=16",
        ] {
            pair.same(line);
            agree(&pair, "a.qcow2", &format!("{options}: {line}"));
        }
    }
}

#[test]
fn snapshots_and_zero_clusters() {
    for backing in ["", "-b base.raw -F raw"] {
        for cluster in ["512", "8k"] {
            let pair = Pair::with(&[
                "create -q base.raw 1M",
                &format!("create -q -f qcow2 {backing} -o cluster_size={cluster} a.qcow2 1M"),
            ]);
            pair.qemu_io("raw", "base.raw", &["write -P 9 0 1M"]);
            // No cluster that a snapshot shares is zeroed with its data kept: QEMU's own tool
            // would overwrite the snapshot's data then.
            let first = ["write -P 1 0 256k", "write -z 0 64k", "write -z -u 64k 64k"];
            let later = ["write -P 2 192k 64k", "write -z -u 512k 64k"];
            pair.qemu_io("qcow2", "a.qcow2", &first);
            pair.theirs()
                .qemu_io("qcow2", "a.qcow2", &["discard 0 64k"]);
            pair.theirs()
                .qemu_img_ok(&["snapshot", "-c", "s", "a.qcow2"]);
            pair.theirs().qemu_io("qcow2", "a.qcow2", &later);
            std::fs::copy(pair.theirs().path("a.qcow2"), pair.ours().path("a.qcow2"))
                .expect("a copy");
            for line in [
                "amend -o refcount_bits=4 a.qcow2",
                "amend -o compat=0.10,refcount_bits=16 a.qcow2",
                "amend -o compat=1.1 a.qcow2",
            ] {
                pair.same(line);
                agree(&pair, "a.qcow2", &format!("{backing} {cluster} {line}"));
            }
            pair.same("snapshot -a s a.qcow2");
            agree(&pair, "a.qcow2", "the snapshot");
        }
    }
}

/// QEMU's own tool zeroes clusters in place that a snapshot shares.
#[test]
fn zero_clusters_that_a_snapshot_shares_keep_its_data() {
    for backing in ["", "-b base.raw -F raw"] {
        let pair = Pair::with(&[
            "create -q base.raw 1M",
            &format!("create -q -f qcow2 {backing} a.qcow2 1M"),
        ]);
        let dir = pair.ours();
        let changes = ["write -P 1 0 256k", "write -z 0 64k", "write -z -u 64k 64k"];
        dir.qemu_io("qcow2", "a.qcow2", &changes);
        dir.qemu_img_ok(&["snapshot", "-c", "s", "a.qcow2"]);
        dir.qemu_img_ok(&["snapshot", "-c", "t", "a.qcow2"]);
        dir.qemu_io(
            "qcow2",
            "a.qcow2",
            &["write -P 2 192k 64k", "write -z 128k 64k"],
        );
        let read = |name: &str| {
            dir.qemu_img_ok(&["convert", "-O", "raw", "a.qcow2", name]);
            dir.qemu_img_ok(&[
                "convert",
                "-l",
                "s",
                "-O",
                "raw",
                "a.qcow2",
                &format!("{name}.s"),
            ]);
            [name.to_owned(), format!("{name}.s")]
                .map(|name| std::fs::read(dir.path(&name)).expect("a file"))
        };
        let before = read("before");
        let ran = ours(&["amend", "-o", "compat=0.10", "a.qcow2"], dir.root());
        assert_eq!((ran.code, &*ran.err), (0, ""), "{backing}");
        assert!(read("after") == before, "{backing}");
        let check = dir.qemu_img(&["check", "a.qcow2"]);
        assert_eq!(check.code, 0, "{backing}: {check:?}");
        assert_eq!(
            info(dir, "a.qcow2")["format-specific"]["data"]["compat"],
            "0.10"
        );
    }
}

#[test]
fn snapshots_of_another_size() {
    let pair = Pair::with(&["create -q -f qcow2 a.qcow2 1M"]);
    pair.theirs()
        .qemu_img_ok(&["snapshot", "-c", "s", "a.qcow2"]);
    pair.theirs()
        .qemu_img_ok(&["resize", "-q", "a.qcow2", "2M"]);
    std::fs::copy(pair.theirs().path("a.qcow2"), pair.ours().path("a.qcow2")).expect("a copy");
    pair.same("amend -o compat=0.10 a.qcow2");
    agree(&pair, "a.qcow2", "another size");
    pair.same("amend -o compat=0.10,size=1M a.qcow2");
    agree(&pair, "a.qcow2", "the same size again");
    // What is refused in the end is refused before the size changes.
    let pair = Pair::with(&["create -q -f qcow2 a.qcow2 1M", "snapshot -c s a.qcow2"]);
    let args = ["amend", "-o", "compat=0.10,size=2M", "a.qcow2"];
    let ran = ours(&args, pair.ours().root());
    assert_eq!(
        ran.err,
        "qemu-img: Internal snapshots prevent downgrade of image\n"
    );
    assert_eq!(info(pair.ours(), "a.qcow2")["virtual-size"], 1 << 20);
}

#[test]
fn bitmaps_are_not_made_inconsistent() {
    let pair = Pair::with(&["create -q -f qcow2 a.qcow2 1M", "bitmap --add a.qcow2 b"]);
    let dir = pair.ours();
    let ran = ours(&["amend", "-o", "compat=0.10", "a.qcow2"], dir.root());
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("remove them first"), "{ran:?}");
    // Other changes leave them as they are.
    pair.same("amend -o refcount_bits=64,lazy_refcounts=on a.qcow2");
    agree(&pair, "a.qcow2", "with a bitmap");
    dir.qemu_img_ok(&["bitmap", "--remove", "a.qcow2", "b"]);
    pair.theirs()
        .qemu_img_ok(&["bitmap", "--remove", "a.qcow2", "b"]);
    pair.same("amend -o compat=0.10,refcount_bits=16 a.qcow2");
    agree(&pair, "a.qcow2", "without a bitmap");
}

#[test]
fn compression_and_features() {
    let pair = Pair::with(&[
        "create -q a.raw 1M",
        "create -q -f qcow2 -o compression_type=zstd empty.qcow2 1M",
        "create -q -f qcow2 u.qcow2 1M",
        "create -q -f qcow2 c.qcow2 1M",
    ]);
    pair.qemu_io("raw", "a.raw", &["write -P 7 0 1M"]);
    pair.qemu("convert -c -O qcow2 -o compression_type=zstd a.raw full.qcow2");
    pair.qemu("convert -c -O qcow2 a.raw zlib.qcow2");
    pair.patch("u.qcow2", 80, &[0x80]);
    pair.patch("u.qcow2", 88, &[0x80]);
    pair.patch("c.qcow2", 79, &[2]);
    for image in ["full", "empty", "zlib", "u", "c"] {
        pair.same(&format!("amend -o compat=0.10 {image}.qcow2"));
        if image != "c" {
            agree(&pair, &format!("{image}.qcow2"), image);
        }
    }
    // A compressed cluster that comes later has the compression of the header.
    let dir = pair.ours();
    let args = ["convert", "-n", "-c", "-O", "qcow2", "a.raw", "empty.qcow2"];
    assert_eq!(ours(&args, dir.root()).code, 0);
    dir.qemu_img_ok(&["compare", "a.raw", "empty.qcow2"]);
}

#[test]
fn data_files() {
    let pair = Pair::with(&[
        "create -q -f qcow2 -o data_file=d.raw d.qcow2 1M",
        "create -q -f qcow2 -o data_file=dr.raw,data_file_raw=on dr.qcow2 1M",
    ]);
    pair.qemu_io("qcow2", "d.qcow2", &["write -P 1 0 100k"]);
    for dir in [pair.theirs(), pair.ours()] {
        std::fs::copy(dir.path("d.raw"), dir.path("d2.raw")).expect("a copy");
    }
    for (image, line) in [
        ("d", "amend -o data_file=d2.raw d.qcow2"),
        (
            "d",
            "amend -o refcount_bits=32,size=2M,lazy_refcounts=on d.qcow2",
        ),
        ("dr", "amend -o data_file_raw=on dr.qcow2"),
        ("dr", "amend -o size=3M dr.qcow2"),
        ("dr", "amend -o data_file_raw=off dr.qcow2"),
        ("dr", "amend -o data_file_raw=on dr.qcow2"),
    ] {
        pair.same(line);
        let image = format!("{image}.qcow2");
        let (theirs, ours) = (info(pair.theirs(), &image), info(pair.ours(), &image));
        assert_eq!(ours, theirs, "{line}");
        let check = pair.ours().qemu_img(&["check", &image]);
        assert_eq!(check.code, 0, "{line}: {check:?}");
    }
    // Without a name the file must be given.
    pair.same("amend -o data_file= d.qcow2");
    pair.same("amend -o lazy_refcounts=off d.qcow2");
    pair.same("amend --image-opts -o lazy_refcounts=off driver=qcow2,file.filename=d.qcow2,data-file.filename=d2.raw");
    pair.same_but("info d.qcow2", Loose::DiskSize);
}

#[test]
fn a_dirty_image() {
    let pair = Pair::with(&["create -q -f qcow2 -o lazy_refcounts=on a.qcow2 1M"]);
    for dir in [pair.theirs(), pair.ours()] {
        let args = ["-c", "write -P 1 0 300k", "-c", "sigraise 9", "a.qcow2"];
        crate::common::run_in(dir.root(), "qemu-io", &args);
    }
    for (dir, name) in [(pair.theirs(), "theirs"), (pair.ours(), "ours")] {
        let args = ["amend", "-o", "compat=0.10", "a.qcow2"];
        let ran = match name {
            "ours" => ours(&args, dir.root()),
            _ => dir.qemu_img(&args),
        };
        assert_eq!(ran.code, 0, "{name}");
        // Theirs lists what it repairs.
        assert_ne!(ran.err, "", "{name}");
        assert!(
            name == "theirs"
                || ran
                    .err
                    .contains("warning: the image was not closed properly"),
            "{ran:?}"
        );
    }
    agree(&pair, "a.qcow2", "dirty");
}

#[test]
fn progress() {
    let pair = Pair::with(&["create -q -f qcow2 a.qcow2 64M"]);
    for line in [
        "amend -p -o compat=0.10 a.qcow2",
        "amend -p -o compat=1.1,refcount_bits=1 a.qcow2",
        "amend -p -o compat=9 a.qcow2",
        "amend -p -o size=1 a.qcow2",
        "amend -p -q -o size=1M a.qcow2",
        "amend -pq -o size=2M a.qcow2",
    ] {
        let ran = pair.same_but(line, Loose::Progress);
        let complete = ran.out.ends_with("    (100.00/100%)\r\n");
        assert!(complete || ran.out.is_empty(), "{line}: {ran:?}");
        assert_eq!(
            ran.out.is_empty(),
            line.contains('q') && !line.contains("-p -o"),
            "{line}"
        );
    }
}

/// The image both start from, opened by the secret of that ID.
fn opened(image: &str, secret: &str) -> String {
    match image {
        "l.luks" => format!("driver=luks,file.filename=l.luks,key-secret={secret}"),
        _ => format!("driver=qcow2,file.filename={image},encrypt.key-secret={secret}"),
    }
}

fn encrypted() -> Pair {
    let pair = Pair::new();
    let theirs = pair.theirs();
    let create = |line: String| {
        theirs.qemu_img_ok(&crate::pair::words(&line));
    };
    create(format!(
        "create -q {SECRETS} -f luks -o key-secret=s0,iter-time=10 l.luks 1M"
    ));
    create(format!(
        "create -q {SECRETS} -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10 q.qcow2 1M"
    ));
    create(format!(
        "create -q {SECRETS} -f qcow2 -o encrypt.format=aes,encrypt.key-secret=s0 aes.qcow2 1M"
    ));
    for image in ["l.luks", "q.qcow2", "aes.qcow2"] {
        std::fs::copy(theirs.path(image), pair.ours().path(image)).expect("a copy");
    }
    pair
}

/// Which secrets open the image, by QEMU's tool and by ours.
fn keys(dir: &Dir, image: &str) -> Vec<&'static str> {
    let opens = |secret: &&str| {
        let line = format!(
            "map {SECRETS} --output=json --image-opts {}",
            opened(image, secret)
        );
        let line = crate::pair::words(&line);
        let (theirs, ours) = (dir.qemu_img(&line).code, ours(&line, dir.root()).code);
        assert_eq!(ours, theirs, "{line:?}");
        ours == 0
    };
    ["s0", "s1", "s2"].into_iter().filter(opens).collect()
}

#[test]
fn key_slots() {
    for image in ["l.luks", "q.qcow2"] {
        let pair = encrypted();
        let prefix = if image == "l.luks" { "" } else { "encrypt." };
        let amend = |options: &str, secret: &str| {
            let options: Vec<_> = options.split(',').map(|o| format!("{prefix}{o}")).collect();
            let options = options.join(",");
            let (options, force) = match options.split_once(' ') {
                Some((options, force)) => (options.to_owned(), force.to_owned()),
                None => (options, String::new()),
            };
            let opened = opened(image, secret);
            pair.same(&format!(
                "amend {SECRETS} -o {options} {force} --image-opts {opened}"
            ))
        };
        // The same code serves both: a few lines are enough for the second.
        let step = if image == "l.luks" { 1 } else { 6 };
        let refused = [
            "state=inactive",
            "state=inactive,keyslot=0",
            "state=inactive,old-secret=s0",
            "state=inactive,old-secret=s1",
            "state=inactive,keyslot=9",
            "state=inactive,keyslot=18446744073709551615",
            "state=inactive,keyslot=1",
            "state=inactive,keyslot=1,old-secret=s0",
            "state=inactive,new-secret=s1",
            "state=inactive,new-secret=nope",
            "state=inactive,iter-time=10,keyslot=0",
            "state=active",
            "state=active,keyslot=0",
            "state=active,keyslot=0,new-secret=s1",
            "state=active,keyslot=8,new-secret=s1",
            "state=active,new-secret=nope",
            "state=active,new-secret=s1,old-secret=s0",
            "state=active,new-secret=s1,old-secret=nope",
            "state=bogus",
            "new-secret=s1",
            "keyslot=1",
            "iter-time=10",
            "keyslot=x",
            "keyslot=-1",
            "bogus=1",
            "key-secret=s0",
        ];
        for options in refused.into_iter().step_by(step) {
            assert_eq!(amend(options, "s0").code, 1, "{options}");
        }
        assert_eq!(keys(pair.ours(), image), ["s0"]);
        for (options, secret, opens) in [
            (
                "state=active,new-secret=s1,iter-time=10",
                "s0",
                &["s0", "s1"][..],
            ),
            (
                "state=active,new-secret=s2,keyslot=6,iter-time=10",
                "s1",
                &["s0", "s1", "s2"],
            ),
            (
                "state=inactive,keyslot=6,old-secret=s1",
                "s0",
                &["s0", "s1", "s2"],
            ),
            (
                "state=inactive,keyslot=6,old-secret=s2",
                "s0",
                &["s0", "s1"],
            ),
            ("state=inactive,keyslot=6", "s0", &["s0", "s1"]),
            ("state=inactive,keyslot=6 --force", "s0", &["s0", "s1"]),
            ("state=inactive,old-secret=s0", "s0", &["s1"]),
            // The only slot is overwritten.
            (
                "state=active,keyslot=1,new-secret=s2,iter-time=0 --force",
                "s1",
                &["s2"],
            ),
            ("state=inactive,keyslot=1", "s2", &["s2"]),
            ("state=inactive,old-secret=s2 --force", "s2", &[]),
        ] {
            amend(options, secret);
            assert_eq!(keys(pair.theirs(), image), opens, "{options}");
            assert_eq!(keys(pair.ours(), image), opens, "{options}");
        }
        let slots = |dir: &Dir| {
            let text = dir.qemu_img_ok(&["info", "--output=json", image]);
            let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let data = &value["format-specific"]["data"];
            let slots = data.get("slots").or_else(|| data["encrypt"].get("slots"));
            slots.expect("slots").clone()
        };
        assert_eq!(slots(pair.ours()), slots(pair.theirs()));
    }
}

#[test]
fn all_key_slots() {
    let pair = encrypted();
    let opened = opened("l.luks", "s0");
    let line =
        format!("amend {SECRETS} -o state=active,new-secret=s1,iter-time=0 --image-opts {opened}");
    for _ in 0..7 {
        let ran = ours(&crate::pair::words(&line), pair.ours().root());
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    std::fs::copy(pair.ours().path("l.luks"), pair.theirs().path("l.luks")).expect("a copy");
    assert_eq!(pair.same(&line).code, 1);
    pair.same(&format!(
        "amend {SECRETS} -o state=inactive,old-secret=s1 --image-opts {opened}"
    ));
    assert_eq!(keys(pair.ours(), "l.luks"), ["s0"]);
}

#[test]
fn encryption_of_other_images() {
    let pair = encrypted();
    let aes = opened("aes.qcow2", "s0");
    let luks = opened("q.qcow2", "s0");
    for line in [
        format!("amend {SECRETS} -o encrypt.state=active,encrypt.new-secret=s1 --image-opts {aes}"),
        format!("amend {SECRETS} -o compat=0.10 --image-opts {aes}"),
        format!("amend {SECRETS} -o compat=0.10 --image-opts {luks}"),
        format!("amend {SECRETS} -o compat=1.1,refcount_bits=8,size=2M --image-opts {luks}"),
        format!("amend {SECRETS} -f luks -o state=active,new-secret=s1 l.luks"),
        "amend -o compat=0.10 q.qcow2".to_owned(),
    ] {
        pair.same(&line);
    }
    assert_eq!(keys(pair.ours(), "q.qcow2"), ["s0"]);
    let check = pair.ours().qemu_img(&crate::pair::words(&format!(
        "check {SECRETS} --image-opts {luks}"
    )));
    assert_eq!(check.code, 0, "{check:?}");
}

#[test]
fn untrusted_guesses_no_format() {
    let pair = Pair::with(&["create -q -f qcow2 a.qcow2 1M"]);
    let line = ["amend", "--untrusted", "-o", "compat=0.10", "a.qcow2"];
    assert_eq!(ours(&line, pair.ours().root()).code, 1);
    let line = [
        "amend",
        "--untrusted",
        "-f",
        "qcow2",
        "-o",
        "compat=0.10",
        "a.qcow2",
    ];
    assert_eq!(ours(&line, pair.ours().root()).code, 0);
}

#[test]
fn the_backing_file_that_an_image_has_is_no_change() {
    let pair = Pair::with(&[
        "create -q base.raw 1M",
        "create -q -f qcow2 -b base.raw -F raw o.qcow2",
        "create -q -f qcow2 plain.qcow2 1M",
    ]);
    for options in [
        "backing_file=base.raw,backing_fmt=raw",
        "lazy_refcounts=on,backing_fmt=raw,backing_file=base.raw",
        "backing_file=base.raw,backing_fmt=raw,size=2M",
        "backing_file=base.raw",
        "backing_fmt=raw",
        "backing_file=./base.raw,backing_fmt=raw",
        "backing_file=base.raw,backing_fmt=qcow2",
        "backing_file=base.raw,backing_fmt=raw,compat=9",
        "backing_file=,backing_fmt=",
    ] {
        for image in ["o.qcow2", "plain.qcow2"] {
            pair.same(&format!("amend -o {options} {image}"));
            pair.same_but(&format!("info {image}"), Loose::DiskSize);
        }
    }
}
