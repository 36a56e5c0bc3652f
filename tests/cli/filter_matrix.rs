//! Every filter above and below every format, and on every other filter, in every command: ours ends and prints as
//! QEMU's tool does, makes the same images, and leaves what it refuses to change as it was.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::common::{Dir, Ran};
use crate::given;
use crate::pair::{Loose, Pair, words};

/// What an image holds that every case starts from.
const SIZE: &str = "1M";
const OLD_LEN: u64 = 1 << 20;
const WRITES: &[&str] = &["write -P 2 64k 192k", "write -P 3 768k 64k"];

/// The objects that the nodes name.
const OBJECTS: [&str; 4] = [
    "--object",
    "throttle-group,id=g",
    "--object",
    "secret,id=s,data=pw",
];

/// Formats that are written, with what they are made with.
const WRITTEN: &[(&str, &str)] = &[
    ("raw", ""),
    ("qcow2", "-o cluster_size=4k"),
    ("qed", ""),
    ("qcow", ""),
    ("vmdk", ""),
    ("vdi", ""),
    ("vhdx", ""),
    ("vpc", ""),
    ("parallels", ""),
    (
        "luks",
        "--object secret,id=s,data=pw -o key-secret=s,iter-time=1",
    ),
];
/// Formats that are only read.
const READ: &[&str] = &["bochs", "cloop", "dmg"];

/// Filters, and what looks like one.
const FILTERS: &[&str] = &[
    "raw",
    "blkdebug",
    "throttle",
    "compress",
    "copy-on-read",
    "preallocate",
    "blklogwrites",
    "blkverify",
    "quorum",
    "copy-before-write",
];

/// A command: `@` is the image, and `%` the image as `--image-opts` takes it.
struct Line {
    text: &'static str,
    loose: Loose,
    writes: bool,
    /// Left to the run of all: another line is nearly the same.
    is_rare: bool,
}

/// The same, for the run of all.
const fn rare(line: Line) -> Line {
    Line {
        is_rare: true,
        ..line
    }
}

const fn reads(text: &'static str) -> Line {
    let loose = Loose::DiskSize;
    let writes = false;
    Line {
        text,
        loose,
        writes,
        is_rare: false,
    }
}

const fn writes(text: &'static str) -> Line {
    let writes = true;
    Line {
        writes,
        ..reads(text)
    }
}

const LINES: &[Line] = &[
    reads("info @"),
    rare(reads("info --output=json @")),
    reads("info --backing-chain --output=json @"),
    rare(reads("map @")),
    reads("map --output=json @"),
    reads("check @"),
    rare(reads("check --output=json @")),
    reads("measure -O qcow2 @"),
    rare(reads("compare @ disk")),
    reads("compare -s @ disk"),
    reads("convert -O raw @ out"),
    rare(reads("convert -O raw --salvage @ out")),
    reads("dd -O raw if=@ of=out bs=64k"),
    Line {
        loose: Loose::Time,
        ..reads("bench -c 4 -s 4k @")
    },
    reads("snapshot -l @"),
    reads("create -f qcow2 -b @ out"),
    writes("convert -n --target-image-opts other.raw %"),
    rare(writes("convert -n -S 0 --target-image-opts other.raw %")),
    Line {
        loose: Loose::Time,
        ..writes("bench -w -c 4 -s 4k --pattern 7 @")
    },
    writes("resize @ 2M"),
    rare(writes("resize --shrink @ 512k")),
    writes("resize --preallocation=full @ +1M"),
    writes("snapshot -c s @"),
    rare(writes("snapshot -d s @")),
    writes("bitmap --add @ b"),
    writes("amend -o size=2M @"),
    writes("check -r all @"),
    rare(writes("commit @")),
    writes("rebase -b '' @"),
    rare(writes("rebase -u -b base.raw -F raw @")),
];

/// The image as it is without filters.
fn file(format: &str) -> Value {
    json!({"driver": "file", "filename": format!("img.{format}")})
}

/// Copies of the image, for filters that have several.
const COPIES: &[&str] = &["twin", "third", "fourth"];

/// What filters keep beside the image.
const ASIDE: &[&str] = &[
    "log", "log2", "log3", "log4", "before", "before2", "before3", "before4",
];

fn node(format: &str, file: Value) -> Value {
    let mut node = json!({"driver": format, "file": file});
    if format == "luks" {
        node["key-secret"] = json!("s");
    }
    node
}

