//! Names of nodes, and the filters that grow files ahead of writes and copy what writes replace.

use std::path::Path;

use crate::pair::{Loose, Pair, ours, run, words};

fn images() -> Pair {
    let pair = Pair::with(&[
        "create -q -f qcow2 a.qcow2 1M",
        "create -q -f raw b.raw 1M",
        "create -q -f raw t.raw 1M",
        "create -q -f qcow2 t.qcow2 1M",
        "create -q -f qcow2 -u -b json:{'driver':'raw','node-name':'bb','file':{'driver':'file','filename':'b.raw'}} -F raw u.qcow2 1M",
    ]);
    pair.qemu_io("raw", "b.raw", &["write -P 1 0 1M"]);
    pair.qemu_io("qcow2", "a.qcow2", &["write -P 2 0 300k"]);
    pair
}

#[test]
fn names_of_nodes_are_well_formed_and_taken_once() {
    let pair = images();
    let long = "abcdefghijklmnopqrstuvwxyz012345";
    let mut lines = Vec::new();
    for name in ["x", "1x", "", "a#b", "a.b-c_d", long, &long[..31]] {
        lines.push(format!(
            "info --image-opts driver=qcow2,node-name={name},file.filename=a.qcow2"
        ));
    }
    for options in [
        "driver=qcow2,node-name=x,file.node-name=x,file.filename=a.qcow2",
        "driver=qcow2,node-name=x,file.driver=file,file.node-name=x,file.filename=a.qcow2",
        "driver=qcow2,node-name=x,file.driver=file,file.node-name=y,file.filename=a.qcow2",
        "driver=throttle,throttle-group=g,node-name=x,file.driver=qcow2,file.file.filename=a.qcow2,file.node-name=x",
        "driver=raw,node-name=x,file.driver=qcow2,file.node-name=x,file.file.driver=file,file.file.filename=a.qcow2",
        "driver=qcow2,node-name=bb,file.driver=file,file.filename=u.qcow2",
        "driver=qcow2,file.driver=file,file.node-name=bb,file.filename=u.qcow2",
        "driver=raw,file=x,node-name=x",
    ] {
        lines.push(format!(
            "map --object throttle-group,id=g --image-opts {options}"
        ));
    }
    lines.push("map u.qcow2".to_owned());
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

#[test]
fn the_bottom_of_copies_is_found_by_its_name() {
    let pair = images();
    let above =
        "driver=copy-on-read,file.driver=qcow2,file.file.driver=file,file.file.filename=u.qcow2";
    for (more, code) in [
        ("bottom=bb", 0),
        ("bottom=z", 1),
        ("bottom=top,file.node-name=top", 0),
    ] {
        let ran = pair.same(&format!("resize --image-opts {above},{more} 1M"));
        assert_eq!(ran.code, code, "{ran:?}");
    }
}

#[test]
fn a_file_grows_ahead_of_writes_and_ends_where_they_do() {
    let pair = images();
    let file = "{'driver':'file','filename':'b.raw'}";
    let mut lines = Vec::new();
    for options in [
        "",
        ",'prealloc-align':511",
        ",'prealloc-align':4096",
        ",'prealloc-align':0",
        ",'prealloc-size':1000",
        ",'prealloc-size':0",
        ",'prealloc-align':'1M'",
        ",'foo':1",
    ] {
        let filter = format!("{{'driver':'preallocate'{options},'file':{file}}}");
        for image in [
            filter.clone(),
            format!("{{'driver':'raw','file':{filter}}}"),
        ] {
            for command in ["info", "info --output=json", "map", "compare -f raw b.raw"] {
                lines.push(format!("{command} json:{image}"));
            }
        }
    }
    for line in [
        "info json:{'driver':'preallocate'}",
        "info -f preallocate b.raw",
        "create -f preallocate x 1M",
        "info preallocate:b.raw",
    ] {
        lines.push(line.to_owned());
    }
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);

    let over =
        "driver=qcow2,file.driver=preallocate,file.file.driver=file,file.file.filename=t.qcow2";
    pair.same(&format!("convert -n --target-image-opts b.raw {over}"));
    pair.same_image("t.qcow2", "qcow2");
    pair.same(&format!("resize --image-opts {over} 3M"));
    pair.same_but(
        &format!("bench -q -w -c 30 -s 64k --image-opts {over}"),
        Loose::Time,
    );
    pair.same_image("t.qcow2", "qcow2");
    let len = |dir: &crate::common::Dir| std::fs::metadata(dir.path("t.qcow2")).unwrap().len();
    // Nothing of what was reserved is left.
    assert!(len(pair.ours()) <= len(pair.theirs()) + (1 << 20));
    let raw = "json:{'driver':'raw','file':{'driver':'preallocate','file':{'driver':'file','filename':'b.raw'}}}";
    pair.same(&format!("resize {raw} 1536k"));
    pair.same(&format!("resize --shrink {raw} 700k"));
    let bytes = |dir: &crate::common::Dir| std::fs::read(dir.path("b.raw")).unwrap();
    assert_eq!(bytes(pair.ours()), bytes(pair.theirs()));
}

