//! An error at the n-th event of each kind that blkdebug knows, in the commands that change images: how
//! they end beside QEMU's tool, and that nothing is lost.

mod bitmaps;
mod blocks;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use crate::build;
use crate::common::{Dir, Ran};
use crate::pair::{ours, run, words};

/// A command, with an error at some event in one of its files.
struct Case<'a> {
    /// `@FILE` stands for the file below blkdebug, `%FILE` for an image over that, and
    /// `^FILE` for the whole path: theirs takes a relative one wrongly beside a name with rules.
    line: &'a str,
    /// The images that it reads or changes; what stands on another one behind that.
    files: &'a [&'a str],
    /// Theirs can do it too.
    beside: bool,
}

const fn case<'a>(line: &'a str, files: &'a [&'a str]) -> Case<'a> {
    let beside = true;
    Case {
        line,
        files,
        beside,
    }
}

/// As [`case`], for what ours alone can do.
const fn ours_alone<'a>(line: &'a str, files: &'a [&'a str]) -> Case<'a> {
    Case {
        beside: false,
        ..case(line, files)
    }
}

/// The format of an image, by the end of its name.
fn format_of(file: &str) -> &str {
    match file.rsplit_once('.').expect("a name with an end").1 {
        "hdd" => "parallels",
        end => end,
    }
}

/// How the requests behind an event fail: (errno, once).
type Way = (i32, bool);
const ONCE: Way = (libc::EIO, true);
const FROM_THEN_ON: Way = (libc::ENOSPC, false);

/// Up to this one the n-th event is tried with theirs too; later ones are hardly ever the same step there.
const COMPARED: u32 = 2;

/// The unit in which a change may have come to an end half way.
const CLUSTER: usize = 4096;

fn make(dir: &Dir, line: &str) {
    dir.qemu_img_ok(&words(line));
}

/// Images of a format with these options, none of which is changed; each run works on copies. `has_parents`:
/// also two with a parent.
fn images(dir: &Dir, format: &str, end: &str, options: &str, has_parents: bool) {
    let base = [
        "write -P 1 0 64k",
        "write -P 2 2100k 64k",
        "write -P 3 4200k 64k",
    ];
    for name in ["base", "a", "b"] {
        let name = format!("{name}.{end}");
        make(dir, &format!("create -q -f {format} {options} {name} 6M"));
        dir.qemu_io(format, &name, &base);
    }
    for (name, writes) in [
        ("other", &["write -P 9 32k 64k", "write -P 9 4300k 64k"][..]),
        ("new", &[]),
    ] {
        let name = format!("{name}.{end}");
        make(dir, &format!("create -q -f {format} {options} {name} 6M"));
        dir.qemu_io(format, &name, writes);
    }
    let base = format!("base.{end}");
    let debugged = format!("blkdebug:r.cfg:{base}");
    rules(dir.root(), "");
    for (name, below) in [("top", &base), ("over", &debugged)] {
        if !has_parents {
            break;
        }
        if format == "vmdk" && name == "over" {
            // A descriptor names files alone.
            continue;
        }
        let name = format!("{name}.{end}");
        make(
            dir,
            &format!("create -q -f {format} {options} -b {below} -F {format} {name} 6M"),
        );
        let top = [
            "write -P 4 16k 17k",
            "write -P 5 2200k 30k",
            "write -z 4216k 8k",
        ];
        dir.qemu_io(format, &name, &top);
    }
    make(dir, "create -q -f raw src.raw 6M");
    dir.qemu_io(
        "raw",
        "src.raw",
        &[
            "write -P 8 8k 100k",
            "write -P 8 2M 64k",
            "write -P 8 5M 300k",
        ],
    );
}

/// The big-endian number at a place.
fn word(bytes: &[u8], at: usize) -> usize {
    let word: [u8; 8] = bytes[at..at + 8].try_into().expect("eight bytes");
    u64::from_be_bytes(word) as usize
}

