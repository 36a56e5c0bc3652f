//! The filter `blkdebug`: errors at named steps.

use crate::pair::{Loose, Pair, ours, words};

fn images() -> Pair {
    let pair = Pair::with(&["create -f qcow2 a.qcow2 1M", "create -f raw a.raw 1M"]);
    pair.qemu_io("qcow2", "a.qcow2", &["write -P 7 64k 128k"]);
    pair.qemu_io("raw", "a.raw", &["write -P 7 0 1M"]);
    pair
}

fn over(format: &str, file: &str, options: &str) -> String {
    format!(
        "json:{{'driver':'{format}','file':{{'driver':'blkdebug','image':{{'driver':'file','filename':'{file}'}}{options}}}}}"
    )
}

#[test]
fn names_and_reports() {
    let pair = images();
    pair.file(
        "c.cfg",
        b"[inject-error]\nevent = \"vmstate_load\"\nerrno = \"5\"\n",
    );
    for name in [
        "blkdebug::a.qcow2",
        "blkdebug:c.cfg:a.qcow2",
        "blkdebug:nope:a.qcow2",
        "blkdebug:a.qcow2",
        "blkdebug::nope",
        "blkdebug::",
        "json:{'driver':'blkdebug','image':{'driver':'file','filename':'a.qcow2'}}",
        "json:{'driver':'blkdebug'}",
        "json:{'driver':'blkdebug','x-image':'a.raw'}",
        "json:{'driver':'blkdebug','x-image':'none'}",
        "json:{'driver':'raw','file':{'driver':'blkdebug','config':'c.cfg','x-image':'a.raw'}}",
        "json:{'driver':'blkdebug','foo':1,'image':{'driver':'file','filename':'a.qcow2'}}",
        "json:{'driver':'raw','file':{'driver':'blkdebug','image':{'driver':'qcow2','file':{'driver':'file','filename':'a.qcow2'}}}}",
    ] {
        pair.same_args(&["info", name], Loose::Exact);
    }
    pair.same("info -f blkdebug a.qcow2");
    for options in [
        "",
        ",'inject-error':[{'event':'read_aio','errno':5}]",
        ",'set-state':[{'event':'read_aio'}]",
        ",'unshare-child-perms':['write']",
        ",'take-child-perms':['write']",
        ",'align':511",
        ",'align':4096",
        ",'max-transfer':4096",
        ",'opt-write-zero':65536,'max-write-zero':65536",
        ",'align':4096,'opt-write-zero':512",
        ",'config':'nope'",
        ",'inject-error':[{'event':'bogus'}]",
        ",'inject-error':[{'errno':5}]",
        ",'inject-error':[{'event':'read_aio','iotype':'x'}]",
        // A rule that is given by itself, without a list.
        ",'inject-error':{'event':'vmstate_load','iotype':'read'}",
        ",'inject-error.event':'vmstate_load','inject-error.errno':28,'inject-error.once':true",
        ",'set-state':{'event':'vmstate_load','new_state':2,'state':1}",
        ",'inject-error':{'errno':5}",
        ",'inject-error':{'event':'bogus'}",
        ",'inject-error.0.event':'none','inject-error.event':'none'",
        ",'inject-error':{'event':'vmstate_load','sector':7,'state':3,'immediately':true},'align':512,'config':''",
        ",'inject-error':[{'event':'vmstate_load','sector':7,'state':3,'immediately':true}],'max-discard':512",
    ] {
        let name = over("qcow2", "a.qcow2", options);
        for line in ["info", "info --output=json", "map", "check"] {
            let mut args = words(line);
            args.push(&name);
            pair.same_args(&args, Loose::Exact);
        }
    }
}