const BEFORE: &str = "driver=copy-before-write,file.driver=qcow2,file.file.driver=file,file.file.filename=a.qcow2,target.driver=raw,target.file.driver=file,target.file.filename=t.raw";

#[test]
fn what_a_write_replaces_is_in_the_target() {
    let pair = images();
    for command in ["info", "map", "check", "snapshot -l", "measure -O raw"] {
        pair.same(&format!("{command} --image-opts {BEFORE}"));
    }
    for line in [
        "amend -o compat=0.10 --image-opts @",
        "snapshot -c x --image-opts @",
        "commit --image-opts @",
        "check -r all --image-opts @",
        "resize --image-opts @,on-cbw-error=break-snapshot 1M",
        "resize --image-opts @,cbw-timeout=5,min-cluster-size=4096 1M",
        "resize --image-opts @,min-cluster-size=4095 1M",
        "info -f snapshot-access b.raw",
        "info --image-opts driver=replication,mode=primary,file.filename=b.raw",
        "create -f copy-before-write x 1M",
    ] {
        let line = line.replace('@', BEFORE);
        if line.contains("snapshot-access") || line.contains("replication") {
            // They show what only lives in a running machine.
            let ran = ours(&words(&line), pair.ours().root());
            assert_eq!(ran.code, 1, "{ran:?}");
            assert!(ran.err.contains("machine"), "{ran:?}");
            continue;
        }
        pair.same_args(&words(&line), Loose::Exact);
    }
    let shrunk = pair.same(&format!("resize --image-opts {BEFORE} 512k"));
    assert_eq!(shrunk.code, 1);
    pair.same_but(
        &format!("bench -q -w -c 3 -s 10k -S 90k --pattern 7 --image-opts {BEFORE}"),
        Loose::Time,
    );
    let bytes = |dir: &crate::common::Dir| std::fs::read(dir.path("t.raw")).unwrap();
    assert_eq!(bytes(pair.ours()), bytes(pair.theirs()));
    assert_eq!(bytes(pair.ours())[100 << 10], 2);
    pair.same_image("a.qcow2", "qcow2");
    pair.same(&format!("convert -n --target-image-opts b.raw {BEFORE}"));
    assert_eq!(bytes(pair.ours()).len(), 1 << 20);
    pair.same_image("a.qcow2", "qcow2");
}

