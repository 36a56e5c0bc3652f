//! No command empties or overwrites a file that an image of the same command is read from or stands on:
//! every role that a file can have, for every command that writes, by every name that leads to it.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;
use std::rc::Rc;

use platter::filter::registry;

use crate::common::Dir;
use crate::nbd::server::Server;
use crate::pair::{ours, ours_command, words};

/// What makes the images; each holds data of its own.
const SETUP: &[&str] = &[
    "create -q -f qcow2 -o cluster_size=4k,data_file=low.data low.qcow2 64k",
    "create -q -f qcow2 -o cluster_size=4k,data_file=src.data -b low.qcow2 -F qcow2 src.qcow2",
    "create -q -f qcow2 -o cluster_size=4k,data_file=ground.data ground.qcow2 64k",
    "create -q -f qcow2 -o cluster_size=4k -b ground.qcow2 -F qcow2 base.qcow2",
    "create -q --object secret,id=s,file=pw -f luks -o key-secret=s,iter-time=1,detached-header=on vol.header",
    "create -q -f vmdk -o subformat=monolithicFlat flat.vmdk 64k",
    "create -q -f qcow2 -b flat.vmdk -F vmdk onflat.qcow2",
    "create -q -f vmdk -o subformat=twoGbMaxExtentSparse split.vmdk 64k",
    "create -q -f qcow2 -b split.vmdk -F vmdk onsplit.qcow2",
    "create -q -f vmdk low.vmdk 64k",
    "create -q -f vmdk -b low.vmdk -F vmdk top.vmdk",
];

/// A source with its data file, over a backing file with its own.
const SOURCE: &[&str] = &["src.qcow2", "src.data", "low.qcow2", "low.data"];
/// A source whose writes would be logged, and the log.
const LOGGED: &[&str] = &["second.raw", "writes.log"];
/// Disks that hold the same bytes.
const COPIES: &[&str] = &["second.raw", "copy.raw"];
/// A second source.
const SECOND: &[&str] = &["second.raw"];
/// What a new image is to stand on, and what that stands on.
const BELOW: &[&str] = &["base.qcow2", "ground.qcow2", "ground.data"];
/// An encrypted volume and its detached header.
const VOLUME: &[&str] = &["vol.luks", "vol.header"];
/// A disk of a descriptor and an extent.
const FLAT: &[&str] = &["flat.vmdk", "flat-flat.vmdk"];
/// A source that stands on it.
const ON_FLAT: &[&str] = &["onflat.qcow2", "flat.vmdk", "flat-flat.vmdk"];
/// The same over a disk of sparse extents.
const ON_SPLIT: &[&str] = &["onsplit.qcow2", "split.vmdk", "split-s001.vmdk"];
/// That disk.
const SPLIT: &[&str] = &["split.vmdk", "split-s001.vmdk"];
/// A disk of one sparse extent over another.
const SPARSE: &[&str] = &["top.vmdk", "low.vmdk"];
/// A file of a directory that is read as a disk.
const IN_DIRECTORY: &[&str] = &["guest.file"];
/// The image that is changed in place.
const TOP: &[&str] = &["src.qcow2", "src.data"];
/// What stands below that.
const LOW: &[&str] = &["low.qcow2", "low.data"];

/// Which names a command is given for the file.
#[derive(Clone, Copy, PartialEq)]
enum Names {
    /// All.
    All,
    /// Two of them, other ones for each command and file.
    Some,
    /// Those that are plain paths, for options that take no other.
    Paths,
    /// Two of these.
    SomePaths,
}

/// What must come of it.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// An error; no file has changed.
    Refused,
    /// Whatever else is done, the file is as it was.
    Unharmed,
}

