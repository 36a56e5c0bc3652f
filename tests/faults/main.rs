//! The tool with each of its system calls failing in turn: a clear error, the right exit code,
//! nothing lost, and no part of a target left.

mod blocks;
#[path = "../cli/build.rs"]
mod build;
#[path = "../common/mod.rs"]
mod common;
#[path = "../crash/environment.rs"]
mod environment;
mod inside;
#[path = "../tools/interpose.rs"]
mod interpose;
mod parallels;
mod products;
mod qcow;
mod qed;
#[path = "../crash/random.rs"]
mod random;
#[path = "../crash/states.rs"]
#[allow(dead_code, reason = "only kills leave a part of the next event")]
mod states;
mod table;
mod vmdk;

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use bstr::ByteSlice;
use common::{Dir, Ran};
use platter::storage::{FileOpen, Storage};
use table::{Case, Content};

/// Which calls fail, how, and whether all later ones do, too.
struct Fault {
    calls: &'static str,
    errno: i32,
    words: &'static str,
    forever: bool,
}

const EIO: (i32, &str) = (libc::EIO, "Input/output error");
const ENOSPC: (i32, &str) = (libc::ENOSPC, "No space left on device");

const fn fault(calls: &'static str, (errno, words): (i32, &'static str), forever: bool) -> Fault {
    Fault {
        calls,
        errno,
        words,
        forever,
    }
}

const FAULTS: &[Fault] = &[
    fault("r", EIO, false),
    fault("w", ENOSPC, false),
    fault("s", EIO, false),
    fault("a", ENOSPC, false),
    // A full disk, and one that is gone.
    fault("wa", ENOSPC, true),
    fault("rwsa", EIO, true),
];

/// Locks that cannot be had for another reason than that somebody holds them.
const LOCKS: &[Fault] = &[fault("l", EIO, false), fault("l", EIO, true)];

/// QEMU's words for these name no file, and users match on them.
const KNOWN: &[&str] = &[
    "Block job failed: ",
    "Could not change the backing file to ",
    "Could not read file metadata: ",
    "Could not preallocate new data: ",
    "Could not resize file: ",
    "Could not sync the preallocated file: ",
    "Failed to create bitmap ",
    "Failed to grow the L1 table: ",
    "Check failed: ",
    "Could not apply snapshot ",
    "Could not create snapshot ",
    "Could not delete snapshot ",
    "Could not write zeros for preallocation: ",
    "Failed to load snapshot: ",
    "Failed to populate bitmap ",
    "Failed to write bitmap ",
    "Failed request: ",
    "Operation ",
    "error while ",
];

/// Memory that is wanted in large pieces and not to be had.
const MEMORY: &[Fault] = &[fault("m", (libc::ENOMEM, "Cannot allocate memory"), false)];

/// Standard error without the findings of `check` and without QEMU's remark on backing files.
fn error_of(text: &str) -> String {
    let others = [
        "Can't get refcount ",
        "Could not close ",
        "Could not resize file: ",
        "Could not open backing image.",
        "ERROR ",
        "ERROR: ",
        "Leaked cluster ",
        "Rebuilding refcount structure",
        "Repairing ",
        "Repairing: ",
        "The footer at the end is ",
        "qemu-img: warning: The disk has ",
    ];
    text.split_inclusive('\n')
        .filter(|line| !others.iter().any(|start| line.starts_with(start)))
        .collect()
}

/// Output without the times that a measurement took.
fn without_times(text: &str) -> String {
    let took = |line: &&str| !line.starts_with("Run completed in ");
    text.split_inclusive('\n').filter(took).collect()
}

/// Whether that finding of a check loses nothing: a flag that is missing though nobody shares the cluster,
/// or the mark of an image that could not be closed, which whoever writes to it next repairs.
fn loses_nothing(line: &str) -> bool {
    line.starts_with("ERROR OFLAG_COPIED ") && line.ends_with(" refcount=1")
        || line == "ERROR image was not closed correctly"
        || line.starts_with("ERROR space leaked at the end of the image ")
}

