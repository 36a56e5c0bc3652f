//! `-p`: the form of the line, and what turns it off.

use crate::pair::{Loose, Pair};

fn images() -> Pair {
    let pair = Pair::with(&["create -q a.raw 64M", "create -q big.raw 80M"]);
    pair.qemu_io("raw", "a.raw", &["write -P 1 0 20M", "write -P 2 40M 10M"]);
    pair.qemu("convert -O qcow2 a.raw a.qcow2");
    pair
}

#[test]
fn the_line_has_the_same_form() {
    let pair = images();
    for line in [
        "convert -p a.raw y",
        "convert -p -O qcow2 a.raw z",
        "convert -p -c -O qcow2 a.raw c",
        "compare -p a.raw a.qcow2",
        "compare -p -s a.raw a.raw",
        "compare -p a.raw big.raw",
    ] {
        let ran = pair.same_but(line, Loose::Progress);
        for part in ran.out.split_inclusive('\r').filter(|p| p.ends_with('\r')) {
            let number = part
                .rsplit_once("    (")
                .and_then(|(_, rest)| rest.strip_suffix("/100%)\r"))
                .unwrap_or_else(|| panic!("{line}: {part:?}"));
            let (_, digits) = number.split_once('.').expect("a fraction");
            assert_eq!(digits.len(), 2, "{line}: {part:?}");
        }
        assert!(ran.out.starts_with("    (0.00/100%)\r"), "{line}: {ran:?}");
        let complete = ran.out.contains("    (100.00/100%)\r");
        assert!(complete || ran.code == 1, "{line}: {ran:?}");
    }
}

#[test]
fn quiet_turns_it_off() {
    let pair = images();
    for line in [
        "convert -p -q a.raw y",
        "convert -qp a.raw y",
        "compare -pq a.raw a.qcow2",
    ] {
        assert_eq!(pair.same(line).out, "", "{line}");
    }
}

#[test]
fn errors_with_progress() {
    let pair = images();
    pair.all_same(&[
        "convert -p nope y",
        "convert -p a.raw /nonexistent/y",
        "convert -p a.raw a.raw",
        "convert -p -o bogus=1 a.raw y",
        "convert -p",
        "convert -p -T x a.raw y",
        "convert -p -n a.raw y",
        "compare -p nope a.raw",
        "compare -p",
        "compare -p -T x a.raw a.raw",
    ]);
}

/// The numbers that a command printed.
fn percentages(out: &str) -> Vec<f64> {
    let parts = out.split('\r').filter_map(|part| part.rsplit_once('('));
    parts
        .filter_map(|(_, rest)| rest.strip_suffix("/100%)")?.parse().ok())
        .collect()
}

/// A disk that could hold far more than it does, and one above it.
fn sparse() -> Pair {
    let pair = Pair::new();
    pair.qemu("create -q -f qcow2 s.qcow2 1T");
    let writes: Vec<String> = (0..16)
        .map(|n| format!("write -P 7 {}M 1M", n * 4))
        .collect();
    let writes: Vec<&str> = writes.iter().map(String::as_str).collect();
    pair.qemu_io("qcow2", "s.qcow2", &writes);
    pair.qemu("create -q -f qcow2 -b s.qcow2 -F qcow2 top.qcow2");
    pair.qemu_io("qcow2", "top.qcow2", writes.get(..8).unwrap_or_default());
    pair
}

#[test]
fn progress_measures_what_is_moved() {
    let pair = sparse();
    pair.qemu("create -q -f qcow2 new.qcow2 1T");
    // With a rate, each thread has its share, and so has the one that reports.
    for (line, steps) in [
        ("convert -p -r 32M -O qcow2 s.qcow2 d.qcow2", 2),
        ("convert -p -r 32M -O raw s.qcow2 d.raw", 2),
        ("convert -p -r 32M -c -O qcow2 s.qcow2 c.qcow2", 2),
        ("compare -p s.qcow2 d.qcow2", 0),
        ("rebase -p -b new.qcow2 -F qcow2 top.qcow2", 0),
        ("commit -p -r 32M -d top.qcow2", 2),
    ] {
        let ran = crate::pair::ours(&crate::pair::words(line), pair.ours().root());
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
        let shown = percentages(&ran.out);
        let between = shown.iter().filter(|n| (1.0..99.0).contains(*n)).count();
        assert!(between >= steps, "{line}: {shown:?}");
        assert!(shown.is_sorted(), "{line}: {shown:?}");
        assert_eq!(shown.last(), Some(&100.0), "{line}: {shown:?}");
    }
}

#[test]
fn a_progress_that_cannot_be_written_is_no_failure() {
    let pair = sparse();
    for line in [
        "convert -p -O qcow2 s.qcow2 d.qcow2",
        "convert -p -n -O qcow2 s.qcow2 d.qcow2",
        "commit -p -d top.qcow2",
        "rebase -p -u -b s.qcow2 -F qcow2 top.qcow2",
        "amend -p -o lazy_refcounts=on top.qcow2",
        "create -f raw x.raw 1M",
        "resize -f raw x.raw 2M",
        "dd if=x.raw of=y.raw",
    ] {
        for redirection in [">/dev/full", ">&-"] {
            let script = format!("exec \"$0\" {line} {redirection}");
            let run = |tool: &std::ffi::OsStr, directory: &std::path::Path| {
                let output = std::process::Command::new("sh")
                    .args(["-c", &script])
                    .arg(tool)
                    .current_dir(directory)
                    .output()
                    .expect("a shell");
                let err = String::from_utf8_lossy(&output.stderr).into_owned();
                (output.status.code(), err)
            };
            let ours = run(crate::build::tool().as_os_str(), pair.ours().root());
            let theirs = run("qemu-img".as_ref(), pair.theirs().root());
            assert_eq!(ours, theirs, "{line} {redirection}");
            assert_eq!(ours, (Some(0), String::new()), "{line} {redirection}");
        }
    }
    assert_eq!(
        pair.ours()
            .qemu_img(&["compare", "s.qcow2", "d.qcow2"])
            .code,
        0
    );
    // What was asked for and could not be written is a failure.
    let script = "exec \"$0\" convert -O qcow2 -o help >/dev/full";
    let output = std::process::Command::new("sh")
        .args(["-c", script])
        .arg(crate::build::tool())
        .output()
        .expect("a shell");
    assert_eq!(output.status.code(), Some(1));
}
