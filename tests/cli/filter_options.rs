//! Each option of each filter with values of every kind: taken or refused in the same words, and shown in the same
//! names.

use serde_json::{Value, json};

use crate::pair::{Loose, Pair};

/// What an option is given.
#[derive(Clone, Copy)]
enum Values {
    /// Numbers and what looks like one.
    Number,
    /// Numbers alone: what else is wrong is told in other words.
    PlainNumber,
    /// Lengths, some with a unit.
    Size,
    Flag,
    /// These words and some others.
    Words(&'static [&'static str]),
    /// These words alone.
    KnownWords(&'static [&'static str]),
}

use Values::{Flag, KnownWords, Number, PlainNumber, Size, Words};

impl Values {
    fn list(self) -> Vec<Value> {
        let numbers = [
            json!(0),
            json!(1),
            json!(511),
            json!(512),
            json!(4096),
            json!(65536),
            json!("1"),
            json!("010"),
            json!("0x10"),
        ];
        let odd = [
            json!(-1),
            json!(2_147_483_647_u64),
            json!(2_147_483_648_u64),
            json!(9_223_372_036_854_775_808_u64),
            json!(u64::MAX),
            json!(1.5),
            json!("x"),
            json!(""),
            json!(" 1"),
            json!(true),
        ];
        let flags = [json!(true), json!(false), json!("on"), json!("no")];
        match self {
            PlainNumber => numbers.into(),
            Number => numbers.into_iter().chain(odd).collect(),
            Size => {
                let units = [json!("1k"), json!("4K"), json!("1G")];
                numbers.into_iter().chain(odd).chain(units).collect()
            }
            Flag => {
                let wrong = [json!("x"), json!(""), json!(1), json!(0)];
                flags.into_iter().chain(wrong).collect()
            }
            KnownWords(words) => words.iter().map(|word| json!(word)).collect(),
            Words(words) => {
                let wrong = [json!("x"), json!(""), json!(1), json!(true)];
                words.iter().map(|word| json!(word)).chain(wrong).collect()
            }
        }
    }
}

/// What every node takes.
const COMMON: &[(&str, Values)] = &[
    ("discard", Words(&["ignore", "unmap", "on", "off"])),
    ("detect-zeroes", Words(&["off", "on", "unmap"])),
    ("cache.direct", Flag),
    ("cache.no-flush", Flag),
    ("cache.other", Flag),
    // Said to be off, theirs opens what is only looked at for writing.
    ("read-only", Words(&["on", "yes"])),
    ("auto-read-only", Flag),
    ("force-share", Flag),
    ("active", Flag),
    ("node-name", Words(&["n", "a b", "1"])),
    ("other", Flag),
];

const EVENTS: Values = Words(&[
    "none",
    "l1_update",
    "l1_grow_alloc_table",
    "l2_load",
    "l2_alloc_write",
    "read_aio",
    "read_backing_aio",
    "read_compressed",
    "write_aio",
    "vmstate_save",
    "cow_write",
    "reftable_load",
    "refblock_alloc_switch_table",
    "cluster_alloc_bytes",
    "cluster_free",
    "flush_to_os",
    "flush_to_disk",
    "pwritev_rmw_after_tail",
    "pwritev_zero",
    "pwritev_done",
    "empty_image_prepare",
    "l1_shrink_free_l2_clusters",
    "cor_write",
    "cluster_alloc_space",
]);

const BLKDEBUG: &[(&str, Values)] = &[
    ("config", Words(&["c.cfg"])),
    ("align", Size),
    ("max-transfer", Size),
    ("opt-write-zero", Size),
    ("max-write-zero", Size),
    ("opt-discard", Size),
    ("max-discard", Size),
    ("inject-error.0.event", EVENTS),
    ("inject-error.0.state", Number),
    ("inject-error.0.errno", Number),
    ("inject-error.0.sector", Number),
    ("inject-error.0.once", Flag),
    ("inject-error.0.immediately", Flag),
    (
        "inject-error.0.iotype",
        Words(&[
            "read",
            "write",
            "write-zeroes",
            "discard",
            "flush",
            "block-status",
        ]),
    ),
    (
        "set-state.0.event",
        Words(&["none", "l2_load", "cor_write"]),
    ),
    ("set-state.0.state", Number),
    ("set-state.0.new_state", Number),
    ("take-child-perms.0", KnownWords(PERMISSIONS)),
    ("unshare-child-perms.0", KnownWords(PERMISSIONS)),
];

const PERMISSIONS: &[&str] = &["consistent-read", "write", "write-unchanged", "resize"];

fn raw(file: &str) -> Value {
    json!({"driver": "raw", "file": {"driver": "file", "filename": file}})
}