/// Those of qcow2.
fn seed() -> Dir {
    let dir = Dir::new();
    images(&dir, "qcow2", "qcow2", "-o cluster_size=4k", true);
    make(&dir, "snapshot -c s a.qcow2");
    dir.qemu_io(
        "qcow2",
        "a.qcow2",
        &["write -P 6 32k 64k", "write -P 7 2110k 5k"],
    );
    // Clusters that nothing names, and in one image also some that are named and not counted.
    let mut bytes = std::fs::read(dir.path("b.qcow2")).expect("an image");
    let block = word(&bytes, word(&bytes, 48));
    let used = bytes.len() / CLUSTER;
    bytes.resize((used + 40) * CLUSTER, 0);
    for leaked in [3, 17, 30] {
        bytes[block + 2 * (used + leaked) + 1] = 1;
    }
    std::fs::write(dir.path("leak.qcow2"), &bytes).expect("an image");
    for uncounted in [3, 9] {
        bytes[block + 2 * (used - uncounted) + 1] = 0;
    }
    std::fs::write(dir.path("bad.qcow2"), &bytes).expect("an image");
    dir
}

/// Those of a format whose clusters have their place in the order in which they were first written: of one image
/// also a copy with clusters at the end that nothing names, and one in which two entries name the same cluster as
/// well. `entries` are the places of two entries of `len` bytes.
fn seed_of(
    (format, end, options): (&str, &str, &str),
    has_parents: bool,
    entries: impl FnOnce(&[u8]) -> ([usize; 2], usize),
) -> Dir {
    let dir = Dir::new();
    images(&dir, format, end, options, has_parents);
    let mut bytes = std::fs::read(dir.path(&format!("b.{end}"))).expect("an image");
    let ([from, to], len) = entries(&bytes);
    bytes.resize(bytes.len() + (192 << 10), 0);
    std::fs::write(dir.path(&format!("leak.{end}")), &bytes).expect("an image");
    bytes.copy_within(from..from + len, to);
    std::fs::write(dir.path(&format!("bad.{end}")), &bytes).expect("an image");
    dir
}

fn qed() -> Dir {
    let format = ("qed", "qed", "-o cluster_size=4k");
    seed_of(format, true, |bytes| {
        let word = |at: usize| word(bytes, at).swap_bytes();
        let table = word(word(40));
        ([table, table + 5 * 8], 8)
    })
}

fn qcow() -> Dir {
    seed_of(("qcow", "qcow", ""), true, |bytes| {
        let table = word(bytes, word(bytes, 40));
        ([table, table + 5 * 8], 8)
    })
}

/// An entry of the table that counts differs from the redundant one, and names the grain of another.
fn vmdk() -> Dir {
    seed_of(("vmdk", "vmdk", ""), true, |bytes| {
        let sector = |at: usize| {
            let word = bytes[at..at + 4].try_into().expect("four bytes");
            u32::from_le_bytes(word) as usize * 512
        };
        let table = sector(sector(56));
        ([table, table + 40 * 4], 4)
    })
}

fn parallels() -> Dir {
    let format = ("parallels", "hdd", "-o cluster_size=64k");
    seed_of(format, false, |_| ([64, 64 + 33 * 4], 4))
}

fn rules(directory: &Path, text: &str) {
    std::fs::write(directory.join("r.cfg"), text).expect("a file of rules");
}

/// Rules that fail requests from the n-th event on, or the first one behind it.
fn fails_at(event: &str, n: u32, (errno, once): (i32, bool)) -> String {
    let mut text = String::new();
    for state in 1..n {
        text += &format!(
            "[set-state]\nevent = \"{event}\"\nstate = \"{state}\"\nnew_state = \"{}\"\n",
            state + 1
        );
    }
    let once = if once { "on" } else { "off" };
    text + &format!(
        "[inject-error]\nevent = \"{event}\"\nstate = \"{n}\"\nerrno = \"{errno}\"\nonce = \"{once}\"\n"
    )
}

const PAGE: [u8; 4096] = [0; 4096];

