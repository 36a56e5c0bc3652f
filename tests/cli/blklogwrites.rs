//! The filter `blklogwrites`: a log of all changes, the same as that of QEMU's.

use crate::common::Dir;
use crate::pair::{Loose, Pair, ours, words};

fn file(name: &str) -> String {
    format!("{{'driver':'file','filename':'{name}'}}")
}

fn over(driver: &str, name: &str) -> String {
    format!("{{'driver':'{driver}','file':{}}}", file(name))
}

fn logged(child: &str, options: &str) -> String {
    let log = file("log");
    format!("json:{{'driver':'blklogwrites','file':{child},'log':{log}{options}}}")
}

fn images() -> Pair {
    let pair = Pair::new();
    pair.file("log", b"");
    for name in ["a.raw", "b.raw", "a.qcow2"] {
        let format = name.split_once('.').expect("a format").1;
        pair.qemu(&format!("create -q -f {format} {name} 1M"));
        pair.qemu_io(format, name, &["write -P 7 0 128k"]);
    }
    // With the same date.
    pair.theirs()
        .qemu_img_ok(&["snapshot", "-c", "inner", "a.qcow2"]);
    pair.file("a.qcow2", &content(pair.theirs(), "a.qcow2"));
    pair
}

/// Runs the line, in which `@` stands for the name, with both tools.
fn same(pair: &Pair, line: &str, name: &str) {
    let args: Vec<&str> = words(line)
        .into_iter()
        .map(|word| if word == "@" { name } else { word })
        .collect();
    pair.same_args(&args, Loose::DiskSize);
}

/// As [`same`], of what prints how long it took.
fn same_code(pair: &Pair, line: &str, name: &str) {
    let args: Vec<&str> = words(line)
        .into_iter()
        .map(|word| if word == "@" { name } else { word })
        .collect();
    let theirs = pair.theirs().qemu_img(&args);
    let ours = ours(&args, pair.ours().root());
    assert_eq!((ours.code, &ours.err), (theirs.code, &theirs.err), "{line}");
}

fn content(dir: &Dir, name: &str) -> Vec<u8> {
    std::fs::read(dir.root().join(name)).expect("a file of the test")
}

#[track_caller]
fn same_log(pair: &Pair) {
    same_log_from(pair, 0);
}

#[track_caller]
fn same_log_from(pair: &Pair, start: usize) {
    let (theirs, mut ours) = (content(pair.theirs(), "log"), content(pair.ours(), "log"));
    // Past the page cache QEMU's tool fills up the last block.
    let len = ours.len();
    let block = if theirs.len() == len { 1 } else { 4096 };
    ours.resize(len.next_multiple_of(block), 0);
    assert_eq!(theirs.len(), ours.len());
    let mut pairs = theirs[start..].iter().zip(&ours[start..]);
    let differs = pairs.position(|(a, b)| a != b);
    assert_eq!(differs, None);
}

/// What the writes of a log with sectors of 512 bytes make of a disk.
fn replay(log: &[u8], mut disk: Vec<u8>) -> Vec<u8> {
    let number = |at: usize| u64::from_le_bytes(log[at..at + 8].try_into().expect("8 bytes"));
    let mut at = 512;
    for _ in 0..number(16) {
        let (to, len) = (number(at) as usize * 512, number(at + 8) as usize * 512);
        at += 512;
        if number(at - 512 + 16) & 4 == 0 {
            disk.resize(disk.len().max(to + len), 0);
            disk[to..to + len].copy_from_slice(&log[at..at + len]);
            at += len;
        }
    }
    disk
}

#[test]
fn names_and_refusals_are_the_same() {
    let pair = images();
    let raw = over("raw", "a.raw");
    for options in [
        "",
        ",'log-sector-size':512",
        ",'log-sector-size':'4k'",
        ",'log-sector-size':511",
        ",'log-sector-size':0",
        ",'log-sector-size':8388608",
        ",'log-sector-size':16777216",
        ",'log-append':true",
        ",'log-append':false",
        ",'log-append':'x'",
        ",'log-append':true,'log-sector-size':512",
        ",'log-super-update-interval':0",
        ",'log-super-update-interval':10",
        ",'log-super-update-interval':-1",
        ",'foo':1",
    ] {
        same(&pair, "info @", &logged(&raw, options));
    }
    for name in [
        logged(&file("none"), ""),
        logged(&raw, "").replace("'log'}", "'none'}"),
        format!("json:{{'driver':'blklogwrites','file':{raw}}}"),
        format!("json:{{'driver':'blklogwrites','log':{raw}}}"),
        "json:{'driver':'blklogwrites'}".to_owned(),
        "blklogwrites:a.raw".to_owned(),
    ] {
        same(&pair, "info @", &name);
    }
    for line in [
        "info --image-opts driver=blklogwrites,file.filename=a.raw,log.filename=log",
        "info -f blklogwrites a.raw",
        "create -f blklogwrites new 1M",
    ] {
        pair.same(line);
    }
    // What is no log is not continued.
    for (at, bytes) in [(8, &[2][..]), (24, &[1]), (25, &[0]), (0, b"garbage")] {
        pair.file("log", b"");
        let name = logged(&raw, "");
        same_code(&pair, "bench -w -q -c 1 -s 512 @", &name);
        pair.patch("log", at, bytes);
        same(&pair, "info @", &logged(&raw, ",'log-append':true"));
    }
    same_log(&pair);
}

