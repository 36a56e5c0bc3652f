//! What options say of the children of a node, in trees and in dotted keys.

use crate::pair::{Loose, Pair, ours, words};

fn images() -> Pair {
    let pair = Pair::new();
    pair.qemu_and_copy(&[
        "create -q -f qcow2 low.qcow2 1M",
        "create -q -f qcow2 -b low.qcow2 -F qcow2 top.qcow2",
        "create -q -f qcow2 -o data_file=d.data dat.qcow2 1M",
        "create -q -f raw z.raw 1M",
        "create -q -f vmdk -o subformat=monolithicFlat flat.vmdk 1M",
        "create -q -f vmdk sparse.vmdk 1M",
        "create -q -f vdi e.vdi 1M",
        "create -q -f vpc e.vpc 1M",
        "create -q -f vhdx e.vhdx 1M",
        "create -q -f qed e.qed 1M",
        "create -q -f qcow e.qcow 1M",
    ]);
    pair.qemu_io("raw", "z.raw", &["write -P 90 0 1M"]);
    pair.qemu_io("vmdk", "flat.vmdk", &["write -P 90 0 1M"]);
    pair
}

#[test]
fn nothing_is_below_what_can_have_nothing_and_a_server_below_what_names_none() {
    let pair = images();
    let file = "'file':{'driver':'file','filename':'z.raw'}";
    for node in [
        format!("'driver':'raw',{file}"),
        format!("'driver':'raw','file':{{'driver':'raw','backing':null,{file}}}"),
        "'driver':'quorum','vote-threshold':1,'children':[{'driver':'file','filename':'z.raw'}]"
            .to_owned(),
    ] {
        for command in ["info", "info --output=json", "map"] {
            let line = format!("{command} json:{{{node},'backing':null}}");
            pair.same_but(&line, Loose::DiskSize);
        }
    }
    let line = format!("info --image-opts driver=raw,{FILE}=z.raw,backing=");
    pair.same_but(&line, Loose::DiskSize);
    // An image that names none is told by the name of a driver alone what is below.
    let alone = "json:{'driver':'qcow2','file':{'driver':'file','filename':'low.qcow2'},'backing':";
    for below in [
        "{'driver':'null-co','size':2097152,'read-zeroes':true}}",
        "{'driver':'raw'}}",
    ] {
        for command in ["map", "compare low.qcow2", "convert -O raw"] {
            let last = if command.starts_with("convert") {
                " o.raw"
            } else {
                ""
            };
            pair.same_but(&format!("{command} {alone}{below}{last}"), Loose::DiskSize);
        }
    }
}