/// What the guest sees of an image: its contents under no name, and those of its snapshots.
type Contents = BTreeMap<String, Vec<u8>>;

/// What is left of an image.
#[derive(Clone)]
struct State {
    /// How the peer's check ends; 3 also where flags alone are wrong and the image says so.
    checked: i32,
    contents: Contents,
}

/// What was found of images, by their bytes and those of the files below.
#[derive(Default)]
struct Known(HashMap<u64, State>);

impl Known {
    fn state(&mut self, dir: &Path, file: &str, files: &[&str]) -> State {
        let mut hasher = DefaultHasher::new();
        file.hash(&mut hasher);
        for name in files {
            let bytes = std::fs::read(dir.join(name)).expect("an image");
            bytes.len().hash(&mut hasher);
            // Most pages are empty, and to find that out is quicker.
            let pages = bytes.chunks(PAGE.len()).enumerate();
            let filled = pages.filter(|(_, page)| *page != &PAGE[..page.len()]);
            filled.for_each(|page| page.hash(&mut hasher));
        }
        let state = self.0.entry(hasher.finish());
        state.or_insert_with(|| look(dir, file)).clone()
    }
}

/// How an image is opened to read it, whatever its writer left behind.
fn opened(file: &str) -> Vec<String> {
    let options = match format_of(file) {
        "vhdx" => "driver=vhdx,replay-log=on",
        "luks" => "driver=luks,key-secret=s",
        _ => return vec![file.to_owned()],
    };
    let opts = format!("{options},file.filename={file}");
    let words = ["--object", "secret,id=s,data=x", "--image-opts", &opts];
    words.map(str::to_owned).into()
}

/// The parent of an image may just have been under change: its log is replayed, and where the image could not be
/// told of the change, naming the parent again is the remedy.
fn know_parent(dir: &Path, file: &str) {
    let (Some(("top", end)), "vhdx" | "vmdk") = (file.split_once('.'), format_of(file)) else {
        return;
    };
    let base = format!("base.{end}");
    if end == "vhdx" {
        let repaired = ours(&["check", "-q", "-r", "all", &base], dir);
        assert!([0, 2, 3].contains(&repaired.code), "{base}: {repaired:?}");
    }
    let opened = opened(file);
    let opened = opened.iter().map(String::as_str);
    let args: Vec<&str> = std::iter::once("map").chain(opened).collect();
    if ours(&args, dir).err.contains("was changed since") {
        let named = ours(&["rebase", "-u", "-b", &base, "-F", end, file], dir);
        assert_eq!(named.code, 0, "{file}: {named:?}");
    }
}