/// What is in each file comes behind an event that does not happen here.
#[test]
fn files_of_rules_are_read_alike() {
    let pair = images();
    let rule = "event = \"vmstate_load\"";
    for text in [
        "",
        "[]",
        "[inject-error",
        "[inject-error]",
        "[set-state]",
        "[drive]",
        "[ inject-error ]",
        " [inject-error]",
        "[inject-error a]",
        "[inject-error] x\n@",
        "[inject-error \"a\"]\n@",
        "[inject-error \"a\"\n@",
        "[inject-error \"a b\"]\n@",
        "[inject-error \"1a\"]\n@",
        "[inject-error \"\"]\n@",
        "[inject-error\"a\"]\n@",
        "[inject-error \"a\"]\n@\n[inject-error \"a\"]\n@",
        "[inject-error \"a\"]\n@\n[set-state \"a\"]\n@\nnew_state = \"2\"",
        "[inject-error]\n@ x",
        "[inject-error]\n\t@\n\n# x\nonce  =  \"on\"",
        "[inject-error]\n@\n@",
        "[inject-error]\n@\n; x",
        "[inject-error]\nevent",
        "[inject-error]\nevent = none",
        "[inject-error]\nevent=\"none\"",
        "[inject-error]\nevent = \"\"",
        "[inject-error]\n@\nsector = \"x\"",
        "[inject-error]\n@\nonce = \"x\"",
        "[inject-error]\n@\niotype = \"x\"",
        "event = \"none\"",
    ] {
        // A name without its end would have the end of the line in it.
        let end = if text == "[inject-error" { "" } else { "\n" };
        pair.file("c.cfg", (text.replace('@', rule) + end).as_bytes());
        pair.same("info blkdebug:c.cfg:a.raw");
    }
}

#[test]
fn errors_while_reading_end_commands_alike() {
    let pair = images();
    for (options, line) in [
        (
            ",'inject-error':[{'event':'none','iotype':'read','sector':1000,'errno':5}]",
            "compare @ a.raw",
        ),
        (
            ",'inject-error':[{'event':'none','iotype':'block-status','errno':5}]",
            "compare @ a.raw",
        ),
        // An error that comes once is met by whatever asks first, and not asked away.
        (
            ",'inject-error':[{'event':'none','iotype':'block-status','once':true}]",
            "compare @ a.raw",
        ),
        (
            ",'inject-error':{'event':'none','iotype':'read','errno':28}",
            "compare @ a.raw",
        ),
        (
            ",'inject-error':[{'event':'none','iotype':'block-status','errno':5}]",
            "map @",
        ),
        (
            ",'inject-error':[{'event':'none','iotype':'block-status','errno':5}]",
            "info @",
        ),
        // Block status has to be meant.
        (",'inject-error':[{'event':'none'}]", "map --output=json @"),
        (
            ",'inject-error':[{'event':'none','sector':0}]",
            "measure -O qcow2 @",
        ),
        (
            ",'inject-error':[{'event':'none','once':true}]",
            "compare @ a.raw",
        ),
        (
            ",'inject-error':[{'event':'none','iotype':'read','sector':1000,'errno':5}]",
            "convert -q --salvage -O raw @ o.raw",
        ),
        (
            ",'inject-error':[{'event':'none','iotype':'read','errno':28}]",
            "convert -O raw @ p.raw",
        ),
    ] {
        let name = over("raw", "a.raw", options);
        let args: Vec<&str> = words(line)
            .into_iter()
            .map(|word| if word == "@" { name.as_str() } else { word })
            .collect();
        if line.starts_with("compare") {
            // Ours names the very place, and the image by its full name.
            let ran = ours(&args, pair.ours().root());
            let theirs = pair.theirs().qemu_img(&args);
            assert_eq!((ran.code, &ran.out), (theirs.code, &theirs.out), "{ran:?}");
            continue;
        }
        pair.same_args(&args, Loose::Exact);
    }
    let salvaged = |dir: &crate::common::Dir| std::fs::read(dir.root().join("o.raw")).unwrap();
    assert_eq!(salvaged(pair.ours()), salvaged(pair.theirs()));
    assert!(!pair.ours().root().join("p.raw").exists());
}

