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