fn look(dir: &Path, file: &str) -> State {
    if file.ends_with(".raw") {
        let bytes = std::fs::read(dir.join(file)).expect("an image");
        return State {
            checked: 0,
            contents: [(String::new(), bytes)].into(),
        };
    }
    let check = |args: &[&str], file: &str| {
        let opened = opened(file);
        let opened: Vec<&str> = opened.iter().map(String::as_str).collect();
        let args = [args, &opened].concat();
        match format_of(file) {
            // Theirs checks none of these, or knows no chains of them.
            "qcow" | "vdi" | "vpc" | "vhdx" => ours(&args, dir),
            _ => run(Path::new("qemu-img"), &args, dir),
        }
    };
    know_parent(dir, file);
    let found = match format_of(file) {
        // It has nothing that could be checked.
        "luks" => Ran {
            code: 0,
            out: String::new(),
            err: String::new(),
        },
        _ => check(&["check"], file),
    };
    let mut errors = found.err.lines().filter(|line| line.starts_with("ERROR"));
    let mut checked = found.code;
    if checked == 2 && format_of(file) == "parallels" {
        // A flag that says that it was in use, and leaks at most.
        let harmless = [
            "ERROR image was not closed correctly",
            "ERROR space leaked at the end of the image ",
        ];
        if errors.all(|line| harmless.iter().any(|text| line.starts_with(text))) {
            checked = 3;
        }
    } else if checked == 2 {
        // Flags that tell what is shared, in an image that says so: whoever writes to it repairs them.
        let copy = format!("flags.{}", format_of(file));
        std::fs::copy(dir.join(file), dir.join(&copy)).expect("to copy an image");
        let info = check(&["info", "--output=json"], &copy);
        if info.out.contains("\"dirty-flag\": true")
            && check(&["check", "-r", "leaks"], &copy).code == 0
        {
            checked = 3;
        }
        std::fs::remove_file(dir.join(&copy)).expect("to remove a file");
    }
    let mut contents = Contents::new();
    let snapshots = match format_of(file) {
        "qcow2" => run(Path::new("qemu-img"), &["snapshot", "-l", file], dir).out,
        _ => String::new(),
    };
    let names = snapshots.lines().skip(2);
    let names = names.filter_map(|line| line.split_whitespace().nth(1));
    for name in std::iter::once("").chain(names) {
        let wanted = format!("snapshot.name={name}");
        let opened = opened(file);
        let mut args = vec!["convert", "-O", "raw"];
        args.extend(opened.iter().map(String::as_str));
        args.push("seen.raw");
        if !name.is_empty() {
            args.splice(1..1, ["-l", &wanted]);
        }
        let read = match format_of(file) {
            // Which derives keys faster than ours without optimization.
            "luks" => run(Path::new("qemu-img"), &args, dir),
            _ => ours(&args, dir),
        };
        assert_eq!(read.code, 0, "{file}: {read:?}");
        let bytes = std::fs::read(dir.join("seen.raw")).expect("the contents");
        std::fs::remove_file(dir.join("seen.raw")).expect("to remove a file");
        contents.insert(name.to_owned(), bytes);
    }
    if format_of(file) == "qcow2" {
        bitmaps::add(&dir.join(file), &mut contents);
    }
    State { checked, contents }
}

/// What is wrong with an image after a run that changed it from `before` to `done`, or began to.
fn judge(
    now: &State,
    (before, done): (&State, &State),
    unit: usize,
    ended_well: bool,
) -> Result<(), String> {
    let clean = |state: &State| [0, 3, 2].iter().position(|code| *code == state.checked);
    let worst = match ended_well {
        // What a failure kept from being freed leaks.
        true => clean(done).max(Some(1)),
        false => clean(before).max(clean(done)).max(Some(1)),
    };
    if clean(now).is_none() || clean(now) > worst {
        return Err(format!("the check ends with {}", now.checked));
    }
    if ended_well {
        return match now.contents == done.contents {
            true => Ok(()),
            false => Err("it is not what it was to be".to_owned()),
        };
    }
    for name in before.contents.keys() {
        if done.contents.contains_key(name) && !now.contents.contains_key(name) {
            return Err(format!("'{name}' is lost"));
        }
    }
    for (name, bytes) in &now.contents {
        let fits: Vec<&Vec<u8>> = [before, done]
            .iter()
            .filter_map(|state| state.contents.get(name))
            .collect();
        if name.starts_with(bitmaps::NAME) {
            match bytes == bitmaps::INCOMPLETE || fits.contains(&bytes) {
                true => continue,
                false => return Err(format!("'{name}' says what it never said")),
            }
        }
        if !fits.iter().any(|fit| fit.len() == bytes.len()) {
            return Err(format!("'{name}' is {} bytes long", bytes.len()));
        }
        for at in (0..bytes.len()).step_by(unit) {
            let range = at..bytes.len().min(at + unit);
            let part = &bytes[range.clone()];
            if !fits.iter().any(|fit| fit.get(range.clone()) == Some(part)) {
                return Err(format!("'{name}' is neither old nor new at {at}"));
            }
        }
    }
    Ok(())
}

/// The directories in which one command runs again and again.
struct Bench<'a> {
    case: &'a Case<'a>,
    seed: &'a Dir,
    theirs: Dir,
    ours: Dir,
    /// For theirs and ours.
    args: (Vec<String>, Vec<String>),
}

