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
    let short = "Could not open 'cut.qcow2': qcow2 header too short";
    let lost = "'cut.qcow2': a metadata table at offset 0x30000 lies past the end of the file";
    for (len, expected) in [(104, short), (112, lost)] {
        pair.file("cut.qcow2", &whole[..len]);
        let ran = ours(
            &words("convert -f qcow2 -O raw cut.qcow2 x"),
            pair.ours().root(),
        );
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains(expected), "{ran:?}");
        assert!(!pair.ours().path("x").exists());
    }
}

/// The first header extension, of up to eight bytes, becomes an empty one and one that nobody knows.
fn empty_first_extension(pair: &Pair) {
    let bytes = [0, 0, 0, 0, 0x11, 0x11, 0x11, 0x11, 0, 0, 0, 0];
    pair.patch("t.qcow2", 112 + 4, &bytes);
}

#[test]
fn feature_bits_that_contradict_the_header() {
    let lines = [
        "info t.qcow2",
        "info --output=json t.qcow2",
        "check t.qcow2",
        "map --output=json t.qcow2",
        "convert -O raw t.qcow2 out.raw",
        "snapshot -l t.qcow2",
        "measure -O qcow2 t.qcow2",
        "amend -o compat=1.1 t.qcow2",
        "resize t.qcow2 2M",
    ];
    let data = "-o data_file=d.raw";
    let raw = "-o data_file=d.raw,data_file_raw=on";
    /// What it is, the options of the image, and the bytes to change in its header.
    type Case = (&'static str, &'static str, &'static [(u64, &'static [u8])]);
    let cases: &[Case] = &[
        ("a raw data file without a data file", "", &[(95, &[2])]),
        ("the same, of a lost data file", raw, &[(79, &[0])]),
        ("a name of a data file without the bit", data, &[(79, &[0])]),
        ("a data file without a name", "", &[(79, &[4])]),
        (
            "subclusters of small clusters",
            "-o cluster_size=4k",
            &[(79, &[16])],
        ),
        ("subclusters", "-o cluster_size=16k", &[(79, &[16])]),
        ("a compression type without the bit", "", &[(104, &[1])]),
        ("the bit without a compression type", "", &[(79, &[8])]),
        (
            "a compression type that there is not",
            "",
            &[(79, &[8]), (104, &[2])],
        ),
        (
            "a header too short for its type",
            "",
            &[(79, &[8]), (103, &[104])],
        ),
        ("version 2 with features", "", &[(7, &[2]), (79, &[0xff])]),
        ("corrupt and dirty", "", &[(79, &[3])]),
        ("a LUKS header that is not there", "", &[(35, &[2])]),
        ("a method without a secret", "", &[(35, &[1])]),
        ("bitmaps that are not there", "", &[(95, &[1])]),
        ("unknown bits", "", &[(72, &[0x80]), (80, &[1]), (88, &[1])]),
        ("a wide refcount", "", &[(99, &[7])]),
    ];
    for (what, options, patches) in cases {
        let pair = Pair::new();
        pair.qemu(&format!("create -q -f qcow2 {options} t.qcow2 1M"));
        for (offset, bytes) in *patches {
            pair.patch("t.qcow2", *offset, bytes);
        }
        println!("{what}");
        pair.all_same(&lines);
    }
    // There is no snapshot, but where its table would be is looked at.
    let pair = Pair::with(&["create -q -f qcow2 t.qcow2 1M"]);
    pair.patch("t.qcow2", 64, &0x123u64.to_be_bytes());
    let without_check: Vec<&str> = lines
        .into_iter()
        .filter(|line| !line.starts_with("check"))
        .collect();
    pair.all_same(&without_check);
    let repaired = ours(&["check", "-r", "all", "t.qcow2"], pair.ours().root());
    assert_eq!(repaired.code, 0, "{repaired:?}");
    assert_eq!(pair.ours().qemu_img(&["check", "t.qcow2"]).code, 0);
    // The name is there, and empty.
    let pair = Pair::with(&[&format!("create -q -f qcow2 {data} t.qcow2 1M")]);
    empty_first_extension(&pair);
    pair.all_same(&lines);
    // Snapshots of an image whose clusters are elsewhere.
    let pair = Pair::with(&[&format!("create -q -f qcow2 {data} t.qcow2 1M")]);
    pair.patch("t.qcow2", 63, &[1]);
    pair.patch("t.qcow2", 64, &0x10000u64.to_be_bytes());
    pair.all_same(&["check t.qcow2", "check --output=json t.qcow2"]);
}

#[test]
fn bitmaps_of_an_image_that_another_program_has_written() {
    let pair = Pair::with(&["create -q -f qcow2 t.qcow2 1M", "bitmap --add t.qcow2 b"]);
    pair.patch("t.qcow2", 95, &[0]);
    for line in [
        "info t.qcow2",
        "info --output=json t.qcow2",
        "check t.qcow2",
        "map t.qcow2",
        "convert -O raw t.qcow2 out.raw",
        "compare t.qcow2 t.qcow2 -U",
        "resize t.qcow2 2M",
    ] {
        let theirs = pair.theirs().qemu_img(&words(line));
        let mine = ours(&words(line), pair.ours().root());
        assert_eq!((mine.code, &mine.out), (theirs.code, &theirs.out), "{line}");
        assert!(
            mine.err.contains("lacking bitmap support"),
            "{line}: {mine:?}"
        );
        // QEMU's warning lacks the end of its line.
        assert_eq!(
            mine.err.replace("to fix.\n", "to fix."),
            theirs.err,
            "{line}"
        );
    }
}

#[test]
fn an_empty_backing_format_is_none() {
    let pair = Pair::with(&[
        "create -q -f qcow2 base.qcow2 1M",
        "create -q -f qcow2 -b base.qcow2 -F qcow2 t.qcow2",
    ]);
    pair.qemu_io("qcow2", "base.qcow2", &["write -P 5 0 64k"]);
    let lines = [
        "info t.qcow2",
        "info --output=json --backing-chain t.qcow2",
        "map --output=json t.qcow2",
        "check t.qcow2",
        "convert -O raw t.qcow2 out.raw",
        "commit -d t.qcow2",
    ];
    empty_first_extension(&pair);
    pair.all_same(&lines);
    // As it is where the first byte of the name is a NUL.
    pair.patch(
        "t.qcow2",
        112 + 4,
        &[0, 0, 0, 5, 0, b'c', b'o', b'w', b'2', 0, 0, 0],
    );
    pair.all_same(&lines);
}
