//! Differencing images, which QEMU's tools cannot judge: they read none.

use platter::Job;
use platter::ops::commit::{CommitRequest, commit};
use platter::ops::convert::convert;
use platter::ops::create::{CreatePlan, CreateRequest};
use platter::ops::rebase::{RebaseRequest, rebase};
use platter::storage::CacheMode;
use platter::{Location, OpenPolicy, Options};

use super::{Questions, contents, conversion, left_out, open, options, scribble};
use crate::common::Dir;
use crate::random::Random;

const SIZE: u64 = 5 << 20;

/// A format, options of its layers, and who reads its chains.
struct Kind {
    format: &'static str,
    options: &'static str,
    /// What guests write at once.
    unit: u64,
    readers: &'static [&'static str],
    /// Those that read a layer without blocks of its own.
    readers_of_empty: &'static [&'static str],
}

const KINDS: &[Kind] = &[
    // libvhdi 20260901 takes the bits of a byte of a VHD's bitmap that follow a set one for set too, so that
    // it is asked about groups of eight sectors alone.
    Kind {
        format: "vpc",
        options: "",
        unit: 4096,
        readers: &["libvhdi", "7-Zip VHD"],
        readers_of_empty: &["libvhdi", "7-Zip VHD"],
    },
    Kind {
        format: "vpc",
        options: "",
        unit: 1,
        readers: &["7-Zip VHD"],
        readers_of_empty: &["7-Zip VHD"],
    },
    // And blocks of a VHDX that are not present for zeroes, also where there is a parent, to which MS-VHDX sends
    // readers then.
    Kind {
        format: "vhdx",
        options: "block_size=1M",
        unit: 1,
        readers: &["libvhdi", "dissect_vhdx", "7-Zip VHDX"],
        readers_of_empty: &["dissect_vhdx", "7-Zip VHDX"],
    },
    Kind {
        format: "vhdx",
        options: "block_size=32M",
        unit: 1,
        readers: &["libvhdi", "dissect_vhdx", "7-Zip VHDX"],
        readers_of_empty: &["dissect_vhdx", "7-Zip VHDX"],
    },
    // 7-Zip reads no VDI with a parent, and nor does QEMU.
    Kind {
        format: "vdi",
        options: "",
        unit: 1,
        readers: &["dissect_vdi"],
        readers_of_empty: &["dissect_vdi"],
    },
    // 7-Zip reads no VMDK with a parent.
    Kind {
        format: "vmdk",
        options: "",
        unit: 1,
        readers: &["libvmdk", "dissect_vmdk"],
        readers_of_empty: &["libvmdk", "dissect_vmdk"],
    },
];

/// The layers of a chain, the top first, and what it shows.
struct Chain {
    names: Vec<String>,
    model: Vec<u8>,
}

fn layer(dir: &Dir, kind: &Kind, name: &str, below: Option<&str>) {
    let request = CreateRequest {
        location: Location::from_path(dir.path(name)),
        format: kind.format.to_owned(),
        size: Some(SIZE),
        options: match kind.options {
            "" => Options::new(),
            options => Options::parse(options).expect("options"),
        },
        backing_file: below.map(Into::into),
        backing_format: below.map(|_| kind.format.to_owned()),
        backing_unsafe: false,
        exclusive: false,
        objects: Default::default(),
        policy: OpenPolicy::permissive(),
        storages: None,
    };
    let mut job = Job::new();
    CreatePlan::new(request, &mut job)
        .and_then(|plan| plan.run(&mut job))
        .unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// Three layers with data of their own in each.
fn chain(dir: &Dir, kind: &Kind, prefix: &str) -> Chain {
    let mut random = Random(0xc4a1);
    let mut model = vec![0; SIZE as usize];
    let mut names: Vec<String> = Vec::new();
    for name in ["base", "mid", "top"] {
        let name = format!("{prefix}-{name}.{}", kind.format);
        layer(dir, kind, &name, names.first().map(String::as_str));
        let image = open(&dir.path(&name), kind.format, true);
        scribble(&image, &mut model, &mut random, kind.unit);
        image.close().expect("a close");
        names.insert(0, name);
    }
    Chain { names, model }
}

/// Asks about an image over others, which must show `model`.
fn ask(questions: &mut Questions<'_>, kind: &Kind, what: &str, names: &[&str], model: &[u8]) {
    let dir = questions.dir;
    let raw = format!("{}-{what}.raw", names[0].replace('/', "-"));
    std::fs::write(dir.path(&raw), model).expect("a model");
    let seen = contents(&dir.path(names[0]), kind.format);
    assert!(seen == model, "ours: {what}: {names:?}");
    let label = format!("{} {}: {what}", kind.format, kind.options);
    let readers = match what {
        "emptied" => kind.readers_of_empty,
        _ => kind.readers,
    };
    questions.ask(&label, readers, names, &raw);
}

/// As they are made, after a commit, after a rebase, and written as a whole.
#[test]
fn chains_show_the_same_everywhere() {
    if left_out() {
        return;
    }
    let dir = Dir::new();
    let mut questions = Questions::new(&dir);
    for (n, kind) in KINDS.iter().enumerate() {
        let made = chain(&dir, kind, &format!("made-{n}"));
        let names: Vec<_> = made.names.iter().map(String::as_str).collect();
        ask(&mut questions, kind, "made", &names, &made.model);

        let out = format!("out-{n}");
        let mut request = conversion(
            &dir,
            (kind.format, names[0]),
            (kind.format, &out),
            kind.options,
        );
        request.target.whole_chain = true;
        convert(&request, &mut Job::new()).expect("a conversion");
        let copies: Vec<_> = names.iter().map(|name| format!("{out}/{name}")).collect();
        let copies: Vec<_> = copies.iter().map(String::as_str).collect();
        ask(&mut questions, kind, "converted", &copies, &made.model);

        let chained = chain(&dir, kind, &format!("committed-{n}"));
        let names: Vec<_> = chained.names.iter().map(String::as_str).collect();
        let request = CommitRequest {
            location: Location::from_path(dir.path(names[0])),
            options: options(kind.format, false),
            base: None,
            keep: false,
        };
        commit(&request, &mut Job::new()).expect("a commit");
        ask(
            &mut questions,
            kind,
            "committed",
            &names[1..],
            &chained.model,
        );
        ask(&mut questions, kind, "emptied", &names, &chained.model);

        let chained = chain(&dir, kind, &format!("rebased-{n}"));
        let names: Vec<_> = chained.names.iter().map(String::as_str).collect();
        let request = RebaseRequest {
            location: Location::from_path(dir.path(names[0])),
            options: options(kind.format, false),
            backing: Some(names[2].into()),
            backing_format: Some(kind.format.to_owned()),
            backing_cache: CacheMode::Writeback,
            share_backing: false,
            name_only: false,
            compress: false,
        };
        rebase(&request, &mut Job::new()).expect("a rebase");
        let pair = [names[0], names[2]];
        ask(&mut questions, kind, "rebased", &pair, &chained.model);
    }
    questions.agreed();
}