/// Whether a qcow2 image says that its refcounts are to be counted anew.
fn is_dirty(bytes: &[u8]) -> bool {
    bytes.starts_with(b"QFI\xfb\0\0\0\x03") && bytes[79] & 1 != 0
}

type Files = BTreeMap<String, Vec<u8>>;

/// The files below a directory.
fn files_of(directory: &Path) -> Files {
    let mut files = entries_of(directory);
    files.retain(|name, _| !name.ends_with('/'));
    files
}

/// The files and directories below a directory; names of the latter end with a slash.
fn entries_of(directory: &Path) -> Files {
    let mut files = Files::new();
    for entry in std::fs::read_dir(directory).expect("the directory") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().expect("what it is").is_dir() {
            let below = entries_of(&entry.path()).into_iter();
            files.insert(format!("{name}/"), Vec::new());
            files.extend(below.map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
            continue;
        }
        let bytes = std::fs::read(entry.path()).expect("a file of the test");
        files.insert(name, bytes);
    }
    files
}

/// The length of a disk, and its blocks other than zeroes with their places.
fn data_of(path: &str) -> Vec<u8> {
    let file = platter::storage::file::open(Path::new(path), &FileOpen::default());
    let file = file.expect("a disk");
    let len = file.len().expect("its length");
    let mut found = len.to_le_bytes().to_vec();
    let mut at = 0;
    while at < len {
        let run = file.extent(at, len - at).expect("where data is");
        let end = at + run.len;
        while at < end && !run.zero {
            let mut block = vec![0; 4096.min(end - at) as usize];
            file.read_at(&mut block, at).expect("a read");
            if block.iter().any(|byte| *byte != 0) {
                found.extend(at.to_le_bytes());
                found.extend(&block);
            }
            at += block.len() as u64;
        }
        at = end;
    }
    found
}

/// The length that [`data_of`] has found.
fn len_of(found: &[u8]) -> u64 {
    u64::from_le_bytes(*found.first_chunk().expect("a length"))
}

/// One command line with its files, in a directory that is filled again for each run.
struct Rig<'a> {
    case: &'a Case,
    dir: Dir,
    pristine: Files,
    /// What the touched image reads as before and after the command.
    contents: [Vec<u8>; 2],
    good: Ran,
}

impl<'a> Rig<'a> {
    fn new(case: &'a Case) -> Self {
        let dir = Dir::new();
        std::fs::create_dir(dir.path("w")).expect("a directory");
        let setup = Dir::new();
        table::images(&setup, case.line);
        let mut rig = Self {
            case,
            pristine: entries_of(setup.root()),
            dir,
            contents: [Vec::new(), Vec::new()],
            good: Ran {
                code: 0,
                out: String::new(),
                err: String::new(),
            },
        };
        rig.fill();
        rig.contents[0] = rig.read();
        rig.good = rig.run(None).0;
        assert!(case.code == rig.good.code, "{}: {:?}", case.line, rig.good);
        rig.contents[1] = rig.read();
        rig
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path("w")
    }

    fn fill(&self) {
        std::fs::remove_dir_all(self.root()).expect("to empty the directory");
        std::fs::create_dir(self.root()).expect("a directory");
        for (name, bytes) in &self.pristine {
            std::fs::write(self.root().join(name), bytes).expect("a file of the test");
        }
    }