impl<'a> Bench<'a> {
    fn new(case: &'a Case<'a>, seed: &'a Dir) -> Self {
        let (theirs, ours) = (Dir::new(), Dir::new());
        let args = |dir: &Dir| -> Vec<String> {
            let words = words(case.line).into_iter();
            let name = |word: &str| match (word.get(..1), word.get(1..)) {
                (Some("@"), Some(file)) => format!("blkdebug:r.cfg:{file}"),
                (Some("^"), Some(file)) => dir.str(file),
                (Some("%"), Some(file)) => format!(
                    "json:{{'driver':'{}',{}'file':{{'driver':'blkdebug','config':'r.cfg',\
                     'image':{{'driver':'file','filename':'{file}'}}}}}}",
                    format_of(file),
                    match format_of(file) {
                        "luks" => "'key-secret':'s',",
                        _ => "",
                    }
                ),
                _ => word.to_owned(),
            };
            words.map(name).collect()
        };
        Self {
            case,
            seed,
            args: (args(&theirs), args(&ours)),
            theirs,
            ours,
        }
    }

    fn run(&self, tool: &Path, (dir, args): (&Dir, &[String]), text: &str) -> Ran {
        for file in self.case.files {
            std::fs::copy(self.seed.path(file), dir.path(file)).expect("to copy an image");
        }
        let _ = std::fs::remove_file(dir.path("out.raw"));
        rules(dir.root(), text);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let ran = run(tool, &args, dir.root());
        rules(dir.root(), "");
        ran
    }

    fn run_ours(&self, text: &str) -> Ran {
        self.run(build::tool(), (&self.ours, &self.args.1), text)
    }

    fn run_theirs(&self, text: &str) -> Ran {
        let tool = Path::new("qemu-img");
        self.run(tool, (&self.theirs, &self.args.0), text)
    }

    /// How often each event occurs in ours.
    fn events(&self) -> BTreeMap<String, u32> {
        let switch = ["-T", "blkdebug_event"].map(str::to_owned);
        let args = [&switch[..], &self.args.1].concat();
        let traced = self.run(build::tool(), (&self.ours, &args), "");
        assert_eq!(traced.code, 0, "{traced:?}");
        let mut counts = BTreeMap::new();
        for line in traced.err.lines() {
            if let Some(event) = line.strip_prefix("blkdebug_event event=") {
                *counts.entry(event.to_owned()).or_default() += 1;
            }
        }
        // Stands for every request, before the first of which nothing is open.
        counts.remove("none");
        counts
    }
}

/// How the exit codes of both go together; `clean` is how theirs ends without an error.
fn agree(ours: &Ran, theirs: &Ran, clean: &Ran) -> bool {
    match (theirs.code, ours.code) {
        // What ends well was done: that is looked at.
        (_, 0) => true,
        // Theirs does not come to that event, or to a request behind it.
        (0, 1) if theirs.err == clean.err => true,
        // It keeps a failure at the end of use to itself, even where that loses data.
        (0, 1) if theirs.err.contains("Failed to flush the ") => true,
        (0, 1) if theirs.err.contains("Lost persistent bitmaps") => true,
        // It was about to free something, ours at another step: it frees later, and in memory.
        (0, 1) if theirs.err.contains("qcow2_free_clusters failed") => true,
        // It ends in an assertion of its own.
        (-1, 1) if theirs.err.contains("Assertion ") => true,
        (theirs, ours) => theirs == ours,
    }
}

