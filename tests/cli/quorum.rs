//! The filter `quorum`: what enough of its children agree on.

use crate::common::Dir;
use crate::pair::{Loose, Pair, ours, words};

/// A raw disk as a child.
fn raw(file: &str) -> String {
    format!("{{'driver':'raw','file':{{'driver':'file','filename':'{file}'}}}}")
}

/// A qcow2 image as a child.
fn qcow2(file: &str) -> String {
    raw(file).replacen("raw", "qcow2", 1)
}

/// A raw disk on which requests of a type fail.
fn failing(file: &str, iotype: &str, errno: u32) -> String {
    format!(
        "{{'driver':'raw','file':{{'driver':'blkdebug','image':{{'driver':'file','filename':'{file}'}},\
         'inject-error':[{{'event':'none','iotype':'{iotype}','errno':{errno}}}]}}}}"
    )
}

fn quorum(options: &str, children: &[String]) -> String {
    let children = children.join(",");
    format!("json:{{'driver':'quorum',{options}'children':[{children}]}}")
}

/// Three equal disks as raw and as qcow2, `d.raw` that differs, and `s.raw` that is shorter.
fn images() -> Pair {
    let pair = Pair::new();
    pair.file("s.raw", &[0; 512 << 10]);
    for name in ["a", "b", "c", "d", "e"] {
        pair.qemu(&format!("create -q -f raw {name}.raw 1M"));
        pair.qemu(&format!("create -q -f qcow2 {name}.qcow2 1M"));
        pair.qemu_io("raw", &format!("{name}.raw"), &["write -P 7 0 128k"]);
        pair.qemu_io("qcow2", &format!("{name}.qcow2"), &["write -P 7 0 128k"]);
    }
    pair.qemu_io("raw", "d.raw", &["write -P 9 4k 4k"]);
    pair.qemu_io("raw", "e.raw", &["write -P 9 0 4k"]);
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

fn content(dir: &Dir, name: &str) -> Vec<u8> {
    std::fs::read(dir.root().join(name)).expect("a file of the test")
}

#[test]
fn its_options_are_checked_in_the_same_words() {
    let pair = images();
    let three = [raw("a.raw"), raw("b.raw"), raw("c.raw")];
    let two = [raw("a.raw"), qcow2("b.qcow2")];
    for options in [
        "",
        "'vote-threshold':0,",
        "'vote-threshold':-1,",
        "'vote-threshold':1,",
        "'vote-threshold':3,",
        "'vote-threshold':4,",
        "'vote-threshold':'x',",
        "'vote-threshold':2,'blkverify':true,",
        "'vote-threshold':1,'blkverify':true,",
        "'vote-threshold':2,'blkverify':true,'rewrite-corrupted':true,",
        "'vote-threshold':2,'rewrite-corrupted':true,",
        "'vote-threshold':2,'rewrite-corrupted':'off',",
        "'vote-threshold':2,'rewrite-corrupted':true,'read-pattern':'fifo',",
        "'vote-threshold':2,'blkverify':true,'read-pattern':'fifo',",
        "'vote-threshold':2,'read-pattern':'quorum',",
        "'vote-threshold':2,'read-pattern':'x',",
        "'vote-threshold':9,'read-pattern':'fifo',",
        "'vote-threshold':2,'foo':1,",
    ] {
        for children in [&three[..], &two] {
            same(&pair, "info @", &quorum(options, children));
        }
    }
    for name in [
        "json:{'driver':'quorum','vote-threshold':1}",
        "json:{'driver':'quorum','vote-threshold':1,'children':[]}",
        "json:{'driver':'quorum','vote-threshold':1,'children':{}}",
        "json:{'driver':'quorum','vote-threshold':1,'children':['n']}",
        "json:{'driver':'quorum','vote-threshold':1,'children':[null]}",
        "quorum:a.raw",
    ] {
        same(&pair, "info @", name);
    }
    for places in [["0", "2"], ["1", "2"], ["0", "x"]] {
        let children = format!(
            "{{'{}':{},'{}':{}}}",
            places[0],
            raw("a.raw"),
            places[1],
            raw("b.raw")
        );
        let name = format!("json:{{'driver':'quorum','vote-threshold':1,'children':{children}}}");
        same(&pair, "info @", &name);
    }
    let first = "driver=quorum,vote-threshold=1,children.0.";
    for options in [
        "driver=raw,children.0.file.filename=a.raw",
        "file.filename=a.raw,children.1.file.filename=b.qcow2",
        "filename=a.raw,children.1.driver=file,children.1.filename=b.raw",
        "file.filename=none",
    ] {
        same(&pair, "info --image-opts @", &format!("{first}{options}"));
    }
    for line in [
        "info -f quorum a.raw",
        "create -f quorum new 1M",
        "convert -O quorum a.raw new",
    ] {
        pair.same(line);
    }
}

#[test]
fn every_command_that_reads_takes_it() {
    let pair = images();
    let two = "'vote-threshold':2,";
    let fifo = "'vote-threshold':2,'read-pattern':'fifo',";
    let file = |name: &str| format!("{{'driver':'file','filename':'{name}'}}");
    let inner = quorum(two, &[raw("a.raw"), raw("b.raw"), raw("c.raw")]);
    let inner = inner.trim_start_matches("json:");
    for name in [
        quorum(two, &[raw("a.raw"), raw("b.raw"), raw("c.raw")]),
        quorum(two, &[qcow2("a.qcow2"), qcow2("b.qcow2"), file("c.raw")]),
        quorum(two, &[raw("a.raw"), raw("d.raw"), raw("c.raw")]),
        quorum("'vote-threshold':1,", &[raw("a.raw"), raw("d.raw")]),
        quorum(fifo, &[raw("d.raw"), raw("a.raw")]),
        format!("json:{{'driver':'raw','file':{inner}}}"),
        format!("json:{{'driver':'raw','offset':65536,'file':{inner}}}"),
        format!("json:{{'driver':'throttle','throttle-group':'g','file':{inner}}}"),
        quorum("'vote-threshold':1,", &[inner.to_owned(), raw("d.raw")]),
    ] {
        let object = "--object throttle-group,id=g";
        for line in [
            "info @",
            "info --output=json @",
            "map @",
            "map --output=json @",
            "check @",
            "snapshot -l @",
            "measure -O raw @",
            "measure -O qcow2 @",
            "compare @ a.raw",
            "convert -O raw @ out.raw",
            "convert -O qcow2 @ out.qcow2",
            "commit @",
            "amend -o compat=0.10 @",
            "snapshot -c s @",
        ] {
            let (command, rest) = line.split_once(' ').expect("a command");
            let object = match name.contains("throttle") {
                true => object,
                false => "",
            };
            same(&pair, &format!("{command} {object} {rest}"), &name);
        }
        pair.same_image("out.raw", "raw");
    }
}

#[test]
fn children_that_fail_or_differ_are_outvoted_until_too_few_are_left() {
    let pair = images();
    let bad = |file: &str, errno| failing(file, "read", errno);
    let lost = |file: &str| failing(file, "block-status", 5);
    for (options, children) in [
        (
            "'vote-threshold':2,",
            [bad("a.raw", 5), raw("b.raw"), raw("c.raw")],
        ),
        (
            "'vote-threshold':3,",
            [bad("a.raw", 5), raw("b.raw"), raw("c.raw")],
        ),
        (
            "'vote-threshold':2,",
            [bad("a.raw", 5), bad("b.raw", 5), raw("c.raw")],
        ),
        (
            "'vote-threshold':1,",
            [bad("a.raw", 5), bad("b.raw", 28), raw("c.raw")],
        ),
        (
            "'vote-threshold':2,",
            [bad("a.raw", 28), bad("b.raw", 28), raw("c.raw")],
        ),
        (
            "'vote-threshold':3,",
            [bad("a.raw", 28), bad("b.raw", 5), raw("c.raw")],
        ),
        (
            "'vote-threshold':3,",
            [raw("a.raw"), raw("b.raw"), raw("e.raw")],
        ),
        (
            "'vote-threshold':3,'read-pattern':'fifo',",
            [bad("a.raw", 5), bad("b.raw", 28), raw("d.raw")],
        ),
        (
            "'vote-threshold':3,'read-pattern':'fifo',",
            [bad("a.raw", 5), bad("b.raw", 5), bad("c.raw", 28)],
        ),
        (
            "'vote-threshold':3,",
            [lost("a.raw"), raw("b.raw"), raw("c.raw")],
        ),
        (
            "'vote-threshold':1,",
            [lost("a.raw"), lost("b.raw"), lost("c.raw")],
        ),
        (
            "'vote-threshold':2,",
            [raw("a.raw"), raw("b.raw"), raw("s.raw")],
        ),
    ] {
        let name = quorum(options, &children);
        same(&pair, "map --output=json @", &name);
        same(&pair, "convert -O raw @ out.raw", &name);
        for dir in [pair.ours(), pair.theirs()] {
            let _ = std::fs::remove_file(dir.root().join("out.raw"));
        }
        let args = ["compare", &name, "a.raw"];
        let (theirs, ours) = (
            pair.theirs().qemu_img(&args),
            ours(&args, pair.ours().root()),
        );
        assert_eq!(
            (ours.code, &ours.out),
            (theirs.code, &theirs.out),
            "{ours:?}"
        );
    }
}

#[test]
fn two_that_must_agree_and_do_not_are_named() {
    let pair = images();
    let options = "'vote-threshold':2,'blkverify':true,";
    same(
        &pair,
        "convert -O raw @ out.raw",
        &quorum(options, &[raw("a.raw"), qcow2("b.qcow2")]),
    );
    let name = quorum(options, &[raw("a.raw"), raw("d.raw")]);
    let ran = ours(
        &["convert", "-O", "raw", &name, "x.raw"],
        pair.ours().root(),
    );
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.err
            .contains("'a.raw' and 'd.raw' differ at offset 4096"),
        "{ran:?}"
    );
    let (theirs, ran, _) = pair.both(&["compare", &name, "a.raw"], Loose::Exact);
    assert_eq!((theirs.code, ran.code), (1, 1), "{theirs:?} {ran:?}");
}

