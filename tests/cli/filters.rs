//! Filters in the place of a format, below one and on each other, in every command.

use crate::pair::{Loose, Pair, ours, words};

/// The image that most lines name, as the options that open it.
const INNER: &str = r#"{"driver":"qcow2","file":{"driver":"file","filename":"t.qcow2"}}"#;

fn over(filter: &str, inner: &str) -> String {
    format!(r#"json:{{"driver":"{filter}","file":{inner}}}"#)
}

fn images() -> Pair {
    let pair = Pair::with(&[
        "create -q -f raw base.raw 1M",
        "create -q -f qcow2 -b base.raw -F raw t.qcow2 2M",
        "create -q -f qcow2 -o data_file=d.raw d.qcow2 1M",
        "create -q -f qcow2 new.qcow2 2M",
        "create -q -f qcow2 alone.qcow2 1M",
    ]);
    pair.qemu_io("raw", "base.raw", &["write -P 1 0 64k"]);
    pair.qemu_io("qcow2", "t.qcow2", &["write -P 2 100k 100k"]);
    pair.qemu_io(
        "qcow2",
        "alone.qcow2",
        &["write -P 3 0 130k", "write -z 256k 64k"],
    );
    pair
}

#[test]
fn a_filter_shows_the_image_below_it() {
    let pair = images();
    let nested = |filter: &str, inner: &str| {
        let inner = over(filter, inner);
        over("raw", inner.trim_start_matches("json:"))
    };
    let alone = INNER.replace("t.qcow2", "alone.qcow2");
    let data = INNER.replace("t.qcow2", "d.qcow2");
    let mut lines = Vec::new();
    for image in [
        over("compress", INNER),
        over("compress", &alone),
        nested("compress", &alone),
        over("raw", &alone),
        over("raw", &data),
        over("compress", &data),
    ] {
        for command in [
            "info",
            "info --output=json",
            "info --backing-chain",
            "map",
            "map --output=json",
            "check",
            "snapshot -l",
            "measure -O qcow2",
            "compare -f raw base.raw",
        ] {
            lines.push(format!("{command} {image}"));
        }
        lines.push(format!("compare {image} t.qcow2"));
        lines.push(format!("convert -O raw {image} out.raw"));
    }
    // The peer takes what an overlay below a raw layer does not hold for zeroes; it is not.
    for inner in [
        INNER.to_owned(),
        INNER.replace("\"file\"", "\"backing\":null,\"file\""),
        INNER.replace(
            "\"file\":{",
            r#""backing":{"driver":"raw","size":65536},"file":{"#,
        ),
        INNER.replace(
            "\"file\":{",
            r#""backing":{"driver":"raw","size":65536,"file":{"driver":"file","filename":"base.raw"}},"file":{"#,
        ),
    ] {
        for image in [over("raw", &inner), nested("compress", &inner)] {
            lines.push(format!("info {image}"));
            lines.push(format!("info --output=json {image}"));
            lines.push(format!("snapshot -l {image}"));
        }
    }
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    pair.all_same_but(&lines, Loose::DiskSize);
}

#[test]
fn what_a_filter_cannot_do_is_refused_in_the_same_words() {
    let pair = images();
    let file = r#"{"driver":"file","filename":"base.raw"}"#;
    let raw = format!(r#"{{"driver":"raw","file":{file}}}"#);
    let mut lines = vec![
        "info -f compress t.qcow2".to_owned(),
        "info -f copy-on-read t.qcow2".to_owned(),
        "create -f compress new.img 1M".to_owned(),
        "create -f copy-on-read new.img 1M".to_owned(),
        "convert -O compress base.raw new.img".to_owned(),
    ];
    for options in [
        "driver=compress",
        "driver=copy-on-read",
        "driver=compress,file.filename=t.qcow2",
        "driver=compress,filename=t.qcow2",
        "driver=compress,file=node",
        "driver=compress,x=y,file.driver=qcow2,file.file.filename=t.qcow2",
        "driver=compress,x.y=z,file.driver=qcow2,file.file.filename=t.qcow2",
        "driver=compress,file.driver=bogus,file.file.filename=t.qcow2",
        "driver=compress,file.driver=qcow2,file.file.filename=none",
    ] {
        lines.push(format!("info --image-opts {options}"));
    }
    lines.push(
        "resize --image-opts driver=copy-on-read,x=y,file.driver=qcow2,file.file.filename=t.qcow2 3M"
            .to_owned(),
    );
    lines.push(
        "resize --image-opts driver=copy-on-read,bottom=b,file.driver=qcow2,file.file.filename=t.qcow2 3M"
            .to_owned(),
    );
    for image in [over("compress", file), over("compress", &raw)] {
        lines.push(format!("info {image}"));
        lines.push(format!("map {image}"));
    }
    let reading = over("copy-on-read", INNER);
    for command in ["info", "map", "check", "snapshot -l", "measure -O raw"] {
        lines.push(format!("{command} {reading}"));
    }
    lines.push(format!("convert {reading} out.raw"));
    let writing = over("compress", INNER);
    lines.push(format!("amend -o compat=0.10 {writing}"));
    lines.push(format!("convert -l s -O raw {writing} out.raw"));
    lines.push(format!("compare {reading} base.raw"));
    lines.push(format!("map {}", over("compress", r#"{"driver":"qcow2"}"#)));
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

#[test]
fn what_is_written_through_compress_is_compressed() {
    let pair = images();
    let target = "driver=compress,file.driver=qcow2,file.file.filename=new.qcow2";
    pair.same(&format!("convert -n --target-image-opts t.qcow2 {target}"));
    pair.same_image("new.qcow2", "qcow2");
    let checked = pair.same("check --output=json new.qcow2");
    assert!(checked.out.contains("compressed-clusters"), "{checked:?}");
    let image = over(
        "compress",
        r#"{"driver":"qcow2","file":{"driver":"file","filename":"new.qcow2"}}"#,
    );
    pair.same(&format!("resize {image} 3M"));
    pair.same_image("new.qcow2", "qcow2");
    pair.same(&format!("snapshot -c s {image}"));
    pair.same(&format!("snapshot -a s {image}"));
    pair.same(&format!("snapshot -d s {image}"));
    pair.same_image("new.qcow2", "qcow2");
    // Parts of clusters, over what is there; the peer fails to write them.
    let line = "bench -q -w -c 40 -s 5k -S 70k --pattern 7 --image-opts driver=compress,file.driver=qcow2,file.file.filename=new.qcow2";
    let ran = ours(&words(line), pair.ours().root());
    assert_eq!(ran.code, 0, "{ran:?}");
    let new = pair.ours().str("new.qcow2");
    pair.ours().qemu_img_ok(&["check", "-q", &new]);
    let read = pair
        .ours()
        .qemu_io("qcow2", &new, &["read -P 7 0 5k", "read -P 7 70k 5k"]);
    assert!(!read.contains("failed"), "{read}");
}

#[test]
fn an_image_is_not_emptied_through_a_filter_that_stands_on_it() {
    let pair = images();
    let target = "driver=compress,file.driver=qcow2,file.file.filename=t.qcow2";
    let refused = pair.same(&format!("convert -n --target-image-opts t.qcow2 {target}"));
    assert_eq!(refused.code, 1);
    pair.same_image("t.qcow2", "qcow2");
    let image = over("compress", INNER);
    let ran = ours(
        &["convert", "-O", "qcow2", &image, "t.qcow2"],
        pair.ours().root(),
    );
    assert_eq!(ran.code, 1, "{ran:?}");
    let ran = ours(
        &["convert", "-O", "raw", &image, "base.raw"],
        pair.ours().root(),
    );
    assert_eq!(ran.code, 1, "{ran:?}");
    pair.same_image("t.qcow2", "qcow2");
}

#[test]
fn a_filter_can_be_the_backing_file_of_an_image() {
    let pair = images();
    let backing = over("compress", &INNER.replace("t.qcow2", "alone.qcow2"));
    for name in ["top.qcow2", "top2.qcow2"] {
        pair.qemu(&format!(
            "create -q -f qcow2 -u -b {backing} -F compress {name} 1M"
        ));
        pair.qemu_io("qcow2", name, &["write -P 4 100k 130k"]);
    }
    pair.all_same_but(
        &[
            "info top.qcow2",
            "info --backing-chain --output=json top.qcow2",
            "map top.qcow2",
            "map --output=json top.qcow2",
            "compare top.qcow2 top2.qcow2",
            "convert -O raw top.qcow2 out.raw",
            "check top.qcow2",
        ],
        Loose::DiskSize,
    );
    pair.same("rebase -b '' top2.qcow2");
    pair.same_image("top2.qcow2", "qcow2");
    // The peer writes past the filter.
    pair.same("commit top.qcow2");
    pair.same_image_loose_dates("alone.qcow2");
}

#[test]
fn compressed_writes_go_through_the_filters_that_the_peer_lets_them_through() {
    let qcow2 = "driver=qcow2,@file.driver=file,@file.filename=new.qcow2";
    let beneath = |prefix: &str| {
        let at = format!(",{prefix}");
        format!("{prefix}{}", qcow2.replace(",@", &at))
    };
    let one = beneath("file.");
    let two = beneath("file.file.");
    let group = "throttle-group=g";
    let pair = images();
    // The options of the target, whether with -c and without it all is compressed.
    for (target, asked, anyway) in [
        (format!("driver=throttle,{group},{one}"), true, false),
        (format!("driver=copy-on-read,{one}"), true, false),
        (
            format!("driver=copy-on-read,file.driver=throttle,file.{group},{two}"),
            true,
            false,
        ),
        (
            format!("driver=compress,file.driver=throttle,file.{group},{two}"),
            false,
            true,
        ),
        (
            format!("driver=compress,file.driver=copy-on-read,{two}"),
            false,
            true,
        ),
        (format!("driver=preallocate,{one}"), false, false),
        (format!("driver=raw,{one}"), false, false),
        (
            format!("driver=blkdebug,{}", beneath("image.")),
            false,
            false,
        ),
    ] {
        for (flag, compressed) in [("-c ", asked), ("", anyway)] {
            pair.qemu("create -q -f qcow2 new.qcow2 1M");
            let line = format!(
                "convert --object throttle-group,id=g {flag}-n --target-image-opts alone.qcow2 {target}"
            );
            let ran = pair.same(&line);
            let refused = !compressed && !flag.is_empty();
            assert_eq!(ran.code, i32::from(refused), "{line}: {ran:?}");
            pair.same_image("new.qcow2", "qcow2");
            let checked = pair.same("check new.qcow2");
            let all = checked.out.contains("100.00% compressed clusters");
            assert_eq!(all, compressed, "{line}: {checked:?}");
        }
    }
    for under in ["compress", "raw", "preallocate"] {
        let target = format!("driver=compress,file.driver={under},{two}");
        let line = format!("convert -n --target-image-opts alone.qcow2 {target}");
        let ran = pair.same(&line);
        assert_eq!(ran.code, 1, "{ran:?}");
    }
    // An image that takes no compressed clusters: the peer finds out at the first write.
    let one = one.replace("new.qcow2", "d.qcow2");
    let line = format!(
        "convert --object throttle-group,id=g -c -n --target-image-opts alone.qcow2 driver=throttle,{group},{one}"
    );
    let ran = ours(&words(&line), pair.ours().root());
    assert_eq!(ran.code, 1, "{ran:?}");
    let two = two.replace("new.qcow2", "d.qcow2");
    pair.same(&format!(
        "info --object throttle-group,id=g --image-opts driver=compress,file.driver=throttle,file.{group},{two}"
    ));
}

#[test]
fn compressed_writes_count_against_the_limits_of_a_group() {
    let pair = images();
    let line = "convert --object throttle-group,id=g,limits.bps-write=200000 -c -n --target-image-opts alone.qcow2 driver=throttle,throttle-group=g,file.driver=qcow2,file.file.driver=file,file.file.filename=new.qcow2";
    let began = std::time::Instant::now();
    let ran = ours(&words(line), pair.ours().root());
    assert_eq!(ran.code, 0, "{ran:?}");
    // Three clusters of one byte each, which are 192 KiB to the guest and next to nothing compressed.
    assert!(began.elapsed().as_millis() > 400, "{:?}", began.elapsed());
    pair.ours()
        .qemu_img_ok(&["compare", "alone.qcow2", "new.qcow2"]);
}

/// An overlay over a base, both with data, and the filter in the place of its format.
fn overlay(pair: &Pair) {
    pair.qemu("create -q -f qcow2 cb.qcow2 2M");
    pair.qemu_io("qcow2", "cb.qcow2", &["write -P 4 0 1536k"]);
    pair.qemu("create -q -f qcow2 -b cb.qcow2 -F qcow2 ct.qcow2 2M");
    pair.qemu_io("qcow2", "ct.qcow2", &["write -P 3 0 512k"]);
}

const OVERLAY: &str = r#"{"driver":"qcow2","file":{"driver":"file","filename":"ct.qcow2"}}"#;

#[test]
fn a_filter_above_the_overlay_has_a_say_in_commit_and_rebase() {
    let pair = Pair::new();
    for kind in ["read", "write", "write-zeroes", "discard", "block-status"] {
        let image = format!(
            r#"json:{{"driver":"blkdebug","image":{OVERLAY},"inject-error":[{{"event":"none","iotype":"{kind}","errno":5}}]}}"#
        );
        for line in ["commit", "commit -d", "rebase -b ''"] {
            overlay(&pair);
            let args = [&words(line)[..], &[&image]].concat();
            let (theirs, ours, _) = pair.both(&args, Loose::Exact);
            let seen = format!("{line} {kind}: {theirs:?} {ours:?}");
            assert_eq!(theirs.code, ours.code, "{seen}");
            let fails = match line {
                "rebase -b ''" => ["write"].contains(&kind),
                _ => ["read", "block-status"].contains(&kind),
            };
            assert_eq!(ours.code, i32::from(fails), "{seen}");
            let info = pair.ours().qemu_img(&["info", "ct.qcow2"]);
            let has_parent = info.out.contains("backing file: cb.qcow2");
            assert_eq!(has_parent, fails || line != "rebase -b ''", "{info:?}");
            pair.same_image("ct.qcow2", "qcow2");
        }
    }
}

#[test]
fn a_rebase_behind_a_filter_is_logged_compressed_or_held_back() {
    let pair = Pair::new();
    overlay(&pair);
    pair.qemu("create -q -f raw log 4M");
    let logged = format!(
        r#"json:{{"driver":"blklogwrites","log":{{"driver":"file","filename":"log"}},"file":{OVERLAY}}}"#
    );
    pair.same_args(&["rebase", "-b", "", &logged], Loose::Exact);
    pair.same_image("ct.qcow2", "qcow2");
    let log = std::fs::read(pair.ours().path("log")).expect("the log");
    let entry = |log: &[u8]| {
        log.windows(4096)
            .any(|part| part.iter().all(|byte| *byte == 4))
    };
    assert!(entry(&log), "what was copied is not in the log");
    // Whether it is asked for or the filter makes it so.
    for (line, filter, compressed) in [
        ("rebase", "compress", true),
        ("rebase", "copy-on-read", false),
        ("rebase -c", "copy-on-read", true),
    ] {
        overlay(&pair);
        let image = over(filter, OVERLAY);
        let args = [&words(line)[..], &["-b", "", &image]].concat();
        pair.same_args(&args, Loose::Exact);
        pair.same_image("ct.qcow2", "qcow2");
        let checked = pair.same("check ct.qcow2");
        let some = !checked.out.contains(" 0.00% compressed clusters");
        assert_eq!(some, compressed, "{line} {filter}: {checked:?}");
    }
    for filter in ["compress", "preallocate"] {
        overlay(&pair);
        let ran = ours(
            &["rebase", "-c", "-b", "", &over(filter, OVERLAY)],
            pair.ours().root(),
        );
        assert_eq!(ran.code, 1, "{filter}: {ran:?}");
    }
}

#[test]
fn a_commit_and_a_rebase_keep_to_the_limits_of_a_group_above_the_overlay() {
    let pair = Pair::new();
    let image = format!(r#"json:{{"driver":"throttle","throttle-group":"g","file":{OVERLAY}}}"#);
    for (line, limit) in [("commit -d", "iops-read"), ("rebase -b ''", "iops-write")] {
        pair.qemu("create -q -f qcow2 -o cluster_size=4k cb.qcow2 1M");
        pair.qemu("create -q -f qcow2 -o cluster_size=4k -b cb.qcow2 -F qcow2 ct.qcow2 1M");
        let writes: Vec<String> = (0..64).map(|at| format!("write {}k 4k", 8 * at)).collect();
        let writes: Vec<&str> = writes.iter().map(String::as_str).collect();
        let written = if line == "commit -d" {
            "ct.qcow2"
        } else {
            "cb.qcow2"
        };
        pair.qemu_io("qcow2", written, &writes);
        let group = format!("throttle-group,id=g,limits.{limit}=200");
        let args = [&words(line)[..], &["--object", &group, &image]].concat();
        let began = std::time::Instant::now();
        let ran = ours(&args, pair.ours().root());
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
        // Each cluster is a request of its own, and a tenth of a second is free.
        let took = began.elapsed();
        assert!(took.as_millis() >= 200, "{line}: {took:?}");
    }
}

#[test]
fn a_strict_comparison_looks_through_filters() {
    let pair = images();
    pair.qemu("create -q -f qcow2 -b base.raw -F raw z.qcow2 2M");
    pair.qemu_io(
        "qcow2",
        "z.qcow2",
        &["write -P 2 100k 100k", "write -z 1M 64k"],
    );
    pair.qemu("convert -O qcow2 t.qcow2 flat.qcow2");
    let group = "throttle-group,id=g";
    let mut codes = std::collections::BTreeSet::new();
    for image in [
        over("copy-on-read", INNER),
        over("compress", INNER),
        over("preallocate", INNER),
        format!(r#"json:{{"driver":"throttle","throttle-group":"g","file":{INNER}}}"#),
        format!(r#"json:{{"driver":"blkdebug","image":{INNER}}}"#),
        r#"json:{"driver":"qcow2","file":{"driver":"blkdebug","image":{"driver":"file","filename":"t.qcow2"}}}"#.to_owned(),
    ] {
        for other in ["t.qcow2", "z.qcow2", "flat.qcow2", "alone.qcow2"] {
            for pairing in [[&*image, other], [other, &*image]] {
                let args = [&["compare", "-s", "--object", group], &pairing[..]].concat();
                codes.insert(pair.same_args(&args, Loose::Exact).code);
            }
        }
    }
    assert!(codes.contains(&0) && codes.contains(&1), "{codes:?}");
}
