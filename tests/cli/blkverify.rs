//! The filter `blkverify`: an image and a raw copy of it must read alike.

use crate::common::Dir;
use crate::pair::{Loose, Pair, ours, words};

fn file(name: &str) -> String {
    format!("{{'driver':'file','filename':'{name}'}}")
}

fn over(driver: &str, file: &str) -> String {
    format!("{{'driver':'{driver}','file':{file}}}")
}

fn verify(raw: &str, test: &str) -> String {
    format!("json:{{'driver':'blkverify','raw':{raw},'test':{test}}}")
}

/// A disk as raw and as qcow2 twice, `d.raw` that differs, and `s.raw` that is shorter.
fn images() -> Pair {
    let pair = Pair::new();
    pair.file("s.raw", &[0; 512 << 10]);
    for name in ["a.raw", "b.raw", "d.raw", "a.qcow2", "b.qcow2"] {
        let format = name.split_once('.').expect("a format").1;
        pair.qemu(&format!("create -q -f {format} {name} 1M"));
        pair.qemu_io(format, name, &["write -P 7 0 128k"]);
    }
    pair.qemu_io("raw", "d.raw", &["write -P 9 4k 4k"]);
    pair
}

fn content(dir: &Dir, name: &str) -> Vec<u8> {
    std::fs::read(dir.root().join(name)).expect("a file of the test")
}

#[test]
fn names_and_refusals_are_the_same() {
    let pair = images();
    let (raw, test) = (file("a.raw"), over("qcow2", &file("a.qcow2")));
    for name in [
        "blkverify:a.raw:b.raw",
        "blkverify:a.raw:a.qcow2",
        "blkverify:a.raw:blkdebug::b.raw",
        "blkverify:a.raw",
        "blkverify:",
        "blkverify::",
        "blkverify:a.raw:",
        "blkverify::a.raw",
        "blkverify:a.raw:none",
        "blkverify:none:a.raw",
        "blkverify:a.raw:x:y",
        "blkverify:a.raw:json:{}",
        &verify(&raw, &test),
        &verify(&raw, &file("a.qcow2")),
        &verify(&over("raw", &raw), &test),
        &verify(&test, &over("qcow2", &file("b.qcow2"))),
        &verify(&raw, &file("s.raw")),
        &verify(&file("s.raw"), &raw),
        &format!("json:{{'driver':'blkverify','raw':{raw}}}"),
        "json:{'driver':'blkverify','x-raw':'a.raw','x-image':'b.raw'}",
        "json:{'driver':'blkverify','x-raw':'a.raw','x-image':'a.qcow2'}",
        "json:{'driver':'blkverify','x-raw':'a.raw','x-image':'none'}",
        "json:{'driver':'blkverify','x-raw':'none','x-image':'a.raw'}",
        "json:{'driver':'blkverify','x-raw':1,'x-image':'a.raw'}",
        &format!("json:{{'driver':'blkverify','x-raw':'a.raw','test':{test}}}"),
        &format!("json:{{'driver':'blkverify','x-raw':'a.raw','raw':{raw},'test':{test}}}"),
        &format!("json:{{'driver':'blkverify','test':{raw}}}"),
        &format!("json:{{'driver':'blkverify','foo':1,'raw':{raw},'test':{test}}}"),
        "json:{'driver':'blkverify'}",
    ] {
        for line in ["info", "info --output=json"] {
            let mut args = words(line);
            args.push(name);
            pair.same_args(&args, Loose::Exact);
        }
    }
    for line in [
        "info -f raw blkverify:a.raw:a.qcow2",
        "info -f blkverify blkverify:a.raw:a.qcow2",
        "info -f blkverify a.raw",
        "info -f blkdebug blkdebug::a.raw",
        "info --image-opts driver=blkverify,raw.filename=a.raw,test.filename=b.raw",
        "info --image-opts driver=blkverify,raw.filename=a.raw,test.file.filename=b.raw",
        "create -f blkverify new 1M",
    ] {
        pair.same(line);
    }
    // A name whose colon would end it earlier says too little.
    std::fs::write(pair.ours().path("x:y"), [0; 1 << 20]).expect("a file of the test");
    let options = "info --image-opts driver=blkverify,raw.filename=./x:y,test.file.filename=b.raw";
    let ran = ours(&words(options), pair.ours().root());
    assert!(ran.out.starts_with("image: json:{"), "{ran:?}");
}

