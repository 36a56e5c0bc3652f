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
    ] {
        let name = over("qcow2", "a.qcow2", options);
        for line in ["info", "info --output=json", "map", "check"] {
            let mut args = words(line);
            args.push(&name);
            pair.same_args(&args, Loose::Exact);
        }
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
        (
            ",'inject-error':[{'event':'none','iotype':'block-status','errno':5}]",
            "map @",
        ),
        (
            ",'inject-error':[{'event':'none','iotype':'block-status','errno':5}]",
            "info @",
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

/// A change of an image that fails at a step leaves the guest as it was or as it was to be, and at most
/// leaks clusters.
#[test]
fn a_failure_at_any_step_loses_nothing() {
    let steps = [
        "l1_update",
        "l2_load",
        "l2_update",
        "l2_alloc_write",
        "write_aio",
        "refblock_load",
        "refblock_update_part",
        "refblock_alloc",
        "cluster_alloc",
        "cluster_free",
        "flush_to_disk",
        "pwritev",
        "pwritev_done",
    ];
    for line in [
        "snapshot -c s @",
        "resize @ 4M",
        "amend -o compat=0.10 @",
        "check -r all @",
        "convert -n -O qcow2 a.raw @",
    ] {
        for step in steps {
            for errno in [5, 28] {
                let pair = images();
                let options =
                    format!(",'inject-error':[{{'event':'{step}','errno':{errno},'once':'on'}}]");
                let name = over("qcow2", "a.qcow2", &options);
                let args: Vec<String> = match line.starts_with("convert") {
                    true => words("convert -n --target-image-opts a.raw")
                        .into_iter()
                        .map(str::to_owned)
                        .chain([format!(
                            "driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=a.qcow2,file.inject-error.0.event={step},file.inject-error.0.errno={errno},file.inject-error.0.once=on"
                        )])
                        .collect(),
                    false => words(line)
                        .into_iter()
                        .map(|word| if word == "@" { name.clone() } else { word.to_owned() })
                        .collect(),
                };
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let ran = ours(&args, pair.ours().root());
                let what = format!("{line} {step} {errno}: {ran:?}");
                assert!(ran.code >= 0, "{what}");
                let checked = pair.ours().qemu_img(&["check", "a.qcow2"]);
                assert!(
                    checked.code == 0 || checked.code == 3,
                    "{what}\n{checked:?}"
                );
            }
        }
    }
}