struct Case {
    /// NAME stands for the file.
    line: &'static str,
    /// The roles that the file may have.
    files: &'static [&'static [&'static str]],
    names: Names,
    end: End,
}

const fn refused(
    line: &'static str,
    files: &'static [&'static [&'static str]],
    names: Names,
) -> Case {
    Case {
        line,
        files,
        names,
        end: End::Refused,
    }
}

const CASES: &[Case] = &[
    refused(
        "create -q -f qcow2 -b base.qcow2 -F qcow2 NAME",
        &[BELOW],
        Names::All,
    ),
    refused(
        "create -q -f qcow2 -b ./sym.base.qcow2 -F qcow2 NAME",
        &[BELOW],
        Names::Some,
    ),
    refused(
        "create -q -u -f qcow2 -b base.qcow2 -F qcow2 NAME 64k",
        &[BELOW],
        Names::Some,
    ),
    refused(
        "create -q -u -f qcow2 -b base.qcow2 -F qcow2 -o data_file=NAME new 64k",
        &[BELOW],
        Names::Paths,
    ),
    refused(
        "rebase -q -u -b NAME -F qcow2 --image-opts driver=qcow2,file.driver=blklogwrites,file.file.filename=src.qcow2,file.log.filename=ground.qcow2",
        &[&["base.qcow2", "ground.qcow2"]],
        Names::SomePaths,
    ),
    refused(
        r#"create -q -f qcow2 -b json:{"driver":"qcow2","file.filename":"base.qcow2"} -F qcow2 NAME"#,
        &[BELOW],
        Names::Some,
    ),
    refused(
        "create -q -f qcow2 -b base.qcow2 -F qcow2 -o data_file=NAME new",
        &[BELOW],
        Names::Paths,
    ),
    refused(
        r#"create -q -f qcow2 -b json:{"driver":"luks","file":{"driver":"file","filename":"vol.luks"},"header":{"driver":"file","filename":"vol.header"}} -F luks NAME"#,
        &[VOLUME],
        Names::Some,
    ),
    refused(
        "convert -f qcow2 -O raw src.qcow2 NAME",
        &[SOURCE],
        Names::All,
    ),
    refused(
        "convert -f qcow2 -O qcow2 -c src.qcow2 NAME",
        &[SOURCE],
        Names::Some,
    ),
    refused(
        "convert -O qcow2 src.qcow2 second.raw NAME",
        &[SOURCE, SECOND],
        Names::Some,
    ),
    refused(
        "convert -f qcow2 -O qcow2 -B base.qcow2 -F qcow2 src.qcow2 NAME",
        &[SOURCE, BELOW],
        Names::Some,
    ),
    refused(
        "convert -f qcow2 -O qcow2 -o data_file=NAME src.qcow2 new",
        &[SOURCE],
        Names::Paths,
    ),
    refused(
        "convert -f qcow2 -O qcow2 -B base.qcow2 -F qcow2 -o data_file=NAME src.qcow2 new",
        &[SOURCE, BELOW],
        Names::Paths,
    ),
    refused(
        "convert -n -f qcow2 -O raw src.qcow2 NAME",
        &[SOURCE],
        Names::All,
    ),
    refused(
        "convert -n -f qcow2 -O qcow2 -B base.qcow2 -F qcow2 src.qcow2 NAME",
        &[SOURCE, BELOW],
        Names::Some,
    ),
    refused(
        "convert -n -f qcow2 --target-image-opts src.qcow2 driver=raw,file.filename=NAME",
        &[SOURCE],
        Names::Paths,
    ),
    refused(
        "convert -n -f qcow2 --target-image-opts src.qcow2 driver=raw,file.driver=raw,file.file.filename=NAME",
        &[SOURCE],
        Names::Paths,
    ),
    // Images inside nodes.
    refused(
        r#"create -q -f qcow2 -b json:{"driver":"raw","file":{"driver":"qcow2","file":{"filename":"base.qcow2"}}} -F raw NAME"#,
        &[BELOW],
        Names::Some,
    ),
    refused(
        r#"convert -U -O raw json:{"driver":"raw","file":{"driver":"qcow2","file":{"filename":"src.qcow2"}}} NAME"#,
        &[SOURCE],
        Names::Some,
    ),
    refused(
        r#"convert -U -O raw json:{"driver":"blkdebug","image":{"driver":"qcow2","file":{"filename":"src.qcow2"}}} NAME"#,
        &[SOURCE],
        Names::Some,
    ),
    refused(
        "convert -U -n -f qcow2 -O raw src.qcow2 blkdebug::NAME",
        &[SOURCE],
        Names::Paths,
    ),
    // Without locks nothing but the comparison of the files is in the way.
    refused(
        "convert -U -f qcow2 -O raw src.qcow2 NAME",
        &[SOURCE],
        Names::All,
    ),
    refused(
        "convert -U -n -f qcow2 -O raw src.qcow2 NAME",
        &[SOURCE],
        Names::Some,
    ),
    refused(
        "convert -U -f qcow2 -O qcow2 -o data_file=NAME src.qcow2 new",
        &[SOURCE],
        Names::Paths,
    ),
    refused(
        "convert --object secret,id=s,file=pw --image-opts \
         driver=luks,key-secret=s,file.filename=vol.luks,header.filename=vol.header -O raw NAME",
        &[VOLUME],
        Names::Some,
    ),
    refused(
        "dd -f qcow2 -O raw if=src.qcow2 of=NAME",
        &[SOURCE],
        Names::All,
    ),
    refused(
        "dd -U -f qcow2 -O qcow2 if=src.qcow2 of=NAME",
        &[SOURCE],
        Names::Some,
    ),
    refused(
        "convert -O qcow2 --image-opts driver=blklogwrites,file.filename=second.raw,log.filename=writes.log NAME",
        &[LOGGED],
        Names::All,
    ),
    refused(
        "convert -O raw blkverify:second.raw:copy.raw NAME",
        &[COPIES],
        Names::Some,
    ),
    refused(
        "convert -O raw --image-opts driver=quorum,vote-threshold=2,children.0.driver=raw,children.0.file.filename=second.raw,children.1.driver=file,children.1.filename=copy.raw NAME",
        &[COPIES],
        Names::All,
    ),
    refused(
        "convert -n -f qcow2 --target-image-opts src.qcow2 driver=blklogwrites,file.filename=second.raw,log.filename=NAME",
        &[SOURCE, SECOND],
        Names::Paths,
    ),
    refused(
        "convert -n -f qcow2 --target-image-opts src.qcow2 driver=blkverify,raw.filename=second.raw,test.driver=raw,test.file.filename=NAME",
        &[SOURCE, SECOND],
        Names::Paths,
    ),
    refused(
        "convert -n -f qcow2 --target-image-opts src.qcow2 driver=quorum,vote-threshold=1,children.0.driver=raw,children.0.file.filename=second.raw,children.1.driver=raw,children.1.file.filename=NAME",
        &[SOURCE, SECOND],
        Names::Paths,
    ),
    refused(
        "convert -f qcow2 -O raw onflat.qcow2 NAME",
        &[ON_FLAT],
        Names::All,
    ),
    refused(
        "convert -n -f qcow2 -O raw onflat.qcow2 NAME",
        &[ON_FLAT],
        Names::Some,
    ),
    refused(
        "create -q -f qcow2 -b flat.vmdk -F vmdk NAME",
        &[FLAT],
        Names::Some,
    ),
    refused(
        "create -q -f qcow2 -b onflat.qcow2 -F qcow2 -o data_file=NAME new",
        &[ON_FLAT],
        Names::Paths,
    ),
    refused(
        "dd -f vmdk -O raw if=flat.vmdk of=NAME",
        &[FLAT],
        Names::Some,
    ),
    refused(
        "convert -f qcow2 -O raw onsplit.qcow2 NAME",
        &[ON_SPLIT],
        Names::Some,
    ),
    refused(
        "convert -U -n -f qcow2 -O raw onsplit.qcow2 NAME",
        &[ON_SPLIT],
        Names::Some,
    ),
    refused(
        "create -q -f qcow2 -b split.vmdk -F vmdk NAME",
        &[SPLIT],
        Names::Some,
    ),
    refused(
        "dd -U -f vmdk -O raw if=split.vmdk of=NAME",
        &[SPLIT],
        Names::Some,
    ),
    refused(
        "convert -O vmdk -o subformat=twoGbMaxExtentSparse NAME split.vmdk",
        &[&["split-s001.vmdk"]],
        Names::Some,
    ),
    refused(
        "convert -f vmdk -O vmdk top.vmdk NAME",
        &[SPARSE],
        Names::Some,
    ),
    refused(
        "rebase -q -b NAME -F raw onsplit.qcow2",
        &[&["onsplit.qcow2"]],
        Names::SomePaths,
    ),
    // By the options that name the children of a filter.
    refused(
        r#"create -q -f qcow2 -b json:{"driver":"blkverify","x-raw":"second.raw","x-image":"copy.raw"} -F blkverify NAME"#,
        &[COPIES],
        Names::Some,
    ),
    refused(
        r#"convert -O raw json:{"driver":"blkdebug","x-image":"src.qcow2"} NAME"#,
        &[&["src.qcow2"]],
        Names::Some,
    ),
    refused(
        "convert -U -n -f qcow2 --target-image-opts src.qcow2 driver=blkdebug,x-image=NAME",
        &[SOURCE],
        Names::SomePaths,
    ),
    // Clients would write to them.
    refused(
        "serve -k s.sock --image-opts driver=qcow2,file.filename=src.qcow2,data-file.filename=NAME",
        &[&["src.qcow2"], LOW],
        Names::SomePaths,
    ),
    refused(
        "serve -k s.sock --image-opts driver=blklogwrites,file.filename=second.raw,log.filename=NAME",
        &[SECOND],
        Names::SomePaths,
    ),
    refused(
        "serve -k s.sock --image-opts driver=qcow2,file.driver=blklogwrites,file.file.filename=base.qcow2,file.log.filename=NAME",
        &[BELOW],
        Names::SomePaths,
    ),
    refused(
        r#"serve -k s.sock json:{"driver":"qcow2","file":{"filename":"src.qcow2"},"backing":{"driver":"blkverify","x-raw":"NAME","x-image":"low.data"}}"#,
        &[TOP],
        Names::SomePaths,
    ),
    // Its extent would be the source.
    refused(
        "convert -O vmdk -o subformat=monolithicFlat NAME flat.vmdk",
        &[&["flat-flat.vmdk"]],
        Names::Some,
    ),
    refused("convert -O raw fat:dir NAME", &[IN_DIRECTORY], Names::Some),
    // What lies below an image is not the image, nor its data file.
    refused("rebase -q -b NAME -F raw src.qcow2", &[TOP], Names::Paths),
    refused(
        r#"commit -q json:{"driver":"qcow2","file":{"filename":"src.qcow2"},"backing":{"driver":"raw","file":{"filename":"NAME"}}}"#,
        &[TOP],
        Names::Paths,
    ),
    refused(
        r#"commit -q json:{"driver":"qcow2","file":{"filename":"src.qcow2"},"data-file":{"filename":"NAME"}}"#,
        &[&["src.qcow2"], LOW],
        Names::Paths,
    ),
    Case {
        line: "resize -q --image-opts driver=qcow2,file.filename=src.qcow2,data-file.filename=NAME +64k",
        files: &[&["src.qcow2"], LOW],
        names: Names::Paths,
        end: End::Unharmed,
    },
    Case {
        line: "snapshot -q -c s --image-opts driver=qcow2,file.filename=src.qcow2,data-file.filename=NAME",
        files: &[LOW],
        names: Names::Paths,
        end: End::Unharmed,
    },
    Case {
        line: "bitmap --add --image-opts driver=qcow2,file.filename=src.qcow2,data-file.filename=NAME b",
        files: &[LOW],
        names: Names::Paths,
        end: End::Unharmed,
    },
    Case {
        line: "amend -q -o lazy_refcounts=on --image-opts driver=qcow2,file.filename=src.qcow2,data-file.filename=NAME",
        files: &[LOW],
        names: Names::Paths,
        end: End::Unharmed,
    },
    // Files of the image that is changed, and of what it stands on, which it is described to stand on once more.
    refused(
        r#"commit -q -d json:{"driver":"qcow2","file":{"filename":"src.qcow2"},"backing":{"driver":"raw","file":{"filename":"NAME"}}}"#,
        &[TOP],
        Names::SomePaths,
    ),
    refused(
        "rebase -q -b base.qcow2 -F qcow2 --image-opts driver=qcow2,file.filename=src.qcow2,data-file.filename=NAME",
        &[&["src.qcow2"], LOW, BELOW],
        Names::SomePaths,
    ),
    refused(
        r#"rebase -q -F qcow2 -b json:{"driver":"qcow2","file":{"filename":"base.qcow2"},"backing":{"driver":"raw","file":{"filename":"NAME"}}} src.qcow2"#,
        &[TOP],
        Names::SomePaths,
    ),
    refused(
        "bench -w -c 1 -s 512 --image-opts driver=qcow2,file.filename=src.qcow2,data-file.filename=NAME",
        &[&["src.qcow2"], LOW],
        Names::SomePaths,
    ),
    Case {
        line: "check -q -r all --image-opts driver=qcow2,file.filename=src.qcow2,data-file.filename=NAME",
        files: &[LOW],
        names: Names::SomePaths,
        end: End::Unharmed,
    },
    Case {
        line: "bitmap --merge m -b low.qcow2 -F qcow2 --image-opts driver=qcow2,file.filename=src.qcow2,data-file.filename=NAME n",
        files: &[LOW],
        names: Names::SomePaths,
        end: End::Unharmed,
    },
    // Two files of one node.
    refused(
        "resize -q --image-opts driver=blklogwrites,file.filename=second.raw,log.filename=NAME +64k",
        &[SECOND],
        Names::SomePaths,
    ),
    refused(
        "bench -w -c 1 -s 512 --image-opts driver=blklogwrites,file.filename=second.raw,log.filename=NAME",
        &[SECOND],
        Names::SomePaths,
    ),
    refused(
        "commit -q --image-opts driver=blklogwrites,file.driver=qcow2,file.file.filename=src.qcow2,log.filename=NAME",
        &[SOURCE],
        Names::SomePaths,
    ),
    refused(
        "snapshot -q -c s --image-opts driver=qcow2,file.driver=blklogwrites,file.file.filename=base.qcow2,file.log.filename=NAME",
        &[BELOW],
        Names::SomePaths,
    ),
    refused(
        "resize -q --image-opts driver=qcow2,file.driver=blklogwrites,file.file.filename=base.qcow2,file.log.filename=NAME +64k",
        &[BELOW],
        Names::SomePaths,
    ),
    refused(
        "check -q -r all --image-opts driver=qcow2,file.driver=blklogwrites,file.file.filename=base.qcow2,file.log.filename=NAME",
        &[BELOW],
        Names::SomePaths,
    ),
    refused(
        "bench -w -c 1 -s 512 --image-opts driver=qcow2,file.driver=blklogwrites,file.file.filename=base.qcow2,file.log.filename=NAME",
        &[BELOW],
        Names::SomePaths,
    ),
    refused(
        "commit -q --image-opts driver=qcow2,file.driver=blklogwrites,file.file.filename=base.qcow2,file.log.filename=NAME",
        &[BELOW],
        Names::SomePaths,
    ),
    refused(
        "convert -n -f raw --target-image-opts second.raw driver=qcow2,file.driver=blklogwrites,file.file.filename=base.qcow2,file.log.filename=NAME",
        &[BELOW],
        Names::SomePaths,
    ),
    refused(
        "bitmap --add --image-opts driver=qcow2,file.driver=blklogwrites,file.file.filename=base.qcow2,file.log.filename=NAME b",
        &[BELOW],
        Names::SomePaths,
    ),
    refused(
        "amend -q -o lazy_refcounts=on --image-opts driver=qcow2,file.driver=blklogwrites,file.file.filename=base.qcow2,file.log.filename=NAME",
        &[BELOW],
        Names::SomePaths,
    ),
    refused(
        "rebase -q -b base.qcow2 -F qcow2 --image-opts driver=qcow2,file.driver=blklogwrites,file.file.filename=src.qcow2,file.log.filename=NAME",
        &[SOURCE, BELOW],
        Names::SomePaths,
    ),
    // The chain of an image inside a node; without locks nothing else is in the way.
    refused(
        "bench -w -c 1 -s 512 --image-opts driver=blklogwrites,file.driver=qcow2,file.file.filename=src.qcow2,file.backing.driver=qcow2,file.backing.file.filename=low.qcow2,file.backing.file.locking=off,log.filename=NAME,log.locking=off",
        &[&["low.qcow2"]],
        Names::SomePaths,
    ),
    refused(
        "resize -q --image-opts driver=raw,file.driver=blklogwrites,file.file.driver=qcow2,file.file.file.filename=src.qcow2,file.file.backing.driver=qcow2,file.file.backing.file.filename=low.qcow2,file.file.backing.file.locking=off,file.log.filename=NAME,file.log.locking=off +64k",
        &[&["low.qcow2"]],
        Names::SomePaths,
    ),
    refused(
        "convert -n -f raw --target-image-opts copy.raw driver=blklogwrites,file.driver=qcow2,file.file.filename=src.qcow2,file.backing.driver=qcow2,file.backing.file.filename=low.qcow2,file.backing.file.locking=off,log.filename=NAME,log.locking=off",
        &[&["low.qcow2"]],
        Names::SomePaths,
    ),
    refused(
        "bench -w -c 1 -s 512 --image-opts driver=quorum,vote-threshold=1,children.0.driver=raw,children.0.file.filename=second.raw,children.1.driver=raw,children.1.file.filename=NAME",
        &[SECOND],
        Names::SomePaths,
    ),
    refused(
        "bench -w -c 1 -s 512 --image-opts driver=copy-before-write,file.driver=raw,file.file.filename=second.raw,target.driver=raw,target.file.filename=NAME",
        &[SECOND],
        Names::SomePaths,
    ),
    refused(
        "convert -n -f qcow2 --target-image-opts src.qcow2 driver=copy-before-write,file.driver=raw,file.file.filename=copy.raw,target.driver=raw,target.file.filename=NAME",
        &[SOURCE, &["copy.raw"]],
        Names::SomePaths,
    ),
    refused(
        "convert -n -O raw src.qcow2 second.raw NAME",
        &[SOURCE, SECOND],
        Names::Some,
    ),
];

/// The name of a descriptor on which the command has the file.
const DESCRIPTORS: &[&str] = &["/dev/fd/3", "/proc/self/fd/3"];

/// Every name that leads to the file.
fn names_of(dir: &Dir, file: &str, which: Names) -> Vec<String> {
    let mut names = vec![
        file.to_owned(),
        format!("./{file}"),
        format!("dir/../{file}"),
        dir.str(file),
        format!("hard.{file}"),
        format!("sym.{file}"),
    ];
    names.extend(DESCRIPTORS.iter().map(|&name| name.to_owned()));
    if matches!(which, Names::All | Names::Some) {
        names.push(format!("file:{file}"));
        names.push(format!(
            r#"json:{{"driver":"file","filename":"sym.{file}"}}"#
        ));
        names.push(format!(
            r#"json:{{"driver":"raw","file":{{"driver":"file","filename":"hard.{file}"}}}}"#
        ));
    }
    names
}

fn images() -> Dir {
    let dir = Dir::new();
    std::fs::write(dir.path("pw"), "password").unwrap();
    std::fs::create_dir(dir.path("dir")).unwrap();
    for line in SETUP {
        let ran = ours(&words(line), dir.root());
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
    }
    std::fs::write(dir.path("vol.luks"), [7; 64 << 10]).unwrap();
    std::fs::write(dir.path("second.raw"), [8; 64 << 10]).unwrap();
    std::fs::write(dir.path("copy.raw"), [8; 64 << 10]).unwrap();
    std::fs::write(dir.path("writes.log"), [9; 4 << 10]).unwrap();
    for (at, image) in ["ground.qcow2", "base.qcow2", "low.qcow2", "src.qcow2"]
        .into_iter()
        .enumerate()
    {
        let write = format!("write -P {} {}k 8k", at + 1, at * 16);
        dir.qemu_io("qcow2", image, &[&write]);
    }
    std::fs::write(dir.path("guest.file"), [5; 4 << 10]).unwrap();
    std::fs::hard_link(dir.path("guest.file"), dir.path("dir/guest.file")).unwrap();
    dir.qemu_io("raw", "flat-flat.vmdk", &["write -P 6 0 8k"]);
    let lists = [
        SOURCE,
        BELOW,
        VOLUME,
        LOGGED,
        &COPIES[1..],
        ON_FLAT,
        ON_SPLIT,
        SPARSE,
        IN_DIRECTORY,
    ];
    for file in lists.concat() {
        std::fs::hard_link(dir.path(file), dir.path(&format!("hard.{file}"))).unwrap();
        symlink(file, dir.path(&format!("sym.{file}"))).unwrap();
    }
    dir
}

/// The bytes of every file, links followed; what has several names is read once.
fn contents(dir: &Dir) -> BTreeMap<String, Rc<Vec<u8>>> {
    let mut read = HashMap::new();
    let entries = std::fs::read_dir(dir.root()).unwrap().map(Result::unwrap);
    entries
        .filter_map(|entry| {
            let path = entry.path();
            let inode = std::fs::metadata(&path)
                .ok()
                .filter(|found| found.is_file())?
                .ino();
            let bytes = read.entry(inode);
            let bytes = bytes.or_insert_with(|| Rc::new(std::fs::read(&path).unwrap()));
            Some((entry.file_name().into_string().unwrap(), bytes.clone()))
        })
        .collect()
}

/// Runs the line with the file as descriptor 3.
fn run(dir: &Dir, line: &str, file: &str) -> (i32, String) {
    let command = ours_command(&words(line), dir.root());
    let mut shell = Command::new("sh");
    shell
        // A server that is not refused would go on.
        .args(["-c", "exec timeout 60 \"$@\" 3<>\"$0\"", file])
        .arg(command.get_program())
        .args(command.get_args())
        .env("LC_ALL", "C")
        .current_dir(dir.root());
    let output = shell.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

#[test]
fn no_file_that_an_image_stands_on_is_emptied_or_overwritten() {
    let mut dir = images();
    let mut before = contents(&dir);
    let mut wrong = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        for (role, file) in case.files.concat().into_iter().enumerate() {
            let mut names = names_of(&dir, file, case.names);
            if matches!(case.names, Names::Some | Names::SomePaths) {
                let count = names.len();
                let turn = number + role;
                names = vec![
                    names.swap_remove(turn % count),
                    names.swap_remove((turn * 5 + 3) % (count - 1)),
                ];
            }
            for name in names {
                let line = case.line.replace("NAME", &name);
                let (code, text) = run(&dir, &line, file);
                let after = contents(&dir);
                let unharmed = match case.end {
                    End::Refused => code == 1 && after == before,
                    End::Unharmed => (0..=1).contains(&code) && after.get(file) == before.get(file),
                };
                if !unharmed {
                    let changed: Vec<_> = before
                        .iter()
                        .filter(|(name, bytes)| after.get(*name) != Some(bytes))
                        .map(|(name, _)| name.as_str())
                        .collect();
                    wrong.push(format!("{line}\n  {code}, changed {changed:?}: {text}"));
                }
                if after != before {
                    dir = images();
                    before = contents(&dir);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_refusal_says_what_the_file_is_to_both() {
    let dir = images();
    for (line, text) in [
        (
            "rebase -b src.data -F raw src.qcow2",
            "'src.data' is the data file of 'src.qcow2' and the file of 'src.data': \
             writing to one would change the other",
        ),
        (
            "rebase -b src.qcow2 -F raw src.qcow2",
            "'src.qcow2' is the file of 'src.qcow2' and the file of 'src.qcow2'",
        ),
        (
            r#"commit json:{"driver":"qcow2","file":{"filename":"src.qcow2"},"backing":{"driver":"raw","file":{"filename":"src.data"}}}"#,
            "and the file of 'src.data'",
        ),
        (
            "convert -n -O qcow2 -B base.qcow2 -F qcow2 src.qcow2 base.qcow2",
            "Error: Trying to create an image over a file of its own backing chain",
        ),
    ] {
        let ran = ours(&words(line), dir.root());
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        assert!(ran.err.contains(text), "{line}: {ran:?}");
    }
}

/// Names that lead to `second.raw`, or to a directory with it, or to what stands on it in its turn.
const LEADING: &[&str] = &[
    "second.raw",
    "file:second.raw",
    "host_device:second.raw",
    "host_cdrom:second.raw",
    "fat:dir",
    "fat:floppy:12:dir",
    "onsecond.qcow2",
    "ondir.qcow2",
    "blkdebug::second.raw",
    "blkdebug::onsecond.qcow2",
    "blkverify:copy.raw:second.raw",
    r#"json:{"driver":"file","filename":"second.raw"}"#,
    r#"json:{"driver":"raw","file":{"filename":"second.raw"}}"#,
    r#"json:{"driver":"raw","offset":512,"file.filename":"second.raw"}"#,
    r#"json:{"file":{"driver":"host_device","filename":"second.raw"}}"#,
    r#"json:{"driver":"vvfat","dir":"dir"}"#,
    r#"json:{"driver":"vvfat","dir":"dir","fat-type":7}"#,
    r#"json:{"driver":"raw","file":{"driver":"vvfat","dir":"./dir/deep"}}"#,
    r#"json:{"driver":"blkdebug","x-image":"second.raw"}"#,
    r#"json:{"driver":"blkdebug","x-image":"fat:dir"}"#,
    r#"json:{"driver":"blkverify","x-raw":"copy.raw","x-image":"host_device:second.raw"}"#,
    r#"json:{"driver":"decompress","file":{"filename":"second.raw"}}"#,
    r#"json:{"driver":"tar","member":"m","file":{"filename":"second.raw"}}"#,
    r#"json:{"driver":"preallocate","file":{"filename":"second.raw"}}"#,
    r#"json:{"driver":"blklogwrites","file":{"filename":"second.raw"},"log":{"filename":"copy.raw"}}"#,
    r#"json:{"driver":"copy-before-write","file":{"filename":"second.raw"},"target":{"filename":"copy.raw"}}"#,
    r#"json:{"driver":"compress","file":{"driver":"qcow2","file":{"filename":"onsecond.qcow2"}}}"#,
    r#"json:{"driver":"copy-on-read","file":{"driver":"qcow2","file":{"filename":"onsecond.qcow2"}}}"#,
    r#"json:{"driver":"throttle","throttle-group":"g","file":{"filename":"second.raw"}}"#,
    r#"json:{"driver":"throttle","throttle-group":"g","file":{"driver":"vvfat","dir":"dir"}}"#,
    r#"json:{"driver":"throttle","throttle-group":"g","file":{"driver":"qcow2","file":{"filename":"onsecond.qcow2"}}}"#,
    r#"json:{"driver":"quorum","vote-threshold":1,"children":[{"driver":"file","filename":"copy.raw"},{"driver":"throttle","throttle-group":"g","file":{"filename":"second.raw"}}]}"#,
    r#"json:{"driver":"qcow2","file":{"filename":"low.qcow2"},"data-file":{"driver":"host_device","filename":"second.raw"}}"#,
    r#"json:{"driver":"qcow2","file":{"filename":"low.qcow2"},"backing":{"driver":"vvfat","dir":"dir"}}"#,
    r#"json:{"driver":"luks","key-secret":"s","file":{"filename":"vol.luks"},"header":{"filename":"second.raw"}}"#,
];

/// Commands that write to an image and do not open what is below it, which is known by the name that the image
/// records alone.
#[test]
fn no_file_that_a_recorded_name_leads_to_is_overwritten_by_what_opens_no_chain() {
    for filter in registry::drivers() {
        let driver = format!(r#""driver":"{}""#, filter.name);
        let is_there = LEADING.iter().any(|name| name.contains(&driver));
        assert!(is_there, "LEADING has no name through {}", filter.name);
    }
    let dir = images();
    std::fs::create_dir(dir.path("dir/deep")).unwrap();
    for place in ["dir/second.file", "dir/deep/second.file"] {
        std::fs::hard_link(dir.path("second.raw"), dir.path(place)).unwrap();
    }
    for (name, below) in [("onsecond.qcow2", "second.raw"), ("ondir.qcow2", "fat:dir")] {
        let line = format!("create -q -f qcow2 -u -b {below} -F raw {name} 64k");
        dir.qemu_img_ok(&words(&line));
    }
    let mut wrong = Vec::new();
    for name in LEADING {
        let format = match name.contains(".qcow2") && !name.starts_with("json:") {
            true => "qcow2",
            false => "raw",
        };
        let create = format!("create -q -f qcow2 -u -b {name} -F {format} named.qcow2 64k");
        dir.qemu_img_ok(&words(&create));
        let before = contents(&dir);
        let image = r#"json:{"driver":"qcow2","file":{"driver":"blklogwrites","file":{"filename":"named.qcow2"},"log":{"filename":"second.raw"}}}"#;
        for command in [
            "bitmap --add IMAGE b",
            "amend -q -o lazy_refcounts=on IMAGE",
            "snapshot -q -c s IMAGE",
            "resize -q IMAGE +64k",
            "rebase -q -u -b copy.raw -F raw IMAGE",
            "check -q -r all IMAGE",
            "create -q -u -f qcow2 -b named.qcow2 -F qcow2 second.raw 64k",
        ] {
            let line = command.replace("IMAGE", image);
            let ran = ours(&words(&line), dir.root());
            if ran.code != 1 || contents(&dir) != before {
                wrong.push(format!("{command} over {name}: {ran:?}"));
                std::fs::write(dir.path("second.raw"), [8; 64 << 10]).unwrap();
                dir.qemu_img_ok(&words(&create));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a server offers has the name of the server's place, however that is spelled.
#[test]
fn no_export_that_an_image_stands_on_is_overwritten() {
    let dir = images();
    let server = Server::qemu_nbd(
        &dir,
        "s",
        &["-f", "raw", "-x", "e", "-e", "8", "second.raw"],
    );
    let socket = server.socket();
    let names = [
        format!("nbd+unix:///e?socket={socket}"),
        format!("nbd:unix:{socket}:exportname=e"),
        format!(
            r#"json:{{"driver":"nbd","server":{{"type":"unix","path":"{socket}"}},"export":"e"}}"#
        ),
    ];
    for (n, source) in names.iter().enumerate() {
        let target = &names[(n + 1) % names.len()];
        dir.qemu_img_ok(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-u",
            "-b",
            source,
            "-F",
            "raw",
            "named.qcow2",
            "64k",
        ]);
        let before = contents(&dir);
        for line in [
            format!("convert -n -f raw -O raw {source} {target}"),
            format!("convert -n -f raw -O raw copy.raw {source} {target}"),
            format!("create -q -f qcow2 -b {source} -F raw {target}"),
            format!("convert -n -f raw -O qcow2 -B {source} -F raw copy.raw {target}"),
            format!("dd -f raw -O raw if={source} of={target}"),
            format!(
                r#"bitmap --add json:{{"driver":"qcow2","file":{{"driver":"blklogwrites","file":{{"filename":"named.qcow2"}},"log":{{"driver":"nbd","server":{{"type":"unix","path":"{socket}"}},"export":"e"}}}}}} b"#
            ),
            format!(
                r#"commit -q json:{{"driver":"qcow2","file":{{"driver":"nbd","server":{{"type":"unix","path":"{socket}"}},"export":"e"}},"backing":{{"driver":"raw","file":{{"driver":"nbd","server":{{"type":"unix","path":"{socket}"}},"export":"e"}}}}}}"#
            ),
        ] {
            let ran = ours(&words(&line), dir.root());
            assert_eq!(ran.code, 1, "{line}: {ran:?}");
            assert!(contents(&dir) == before, "{line}: {ran:?}");
        }
    }
}