#[test]
fn commands_take_it_and_only_changes_are_logged() {
    let pair = images();
    for child in [
        over("raw", "a.raw"),
        over("qcow2", "a.qcow2"),
        file("a.raw"),
    ] {
        let name = logged(&child, "");
        for line in [
            "info @",
            "info --output=json @",
            "map @",
            "map --output=json @",
            "check @",
            "snapshot -l @",
            "snapshot -c s @",
            "snapshot -a inner @",
            "measure -O qcow2 @",
            "compare @ a.raw",
            "convert -O raw @ out.raw",
            "amend -o compat=0.10 @",
            "commit @",
        ] {
            same(&pair, line, &name);
        }
        assert!(content(pair.ours(), "log").is_empty(), "{name}");
    }
    let name = logged(&over("raw", "a.raw"), "");
    same(&pair, "resize @ 2M", &name);
    same_log(&pair);
}

#[test]
fn the_log_is_the_same_for_the_same_requests() {
    for (options, writes) in [
        ("", "-s 4k -S 8k --flush-interval 2"),
        ("", "-s 700 -S 1001 -t none"),
        ("", "-s 3000 -S 100 --flush-interval 1"),
        (",'log-sector-size':4096", "-s 8k -S 4k --flush-interval 3"),
        (",'log-super-update-interval':2", "-s 512 -S 512 -t unsafe"),
        (",'log-super-update-interval':3", "-s 512 -S 512"),
    ] {
        let pair = images();
        let name = logged(&over("raw", "a.raw"), options);
        let line = format!("bench -q -w -d 1 -c 7 --pattern 3 {writes} @");
        same_code(&pair, &line, &name);
        // At the end ours counts the entries also where nothing is flushed.
        let unflushed = writes.contains("unsafe");
        same_log_from(&pair, if unflushed { 512 } else { 0 });
        pair.same_image("a.raw", "raw");
        if options.contains("sector") {
            continue;
        }
        // It goes on where it ended, and begins anew over what it was.
        let append = logged(&over("raw", "b.raw"), ",'log-append':true");
        let line = "bench -q -w -d 1 -c 2 -s 1k --pattern 4 @";
        if !unflushed {
            same_code(&pair, line, &append);
            same_log(&pair);
        }
        same_code(&pair, line, &logged(&over("raw", "b.raw"), ""));
        same_log(&pair);
    }
}

#[test]
fn a_log_replayed_makes_the_image() {
    let pair = images();
    let before = content(pair.ours(), "a.qcow2");
    let name = logged(&file("a.qcow2"), "");
    let name = format!(
        "json:{{'driver':'qcow2','file':{}}}",
        name.trim_start_matches("json:")
    );
    for line in ["map @", "snapshot -c s @", "check @"] {
        same(&pair, line, &name);
    }
    let mut made = replay(&content(pair.ours(), "log"), before);
    let image = content(pair.ours(), "a.qcow2");
    // A change of the length is not in the log.
    made.resize(image.len(), 0);
    assert!(made == image, "the log makes another image");
    // Through a target that is written at once.
    pair.file("log", b"");
    let target = "driver=blklogwrites,file.driver=raw,file.file.filename=b.raw,log.filename=log";
    let line = format!("convert -n -t writeback --target-image-opts a.qcow2 {target}");
    let ran = ours(&words(&line), pair.ours().root());
    assert_eq!(ran.code, 0, "{ran:?}");
    let made = replay(&content(pair.ours(), "log"), vec![1; 1 << 20]);
    assert!(made == content(pair.ours(), "b.raw"));
}

#[test]
fn a_failure_of_either_is_a_failure() {
    let failing = |name: &str| {
        format!(
            "{{'driver':'blkdebug','image':{},'inject-error':[{{'event':'none','iotype':'write','errno':28}}]}}",
            file(name)
        )
    };
    let pair = images();
    for name in [
        logged(
            &format!("{{'driver':'raw','file':{}}}", failing("a.raw")),
            "",
        ),
        logged(&over("raw", "a.raw"), "").replace(&file("log"), &failing("log")),
    ] {
        pair.file("log", b"");
        same_code(&pair, "bench -q -w -d 1 -c 2 -s 512 @", &name);
    }
    pair.same_image("a.raw", "raw");
}

#[test]
fn its_log_is_not_the_image_itself() {
    let pair = images();
    let before = content(pair.ours(), "a.raw");
    let name = logged(&over("raw", "a.raw"), "").replace(&file("log"), &file("a.raw"));
    let ran = ours(&["resize", &name, "2M"], pair.ours().root());
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("lock\n"), "{ran:?}");
    let unlocked = name.replace("'a.raw'", "'a.raw','locking':'off'");
    let args = ["resize", &unlocked, "2M"];
    let ran = ours(&args, pair.ours().root());
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("'a.raw' is the file of"), "{ran:?}");
    assert!(content(pair.ours(), "a.raw") == before);
}
