//! Odd files, odd nodes and odd values, where the lines of both tools agree.

use crate::pair::{Pair, ours, words};

fn images() -> Pair {
    let pair = Pair::with(&["create -q -f qcow2 a.qcow2 1M", "create -q -f raw r.raw 2M"]);
    pair.qemu_io(
        "qcow2",
        "a.qcow2",
        &["write -P 5 0 128k", "write -z 512k 64k"],
    );
    pair.qemu_io("raw", "r.raw", &["write 64k 64k"]);
    pair
}

#[test]
fn an_image_shows_through_a_raw_layer_over_it() {
    let raw = "--image-opts driver=raw,file.driver=qcow2,file.file.filename=a.qcow2";
    let window =
        "--image-opts driver=raw,offset=64k,size=512k,file.driver=qcow2,file.file.filename=a.qcow2";
    let mut lines = Vec::new();
    for source in [
        raw,
        window,
        "--image-opts driver=raw,file.driver=raw,file.file.filename=r.raw",
        "--image-opts driver=qcow2,file.driver=raw,file.file.filename=a.qcow2",
    ] {
        for command in ["info", "info --output=json", "map", "map --output=json"] {
            lines.push(format!("{command} {source}"));
        }
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    images().all_same(&lines);
}

#[test]
fn character_devices() {
    images().all_same(&[
        "info /dev/null",
        "info --output=json /dev/null",
        "info host_device:/dev/null",
        "info -f qcow2 /dev/null",
        "map /dev/null",
        "map --output=json /dev/null",
        "check /dev/null",
        "check -f qcow2 /dev/null",
        "compare /dev/null /dev/null",
        "compare /dev/null r.raw",
        "convert -O raw /dev/null x",
        "measure /dev/null",
        "measure -O qcow2 /dev/null",
        "resize -f raw /dev/null 1M",
        "resize -f raw /dev/null +1M",
        "snapshot -l /dev/null",
        "snapshot -c x /dev/null",
        "create -f raw /dev/null 0",
        "create -f raw /dev/null 1M",
        "create -f qcow2 /dev/null 1M",
        "convert -O qcow2 r.raw /dev/null",
        "info --image-opts driver=file,filename=/dev/null",
        "info --image-opts driver=host_device,filename=/dev/null",
        "info --image-opts driver=host_device,filename=r.raw",
    ]);
}

/// `qemu-img` opens a FIFO and waits for ever.
#[test]
fn a_pipe_is_no_image() {
    let pair = images();
    let dir = pair.ours();
    let made = std::process::Command::new("mkfifo")
        .arg(dir.path("pipe"))
        .status();
    assert!(made.unwrap().success());
    for (line, code) in [
        ("info pipe", 1),
        ("info -f raw pipe", 1),
        ("map pipe", 1),
        ("check pipe", 1),
        ("compare pipe pipe", 2),
        ("measure pipe", 1),
        ("create -f raw pipe 1M", 1),
    ] {
        let ran = ours(&words(line), dir.root());
        assert_eq!(ran.code, code, "{line}");
        assert!(
            ran.err
                .ends_with("'file' driver requires 'pipe' to be a regular file\n"),
            "{line}: {ran:?}"
        );
    }
    let ran = ours(
        &words("info --image-opts driver=host_device,filename=pipe"),
        dir.root(),
    );
    assert!(
        ran.err.contains("to be either a character or block device"),
        "{ran:?}"
    );
}

#[test]
fn json_names_as_targets() {
    images().all_same(&[
        "create -f raw json:{} 1M",
        "create -f qcow2 json:{} 1M",
        r#"create -f qcow2 json:{"driver":"file","filename":"x"} 1M"#,
        "create -f qcow2 json: 1M",
        "create -f qcow2 json:zz 1M",
        "convert -O raw r.raw json:{}",
        "convert -O qcow2 r.raw json:{}",
        r#"convert -O qcow2 r.raw json:{"driver":"file","filename":"x"}"#,
        "convert -n -O raw r.raw json:{}",
        "convert -n -O raw r.raw json:zz",
        "convert -O raw json:{} x",
    ]);
}

#[test]
fn numbers_out_of_range() {
    images().all_same(&[
        "create -f qcow2 -o refcount_bits=-1 x 1M",
        "create -f qcow2 -o refcount_bits=0 x 1M",
        "create -f qcow2 -o refcount_bits=18446744073709551616 x 1M",
        "create -f qcow2 -o refcount_bits=128 x 1M",
        "create -f qcow2 -o refcount_bits= x 1M",
        "create -f qcow2 -o refcount_bits=16k x 1M",
        "create -f qcow2 -o cluster_size=-1 x 1M",
        "create -f qcow2 -o cluster_size=0 x 1M",
        "create -f qcow2 -o cluster_size=16E x 1M",
        "measure -O qcow2 -o refcount_bits=-1 --size 1M",
        "convert -O qcow2 -o refcount_bits=-1 r.raw x",
    ]);
}

/// A header that ends before the field that decides reads as zeroes there.
#[test]
fn qcow2_headers_cut_short() {
    let pair = images();
    let whole = std::fs::read(pair.ours().path("a.qcow2")).unwrap();
    let mut lines = Vec::new();
    for len in [0, 3, 4, 7, 8, 20, 23, 24, 40, 71, 72, 100, 103] {
        let name = format!("h{len}.qcow2");
        pair.file(&name, &whole[..len]);
        lines.push(format!("info -f qcow2 {name}"));
        lines.push(format!("info {name}"));
        lines.push(format!("check -f qcow2 {name}"));
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

/// `qemu-img` takes what lies past the end of the file for zeroes, and turns an image that was cut
/// short into an empty disk without a word.
#[test]
fn an_image_cut_behind_its_header_is_refused() {
    let pair = images();
    let whole = std::fs::read(pair.ours().path("a.qcow2")).unwrap();
    for len in [104, 112] {
        pair.file("cut.qcow2", &whole[..len]);
        let ran = ours(
            &words("convert -f qcow2 -O raw cut.qcow2 x"),
            pair.ours().root(),
        );
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(
            ran.err
                .starts_with("qemu-img: Could not open 'cut.qcow2': "),
            "{ran:?}"
        );
        assert!(!pair.ours().path("x").exists());
    }
}