/// The filter over a node.
fn filter(name: &str, inner: Value) -> Value {
    match name {
        "throttle" => json!({"driver": name, "throttle-group": "g", "file": inner}),
        "blkdebug" => json!({"driver": name, "image": inner}),
        "blklogwrites" => {
            let log = aside("log", &inner);
            json!({"driver": name, "log": log, "file": inner})
        }
        "blkverify" => json!({"driver": name, "test": inner, "raw": twin(&inner)}),
        "quorum" => {
            let second = twin(&inner);
            json!({"driver": name, "vote-threshold": 2, "children": [inner, second]})
        }
        "copy-before-write" => {
            let target = aside("before", &inner);
            json!({"driver": name, "target": target, "file": inner})
        }
        _ => json!({"driver": name, "file": inner}),
    }
}

/// A file of that name that no node below uses.
fn aside(name: &str, inner: &Value) -> Value {
    let is_used = inner.to_string().contains(&format!("\"{name}\"}}"));
    let name = if is_used {
        format!("{name}3")
    } else {
        name.to_owned()
    };
    json!({"driver": "file", "filename": name})
}

/// The same over copies of the files.
fn twin(node: &Value) -> Value {
    let text = node.to_string();
    let to = if text.contains("\"twin.") {
        "\"third."
    } else {
        "\"twin."
    };
    let mut text = text.replace("\"twin.", "\"fourth.").replace("\"img.", to);
    for name in ["log", "before"] {
        text = text.replace(&format!("\"{name}3\"}}"), &format!("\"{name}4\"}}"));
        text = text.replace(&format!("\"{name}\"}}"), &format!("\"{name}2\"}}"));
    }
    serde_json::from_str(&text).expect("JSON")
}

/// Dotted keys of a tree.
fn dotted(node: &Value, at: &str, options: &mut Vec<String>) {
    let below = |key: &str| match at {
        "" => key.to_owned(),
        at => format!("{at}.{key}"),
    };
    match node {
        Value::Object(map) => map.iter().for_each(|(k, v)| dotted(v, &below(k), options)),
        Value::Array(list) => {
            let numbered = list.iter().enumerate();
            numbered.for_each(|(n, v)| dotted(v, &below(&n.to_string()), options));
        }
        Value::String(text) => options.push(format!("{at}={text}")),
        other => options.push(format!("{at}={other}")),
    }
}

/// One run: a command on an image behind filters.
struct Case {
    format: &'static str,
    tree: Value,
    line: &'static Line,
}

impl Case {
    fn args(&self) -> Vec<String> {
        let mut options = Vec::new();
        dotted(&self.tree, "", &mut options);
        let mut args: Vec<String> = words(self.line.text)
            .into_iter()
            .map(|word| match word {
                "%" => options.join(","),
                word => word.replace('@', &format!("json:{}", self.tree)),
            })
            .collect();
        args.splice(1..1, OBJECTS.map(str::to_owned));
        args
    }
}

/// What theirs says where ours does more or looks in another order: its words, and how ours may end then.
const KNOWN: &[(&str, &[i32])] = &[
    // Ours changes the size, checks and gives parents to images of more formats.
    ("does not support resize", &[0, 1]),
    ("does not support checks", &[0]),
    ("Could not change the backing file", &[0, 1]),
    // Ours compresses what is there already, and has a quorum hold an image of QCOW.
    ("error while writing at byte", &[0, 1]),
    // It goes on with what was allocated ahead when the image is closed.
    ("Error while closing the image", &[0, 1]),
    // Theirs wants a size of whole blocks below a filter.
    (
        "Image size is not a multiple of request alignment",
        &[0, 1, 63],
    ),
    // Room is asked for before it is filled.
    ("Unsupported preallocation mode 'full'", &[1]),
    // A quorum and Parallels lack this in theirs, which is looked at first.
    ("could not get block driver info", &[1]),
    // The number that theirs gives to a node.
    ("Can't store persistent bitmaps to #block", &[1]),
];