    /// The guest contents of the touched image.
    fn read(&self) -> Vec<u8> {
        let Some(image) = self.case.touches.first() else {
            return Vec::new();
        };
        let out = self.dir.str("contents");
        let path = format!("w/{image}");
        let opts = table::opened_with(image, &path);
        let mut args = vec!["convert", "-U", "-O", "raw"];
        match &opts {
            Some(opts) => {
                args.extend(["--object", "secret,id=s,data=x", "--image-opts", opts]);
            }
            None if image.ends_with("raw") => args.extend(["-f", "raw", &path]),
            None => args.push(&path),
        }
        args.push(&out);
        let ran = self.look(image, &args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        data_of(&out)
    }

    /// Runs the tool that looks at an image: QEMU's, or this one where that reads more.
    fn look(&self, image: &str, args: &[&str]) -> Ran {
        // Theirs goes by the sizes in the parts, which change before that in the descriptor or behind it.
        let mut touched = self.case.touches.iter();
        let in_parts = touched.any(|name| name.contains("-s002"));
        match blocks::opened_with(image, image) {
            Some(_) => self.ours(args),
            None if in_parts => self.ours(args),
            None => self.dir.qemu_img(args),
        }
    }

    /// Runs this tool with nothing failing.
    fn ours(&self, args: &[&str]) -> Ran {
        let tool = build::tool().to_str().expect("UTF-8");
        common::run_in(self.dir.root(), tool, args)
    }

    /// The arguments of the command line.
    fn words(&self) -> impl Iterator<Item = &str> {
        let words = self.case.line.split_whitespace();
        words
            .filter(|word| !word.starts_with('<'))
            .map(|word| word.trim_matches('\''))
    }

    /// Standard input: a pipe with the contents of the file behind `<`, else nothing.
    fn input(&self) -> Stdio {
        let mut words = self.case.line.split_whitespace();
        let Some(name) = words.find_map(|word| word.strip_prefix('<')) else {
            return Stdio::null();
        };
        let bytes = self.pristine[name].clone();
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        // A tool that fails reads no further, which ends the thread.
        std::thread::spawn(move || writer.write_all(&bytes));
        Stdio::from(reader)
    }

    /// Runs the tool; the second value tells whether the fault struck.
    fn run(&self, fault: Option<(&Fault, u64)>) -> (Ran, bool) {
        let struck = self.dir.path("struck");
        let _ = std::fs::remove_file(&struck);
        let mut command = Command::new(build::tool());
        command
            .arg0("qemu-img")
            .args(self.words())
            .current_dir(self.root())
            .env("LC_ALL", "C")
            .stdin(self.input());
        if let Some((fault, nth)) = fault {
            command
                .env("LD_PRELOAD", build::faults())
                .env("FAULT_DIR", self.root().canonicalize().expect("a path"))
                .env("FAULT_CALLS", fault.calls)
                .env("FAULT_NTH", nth.to_string())
                .env("FAULT_ERRNO", fault.errno.to_string())
                .env("FAULT_STRUCK", &struck);
            if fault.forever {
                command.env("FAULT_FOREVER", "1");
            }
        }
        let output = command.output().expect("the tool runs");
        let ran = Ran {
            code: output.status.code().unwrap_or(-1),
            out: without_times(&String::from_utf8_lossy(&output.stdout)),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        (ran, struck.exists())
    }

    /// What is wrong after a run in which a call failed.
    fn judge(&self, fault: &Fault, ran: &Ran) -> Result<(), String> {
        let case = self.case;
        let done = ran.code == case.code;
        if !done {
            if !case.failures.contains(&ran.code) {
                return Err("a wrong exit code".to_owned());
            }
            let mut text = error_of(&ran.err);
            // `compare` has the reason on a line of its own.
            let reason = format!("\n{}\n", fault.words);
            text = text.replace(&reason, &format!(": {}\n", fault.words));
            let reports = case.line.starts_with("check") || case.line.starts_with("inspect");
            if reports && ran.code > 1 && text.is_empty() {
                // The report says that parts could not be checked.
                return self.judge_files(fault, done);
            }
            if !text.starts_with("qemu-img: ") || text.lines().count() != 1 {
                return Err("not one line of error".to_owned());
            }
            if !text.contains(fault.words) {
                return Err("the error does not say why".to_owned());
            }
            // Memory belongs to no file.
            let known =
                fault.calls == "m" || KNOWN.iter().any(|words| text[10..].starts_with(words));
            let words = case.line.split([' ', '=', '<']);
            let mut names = words.chain(self.pristine.keys().map(String::as_str));
            let standard = text.contains("/dev/std");
            if !known && !standard && !names.any(|name| name.contains('.') && text.contains(name)) {
                return Err("the error names no file".to_owned());
            }
        }
        self.judge_files(fault, done)
    }

    fn judge_files(&self, fault: &Fault, done: bool) -> Result<(), String> {
        let case = self.case;
        let after = entries_of(&self.root());
        let named = |name: &str| {
            let mut touched = case.touches.iter().filter_map(|name| after.get(*name));
            touched.any(|bytes| bytes.find(name).is_some())
        };
        for (name, bytes) in &self.pristine {
            match after.get(name) {
                // A part of a disk that does without it.
                None if case.touches.contains(&name.as_str()) && !named(name) => {}
                None => return Err(format!("'{name}' is gone")),
                Some(now) if now != bytes && !case.touches.contains(&name.as_str()) => {
                    return Err(format!("'{name}' has changed"));
                }
                Some(_) => {}
            }
        }
        // Another part stays where the descriptor may name it: after a sync that failed, none says that the old one is
        // back. No descriptor names one before the extents that there were are ready for it.
        let mut extents = case.touches.iter().skip(1);
        let is_ready = extents.any(|name| after.get(*name) != self.pristine.get(*name));
        let unsure = fault.forever || fault.calls == "s" && is_ready;
        if let Some(new) = after.keys().find(|name| !self.pristine.contains_key(*name))
            && !done
            && !(named(new) || case.line.starts_with("resize") && unsure)
        {
            return Err(format!("'{new}' was left behind"));
        }
        if !done && after == self.pristine {
            return Ok(());
        }
        self.judge_images(done, unsure && !fault.forever)
    }

    /// The parent of an image may just be under change: its log is replayed, and where the image could not be
    /// told of the change, naming the parent again is the remedy.
    fn know_parent(&self, image: &str, (parent, format): (&str, &str), opened: &[&str]) {
        let tool = build::tool().to_str().expect("UTF-8");
        let ours = |args: &[&str]| common::run_in(self.dir.root(), tool, args);
        let repaired = ours(&["check", "-q", "-r", "all", &format!("w/{parent}")]);
        assert!([0, 2, 3].contains(&repaired.code), "{repaired:?}");
        let ran = ours(&[&["check"], opened].concat());
        if ran.code == 1 && ran.err.contains("was changed since") {
            let named = ["rebase", "-u", "-b", parent, "-F", format];
            let named = ours(&[&named[..], &[&format!("w/{image}")]].concat());
            assert_eq!(named.code, 0, "{named:?}");
        }
    }

    fn open_to_write(&self, opened: &[&str]) {
        let opened = Command::new("qemu-io")
            .args(opened)
            .args(["-c", "flush"])
            .current_dir(self.dir.root())
            .output()
            .expect("qemu-io");
        assert!(opened.status.success(), "{opened:?}");
    }

    fn judge_images(&self, done: bool, unsure: bool) -> Result<(), String> {
        // Extents are looked at with the disk that they belong to.
        let checked = |name: &&&str| {
            let of_one_file = [".hdd", ".qcow1", ".qed"];
            name.contains("qcow2")
                || vmdk::is_image(name)
                || of_one_file.iter().any(|end| name.ends_with(end))
                // A fixed disk has nothing but its footer.
                || blocks::opened_with(name, name).is_some() && **name != "fixed.vhd"
        };
        for image in self.case.touches.iter().filter(checked) {
            let path = format!("w/{image}");
            let opts = table::opened_with(image, &path);
            let opened = match &opts {
                Some(opts) => vec!["--object", "secret,id=s,data=x", "--image-opts", opts],
                None => vec![path.as_str()],
            };
            if is_dirty(&std::fs::read(self.dir.path(&path)).expect("the image")) {
                // Whoever opens it for writing rebuilds the refcounts first.
                self.open_to_write(&opened);
            }
            if let Some(parent) = blocks::parent_of(image) {
                self.know_parent(image, parent, &opened);
            }
            let args = [&["check"], &opened[..]].concat();
            let by_ours = [".hdd", ".qcow1"].iter().any(|end| image.ends_with(end));
            let check = match by_ours {
                // Theirs checks none of the one kind, and ends in assertions on damage of the other.
                true => self.ours(&args),
                false => self.look(image, &args),
            };
            let mut errors = check.err.lines().filter(|line| line.starts_with("ERROR"));
            let may_be_damaged = self.case.damaged && !done
                || check.err.contains("ERROR") && errors.all(loses_nothing);
            if check.code != 0 && check.code != 3 && !(may_be_damaged && check.code == 2) {
                return Err(format!("{image} is damaged: {check:?}"));
            }
        }
        if self.case.touches.is_empty() {
            return Ok(());
        }
        let now = self.read();
        let [before, after] = &self.contents;
        let right = match self.case.content {
            _ if done => now == *after,
            Content::Same => now == *before,
            // The last extent may be as long as the new descriptor says where the old one is read.
            Content::Either if unsure && now[8..] == before[8..] => {
                let [now, before, after] = [&now, before, after].map(|found| len_of(found));
                (before.min(after)..=before.max(after)).contains(&now)
            }
            Content::Either => now == *before || now == *after,
            Content::Any => true,
        };
        if right {
            return Ok(());
        }
        Err("the guest's data have changed".to_owned())
    }
}

fn run(cases: &[Case], faults: &[Fault]) {
    let mut wrong = Vec::new();
    for case in cases {
        let rig = Rig::new(case);
        for fault in faults {
            let mut nth = 0;
            loop {
                rig.fill();
                let (ran, struck) = rig.run(Some((fault, nth)));
                if !struck {
                    assert_eq!(ran, rig.good, "{}: {} {nth}", case.line, fault.calls);
                    break;
                }
                if let Err(text) = rig.judge(fault, &ran) {
                    let Fault { calls, words, .. } = fault;
                    wrong.push(format!(
                        "`{}`, call {nth} of {calls}, {words}: {text}\n  {ran:?}",
                        case.line
                    ));
                }
                nth += if every_call() || fault.calls == "m" {
                    1
                } else {
                    1 + nth / 3
                };
            }
        }
    }
    let count = wrong.len();
    wrong.truncate(600);
    assert!(count == 0, "{count} failures:\n{}", wrong.join("\n"));
}

/// Whether each single call is to fail, and not ever fewer of those that come late.
fn every_call() -> bool {
    std::env::var_os("PLATTER_FAULTS_ALL").is_some()
}

#[test]
fn commands_that_make_an_image() {
    run(table::MAKE, FAULTS);
}

#[test]
fn commands_that_convert() {
    run(table::CONVERT, FAULTS);
}

#[test]
fn commands_that_get_no_lock() {
    run(table::MAKE, LOCKS);
    run(table::CONVERT, LOCKS);
}

#[test]
fn commands_that_read() {
    run(table::READ, FAULTS);
}

#[test]
fn commands_that_change_an_image() {
    run(table::CHANGE, FAULTS);
}

#[test]
fn commands_that_make_images_for_products() {
    run(products::PROFILES, FAULTS);
}

#[test]
fn commands_that_convert_chains() {
    run(products::CHAINS, FAULTS);
}

#[test]
fn commands_on_vmdk_images() {
    run(vmdk::MAKE, FAULTS);
    run(vmdk::READ, FAULTS);
    run(vmdk::CHANGE, FAULTS);
}

#[test]
fn commands_on_vdi_images() {
    run(blocks::VDI, FAULTS);
}

#[test]
fn commands_on_vhd_images() {
    run(blocks::VPC, FAULTS);
}

#[test]
fn commands_on_vhdx_images() {
    run(blocks::VHDX, FAULTS);
}

#[test]
fn commands_on_qed_images() {
    run(qed::MAKE, FAULTS);
    run(qed::READ, FAULTS);
    run(qed::CHANGE, FAULTS);
}

#[test]
fn commands_on_qcow_images() {
    run(qcow::MAKE, FAULTS);
    run(qcow::READ, FAULTS);
    run(qcow::CHANGE, FAULTS);
}

#[test]
fn commands_on_parallels_images() {
    run(parallels::MAKE, FAULTS);
    run(parallels::READ, FAULTS);
    run(parallels::CHANGE, FAULTS);
}

/// The files that a command syncs, in their order, below its directory.
fn syncs_of(dir: &Dir, line: &str) -> Vec<String> {
    let list = dir.path("syncs");
    let _ = std::fs::remove_file(&list);
    let ran = Command::new(build::tool())
        .args(line.split_whitespace())
        .current_dir(dir.root())
        .env("LD_PRELOAD", build::faults())
        .env("FAULT_SYNCS", &list)
        .output()
        .expect("the tool runs");
    assert!(ran.status.success(), "{line}: {ran:?}");
    let root = dir.root().canonicalize().expect("a path");
    let text = std::fs::read_to_string(list).unwrap_or_default();
    let below = |line| Path::new(line).strip_prefix(&root).expect("a file of ours");
    text.lines()
        .map(|line| below(line).display().to_string())
        .collect()
}

#[test]
fn commands_that_promise_durability_sync_the_name_of_what_they_make() {
    let dir = Dir::new();
    for name in ["in", "real"] {
        std::fs::create_dir(dir.path(name)).expect("a directory");
    }
    std::os::unix::fs::symlink("../real/link", dir.path("in/link")).expect("a link");
    std::fs::write(dir.path("a"), vec![1; 1 << 20]).expect("a source");
    let secret = "--object secret,id=s,data=x -o key-secret=s,iter-time=1";
    let convert = "convert -f raw -O qcow2 a";
    for (line, file, directory) in [
        ("create -q -f qcow2 in/q 1M", "in/q", "in"),
        ("create -q -f raw in/r 1M", "in/r", "in"),
        (&format!("create -q -f luks {secret} in/l 1M"), "in/l", "in"),
        (
            "create -q -f qcow2 -o data_file=real/d in/o 1M",
            "real/d",
            "real",
        ),
        ("create -q -f raw here 1M", "here", ""),
        ("create -q -f raw in/link 1M", "real/link", "real"),
        (&format!("{convert} -t writeback in/c"), "in/c", "in"),
        (&format!("{convert} -t directsync in/t"), "in/t", "in"),
        ("convert -f raw -t none -O raw a in/n", "in/n", "in"),
    ] {
        let syncs = syncs_of(&dir, line);
        let of = |name: &str| syncs.iter().filter(|synced| *synced == name).count();
        assert!(of(file) > 0, "{line}: {syncs:?}");
        assert_eq!(of(directory), 1, "{line}: {syncs:?}");
        // A name that lasts is that of a file which does.
        let name = syncs.iter().position(|synced| synced == directory);
        assert!(
            syncs.iter().position(|synced| synced == file) < name,
            "{line}: {syncs:?}"
        );
    }
    // What was there keeps its name, and a conversion promises nothing unless it is asked to.
    for line in [
        "create -q -f qcow2 in/q 2M",
        &format!("{convert} -t writeback in/c"),
        &format!("{convert} in/fresh"),
        "amend -o lazy_refcounts=on in/c",
    ] {
        let syncs = syncs_of(&dir, line);
        assert!(
            !syncs.iter().any(|synced| synced == "in"),
            "{line}: {syncs:?}"
        );
    }
}

#[test]
fn commands_that_want_memory() {
    run(table::MEMORY, MEMORY);
}
