//! `--trace`: switches on the library's own events; what is wrong with it is said in QEMU's words.

use crate::pair::{Pair, ours};

fn images() -> Pair {
    let pair = Pair::with(&["create -q -f qcow2 a.qcow2 1M", "create -q a.raw 1M"]);
    pair.qemu_io("raw", "a.raw", &["write -P 1 0 256k"]);
    pair
}

/// The lines of events on stderr.
fn events(line: &str, pair: &Pair) -> Vec<String> {
    let ran = ours(&crate::pair::words(line), pair.ours().root());
    assert_eq!(ran.code, 0, "{line}: {ran:?}");
    ran.err.lines().map(str::to_owned).collect()
}

fn names(lines: &[String]) -> Vec<&str> {
    let mut names: Vec<&str> = lines
        .iter()
        .map(|line| line.split(' ').next().expect("a word"))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[test]
fn wrong_ones_are_refused_as_qemu_img_does() {
    let pair = images();
    pair.file("empty", b"");
    pair.all_same(&[
        "--trace foo=bar info a.qcow2",
        "-T events=/nonexistent info a.qcow2",
        "-T file=/nonexistent/x info a.qcow2",
        "-T events=empty info a.qcow2",
        "--trace",
        "-T no*such info a.qcow2",
        "-T enable=no*such info a.qcow2",
        "-T -* info a.qcow2",
        "-T nosuch info a.qcow2",
        "-T enable=-nosuch info a.qcow2",
        "-T no?such info a.qcow2",
        "-T enable= info a.qcow2",
        "-T nosuch bogus",
    ]);
}

#[test]
fn the_list_is_not_empty_and_every_name_in_it_can_be_switched_on() {
    let pair = images();
    for line in [
        "-T help",
        "--trace ?",
        "-T enable=help info a.qcow2",
        "-T help nonsense",
    ] {
        let ran = ours(&crate::pair::words(line), pair.ours().root());
        assert_eq!((ran.code, &*ran.err), (0, ""), "{line}");
        let list: Vec<&str> = ran.out.lines().collect();
        assert!(
            list.contains(&"image_open") && list.contains(&"qcow2_l2_load"),
            "{list:?}"
        );
        assert!(list.iter().all(|name| {
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        }));
    }
}

#[test]
fn events_go_to_stderr_by_pattern() {
    let pair = images();
    assert!(events("info a.qcow2", &pair).is_empty());
    let lines = events("-T image_open info a.qcow2", &pair);
    assert_eq!(
        lines,
        ["image_open file=\"a.qcow2\" format=qcow2 writable=false size=1048576"]
    );
    let lines = events("-T * convert -f raw -O qcow2 a.raw b.qcow2", &pair);
    let all = names(&lines);
    for name in [
        "image_open",
        "image_close",
        "image_lock",
        "job_begin",
        "job_end",
        "convert_range",
    ] {
        assert!(all.contains(&name), "{name} is not in {all:?}");
    }
    let lines = events(
        "-T enable=job_* convert -f raw -O qcow2 a.raw b.qcow2",
        &pair,
    );
    assert_eq!(lines[0], "job_begin job=convert");
    assert!(
        lines[1].starts_with("job_end job=convert ok=true time="),
        "{lines:?}"
    );
    assert_eq!(lines.len(), 2);
    let lines = events("-T qcow2_* snapshot -c one b.qcow2", &pair);
    let all = names(&lines);
    for name in [
        "qcow2_allocate",
        "qcow2_flush",
        "qcow2_barrier",
        "qcow2_refcount_load",
    ] {
        assert!(all.contains(&name), "{name} is not in {all:?}");
    }
    let lines = events("-T qcow2_* map b.qcow2", &pair);
    assert!(names(&lines).contains(&"qcow2_l2_load"), "{lines:?}");
    // Given twice, they add up; a minus takes away.
    let lines = events(
        "-T image_* -T -image_l* -T job_begin compare a.raw b.qcow2",
        &pair,
    );
    assert_eq!(names(&lines), ["image_close", "image_open", "job_begin"]);
}

#[test]
fn patterns_from_a_file_and_lines_into_a_file() {
    let pair = images();
    pair.file(
        "events",
        b"# what is wanted\n\nimage_*\r\n-image_close\n-image_lock",
    );
    assert!(events("-T events=events,file=log info a.qcow2", &pair).is_empty());
    let log = || std::fs::read_to_string(pair.ours().path("log")).expect("the log");
    assert!(
        log().starts_with("image_open ") && log().lines().count() == 1,
        "{}",
        log()
    );
    // A later run begins the file anew.
    assert!(events("-T image_close,file=log info a.qcow2", &pair).is_empty());
    assert_eq!(log(), "image_close file=\"a.qcow2\"\n");
    assert!(events("-T file=log info a.qcow2", &pair).is_empty());
    assert_eq!(log(), "");
}