/// A storage that has no zeroing gets zeroes as bytes, where they may be.
#[test]
fn a_disk_that_cannot_zero_is_written_to() {
    let pair = images();
    for options in ["", "-W", "-t none"] {
        pair.file("t.raw", &[7; 4 << 20]);
        let name = over(
            "raw",
            "t.raw",
            ",'inject-error':[{'event':'none','iotype':'write-zeroes','errno':95}]",
        );
        let mut args = words("convert -n -O raw a.raw");
        args.splice(2..2, words(options));
        args.push(&name);
        let ran = pair.same_args(&args, Loose::Exact);
        assert_eq!(ran.code, 0, "{ran:?}");
        let bytes = |dir: &crate::common::Dir| std::fs::read(dir.root().join("t.raw")).unwrap();
        assert!(bytes(pair.ours()) == bytes(pair.theirs()), "{options}");
    }
}

/// What stands between a format and the filter keeps the format's steps to itself, and takes its own.
#[test]
fn steps_reach_the_filter_that_a_format_stands_on_alone() {
    let pair = images();
    let debug = "'driver':'blkdebug','image':{'driver':'file','filename':'a.qcow2'}";
    let rule =
        |event: &str| format!("{{{debug},'inject-error':[{{'event':'{event}','errno':5}}]}}");
    for (above, event, code) in [
        ("", "l2_load", 1),
        ("'driver':'raw','file':", "l2_load", 0),
        ("'driver':'blkdebug','image':", "l2_load", 0),
        (
            "'driver':'throttle','throttle-group':'g','file':",
            "l2_load",
            0,
        ),
        ("", "write_aio", 1),
        ("'driver':'raw','file':", "write_aio", 1),
        ("'driver':'copy-on-read','file':", "write_aio", 0),
        ("'driver':'blkdebug','image':", "write_aio", 0),
    ] {
        let file = match above {
            "" => rule(event),
            above => format!("{{{above}{}}}", rule(event)),
        };
        let name = format!("json:{{'driver':'qcow2','file':{file}}}");
        let group = "throttle-group,id=g";
        let ran = match event {
            "l2_load" => {
                let args = ["convert", "--object", group, "-O", "raw", &name, "x.raw"];
                pair.same_args(&args, Loose::Exact)
            }
            _ => pair.same_args(&["bench", "-w", "-c", "1", &name], Loose::Time),
        };
        assert_eq!(ran.code, code, "{name}: {ran:?}");
    }
}

/// What an image says of itself is enough where its file cannot tell what of it are holes.
#[test]
fn a_vhdx_is_read_though_nothing_is_known_of_the_holes_of_its_file() {
    let pair = images();
    pair.qemu_and_copy(&[
        "convert -f raw -O vhdx a.raw a.vhdx",
        "create -q -f raw b.raw 1M",
    ]);
    let rule = ",'inject-error':[{'event':'none','iotype':'block-status'}]";
    let name = over("vhdx", "a.vhdx", rule);
    for line in [
        "compare @ a.raw",
        "compare b.raw @",
        "convert -O raw @ o.raw",
        "measure -O raw @",
    ] {
        let args = words(line).into_iter();
        let args: Vec<&str> = args
            .map(|word| if word == "@" { &name } else { word })
            .collect();
        pair.same_args(&args, Loose::Exact);
    }
    let read = |dir: &crate::common::Dir| std::fs::read(dir.path("o.raw")).unwrap();
    assert_eq!(read(pair.ours()), read(pair.theirs()));
    // Theirs takes all of such an image for data, however little of it there is; ours looks.
    let (theirs, ours, _) = pair.both(&["map", "a.vhdx"], Loose::Exact);
    assert_eq!((theirs.code, ours.code), (1, 0), "{theirs:?} {ours:?}");
}

