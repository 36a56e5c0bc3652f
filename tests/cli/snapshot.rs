//! `snapshot` and `convert -l`: internal snapshots of both tools are the same to both.

use crate::pair::{Pair, ours};

/// Command lines of `create -q -f qcow2`.
const IMAGES: &[(&str, &str)] = &[
    ("b.qcow2", "b.qcow2 4M"),
    ("v2.qcow2", "-o compat=0.10 v2.qcow2 4M"),
    ("e.qcow2", "-o extended_l2=on e.qcow2 4M"),
    ("s.qcow2", "-o cluster_size=512 s.qcow2 4M"),
    ("r64.qcow2", "-o refcount_bits=64 r64.qcow2 4M"),
    ("lazy.qcow2", "-o lazy_refcounts=on lazy.qcow2 4M"),
    ("o.qcow2", "-b a.raw -F raw o.qcow2"),
];

fn images() -> Pair {
    let pair = Pair::with(&["create -q a.raw 4M"]);
    for (image, line) in IMAGES {
        pair.qemu(&format!("create -q -f qcow2 {line}"));
        pair.qemu_io(
            "qcow2",
            image,
            &[
                "write -P 1 0 100k",
                "write -P 2 3M 64k",
                "write -c -P 9 1M 64k",
            ],
        );
    }
    pair
}

/// Dates are those of the moment: everything else of the lists must agree.
fn same_lists(pair: &Pair, image: &str) {
    let list = |directory: &crate::common::Dir| -> Vec<serde_json::Value> {
        let text = directory.qemu_img_ok(&["info", "--output=json", image]);
        let info: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let list = info["snapshots"].as_array().cloned().unwrap_or_default();
        list.into_iter()
            .map(|mut one| {
                one["date-sec"] = 0.into();
                one["date-nsec"] = 0.into();
                one
            })
            .collect()
    };
    assert_eq!(list(pair.ours()), list(pair.theirs()), "{image}");
}

fn same_everywhere(pair: &Pair, image: &str) {
    pair.same_image_loose_dates(image);
    same_lists(pair, image);
}

#[test]
fn create_apply_and_delete() {
    let pair = images();
    for (image, _) in IMAGES {
        for line in ["-c one", "-c ''", "-c one"] {
            pair.same(&format!("snapshot {line} {image}"));
        }
        pair.qemu_io(
            "qcow2",
            image,
            &["write -P 3 0 64k", "write -P 4 2M 300k", "discard 3M 64k"],
        );
        pair.same(&format!("snapshot -c two {image}"));
        same_everywhere(&pair, image);
        for wanted in ["1", "two", "4", "one"] {
            pair.same(&format!("convert -l {wanted} -O raw {image} out.raw"));
            pair.same_image("out.raw", "raw");
        }
        pair.same(&format!("snapshot -a 2 {image}"));
        same_everywhere(&pair, image);
        pair.qemu_io("qcow2", image, &["write -P 5 512k 64k"]);
        pair.same(&format!("snapshot -a two {image}"));
        same_everywhere(&pair, image);
        for name in ["one", "one", "''", "two"] {
            pair.same(&format!("snapshot -d {name} {image}"));
            same_everywhere(&pair, image);
            pair.qemu_io("qcow2", image, &["write -P 6 64k 64k"]);
        }
        pair.same(&format!("snapshot -l {image}"));
    }
}

#[test]
fn snapshots_of_their_tool() {
    let pair = images();
    for (image, _) in IMAGES {
        let theirs = pair.theirs();
        theirs.qemu_img_ok(&["snapshot", "-c", "one", image]);
        theirs.qemu_io("qcow2", image, &["write -P 7 0 1M"]);
        theirs.qemu_img_ok(&["snapshot", "-c", "a long name, with a comma", image]);
        std::fs::copy(theirs.path(image), pair.ours().path(image)).expect("a copy");
        pair.all_same(&[
            &format!("snapshot -l {image}"),
            &format!("snapshot {image}"),
            &format!("snapshot -l -U {image}"),
            &format!("snapshot -q {image}"),
            &format!("snapshot -a 1 {image}"),
        ]);
        same_everywhere(&pair, image);
        pair.same(&format!("snapshot -d one {image}"));
        same_everywhere(&pair, image);
    }
}