#[test]
fn a_target_that_cannot_take_the_copy_breaks_the_write_or_the_backup() {
    let pair = images();
    let file =
        "driver=copy-before-write,file.driver=raw,file.file.driver=file,file.file.filename=b.raw";
    let target = "target.driver=raw,target.file.driver=blkdebug,target.file.image.driver=file,target.file.image.filename=t.raw,target.file.inject-error.0.event=none,target.file.inject-error.0.iotype=write,target.file.inject-error.0.errno=5";
    for (more, code) in [("break-guest-write", 1), ("break-snapshot", 0)] {
        let line = format!(
            "bench -q -w -c 2 --pattern 9 --image-opts {file},{target},on-cbw-error={more}"
        );
        let ran = pair.same_but(&line, Loose::Time);
        assert_eq!(ran.code, code, "{ran:?}");
        let byte = std::fs::read(pair.ours().path("b.raw")).unwrap()[0];
        assert_eq!(byte, if code == 0 { 9 } else { 1 });
    }
}

#[test]
fn the_backing_file_changes_behind_a_filter() {
    for (filter, code) in [
        ("'driver':'throttle','throttle-group':'g'", 0),
        ("'driver':'compress'", 0),
        ("'driver':'copy-on-read'", 0),
        ("'driver':'preallocate'", 0),
        (
            "'driver':'copy-before-write','target':{'driver':'raw','file':{'driver':'file','filename':'backup.raw'}}",
            0,
        ),
        ("'driver':'raw'", 1),
    ] {
        let pair = Pair::with(&[
            "create -q -f raw b.raw 1M",
            "create -q -f raw c.raw 1M",
            "create -q -f raw backup.raw 1M",
            "create -q -f qcow2 -b b.raw -F raw t.qcow2 1M",
        ]);
        pair.qemu_io("raw", "b.raw", &["write -P 1 0 1M"]);
        pair.qemu_io("qcow2", "t.qcow2", &["write -P 3 64k 64k"]);
        let image = format!(
            "json:{{{filter},'file':{{'driver':'qcow2','file':{{'driver':'file','filename':'t.qcow2'}}}}}}"
        );
        let group = ["rebase", "--object", "throttle-group,id=g"];
        for more in [&["-u", "-b", "c.raw", "-F", "raw"][..], &["-b", ""]] {
            let args = [&group[..], more, &[&image]].concat();
            let ran = pair.same_args(&args, Loose::Exact);
            assert_eq!(ran.code, code, "{ran:?}");
            pair.same_image("t.qcow2", "qcow2");
        }
    }
}

#[test]
fn what_an_overlay_behind_a_filter_holds_is_committed() {
    let file = |filter: &str| format!("'driver':'{filter}','file'");
    let log = "'driver':'blklogwrites','log':{'driver':'file','filename':'log.raw'},'file'";
    let group = "'driver':'throttle','throttle-group':'g','file'";
    let votes = "'driver':'quorum','vote-threshold':1,'children'";
    for (filter, code) in [
        (group.to_owned(), 0),
        ("'driver':'blkdebug','image'".to_owned(), 0),
        (file("preallocate"), 0),
        (file("copy-on-read"), 0),
        (log.to_owned(), 0),
        (file("raw"), 1),
        (votes.to_owned(), 1),
    ] {
        for more in [&[][..], &["-d"], &["-b", "b.raw"]] {
            if !filter.contains("throttle") && !more.is_empty() {
                continue;
            }
            let pair = Pair::with(&[
                "create -q -f raw b.raw 1M",
                "create -q -f raw log.raw 0",
                "create -q -f qcow2 -b b.raw -F raw t.qcow2 1M",
            ]);
            pair.qemu_io("raw", "b.raw", &["write -P 1 0 1M"]);
            pair.qemu_io("qcow2", "t.qcow2", &["write -P 3 64k 64k"]);
            let overlay = "{'driver':'qcow2','file':{'driver':'file','filename':'t.qcow2'}}";
            let below = match filter == votes {
                true => format!("[{overlay}]"),
                false => overlay.to_owned(),
            };
            let image = format!("json:{{{filter}:{below}}}");
            let group = ["commit", "--object", "throttle-group,id=g"];
            let ran = pair.same_args(&[&group[..], more, &[&image]].concat(), Loose::Exact);
            assert_eq!(ran.code, code, "{ran:?}");
            pair.same_image("b.raw", "raw");
            pair.same_image("t.qcow2", "qcow2");
        }
    }
    // The peer never ends here.
    let dir = images();
    dir.qemu("create -q -f qcow2 -b b.raw -F raw o.qcow2 1M");
    dir.qemu_io("qcow2", "o.qcow2", &["write -P 3 64k 64k"]);
    let image = "json:{'driver':'compress','file':{'driver':'qcow2','file':{'driver':'file','filename':'o.qcow2'}}}";
    let ran = ours(&["commit", image], dir.ours().root());
    assert_eq!(ran.code, 0, "{ran:?}");
    let bytes = std::fs::read(dir.ours().path("b.raw")).unwrap();
    assert_eq!((bytes[64 << 10], bytes[128 << 10]), (3, 1));
}