#[test]
fn a_flush_fails_where_there_is_something_to_flush() {
    let pair = images();
    for format in ["qed", "vhdx"] {
        let file = format!("a.{format}");
        pair.qemu_and_copy(&[&format!("convert -f raw -O {format} a.raw {file}")]);
    }
    for options in [
        ",'inject-error':[{'event':'none','iotype':'flush'}]",
        ",'inject-error':[{'event':'flush_to_disk'}]",
    ] {
        for format in ["qcow2", "qed", "vhdx"] {
            let name = over(format, &format!("a.{format}"), options);
            for line in ["check", "check -r leaks", "check -r all"] {
                let args = [&words(line)[..], &[&name]].concat();
                let ran = pair.same_args(&args, Loose::Exact);
                assert_eq!(ran.code, 0, "{ran:?}");
            }
        }
        pair.qemu("create -q -f qcow2 changed.qcow2 1M");
        let name = over("qcow2", "changed.qcow2", options);
        let ran = ours(&["snapshot", "-c", "s", &name], pair.ours().root());
        assert_eq!(ran.code, 1, "{ran:?}");
    }
}

/// Where a filter stands in the place of the format, there is nobody to take the steps of one.
#[test]
fn a_filter_in_the_place_of_the_format_takes_no_steps_of_one() {
    let pair = images();
    pair.qemu("create -q -f raw t.raw 1M");
    for (rule, image, code) in [
        ("read_aio", "'driver':'file','filename':'a.raw'", 0),
        ("write_aio", "'driver':'file','filename':'a.raw'", 0),
        ("none", "'driver':'file','filename':'a.raw'", 1),
        (
            "read_aio",
            "'driver':'qcow2','file':{'driver':'file','filename':'a.qcow2'}",
            0,
        ),
        // That of the disk is taken on what the disk lies on.
        (
            "none",
            "'driver':'raw','file':{'driver':'blkdebug','image':{'driver':'file','filename':'a.raw'},\
             'inject-error':[{'event':'read_aio'}]}",
            1,
        ),
    ] {
        let rules = match image.contains("inject-error") {
            true => String::new(),
            false => format!(",'inject-error':[{{'event':'{rule}'}}]"),
        };
        let name = format!("json:{{'driver':'blkdebug','image':{{{image}}}{rules}}}");
        let ran = pair.both(&["convert", "-O", "raw", &name, "x.raw"], Loose::Exact);
        assert_eq!((ran.0.code, ran.1.code), (code, code), "{ran:?}");
        let ran = pair.both(
            &["convert", "-n", "-O", "raw", "t.raw", &name],
            Loose::Exact,
        );
        assert_eq!(ran.0.code, ran.1.code, "{ran:?}");
    }
}

/// What counts ahead of the work asks for the same as the work, and whoever asks first gets the error.
#[test]
fn a_layer_that_is_not_known_once_ends_a_comparison_and_a_conversion() {
    let pair = Pair::new();
    pair.file("c.cfg", b"");
    pair.qemu_and_copy(&[
        "create -q -f qcow2 -o cluster_size=4k b.qcow2 1M",
        "create -q -f qcow2 -o cluster_size=4k -b blkdebug:c.cfg:b.qcow2 -F qcow2 t.qcow2",
    ]);
    // The overlay holds the beginning: the layer below is asked second.
    pair.qemu_io("qcow2", "b.qcow2", &["write -P 7 64k 64k"]);
    pair.qemu_io("qcow2", "t.qcow2", &["write -P 7 0 4k"]);
    pair.file(
        "c.cfg",
        b"[inject-error]\nevent = \"l2_load\"\niotype = \"read\"\nonce = \"on\"\n",
    );
    for (line, code) in [
        ("compare t.qcow2 t.qcow2", 3),
        ("compare -s t.qcow2 t.qcow2", 3),
        ("convert -O raw t.qcow2 o.raw", 1),
        ("convert -O qcow2 t.qcow2 o.qcow2", 1),
    ] {
        let (theirs, ours, _) = pair.both(&words(line), Loose::Exact);
        assert_eq!((theirs.code, ours.code), (code, code), "{line}: {ours:?}");
    }
}