#[test]
fn the_state_of_a_machine_is_kept() {
    let pair = images();
    for image in ["b.qcow2", "v2.qcow2", "s.qcow2"] {
        pair.qemu_io("qcow2", image, &["write -b -P 11 0 300k"]);
        pair.same(&format!("snapshot -c one {image}"));
        pair.qemu_io(
            "qcow2",
            image,
            &["write -b -P 12 0 300k", "write -P 12 0 64k"],
        );
        pair.same(&format!("snapshot -a one {image}"));
        pair.qemu_io("qcow2", image, &["read -b -P 11 0 300k", "read -P 1 0 64k"]);
        pair.same(&format!("snapshot -d one {image}"));
        pair.qemu_io("qcow2", image, &["read -b -P 11 0 300k"]);
        same_everywhere(&pair, image);
    }
}

#[test]
fn another_size() {
    let pair = images();
    for image in ["b.qcow2", "e.qcow2", "s.qcow2"] {
        pair.qemu(&format!("snapshot -c small {image}"));
        pair.qemu(&format!("resize -q {image} 70M"));
        pair.qemu_io("qcow2", image, &["write -P 8 65M 1M"]);
        pair.qemu(&format!("snapshot -c large {image}"));
        pair.same(&format!("snapshot -a small {image}"));
        same_everywhere(&pair, image);
        pair.same(&format!("snapshot -a large {image}"));
        same_everywhere(&pair, image);
        // The image of a snapshot is as large as it was then; theirs has the size of now.
        pair.same(&format!("convert -l small -O raw {image} out.raw"));
        let (theirs, ours) = (pair.theirs().str("out.raw"), pair.ours().str("out.raw"));
        assert_eq!(std::fs::metadata(&ours).expect("a file").len(), 4 << 20);
        let compare = ["compare", "-f", "raw", "-F", "raw", &theirs, &ours];
        let compared = pair.ours().qemu_img(&compare);
        assert_eq!(compared.code, 0, "{image}: {compared:?}");
        pair.same(&format!("snapshot -d small {image}"));
        same_everywhere(&pair, image);
    }
}

#[test]
fn refcounts_too_narrow_for_a_snapshot() {
    let pair = Pair::with(&["create -q -f qcow2 -o refcount_bits=1 r1.qcow2 4M"]);
    pair.qemu_io("qcow2", "r1.qcow2", &["write -P 1 0 100k"]);
    let line = ["snapshot", "-c", "one", "r1.qcow2"];
    assert_eq!(pair.theirs().qemu_img(&line).code, 1);
    let ran = ours(&line, pair.ours().root());
    assert_eq!(ran.code, 1, "{ran:?}");
    pair.same("snapshot -l r1.qcow2");
    pair.same_image("r1.qcow2", "qcow2");
}

#[test]
fn errors() {
    let pair = images();
    pair.qemu("create -q -f qcow2 -o data_file=d.raw d.qcow2 4M");
    pair.all_same(&[
        "snapshot",
        "snapshot b.qcow2 e.qcow2",
        "snapshot -l -c x b.qcow2",
        "snapshot -a x -d y b.qcow2",
        "snapshot -c x -c y b.qcow2",
        "snapshot -a nope b.qcow2",
        "snapshot -a '' b.qcow2",
        "snapshot -d nope b.qcow2",
        "snapshot -d 1 b.qcow2",
        "snapshot -U -c x b.qcow2",
        "snapshot --image-opts -f raw b.qcow2",
        "snapshot -l -f raw a.raw",
        "snapshot -l a.raw",
        "snapshot -c x -f raw a.raw",
        "snapshot -a x -f raw a.raw",
        "snapshot -d x -f raw a.raw",
        "snapshot -c x d.qcow2",
        "snapshot nope",
        "snapshot -c",
        "snapshot -c x -f bogus b.qcow2",
        "convert -l nope -O raw b.qcow2 out.raw",
        "convert -l snapshot.id=7 -O raw b.qcow2 out.raw",
        "convert -l snapshot.name=x,snapshot.id=1 -O raw b.qcow2 out.raw",
        "convert -l x -f raw -O raw a.raw out.raw",
    ]);
    pair.same("snapshot -c x b.qcow2");
    for wanted in [
        "snapshot.id=1",
        "snapshot.name=x",
        "snapshot.name=x,snapshot.id=1",
    ] {
        pair.same(&format!("convert -l {wanted} -O raw b.qcow2 out.raw"));
        pair.same_image("out.raw", "raw");
    }
}