#[test]
fn a_node_is_a_child_of_several_by_its_name() {
    let pair = images();
    let qcow2 = "{'driver':'qcow2','node-name':'a','file':{'driver':'file','node-name':'f','filename':'a.qcow2'}}";
    let raw = "{'driver':'raw','node-name':'b','file':{'driver':'file','node-name':'g','filename':'b.raw'}}";
    let votes = |children: &str| {
        format!("json:{{'driver':'quorum','vote-threshold':1,'children':[{children}]}}")
    };
    let mut images = Vec::new();
    for children in [
        format!("{qcow2},'a'"),
        format!("'a',{qcow2}"),
        format!("{qcow2},'f'"),
        format!("{qcow2},{{'driver':'qcow2','file':'f'}}"),
        format!("{qcow2},{{'driver':'qcow2','file':'a'}}"),
        format!("{raw},{{'driver':'raw','size':512,'file':'b'}},{{'driver':'raw','file':'g'}}"),
        format!(
            "{raw},{{'driver':'qcow2','backing':'b','file':{{'driver':'file','filename':'u.qcow2'}}}}"
        ),
        format!(
            "{raw},{{'driver':'qcow2','backing':'g','file':{{'driver':'file','filename':'u.qcow2'}}}}"
        ),
        format!("{raw},'h'"),
        format!("{raw},''"),
    ] {
        images.push(votes(&children));
    }
    images.push(format!(
        "json:{{'driver':'blkverify','raw':{raw},'test':'b'}}"
    ));
    images.push(format!(
        "json:{{'driver':'blkverify','test':{raw},'raw':'b'}}"
    ));
    images.push("json:{'driver':'raw','node-name':'x','file':'x'}".to_owned());
    let mut lines = Vec::new();
    for image in &images {
        for command in ["map", "map --output=json", "convert -O raw @ out.raw"] {
            let line = match command.contains('@') {
                true => command.replace('@', image),
                false => format!("{command} {image}"),
            };
            lines.push(line);
        }
        // The peer leaves what it does not open for information out, and ends where that is read.
        if !image.contains("'backing'") && !image.contains("'qcow2','file':'a'") {
            lines.push(format!("info {image}"));
        }
    }
    lines.push(
        "map --image-opts driver=blkverify,raw.driver=file,raw.node-name=a,raw.filename=b.raw,test=a"
            .to_owned(),
    );
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

#[test]
fn names_that_stand_in_images_lead_to_no_node() {
    let pair = images();
    let below = "json:{'driver':'quorum','vote-threshold':1,'children':[{'driver':'raw','node-name':'b','file':{'driver':'file','filename':'b.raw'}},'b']}";
    pair.qemu(&format!(
        "create -q -f qcow2 -u -b {below} -F quorum v.qcow2 1M"
    ));
    let given = ours(&["compare", below, "b.raw"], pair.ours().root());
    assert_eq!(given.code, 0, "{given:?}");
    let ran = ours(&["compare", "v.qcow2", "b.raw"], pair.ours().root());
    assert!(
        ran.code == 2 && ran.err.contains("node-name='b'"),
        "{ran:?}"
    );
}

#[test]
fn only_one_node_writes_to_a_shared_one() {
    let pair = images();
    let raw = "{'driver':'raw','node-name':'b','file':{'driver':'file','node-name':'g','filename':'b.raw'}}";
    let qcow2 = "{'driver':'qcow2','file':{'driver':'file','node-name':'f','filename':'a.qcow2'}}";
    let before = std::fs::read(pair.ours().path("b.raw")).unwrap();
    for image in [
        format!("{{'driver':'quorum','vote-threshold':1,'children':[{raw},'b']}}"),
        format!(
            "{{'driver':'quorum','vote-threshold':1,'children':[{raw},{{'driver':'raw','file':'g'}}]}}"
        ),
        format!(
            "{{'driver':'quorum','vote-threshold':1,'children':[{qcow2},{{'driver':'qcow2','file':'f'}}]}}"
        ),
        format!("{{'driver':'copy-before-write','file':{raw},'target':'b'}}"),
        format!(
            "{{'driver':'copy-before-write','file':{raw},'target':{{'driver':'raw','file':'g'}}}}"
        ),
        format!(
            "{{'driver':'copy-before-write','file':{qcow2},'target':{{'driver':'qcow2','backing':{{'driver':'qcow2','file':'f'}},'file':{{'driver':'file','filename':'t.qcow2'}}}}}}"
        ),
    ] {
        let line = format!("bench -q -w -c 1 json:{image}");
        let theirs = pair.theirs().qemu_img(&words(&line));
        assert_eq!(theirs.code, 1, "{theirs:?}");
        let ran = ours(&words(&line), pair.ours().root());
        assert_eq!(ran.code, 1, "{image}: {ran:?}");
        assert!(ran.err.contains("node"), "{ran:?}");
        assert!(std::fs::read(pair.ours().path("b.raw")).unwrap() == before);
    }
}

#[test]
fn a_backup_stands_on_the_disk_that_it_is_a_backup_of() {
    let pair = images();
    for (name, format) in [("b.raw", "raw"), ("a.qcow2", "qcow2")] {
        pair.qemu("create -q -f qcow2 t.qcow2 1M");
        pair.qemu("create -q -f raw old.raw 1M");
        pair.qemu(&format!("convert -n -f {format} -O raw {name} old.raw"));
        let image = format!(
            "json:{{'driver':'copy-before-write','file':{{'driver':'{format}','node-name':'a','file':{{'driver':'file','filename':'{name}'}}}},'target':{{'driver':'qcow2','backing':'a','file':{{'driver':'file','filename':'t.qcow2'}}}}}}"
        );
        let line = format!("bench -q -w -c 3 -s 10k -S 90k --pattern 7 {image}");
        pair.same_but(&line, Loose::Time);
        pair.same_image("t.qcow2", "qcow2");
        // What the disk was is what the target shows above the disk.
        let compared = pair.same(&format!(
            "compare -F raw json:{{'driver':'qcow2','backing':{{'driver':'{format}','file':{{'driver':'file','filename':'{name}'}}}},'file':{{'driver':'file','filename':'t.qcow2'}}}} old.raw"
        ));
        assert_eq!(compared.code, 0, "{compared:?}");
        // Not once more, and not the one that the image names.
        pair.qemu("create -q -f qcow2 -u -b old.raw -F raw t.qcow2 1M");
    }
    let line = "commit json:{'driver':'qcow2','file':{'driver':'file','node-name':'a','filename':'t.qcow2'},'backing':'a'}";
    let ran = ours(&words(line), pair.ours().root());
    assert_eq!(ran.code, 1, "{ran:?}");
}

#[test]
fn a_bitmap_says_what_is_copied_before_it_is_replaced() {
    let pair = images();
    pair.qemu("bitmap --add -g 4k a.qcow2 some");
    pair.qemu("bitmap --add --disable a.qcow2 none");
    pair.qemu("create -q -f qcow2 long.qcow2 2M");
    pair.qemu("bitmap --add long.qcow2 some");
    pair.qemu_io("qcow2", "a.qcow2", &["write -P 3 130k 10k"]);
    pair.qemu("bitmap --disable a.qcow2 some");
    let above = "driver=copy-before-write,file.driver=qcow2,file.node-name=n,file.file.driver=file,file.file.node-name=f,file.file.filename=a.qcow2";
    let target = "target.driver=raw,target.file.driver=file,target.file.filename=t.raw";
    for more in [
        "bitmap.node=n,bitmap.name=gone",
        "bitmap.node=z,bitmap.name=some",
        "bitmap.node=f,bitmap.name=some",
        "bitmap.node=n",
        "bitmap.name=some",
    ] {
        let line = format!("resize --image-opts {above},{target},{more} 1M");
        let ran = pair.same(&line);
        assert_eq!(ran.code, 1, "{ran:?}");
    }
    let long = "target.driver=qcow2,target.node-name=l,target.file.driver=file,target.file.filename=long.qcow2";
    pair.same(&format!(
        "resize --image-opts {above},{long},bitmap.node=l,bitmap.name=some 1M"
    ));
    for (name, code) in [("none", 0), ("some", 9)] {
        let line = format!(
            "bench -q -w -c 8 -s 64k -S 64k --pattern 9 --image-opts {above},{target},bitmap.node=n,bitmap.name={name}"
        );
        pair.same_but(&line, Loose::Time);
        let bytes = |dir: &crate::common::Dir| std::fs::read(dir.path("t.raw")).unwrap();
        let copied = bytes(pair.ours());
        assert!(copied == bytes(pair.theirs()), "{name}");
        assert_eq!(copied[130 << 10], code, "{name}");
        assert_eq!(copied[100 << 10], 0, "{name}");
    }
    pair.same_image("a.qcow2", "qcow2");
}

const FILE: &str = "file.driver=file,file.filename";

#[test]
fn a_name_is_taken_once_in_a_command_and_leads_to_images_that_were_opened_before() {
    let pair = images();
    for name in ["a", "b"] {
        pair.qemu_and_copy(&[&format!("create -q -f raw {name}.disk 1M")]);
        pair.qemu_and_copy(&[&format!("create -q -f qcow2 {name}.over 1M")]);
    }
    let json = |name: &str, file: &str| {
        format!("json:{{'driver':'raw','node-name':'{name}','file':{file}}}")
    };
    let file = |name: &str| format!("{{'driver':'file','filename':'{name}'}}");
    let (first, again) = (json("n", &file("a.disk")), json("n", &file("b.disk")));
    let over = json("m", "'n'");
    let lines = [
        // The same name twice.
        format!(
            "compare --image-opts driver=raw,node-name=n,{FILE}=a.disk driver=raw,node-name=n,{FILE}=b.disk"
        ),
        format!("compare {first} {again}"),
        format!("convert -O raw {first} {again} out"),
        format!(
            "convert -n --image-opts --target-image-opts driver=raw,node-name=n,{FILE}=a.disk driver=raw,node-name=n,{FILE}=t.raw"
        ),
        format!("rebase --image-opts driver=qcow2,node-name=n,{FILE}=a.over -F raw -b {first}"),
        format!(
            "bitmap --merge y -F raw -b {first} --image-opts driver=qcow2,node-name=n,{FILE}=a.over x"
        ),
        // Nodes of earlier images.
        format!("compare {first} {over}"),
        format!("compare --image-opts driver=raw,{FILE}=b.raw,file.node-name=p driver=raw,file=p"),
        format!(
            "compare --image-opts driver=qcow2,node-name=n,{FILE}=a.qcow2 driver=qcow2,{FILE}=b.over,backing=n"
        ),
        format!("compare --image-opts driver=qcow2,node-name=n,{FILE}=u.qcow2 driver=raw,file=bb"),
        format!("compare --image-opts driver=raw,node-name=n,{FILE}=a.disk driver=qcow2,file=n"),
        format!("convert -O raw {first} {over} out"),
        format!(
            "convert -n --image-opts --target-image-opts driver=raw,node-name=n,{FILE}=b.raw driver=qcow2,{FILE}=b.over,backing=n"
        ),
        // Of later ones, and of themselves.
        format!("compare {over} {first}"),
        format!("convert -O raw {over} {first} out"),
        format!("compare --image-opts driver=raw,node-name=n,file=n driver=raw,{FILE}=a.disk"),
        format!("compare --image-opts driver=raw,{FILE}=a.disk,file.node-name=p driver=p"),
    ];
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
    pair.same_image("b.over", "qcow2");

    // What another image reads is not written to; the peer names nodes that nobody has named.
    let before = std::fs::read(pair.ours().path("a.disk")).unwrap();
    for target in [
        "driver=raw,file=n".to_owned(),
        "driver=raw,file=p".to_owned(),
        "driver=qcow2,file=p".to_owned(),
        "driver=blkverify,raw=n,test.driver=raw,test.file.driver=file,test.file.filename=t.raw"
            .to_owned(),
    ] {
        let line = format!(
            "convert -n --image-opts --target-image-opts driver=raw,node-name=n,{FILE}=a.disk,file.node-name=p {target}"
        );
        for ran in [
            ours(&words(&line), &pair.ours().path(".")),
            run(
                Path::new("qemu-img"),
                &words(&line),
                &pair.theirs().path("."),
            ),
        ] {
            assert_eq!(ran.code, 1, "{line}: {ran:?}");
            assert!(
                ran.err.contains(&format!(
                    "Could not open '{target}': Permission conflict on node "
                )),
                "{line}: {ran:?}"
            );
        }
    }
    assert_eq!(before, std::fs::read(pair.ours().path("a.disk")).unwrap());

    // What is recorded is opened by itself later, where the peer records a name that leads nowhere.
    for line in [
        format!("rebase --image-opts driver=qcow2,node-name=n,{FILE}=a.over -F raw -b {over}"),
        format!("convert -O qcow2 -F raw -B {over} {first} out"),
    ] {
        let ran = ours(&words(&line), &pair.ours().path("."));
        assert!(
            ran.code == 1 && ran.err.contains("Cannot find device='n' nor node-name='n'"),
            "{line}: {ran:?}"
        );
    }
    pair.same("info a.over");
}

#[test]
fn options_that_are_switched_by_their_name_alone_are_warned_of() {
    let pair = images();
    let file = "file.filename=a.qcow2";
    let mut lines = Vec::new();
    for options in [
        "driver=qcow2,read-only,@",
        "driver=qcow2,noread-only,@",
        "driver=qcow2,@,read-only",
        "driver=qcow2,read-only,read-only,@",
        "driver=qcow2,read-only,,@",
        "driver=qcow2,bogus,@",
        "driver=qcow2,no-bogus,@",
        "driver=qcow2,no,@",
        "driver=qcow2,,read-only,@",
        "driver=qcow2,node-name,@",
        "driver=qcow2,file.filename",
        "driver=qcow2,help,@",
        "driver=qcow2,?,@",
        "driver=qcow2,read-only=,@",
        "read-only,driver=qcow2,@",
        "qcow2,@",
        ",driver=qcow2,@",
        "@,",
        "@,,",
        "@",
    ] {
        let options = options.replace('@', file);
        lines.push(format!("info --image-opts {options}"));
        // Said not to be read only, it is open for writing there, and nobody else opens it.
        if !options.contains("noread-only") {
            lines.push(format!("compare --image-opts {options} {options}"));
        }
    }
    let read_only = format!("driver=qcow2,read-only,{file}");
    let locked = format!("driver=qcow2,file.locking,{file}");
    for line in [
        format!("map --image-opts {read_only}"),
        format!("check --image-opts {read_only}"),
        format!("snapshot -l --image-opts {read_only}"),
        format!("measure -O raw --image-opts {read_only}"),
        format!("convert --image-opts -O raw {read_only} o.raw"),
        format!("dd --image-opts if={read_only} of=o.raw"),
        format!("resize --image-opts {locked} 1M"),
        format!("snapshot -a none --image-opts {locked}"),
        format!("rebase -u -b bogus --image-opts {locked} -F bogus"),
        format!("amend -o compat=1.1 --image-opts {locked}"),
        format!("commit --image-opts {locked}"),
        format!("convert -n --target-image-opts b.raw {locked}"),
        // Lists of other options take them as they are.
        "create -f qcow2 -o lazy_refcounts,noextended_l2 new.qcow2 1M".to_owned(),
        "measure -O qcow2 -o lazy_refcounts --size 1M".to_owned(),
    ] {
        lines.push(line);
    }
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

#[test]
fn zeroes_become_holes_where_the_description_lets_discards_through() {
    let pair = images();
    pair.qemu("create -q -f qcow2 -b a.qcow2 -F qcow2 o.qcow2");
    let mut lines = Vec::new();
    for (discard, file) in [
        ("", "a.qcow2"),
        (",discard=unmap", "a.qcow2"),
        (",discard=ignore", "a.qcow2"),
    ] {
        let image = format!("driver=qcow2,detect-zeroes=unmap{discard},file.filename={file}");
        for command in [
            "info",
            "map",
            "check",
            "check -r all",
            "snapshot -l",
            "resize",
            "measure -O raw",
            "amend -o compat=1.1",
            "rebase -u -b ''",
            "bitmap --add",
            "convert -O raw",
            "convert -n --target-image-opts b.raw",
        ] {
            let (opts, last) = match command {
                "resize" => ("--image-opts ", " 1M"),
                "bitmap --add" => ("--image-opts ", " b"),
                "convert -O raw" => ("--image-opts ", " o.raw"),
                "convert -n --target-image-opts b.raw" => ("", ""),
                _ => ("--image-opts ", ""),
            };
            lines.push(format!("{command} {opts}{image}{last}"));
        }
        lines.push(format!("dd --image-opts if={image} of=o.raw"));
        lines.push(format!("compare --image-opts {image} {image}"));
        lines.push(format!(
            "commit --image-opts {}",
            image.replace("a.qcow2", "o.qcow2")
        ));
    }
    let file = "driver=raw,file.driver=file,file.filename=b.raw";
    for options in [
        "driver=file,filename=b.raw,detect-zeroes=unmap".to_owned(),
        "driver=quorum,vote-threshold=1,detect-zeroes=unmap,children.0.driver=raw,children.0.file.filename=b.raw".to_owned(),
        // What stands below another node lets them through by itself.
        format!("{file},file.detect-zeroes=unmap"),
        format!("{file},file.detect-zeroes=unmap,file.discard=ignore"),
        format!("{file},file.detect-zeroes=unmap,discard=ignore"),
        "driver=raw,file.driver=qcow2,file.file.filename=a.qcow2,file.detect-zeroes=unmap".to_owned(),
        "driver=qcow2,file.filename=none,detect-zeroes=unmap".to_owned(),
        "driver=qcow2,file.filename=a.qcow2,detect-zeroes=x,discard=x".to_owned(),
        "driver=qcow2,file.filename=a.qcow2,detect-zeroes=unmap,discard=x".to_owned(),
        "driver=qcow2,file.filename=a.qcow2,detect-zeroes=unmap,bogus=x".to_owned(),
    ] {
        lines.push(format!("info --image-opts {options}"));
    }
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    pair.all_same_but(&lines, Loose::DiskSize);
}