#[test]
fn writes_reach_every_child_and_fail_with_too_many_of_them() {
    let bench = "bench -q -w -d 1 -c 5 -s 5000 -S 9000 --pattern 3 -t writethrough @";
    let bad = |file: &str, errno| failing(file, "write", errno);
    let unsynced = |file: &str, errno| failing(file, "flush", errno);
    for (threshold, children) in [
        (2, [raw("a.raw"), raw("b.raw"), qcow2("c.qcow2")]),
        (2, [bad("a.raw", 5), raw("b.raw"), raw("c.raw")]),
        (3, [bad("a.raw", 5), raw("b.raw"), raw("c.raw")]),
        (2, [bad("a.raw", 28), bad("b.raw", 5), raw("c.raw")]),
        (2, [bad("a.raw", 28), bad("b.raw", 28), raw("c.raw")]),
        (1, [bad("a.raw", 28), bad("b.raw", 5), bad("c.raw", 28)]),
        (2, [unsynced("a.raw", 5), raw("b.raw"), raw("c.raw")]),
        (3, [unsynced("a.raw", 5), raw("b.raw"), raw("c.raw")]),
    ] {
        let pair = images();
        let name = quorum(&format!("'vote-threshold':{threshold},"), &children);
        let args: Vec<&str> = words(bench)
            .into_iter()
            .map(|word| if word == "@" { &name } else { word })
            .collect();
        let theirs = pair.theirs().qemu_img(&args);
        let ours = ours(&args, pair.ours().root());
        assert_eq!((ours.code, &ours.err), (theirs.code, &theirs.err), "{name}");
        for file in ["a.raw", "b.raw", "c.raw", "c.qcow2"] {
            let files = [pair.ours(), pair.theirs()].map(|dir| dir.str(file));
            let compared = pair.ours().qemu_img(&["compare", &files[0], &files[1]]);
            assert_eq!(compared.code, 0, "{name} {file}: {compared:?}");
        }
    }
}