#[test]
fn commands_that_read_take_it() {
    let pair = images();
    let test = over("qcow2", &file("b.qcow2"));
    let throttled = verify(&file("a.raw"), &test);
    let throttled = throttled.trim_start_matches("json:");
    let throttled = format!("json:{{'driver':'throttle','throttle-group':'g','file':{throttled}}}");
    for name in [
        "blkverify:a.raw:a.qcow2",
        "blkverify:a.raw:b.raw",
        &verify(&over("qcow2", &file("a.qcow2")), &test),
        &throttled,
    ] {
        for line in [
            "map @",
            "map --output=json @",
            "check @",
            "snapshot -l @",
            "snapshot -c s @",
            "measure -O qcow2 @",
            "compare @ a.raw",
            "commit @",
            "convert -O qcow2 @ out.qcow2",
        ] {
            let (command, rest) = line.split_once(' ').expect("a command");
            let mut args = vec![command];
            if name == throttled {
                args.extend(["--object", "throttle-group,id=g"]);
            }
            let rest = rest.split(' ');
            args.extend(rest.map(|word| if word == "@" { name } else { word }));
            pair.same_args(&args, Loose::DiskSize);
        }
        pair.same_image("out.qcow2", "qcow2");
    }
}

#[test]
fn a_difference_is_told_with_its_place_and_both_names() {
    let pair = images();
    let run = |args: &[&str]| ours(args, pair.ours().root());
    let ran = run(&["convert", "-O", "raw", "blkverify:a.raw:d.raw", "x.raw"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let text = "'a.raw' and 'd.raw' differ at offset 4096";
    assert!(ran.err.contains(text), "{ran:?}");
    for args in [
        ["compare", "blkverify:a.raw:d.raw", "a.raw"],
        ["compare", "a.raw", "blkverify:a.raw:d.raw"],
    ] {
        // Theirs ends at once.
        let (theirs, ran, _) = pair.both(&args, Loose::Exact);
        assert_eq!((theirs.code, ran.code), (1, 1), "{theirs:?} {ran:?}");
        assert!(ran.err.contains(text), "{ran:?}");
    }
    // A copy that is too short holds zeroes where the image goes on.
    let name = verify(&file("s.raw"), &file("a.raw"));
    let ran = run(&["convert", "-O", "raw", &name, "x.raw"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    for (raw, test) in [("a.raw", "b.raw"), ("b.raw", "a.raw")] {
        let failing = format!(
            "{{'driver':'blkdebug','image':{},'inject-error':[{{'event':'none','iotype':'read','errno':5}}]}}",
            file("a.raw")
        );
        let child = |name: &str| match name {
            "a.raw" => failing.clone(),
            _ => file(name),
        };
        let name = verify(&child(raw), &child(test));
        let ran = run(&["convert", "-O", "raw", &name, "x.raw"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        let text = "'b.raw' could be read and 'a.raw' could not: Input/output error";
        assert!(ran.err.contains(text), "{ran:?}");
    }
}

#[test]
fn both_are_written() {
    let pair = images();
    let bench = "bench -q -w -d 1 -c 5 -s 5000 -S 9000 --pattern 3 -t writethrough @";
    let name = verify(
        &over("raw", &file("a.raw")),
        &over("qcow2", &file("a.qcow2")),
    );
    let args: Vec<&str> = words(bench)
        .into_iter()
        .map(|word| if word == "@" { &name } else { word })
        .collect();
    for ran in [
        ours(&args, pair.ours().root()),
        pair.theirs().qemu_img(&args),
    ] {
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    pair.same_image("a.raw", "raw");
    pair.same_image("a.qcow2", "qcow2");
    // QEMU's tool zeroes neither, and changes the length of one alone.
    let run = |line: &str| ours(&words(line), pair.ours().root());
    let target = "driver=blkverify,raw.filename=a.raw,test.driver=qcow2,test.file.filename=a.qcow2";
    for line in [
        format!("resize -q --image-opts {target} 2M"),
        format!("convert -n --target-image-opts b.raw {target}"),
        "compare a.raw a.qcow2".to_owned(),
    ] {
        let ran = run(&line);
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
    }
    let a = content(pair.ours(), "a.raw");
    assert_eq!((a.len(), a[0], a[128 << 10]), (2 << 20, 7, 0));
}

#[test]
fn the_warning_of_a_guessed_image_is_passed_on() {
    let pair = images();
    pair.same("snapshot -c s blkverify:a.raw:b.raw");
}