/// Differences that have a reason.
fn is_known(case: &Case, theirs: &Ran, ours: &Ran) -> bool {
    let mut known = KNOWN.iter();
    if known.any(|(words, codes)| theirs.err.contains(words) && codes.contains(&ours.code)) {
        return true;
    }
    // Theirs stops at an assertion.
    if theirs.code == -1 {
        return [0, 1].contains(&ours.code);
    }
    let command = case.line.text.split(' ').next().unwrap_or_default();
    let tree = case.tree.to_string();
    let count = |filter: &str| tree.matches(&format!("\"driver\":\"{filter}\"")).count();
    match command {
        // Theirs takes blocks of a VHDX for allocated that hold nothing, and cannot say where they are.
        "compare" => case.format == "vhdx" && case.line.text.starts_with("compare -s"),
        "map" if case.format == "vhdx" => true,
        // Theirs takes all of it for data.
        "map" | "measure" => case.format == "bochs" && count("quorum") > 0,
        // An extent has the name of its file in ours, where theirs has that of the node; and a name of theirs
        // cannot be opened again where the first of two has a colon.
        "info" => {
            case.tree["driver"] == "vmdk"
                || count("blkverify") > 1
                || count("blkverify") + count("blkdebug") > 1
        }
        _ => false,
    }
}

/// What all cases of one worker work on: files that are put back after each change.
struct Bench<'a> {
    pair: Pair,
    files: &'a BTreeMap<String, Vec<u8>>,
}

/// The images that all cases start from.
fn files() -> BTreeMap<String, Vec<u8>> {
    let dir = Dir::new();
    for name in ["base.raw", "other.raw"] {
        dir.qemu_img_ok(&["create", "-q", "-f", "raw", name, SIZE]);
    }
    dir.qemu_io("raw", "other.raw", &["write -P 5 128k 256k"]);
    dir.qemu_io("raw", "base.raw", WRITES);
    std::fs::copy(dir.path("base.raw"), dir.path("disk")).expect("a copy");
    for (format, options) in WRITTEN {
        let line = format!("convert -O {format} {options} base.raw img.{format}");
        dir.qemu_img_ok(&words(&line));
    }
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir.root()).expect("a directory") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_str().expect("UTF-8").to_owned();
        let bytes = std::fs::read(dir.path(&name)).expect("a file");
        files.insert(name, bytes);
    }
    for format in READ {
        files.insert(format!("img.{format}"), given::by_name(format).make().1);
    }
    for format in formats() {
        let image = files[&format!("img.{format}")].clone();
        for copy in COPIES {
            files.insert(format!("{copy}.{format}"), image.clone());
        }
    }
    files
}

impl<'a> Bench<'a> {
    fn new(files: &'a BTreeMap<String, Vec<u8>>) -> Self {
        let pair = Pair::new();
        for (name, bytes) in files {
            pair.file(name, bytes);
        }
        let bench = Self { pair, files };
        bench.empty(ASIDE);
        bench
    }

    /// Makes files of zeroes anew.
    fn empty(&self, names: &[&str]) {
        for name in names {
            for dir in [self.pair.theirs(), self.pair.ours()] {
                let made = std::fs::File::create(dir.path(name));
                made.and_then(|file| file.set_len(4 << 20)).expect("a file");
            }
        }
    }

    /// What differs.
    fn run(&self, case: &Case) -> Option<String> {
        let args = case.args();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let (theirs, ours, same) = self.pair.both(&args, case.line.loose);
        let image = format!("img.{}", case.format);
        let mut wrong = None;
        if !same && !is_known(case, &theirs, &ours) {
            wrong = Some(format!(
                "{args:?}\n  theirs: {theirs:?}\n  ours:   {ours:?}"
            ));
        } else if ours.code == 0 && theirs.code == 0 {
            if case.line.text.ends_with(" out") {
                wrong = self.compared("out", &args, |file| file);
            }
            // Theirs changes the size of one of the two alone, by which it is no image of a filter again.
            let resizes = case.line.text.starts_with("resize");
            let is_half = resizes && case.tree.to_string().contains("blkverify");
            // What is new of a volume is noise in theirs, and behind a filter zeroes in ours: the rest is the same.
            let grows = resizes && !case.line.text.contains("--shrink");
            let is_noise = case.format == "luks" && grows;
            if case.line.writes && wrong.is_none() && !is_half {
                wrong = self.compared(&image, &args, |file| match node(case.format, file) {
                    grown if is_noise => json!({"driver": "raw", "size": OLD_LEN, "file": grown}),
                    whole => whole,
                });
            }
        } else if ours.code != 0 && case.line.writes {
            let left = std::fs::read(self.pair.ours().path(&image)).expect("the image");
            if left != self.files[&image] {
                wrong = Some(format!("{args:?} failed and changed the image: {ours:?}"));
            }
        }
        for dir in [self.pair.theirs(), self.pair.ours()] {
            let _ = std::fs::remove_file(dir.path("out"));
        }
        if case.line.writes {
            let tree = case.tree.to_string();
            for image in ["img"].iter().chain(COPIES) {
                let name = format!("{image}.{}", case.format);
                if tree.contains(&name) {
                    self.pair.file(&name, &self.files[&name]);
                }
            }
            let is_used = |name: &&str| tree.contains(&format!("\"{name}\"}}"));
            let used: Vec<_> = ASIDE.iter().copied().filter(is_used).collect();
            self.empty(&used);
        }
        wrong
    }