#[test]
fn an_image_lives_on_a_quorum_of_files() {
    let pair = images();
    let file = |name: &str| format!("{{'driver':'file','filename':'{name}'}}");
    let node = quorum(
        "'vote-threshold':2,",
        &[file("a.qcow2"), file("b.qcow2"), file("c.qcow2")],
    );
    let name = format!(
        "json:{{'driver':'qcow2','file':{}}}",
        node.trim_start_matches("json:")
    );
    for line in [
        "info @",
        "map @",
        "map --output=json @",
        "snapshot -c s @",
        "resize @ 3M",
        "check @",
        "bench -q -w -d 1 -c 9 -s 70000 -S 90000 --pattern 5 @",
        "snapshot -a s @",
        "snapshot -d s @",
        "resize --shrink @ 1M",
        "check -q @",
        "compare @ a.raw",
    ] {
        // Where clusters lie then is up to each tool.
        if line.starts_with("bench") || line.contains("shrink") {
            let args: Vec<&str> = words(line)
                .into_iter()
                .map(|word| if word == "@" { &name } else { word })
                .collect();
            for ran in [
                ours(&args, pair.ours().root()),
                pair.theirs().qemu_img(&args),
            ] {
                assert_eq!(ran.code, 0, "{line}: {ran:?}");
            }
            continue;
        }
        same(&pair, line, &name);
    }
    let first = content(pair.ours(), "a.qcow2");
    assert!(first == content(pair.ours(), "b.qcow2"));
    assert!(first == content(pair.ours(), "c.qcow2"));
}

