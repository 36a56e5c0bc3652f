//! `bench`: what is sent, what is refused, and what an image holds after a write test.

use crate::pair::{Loose, Pair, ours, words};

const IMAGES: &[&str] = &["a.raw", "c.qcow2"];

fn images() -> Pair {
    let pair = Pair::with(&[
        "create -q -f raw a.raw 1M",
        "create -q -f qcow2 b.qcow2 1M",
        "create -q -f qcow2 -b b.qcow2 -F qcow2 c.qcow2 1M",
    ]);
    pair.qemu_io("raw", "a.raw", &["write -P 1 0 1M"]);
    pair.qemu_io("qcow2", "b.qcow2", &["write -P 2 64k 300k"]);
    pair.qemu_io("qcow2", "c.qcow2", &["write -P 3 100k 10k"]);
    pair
}

/// Runs every line with both tools; all but the time must agree.
#[track_caller]
fn all_same(pair: &Pair, lines: &[String]) {
    let wrong: Vec<_> = lines
        .iter()
        .filter_map(|line| pair.differ(&words(line), Loose::Time).err())
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[track_caller]
fn same_contents(pair: &Pair) {
    for image in IMAGES {
        let format = image.rsplit_once('.').expect("a suffix").1;
        pair.same_image(image, format);
    }
}

#[test]
fn reads() {
    let pair = images();
    let options = [
        "",
        "-d 1",
        "-d 100 -c 7",
        "-c 0x10",
        "-c 010",
        "-c +5",
        "-s 1",
        "-s 64k -S 96k -d 1",
        "-s 1.5k -o 1k",
        "-s 1M",
        "-s 0x10",
        "-S 0",
        "-S 3M",
        "-o 1023k -s 1k",
        "-t none",
        "-t off -n",
        "-t none -i native",
        "-t directsync -n",
        "-t unsafe",
        "-i threads",
        "-i threads -t none",
        "-i io_uring",
        "-i io_uring -t none",
        "-U",
        "-q",
        "--no-drain",
        "--pattern 0x41",
        "--flush-interval 0",
        "--count 5 --depth 2 --offset 1k --buffer-size 2k --step-size 3k --aio threads --cache none",
    ];
    let mut lines = Vec::new();
    for options in options {
        for image in IMAGES {
            lines.push(format!("bench -c 40 {options} {image}"));
        }
    }
    lines.push("bench a.raw".into());
    lines.push("bench -f qcow2 b.qcow2".into());
    lines.push("bench --image-opts driver=qcow2,file.filename=b.qcow2 -c 3".into());
    all_same(&pair, &lines);
    same_contents(&pair);
}

#[test]
fn writes() {
    let pair = images();
    let options = [
        "",
        "-d 1 --pattern 255",
        "--pattern 0xaa -s 1000 -S 3333",
        "-o 5 -s 3 --pattern 7",
        "-s 64k -S 96k --pattern 9 -d 4",
        "--flush-interval 5 -d 5",
        "--flush-interval 7 -d 3 --no-drain --pattern 4",
        "--flush-interval 100",
        "-t none --pattern 6",
        "-t none -n --pattern 8 -d 16",
        "-t writethrough --pattern 10 -c 5",
        "-t directsync --pattern 11 -c 5",
        "-t unsafe --pattern 12",
        "-i threads --pattern 13",
        "-i io_uring --pattern 14 -t none",
        "-s 1M --pattern 15 -c 2 -d 1",
    ];
    for options in options {
        let lines: Vec<_> = IMAGES
            .iter()
            .map(|image| {
                let format = image.rsplit_once('.').expect("a suffix").1;
                format!("bench -w -c 20 {options} -f {format} {image}")
            })
            .collect();
        all_same(&pair, &lines);
        same_contents(&pair);
    }
    // A guessed raw format: a warning, and its first sector must not become another format's.
    all_same(&pair, &["bench -w -c 3 --pattern 5 a.raw".into()]);
    same_contents(&pair);
}

#[test]
fn refusals() {
    let pair = images();
    pair.file("short", b"");
    let lines = [
        "bench",
        "bench a.raw b.qcow2",
        "bench nope",
        "bench -f bogus a.raw",
        "bench -f qcow2 a.raw",
        "bench -c 0 a.raw",
        "bench -c x a.raw",
        "bench -c -1 a.raw",
        "bench -c 1k a.raw",
        "bench -c 5.5 a.raw",
        "bench -c '' a.raw",
        "bench -c 2147483648 a.raw",
        "bench -c 99999999999999999999 a.raw",
        "bench -d 0 a.raw",
        "bench -d x a.raw",
        "bench -d 1k a.raw",
        "bench -d 99999999999 a.raw",
        "bench -s 0 a.raw",
        "bench -s x a.raw",
        "bench -s 5G a.raw",
        "bench -s -1 a.raw",
        "bench -s 2147483648 a.raw",
        "bench -S x a.raw",
        "bench -S 5G a.raw",
        "bench -S -1 a.raw",
        "bench -o x a.raw",
        "bench -o 9E a.raw",
        "bench -o 16E a.raw",
        "bench -o -1 a.raw",
        "bench -o 99999999999999999999 a.raw",
        "bench -w --pattern 300 a.raw",
        "bench -w --pattern -1 a.raw",
        "bench -w --pattern 1k a.raw",
        "bench --pattern x a.raw",
        "bench -w --flush-interval x a.raw",
        "bench -w --flush-interval -1 a.raw",
        "bench -w --flush-interval 1k a.raw",
        "bench --flush-interval 5 a.raw",
        "bench -w --flush-interval 5 a.raw",
        "bench -w --flush-interval 1",
        "bench -w --flush-interval 1 --image-opts -f raw a.raw",
        "bench -t bogus a.raw",
        "bench -t bogus",
        "bench -t bogus -c 0 a.raw",
        "bench -c 0 -t bogus a.raw",
        "bench -t bogus -i bogus a.raw",
        "bench -i bogus a.raw",
        "bench -n a.raw",
        "bench -n nope",
        "bench -n -f bogus a.raw",
        "bench -n -t unsafe -f raw a.raw",
        "bench -i native -f qcow2 b.qcow2",
        "bench -n -i threads -f raw a.raw",
        "bench -n --image-opts driver=raw,file.filename=a.raw",
        "bench --image-opts -f raw a.raw",
        "bench --object secret,id=s,data=x a.raw",
        "bench --bogus a.raw",
        "bench -z a.raw",
        "bench -c",
        "bench --n",
        "bench --no",
        "bench --f",
        "bench --fo",
        "bench --s",
        "bench --st",
        "bench --co x a.raw",
        "bench --x",
        "bench -w -U -f raw a.raw",
        "bench -w -U -f qcow2 b.qcow2",
        "bench -c 5 -f raw -o 1M a.raw",
        "bench -c 5 -f raw -o 7E a.raw",
        "bench -c 5 -f raw -s 2M a.raw",
        "bench -c 5 -f raw -d 1 -s 600k a.raw",
        "bench -c 5 -f qcow2 -d 1 -s 600k b.qcow2",
        "bench -c 5 -f raw short",
        "bench -w -c 5 -f raw -o 512k -s 1M a.raw",
    ];
    let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
    all_same(&pair, &lines);
    same_contents(&pair);
}

#[test]
fn too_much_memory_is_one_line() {
    let pair = images();
    let args = [
        "bench",
        "-f",
        "raw",
        "-s",
        "2147483647",
        "-c",
        "64",
        "a.raw",
    ];
    let ran = ours(&args, pair.ours().root());
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.err,
        "qemu-img: The buffers of 64 requests of 2147483647 bytes would take more than 4294967296 bytes\n"
    );
}