fn nothing_is_lost(seed: &Dir, cases: &[Case<'_>]) {
    nothing_is_lost_at(seed, cases, |count| {
        let first = [(1, ONCE), (1, FROM_THEN_ON), (2, ONCE)];
        first.into_iter().chain([(count, FROM_THEN_ON)]).collect()
    });
}

/// With errors at these places, of so many at which an event occurs.
fn nothing_is_lost_at(seed: &Dir, cases: &[Case<'_>], places: impl Fn(u32) -> Vec<(u32, Way)>) {
    let mut wrong = Vec::new();
    let mut runs = 0;
    for case in cases {
        let bench = Bench::new(case, seed);
        let mut known = Known::default();
        let events = bench.events();
        assert!(!events.is_empty(), "{}", case.line);
        let (clean, clean_theirs) = (bench.run_ours(""), bench.run_theirs(""));
        let codes = (clean.code, clean_theirs.code == 0);
        let wanted = (0, case.beside);
        assert_eq!(codes, wanted, "{}: {clean:?} {clean_theirs:?}", case.line);
        let mut states = |dir: &Dir| -> Vec<State> {
            let files = case.files.iter();
            files
                .map(|file| known.state(dir.root(), file, case.files))
                .collect()
        };
        let (before, done) = (states(seed), states(&bench.ours));
        for (event, count) in &events {
            let mut places = places(*count);
            places.retain(|(n, _)| n <= count);
            places.dedup();
            for (n, way) in places {
                let text = fails_at(event, n, way);
                let ran = bench.run_ours(&text);
                runs += 1;
                let now = states(&bench.ours);
                let mut found = Vec::new();
                let mut beside = None;
                if case.beside && n <= COMPARED && ran.code != 0 {
                    let theirs = bench.run_theirs(&text);
                    if !agree(&ran, &theirs, &clean_theirs) {
                        found.push("the exit codes differ".to_owned());
                    }
                    beside = Some(theirs);
                }
                for (at, file) in case.files.iter().enumerate() {
                    let unit = match format_of(file) {
                        // Images with a parent have clusters of one sector.
                        "qcow" => 512,
                        _ => CLUSTER,
                    };
                    let both = (&before[at], &done[at]);
                    if let Err(text) = judge(&now[at], both, unit, ran.code == 0) {
                        found.push(format!("{file}: {text}"));
                    }
                }
                if !found.is_empty() {
                    wrong.push(format!(
                        "`{}` {event} {n} {way:?}: {found:?}\n  {ran:?}\n  theirs: {beside:?}",
                        case.line
                    ));
                }
            }
        }
    }
    let count = wrong.len();
    wrong.truncate(15);
    assert!(
        count == 0,
        "{count} of {runs} runs:\n{}",
        wrong.join("\n\n")
    );
}

const CHAIN: &[&str] = &["top.qcow2", "base.qcow2", "other.qcow2"];
const OVER: &[&str] = &["over.qcow2", "base.qcow2"];

#[test]
fn an_error_at_any_event_of_a_commit_loses_nothing() {
    nothing_is_lost(
        &seed(),
        &[
            case("commit -f qcow2 @top.qcow2", CHAIN),
            case("commit -d -f qcow2 @top.qcow2", CHAIN),
            case("commit over.qcow2", OVER),
        ],
    );
}

#[test]
fn an_error_at_any_event_of_a_rebase_loses_nothing() {
    nothing_is_lost(
        &seed(),
        &[
            case("rebase -b ^other.qcow2 -F qcow2 %top.qcow2", CHAIN),
            case("rebase -b '' %top.qcow2", CHAIN),
            case("rebase -b %other.qcow2 -F qcow2 top.qcow2", CHAIN),
        ],
    );
}

#[test]
fn an_error_at_any_event_of_a_change_of_snapshots_loses_nothing() {
    nothing_is_lost(
        &seed(),
        &[
            case("snapshot -f qcow2 -c n @a.qcow2", &["a.qcow2"]),
            case("snapshot -f qcow2 -a s @a.qcow2", &["a.qcow2"]),
            case("snapshot -f qcow2 -d s @a.qcow2", &["a.qcow2"]),
        ],
    );
}

#[test]
fn an_error_at_any_event_of_a_resize_or_an_amendment_loses_nothing() {
    nothing_is_lost(
        &seed(),
        &[
            case("resize -f qcow2 @b.qcow2 600M", &["b.qcow2"]),
            case(
                "resize -f qcow2 --preallocation=metadata @b.qcow2 12M",
                &["b.qcow2"],
            ),
            case(
                "resize -f qcow2 --preallocation=full @b.qcow2 8M",
                &["b.qcow2"],
            ),
            case("resize -f qcow2 --shrink @b.qcow2 1M", &["b.qcow2"]),
            case("amend -f qcow2 -o compat=0.10 @b.qcow2", &["b.qcow2"]),
            case("amend -f qcow2 -o refcount_bits=64 @b.qcow2", &["b.qcow2"]),
            case("amend -f qcow2 -o lazy_refcounts=on @b.qcow2", &["b.qcow2"]),
        ],
    );
}

#[test]
fn an_error_at_any_event_of_a_repair_or_a_conversion_loses_nothing() {
    nothing_is_lost(
        &seed(),
        &[
            case("check -f qcow2 -r leaks @leak.qcow2", &["leak.qcow2"]),
            case("check -f qcow2 -r all @bad.qcow2", &["bad.qcow2"]),
            case("convert -f qcow2 -O raw @a.qcow2 out.raw", &["a.qcow2"]),
            case(
                "convert -f qcow2 -l s -O raw @a.qcow2 out.raw",
                &["a.qcow2"],
            ),
            case(
                "convert -n -f raw -O qcow2 src.raw @new.qcow2",
                &["new.qcow2", "src.raw"],
            ),
            case(
                "convert -c -n -f raw -O qcow2 src.raw @new.qcow2",
                &["new.qcow2", "src.raw"],
            ),
        ],
    );
}

#[test]
fn what_cannot_be_freed_leaks_and_fails_nothing() {
    let seed = seed();
    for case in [
        case("snapshot -f qcow2 -c n @a.qcow2", &["a.qcow2"]),
        case("resize -f qcow2 --shrink @b.qcow2 1M", &["b.qcow2"]),
        case("amend -f qcow2 -o refcount_bits=64 @b.qcow2", &["b.qcow2"]),
        // The base gives back what the overlay's zeroes replace.
        case("commit over.qcow2", OVER),
        case("commit -d over.qcow2", OVER),
    ] {
        let bench = Bench::new(&case, &seed);
        let text = fails_at("cluster_free", 1, ONCE);
        let (ours, theirs) = (bench.run_ours(&text), bench.run_theirs(&text));
        let codes = (ours.code, theirs.code);
        assert_eq!(codes, (0, 0), "{}: {ours:?} {theirs:?}", case.line);
        for file in case.files {
            let left = look(bench.ours.root(), file);
            assert!([0, 3].contains(&left.checked), "{} {file}", case.line);
        }
    }
}

/// Version 2 has no dirty bit that would tell of flags which are missing.
#[test]
fn a_snapshot_of_version_2_is_deleted_soundly_though_one_write_fails() {
    let seed = Dir::new();
    seed.qemu_img_ok(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "compat=0.10",
        "v.qcow2",
        "4M",
    ]);
    seed.qemu_io("qcow2", "v.qcow2", &["write -P 1 0 1M"]);
    seed.qemu_img_ok(&["snapshot", "-c", "s", "v.qcow2"]);
    seed.qemu_io("qcow2", "v.qcow2", &["write -P 2 512k 1M"]);
    let case = case("snapshot -f qcow2 -d s @v.qcow2", &["v.qcow2"]);
    let bench = Bench::new(&case, &seed);
    for (event, nth) in [
        ("cluster_free", 1),
        ("cluster_free", 2),
        ("refblock_update_part", 1),
    ] {
        bench.run_ours(&fails_at(event, nth, ONCE));
        let left = look(bench.ours.root(), case.files[0]);
        assert!([0, 3].contains(&left.checked), "{event} {nth}");
    }
}

const QED_CHAIN: &[&str] = &["top.qed", "base.qed", "other.qed"];

#[test]
fn an_error_at_any_event_of_a_change_of_a_qed_image_loses_nothing() {
    nothing_is_lost(
        &qed(),
        &[
            case("commit -f qed @top.qed", QED_CHAIN),
            case("commit over.qed", &["over.qed", "base.qed"]),
            case("rebase -b ^other.qed -F qed %top.qed", QED_CHAIN),
            case("rebase -b '' %top.qed", QED_CHAIN),
            case("resize -f qed @b.qed 30M", &["b.qed"]),
            ours_alone("check -f qed -r leaks @leak.qed", &["leak.qed"]),
            ours_alone("check -f qed -r all @bad.qed", &["bad.qed"]),
            case("convert -f qed -O raw @top.qed out.raw", QED_CHAIN),
            case(
                "convert -n -f raw -O qed src.raw @new.qed",
                &["new.qed", "src.raw"],
            ),
        ],
    );
}

const QCOW_CHAIN: &[&str] = &["top.qcow", "base.qcow", "other.qcow"];

#[test]
fn an_error_at_any_event_of_a_change_of_a_qcow_image_loses_nothing() {
    nothing_is_lost(
        &qcow(),
        &[
            case("commit -f qcow @top.qcow", QCOW_CHAIN),
            case("commit over.qcow", &["over.qcow", "base.qcow"]),
            ours_alone("rebase -b other.qcow -F qcow %top.qcow", QCOW_CHAIN),
            ours_alone("rebase -b '' %top.qcow", QCOW_CHAIN),
            ours_alone("check -f qcow -r leaks @leak.qcow", &["leak.qcow"]),
            ours_alone("check -f qcow -r all @bad.qcow", &["bad.qcow"]),
            case("convert -f qcow -O raw @top.qcow out.raw", QCOW_CHAIN),
            case(
                "convert -n -f raw -O qcow src.raw @new.qcow",
                &["new.qcow", "src.raw"],
            ),
            ours_alone(
                "convert -c -n -f raw -O qcow src.raw @new.qcow",
                &["new.qcow", "src.raw"],
            ),
        ],
    );
}

#[test]
fn an_error_at_any_event_of_a_change_of_a_parallels_image_loses_nothing() {
    nothing_is_lost(
        &parallels(),
        &[
            ours_alone("resize -f parallels @b.hdd 60M", &["b.hdd"]),
            case("check -f parallels -r leaks @leak.hdd", &["leak.hdd"]),
            case("check -f parallels -r all @bad.hdd", &["bad.hdd"]),
            case("convert -f parallels -O raw @b.hdd out.raw", &["b.hdd"]),
            case(
                "convert -n -f raw -O parallels src.raw @new.hdd",
                &["new.hdd", "src.raw"],
            ),
        ],
    );
}

const VMDK_CHAIN: &[&str] = &["top.vmdk", "base.vmdk", "other.vmdk"];

#[test]
fn an_error_at_any_event_of_a_change_of_a_vmdk_image_loses_nothing() {
    nothing_is_lost(
        &vmdk(),
        &[
            case("commit -f vmdk @top.vmdk", VMDK_CHAIN),
            case("commit -d -f vmdk @top.vmdk", VMDK_CHAIN),
            ours_alone("rebase -b other.vmdk -F vmdk %top.vmdk", VMDK_CHAIN),
            ours_alone("rebase -b '' %top.vmdk", VMDK_CHAIN),
            ours_alone("resize -f vmdk @b.vmdk 60M", &["b.vmdk"]),
            ours_alone(
                "resize -f vmdk --preallocation=full @b.vmdk 8M",
                &["b.vmdk"],
            ),
            ours_alone("resize -f vmdk --shrink @b.vmdk 3M", &["b.vmdk"]),
            ours_alone("check -f vmdk -r all @bad.vmdk", &["bad.vmdk"]),
            case("convert -f vmdk -O raw @top.vmdk out.raw", VMDK_CHAIN),
            case(
                "convert -n -f raw -O vmdk src.raw @new.vmdk",
                &["new.vmdk", "src.raw"],
            ),
        ],
    );
}