    /// Whether QEMU's tool finds the same in both.
    fn compared(&self, name: &str, args: &[&str], node: impl Fn(Value) -> Value) -> Option<String> {
        let pair = &self.pair;
        let [theirs, ours] = [pair.theirs(), pair.ours()].map(|dir| {
            let file = json!({"driver": "file", "filename": dir.str(name)});
            format!("json:{}", node(file))
        });
        let args_of_compare = [&["compare"], &OBJECTS[..], &[&theirs, &ours]].concat();
        let ran = pair.theirs().qemu_img(&args_of_compare);
        (ran.code != 0).then(|| format!("{args:?}: {name} differs: {ran:?}"))
    }
}

fn formats() -> Vec<&'static str> {
    let written = WRITTEN.iter().map(|(format, _)| *format);
    written.chain(READ.iter().copied()).collect()
}

/// The image with the filter above its format, or below it.
fn behind(name: &str, format: &str, is_above: bool) -> Value {
    if is_above {
        filter(name, node(format, file(format)))
    } else {
        node(format, filter(name, file(format)))
    }
}

/// The image behind two filters.
fn stack(outer: &str, inner: &str, format: &str) -> Value {
    filter(outer, behind(inner, format, true))
}

/// Runs the cases, some at once.
fn all_agree(cases: &[Case]) {
    let workers = 2;
    let files = files();
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let work = |first| {
            let bench = Bench::new(&files);
            let mine = cases.iter().skip(first).step_by(workers);
            mine.filter_map(|case| bench.run(case)).collect::<Vec<_>>()
        };
        let started: Vec<_> = (0..workers).map(|n| scope.spawn(move || work(n))).collect();
        let ended = started.into_iter().map(|worker| worker.join());
        ended.flat_map(|found| found.expect("a worker")).collect()
    });
    let shown: Vec<_> = wrong.iter().take(4000).map(String::as_str).collect();
    let (count, all) = (wrong.len(), cases.len());
    assert!(count == 0, "{count} of {all}:\n{}", shown.join("\n\n"));
}

#[test]
fn a_sample_of_filters_formats_and_commands_is_as_the_peer_has_it() {
    let formats = formats();
    let mut cases = Vec::new();
    let lines = LINES.iter().filter(|line| !line.is_rare);
    for (n, line) in lines.enumerate() {
        for at in 0..FILTERS.len() {
            // Each filter meets each command, and all formats and places come by.
            let format = formats[(n * 5 + at * 7) % formats.len()];
            let tree = match (n + at) % 3 {
                2 => stack(FILTERS[at], FILTERS[(n + at) % FILTERS.len()], format),
                place => behind(FILTERS[at], format, place == 0),
            };
            cases.push(Case { format, tree, line });
        }
    }
    all_agree(&cases);
}

#[test]
#[ignore = "takes minutes: see docs/tests.md"]
fn every_filter_over_every_format_in_every_command_is_as_the_peer_has_it() {
    let formats = formats();
    let mut trees = Vec::new();
    for format in &formats {
        for name in FILTERS {
            trees.extend([true, false].map(|is_above| (*format, behind(name, format, is_above))));
        }
    }
    // Each stack over one of the formats.
    for (n, outer) in FILTERS.iter().enumerate() {
        for (m, inner) in FILTERS.iter().enumerate() {
            let format = formats[(n * FILTERS.len() + m) % formats.len()];
            trees.push((format, stack(outer, inner, format)));
        }
    }
    let mut cases = Vec::new();
    for (format, tree) in trees {
        for line in LINES {
            let tree = tree.clone();
            cases.push(Case { format, tree, line });
        }
    }
    all_agree(&cases);
}