#[test]
fn what_is_said_of_a_backing_file_counts_where_that_is_opened() {
    let pair = images();
    let mut lines = Vec::new();
    let dotted = [
        "backing.driver=qcow2,backing.file.filename=low.qcow2",
        "backing.driver=raw,backing.file.driver=file,backing.file.filename=z.raw",
        "backing.file.filename=z.raw",
        "backing.driver=raw",
        "backing.foo=1",
        "backing.backing=",
        "backing=",
        "backing=x",
    ];
    let trees = ["null", "''", "{}", "'x'", "{'driver':'qcow2'}"];
    let dotted = dotted.map(|said| format!("--image-opts driver=qcow2,{FILE}=top.qcow2,{said}"));
    let trees = trees.map(|said| {
        format!(
            "json:{{'driver':'qcow2','file':{{'driver':'file','filename':'top.qcow2'}},'backing':{said}}}"
        )
    });
    for image in dotted.iter().chain(&trees) {
        for command in [
            "info",
            "info --output=json",
            "rebase -u -b low.qcow2 -F qcow2",
            "map",
        ] {
            lines.push(format!("{command} {image}"));
        }
        lines.push(match image.strip_prefix("--image-opts ") {
            Some(image) => format!("bitmap --image-opts --remove {image} none"),
            None => format!("bitmap --remove {image} none"),
        });
    }
    for raw in ["info", "map"] {
        lines.push(format!(
            "{raw} --image-opts driver=raw,{FILE}=z.raw,backing.driver=raw"
        ));
    }
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

const FILE: &str = "file.driver=file,file.filename";

#[test]
fn an_image_that_shows_nothing_below_it_takes_no_backing_file() {
    let pair = images();
    let lines = ["vdi", "vpc", "vhdx", "qed", "qcow"].map(|format| {
        format!(
            "compare --image-opts driver=raw,{FILE}=z.raw driver={format},{FILE}=e.{format},backing.driver=raw,backing.{FILE_BELOW}=z.raw"
        )
    });
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

const FILE_BELOW: &str = "file.driver=file,backing.file.filename";

#[test]
fn options_of_a_file_go_with_the_name_that_the_image_has() {
    let pair = images();
    let mut lines = Vec::new();
    for (image, child) in [
        ("driver=vmdk,file.filename=flat.vmdk", "extents.0"),
        ("driver=vmdk,file.filename=flat.vmdk", "extents.1"),
        ("driver=vmdk,file.filename=sparse.vmdk", "extents.0"),
        ("driver=qcow2,file.filename=dat.qcow2", "data-file"),
    ] {
        for option in [
            "driver=file",
            "driver=raw",
            "driver=nosuch",
            "locking=off",
            "node-name=x",
            "read-only=on",
            "foo=1",
        ] {
            lines.push(format!("map --image-opts {image},{child}.{option}"));
        }
        lines.push(format!(
            "map --image-opts {image},{child}.driver=file,{child}.locking=off"
        ));
    }
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);

    // Here another file can be named too.
    pair.file("own.raw", &[91; 1 << 20]);
    let line = format!(
        "compare --image-opts driver=raw,{FILE}=own.raw driver=vmdk,{FILE}=flat.vmdk,extents.0.filename=own.raw"
    );
    let ran = ours(&words(&line), pair.ours().root());
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn options_of_files_that_programs_write_are_known() {
    let pair = images();
    let mut lines = Vec::new();
    for option in [
        "aio=threads",
        "aio=io_uring",
        "aio=native",
        "aio=native,file.cache.direct=on",
        "aio=x",
        "drop-cache=off",
        "drop-cache=x",
        "pr-manager=x",
        "x-check-cache-dropped=on",
        "locking=x",
    ] {
        lines.push(format!(
            "info --image-opts driver=raw,{FILE}=z.raw,file.{option}"
        ));
    }
    lines.push(
        "info json:{'driver':'raw','file':{'driver':'file','filename':'z.raw','aio':'threads'}}"
            .to_owned(),
    );
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

#[test]
fn options_that_say_nothing_together_are_refused_and_groups_are_known() {
    let pair = images();
    let mut lines = Vec::new();
    for option in [
        "cache-size=1M,l2-cache-size=2M",
        "cache-size=1M,refcount-cache-size=2M",
        "cache-size=4M,l2-cache-size=1M,refcount-cache-size=1M",
        "cache-size=4M,l2-cache-size=1M",
        "l2-cache-size=1M,refcount-cache-size=1M",
        "overlap-check.template=all",
        "overlap-check.template=x",
        "overlap-check.template=cached,overlap-check.foo=on",
        "overlap-check.main-header=x",
        "overlap-check.main-header=on,overlap-check.active-l1=off,overlap-check.active-l2=on",
        "overlap-check.refcount-table=on,overlap-check.refcount-block=on,overlap-check.bitmap-directory=on",
        "overlap-check.snapshot-table=on,overlap-check.inactive-l1=on,overlap-check.inactive-l2=on",
        "detect-zeroes=unmap,discard=ignore",
        "detect-zeroes=unmap,discard=unmap",
        "cache=x",
        "cache.foo=x",
        "file.file.filename=low.qcow2",
    ] {
        lines.push(format!(
            "map --image-opts driver=qcow2,file.driver=file,file.filename=low.qcow2,{option}"
        ));
    }
    lines.push("map --image-opts driver=raw,file.file.filename=low.qcow2".to_owned());
    for options in [
        "",
        ",'read-zeroes':true",
        ",'size':512",
        ",'latency-ns':5",
        ",'latency-ns':-5",
        ",'size':'1k','latency-ns':5",
    ] {
        for driver in ["null-co", "null-aio"] {
            let device = format!("{{'driver':'{driver}'{options}}}");
            lines.push(format!("info json:{device}"));
            lines.push(format!("info json:{{'driver':'raw','file':{device}}}"));
        }
    }
    lines.push("info --image-opts driver=vpc,file.filename=e.vpc,force_size_calc=chs".to_owned());
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

#[test]
fn extents_that_the_image_names_are_no_part_of_its_name() {
    let pair = images();
    let flat = "{'driver':'vmdk','file':{'driver':'file','filename':'flat.vmdk'}}";
    let lines = [
        format!("info json:{{'driver':'raw','file':{flat}}}"),
        format!("info json:{{'driver':'quorum','vote-threshold':1,'children':[{flat}]}}"),
    ];
    for line in &lines {
        // The content IDs are not the same.
        let (theirs, ours, _) = pair.both(&words(line), Loose::Exact);
        assert_eq!(ours.out.lines().next(), theirs.out.lines().next(), "{line}");
        assert!(ours.out.starts_with("image: json:"), "{ours:?}");
    }
    // One that stands in the place of another is.
    for image in [
        "driver=vmdk,file.filename=flat.vmdk,extents.0.filename=z.raw",
        "driver=raw,file.driver=vmdk,file.file.filename=flat.vmdk,file.extents.0.filename=z.raw",
    ] {
        let line = format!("info --image-opts {image}");
        let ran = ours(&words(&line), pair.ours().root());
        let extent = r#""extents": [{"driver": "file", "filename": "z.raw"}]"#;
        assert!(ran.out.contains(extent), "{ran:?}");
    }
}

/// A backing file that the command line alone names shows through like one that the image records: zeroes have to be
/// written.
#[test]
fn zeroes_hide_a_backing_file_that_the_image_does_not_name() {
    let pair = Pair::with(&["create -q z.raw 4M"]);
    pair.file("b.raw", &[7; 6 << 20]);
    let dir = pair.ours();
    let zeroes = vec![0; 4 << 20];
    let ok = |line: &str| {
        let ran = ours(&words(line), dir.root());
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
    };
    for (format, options) in [
        ("qed", ""),
        ("qcow", ""),
        ("qcow2", "-o compat=0.10"),
        ("qcow2", ""),
    ] {
        let over = format!(
            "driver={format},file.filename=o.img,backing.driver=raw,backing.file.filename=b.raw"
        );
        let create = || {
            let _ = std::fs::remove_file(dir.path("o.img"));
            ok(&format!("create -q -f {format} {options} o.img 4M"));
        };
        let shown = || {
            ok(&format!("convert --image-opts {over} -O raw q.raw"));
            std::fs::read(dir.path("q.raw")).expect("the bytes")
        };
        create();
        assert!(shown() == [7; 4 << 20]);
        ok(&format!(
            "convert -n -f raw --target-image-opts z.raw {over}"
        ));
        assert!(shown() == zeroes, "{format} {options}: convert");
        if format == "qcow2" && options.is_empty() {
            let amend = format!("amend --image-opts -o compat=0.10 {over}");
            ok(&amend);
            assert!(shown() == zeroes, "amend");
        }
        // What is committed into it.
        create();
        let backing = format!(
            "driver=qcow2,file.filename=top.qcow2,backing.driver={format},backing.file.filename=o.img,\
             backing.backing.driver=raw,backing.backing.file.filename=b.raw"
        );
        ok(&format!(
            "create -q -u -f qcow2 -F {format} -b o.img top.qcow2 4M"
        ));
        ok(&format!(
            "convert -n -f raw --target-image-opts z.raw {backing}"
        ));
        ok(&format!("commit --image-opts {backing}"));
        assert!(shown() == zeroes, "{format} {options}: commit");
        // What is new of a longer one.
        if format != "qcow" {
            create();
            ok(&format!("resize -q --image-opts {over} 6M"));
            let shown = shown();
            assert!(
                shown[..4 << 20] == [7; 4 << 20] && shown[4 << 20..] == [0; 2 << 20],
                "{format}"
            );
        }
    }
}