#[test]
fn what_lost_a_vote_is_rewritten_where_that_is_asked_for() {
    let pair = images();
    let name = "driver=qcow2,file.driver=quorum,file.vote-threshold=2,file.rewrite-corrupted=on,\
                file.children.0.driver=file,file.children.0.filename=a.qcow2,\
                file.children.1.driver=file,file.children.1.filename=b.qcow2,\
                file.children.2.driver=file,file.children.2.filename=c.qcow2";
    // The size of the disk, in the header.
    pair.patch("b.qcow2", 24, &[0xff; 8]);
    same(&pair, "resize -q --image-opts @ 2M", name);
    for dir in [pair.ours(), pair.theirs()] {
        assert!(content(dir, "a.qcow2") == content(dir, "b.qcow2"));
    }
    // Only images that are open for writing are repaired.
    same(&pair, "info --image-opts @", name);
}

#[test]
fn it_can_be_below_an_overlay() {
    let pair = images();
    let backing = quorum(
        "'vote-threshold':2,",
        &[raw("a.raw"), raw("d.raw"), qcow2("c.qcow2")],
    );
    let args = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        &backing,
        "-F",
        "quorum",
        "top.qcow2",
    ];
    pair.same_args(&args, Loose::Exact);
    pair.qemu_io("qcow2", "top.qcow2", &["write -P 4 100k 130k"]);
    for line in [
        "info --backing-chain top.qcow2",
        "map --output=json top.qcow2",
        "convert -O raw top.qcow2 out.raw",
        "rebase -b '' top.qcow2",
    ] {
        pair.same_but(line, Loose::DiskSize);
    }
    pair.same_image("out.raw", "raw");
    pair.same_image("top.qcow2", "qcow2");
}

/// What one child has cut off cannot be put back when another one refuses.
#[test]
fn a_shrink_that_one_child_refuses_cuts_nothing_off() {
    let pair = Pair::new();
    pair.file("r.raw", &[7; 4 << 20]);
    let dir = pair.ours();
    for format in ["qcow", "qed"] {
        dir.qemu_img_ok(&["convert", "-f", "raw", "-O", format, "r.raw", "t"]);
        let second = format!("driver={format},");
        let quorum = format!(
            "driver=quorum,vote-threshold=2,children.0.driver=raw,children.0.file.filename=r.raw,\
             children.1.{second}children.1.file.filename=t"
        );
        let verify = format!(
            "driver=blkverify,raw.driver=file,raw.filename=r.raw,test.{second}test.file.filename=t"
        );
        for name in [quorum, verify] {
            let ran = ours(
                &["resize", "--shrink", "--image-opts", &name, "2M"],
                dir.root(),
            );
            assert_eq!(ran.code, 1, "{name}: {ran:?}");
            assert!(content(dir, "r.raw") == [7; 4 << 20], "{name}");
        }
    }
}