/// Each filter as it is without options, and those that it takes.
fn filters() -> Vec<(Value, &'static [(&'static str, Values)])> {
    let qcow2 = json!({"driver": "qcow2", "file": {"driver": "file", "filename": "a.qcow2"}});
    let over = |driver: &str| json!({"driver": driver, "file": raw("a.raw")});
    let with = |driver: &str, key: &str, value: Value| {
        let mut tree = over(driver);
        tree[key] = value;
        tree
    };
    vec![
        (
            json!({"driver": "blkdebug", "image": raw("a.raw")}),
            BLKDEBUG,
        ),
        (
            with("throttle", "throttle-group", json!("g")),
            &[("throttle-group", Words(&["g", "h"]))],
        ),
        (
            with(
                "blklogwrites",
                "log",
                json!({"driver": "file", "filename": "log"}),
            ),
            &[
                ("log-sector-size", Size),
                ("log-append", Flag),
                ("log-super-update-interval", Number),
            ],
        ),
        (
            json!({"driver": "blkverify", "test": raw("a.raw"), "raw": {"driver": "file", "filename": "b.raw"}}),
            &[],
        ),
        (json!({"driver": "compress", "file": qcow2}), &[]),
        (
            json!({"driver": "copy-on-read", "file": qcow2}),
            &[("bottom", Words(&["none"]))],
        ),
        (
            with("copy-before-write", "target", raw("b.raw")),
            &[
                ("cbw-timeout", PlainNumber),
                (
                    "on-cbw-error",
                    Words(&["break-guest-write", "break-snapshot"]),
                ),
                ("min-cluster-size", PlainNumber),
                ("bitmap.node", Words(&["none"])),
                ("bitmap.name", Words(&["none"])),
            ],
        ),
        (
            over("preallocate"),
            &[("prealloc-align", Size), ("prealloc-size", Size)],
        ),
        (
            json!({"driver": "quorum", "vote-threshold": 2, "children": [raw("a.raw"), raw("b.raw"), raw("a2.raw")]}),
            &[
                ("vote-threshold", Number),
                ("blkverify", Flag),
                ("rewrite-corrupted", Flag),
                ("read-pattern", Words(&["quorum", "fifo"])),
            ],
        ),
        (
            json!({"driver": "raw", "file": {"driver": "file", "filename": "a.raw"}}),
            &[("offset", Size), ("size", Size)],
        ),
    ]
}

/// Puts the value at the dotted key; a rule is complete without it.
fn set(tree: &mut Value, key: &str, value: Value) {
    let parts: Vec<&str> = key.split('.').collect();
    match parts[..] {
        [list, "0", key] => {
            let mut rule = json!({"event": "none"});
            if list == "set-state" {
                rule["new_state"] = json!(1);
            }
            rule[key] = value;
            tree[list] = json!([rule]);
        }
        [list, "0"] => tree[list] = json!([value]),
        [outer, inner] => tree[outer] = json!({inner: value}),
        _ => tree[key] = value,
    }
}

#[test]
fn each_option_of_each_filter_is_taken_refused_and_shown_alike() {
    let pair = Pair::with(&[
        "create -q -f qcow2 a.qcow2 1M",
        "create -q -f raw a.raw 1M",
        "create -q -f raw a2.raw 1M",
        "create -q -f raw b.raw 1M",
        "create -q -f raw log 4M",
    ]);
    pair.file(
        "c.cfg",
        b"[inject-error]\nevent = \"vmstate_load\"\nerrno = \"5\"\n",
    );
    let mut names = Vec::new();
    for (filter, options) in filters() {
        // They are read by the same lines for all of a kind: protocols and formats name themselves differently.
        let has_common = ["blkdebug", "quorum"]
            .iter()
            .any(|name| filter["driver"] == *name);
        let common = if has_common { COMMON } else { &[] };
        for (key, values) in options.iter().chain(common) {
            for value in values.list() {
                let mut tree = filter.clone();
                set(&mut tree, key, value);
                names.push(format!("json:{tree}"));
            }
        }
        // What has to write is refused for that before or after this one.
        if !["copy-on-read", "copy-before-write"]
            .iter()
            .any(|name| filter["driver"] == *name)
        {
            let mut tree = filter;
            tree["other"] = Value::Null;
            names.push(format!("json:{tree}"));
        }
    }
    let workers = 3;
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let (pair, names) = (&pair, &names);
        let work = |first| {
            let mine = names.iter().skip(first).step_by(workers);
            mine.filter_map(|name| {
                let args = ["info", "--object", "throttle-group,id=g", name];
                pair.differ(&args, Loose::Exact).err()
            })
            .collect::<Vec<_>>()
        };
        let started: Vec<_> = (0..workers).map(|n| scope.spawn(move || work(n))).collect();
        let ended = started.into_iter().map(|worker| worker.join());
        ended.flat_map(|found| found.expect("a worker")).collect()
    });
    let count = wrong.len();
    let shown: Vec<_> = wrong.into_iter().take(20).collect();
    assert!(
        count == 0,
        "{count} of {} names:\n{}",
        names.len(),
        shown.join("\n\n")
    );
}
