//! Commands on images of clusters of Ceph and of volumes of GlusterFS whose client library answers with errors, with
//! nonsense, or late, at the first, the middle and the last call of each kind: the command does what it would have done, or
//! ends with one line, and no image holds other bytes. The libraries are of `tests/tools`, so that no server is needed.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::build;
use crate::common::{Dir, Ran};
use crate::pair::{ours_command, words};
use crate::remote_faults::end_of;
use crate::stopped::prepare;

/// When each command has ended, though its library never comes back: it is waited for once, and in the end for what is to be
/// removed.
const END: Duration = Duration::from_secs(20);

/// What is done: `U` stands for an image of the protocol, `R` for the same disk as a raw one, and `N` for a name that is free.
const COMMANDS: [&str; 17] = [
    "info -f qcow2 U",
    "map -f qcow2 --output=json U",
    "map -f raw --output=json R",
    "check -f qcow2 U",
    "compare -f qcow2 -F raw U a.raw",
    "compare -f raw -F raw a.raw R",
    "measure -f qcow2 -O qcow2 U",
    "snapshot -l U",
    "dd -f qcow2 -O raw bs=256k if=U of=out",
    "convert -f qcow2 -O raw U out",
    "convert -f raw -O raw R out",
    "resize -q -f qcow2 U 9M",
    "snapshot -c s U",
    "bitmap --add -f qcow2 U b",
    "amend -f qcow2 -o lazy_refcounts=on U",
    "convert -f raw -O qcow2 a.raw N",
    "convert -f raw -O raw a.raw N",
];

/// A library, and what it may say of each call.
struct Fake {
    name: fn(&str) -> String,
    faults: &'static [(&'static str, &'static [&'static str])],
}

const RBD: Fake = Fake {
    name: |image| format!("rbd:rbd/{image}"),
    faults: &[
        ("connect", &["error 110", "error 13", "late 200"]),
        ("fsid", &["error 5", "value 100000"]),
        ("pool", &["error 2"]),
        ("open", &["error 5", "error 108"]),
        ("stat", &["error 5", "value 0", "value 3", "value -1"]),
        ("size", &["error 5", "+value 7", "+value -5"]),
        ("id", &["error 5", "odd 0"]),
        ("features", &["error 5"]),
        ("diff", &["error 5", "odd 0", "late 200"]),
        ("snaps", &["error 5", "value 3", "odd 100", "+odd 100000"]),
        (
            "read",
            &[
                "error 5",
                "error 110",
                "+error 108",
                "odd 12",
                "short 512",
                "short 1000000",
                "long 4096",
                "late 200",
            ],
        ),
        ("write", &["error 28", "+error 110", "odd 5", "late 200"]),
        ("zeroes", &["error 5", "odd 95"]),
        ("discard", &["error 5"]),
        ("flush", &["error 5", "odd 5", "late 200"]),
        ("resize", &["error 5", "error 28"]),
        ("create", &["error 17", "error 28"]),
        ("remove", &["error 16"]),
        ("close", &["error 5", "late 200"]),
    ],
};

/// The same library where it never comes back from a call, and is waited for three seconds.
const SILENT_RBD: Fake = Fake {
    name: |image| {
        format!(
            "rbd:rbd/{image}:client_mount_timeout=1:rados_osd_op_timeout=1:rados_mon_op_timeout=1"
        )
    },
    faults: &[
        ("connect", NEVER),
        ("fsid", NEVER),
        ("pool", NEVER),
        ("open", NEVER),
        ("size", NEVER),
        ("diff", NEVER),
        ("snaps", NEVER),
        ("read", NEVER),
        ("write", NEVER),
        ("zeroes", NEVER),
        ("discard", NEVER),
        ("flush", NEVER),
        ("resize", NEVER),
        ("create", NEVER),
        ("close", NEVER),
    ],
};

/// Of one call, and of all from it on.
const NEVER: &[&str] = &["late 1000000", "+late 1000000"];

const GLUSTER: Fake = Fake {
    name: |file| format!("gluster://127.0.0.1/v/{file}"),
    faults: &[
        ("init", &["error 107", "late 200"]),
        ("open", &["error 5", "error 13"]),
        (
            "fstat",
            &["error 5", "odd 0", "value 7", "value -1", "late 200"],
        ),
        (
            "seek",
            &[
                "error 5",
                "+error 22",
                "+value 0",
                "+value 9223372036854775807",
            ],
        ),
        (
            "read",
            &[
                "error 5",
                "error 77",
                "+error 107",
                "odd 12",
                "short 512",
                "short 1000000",
                "+value 0",
                "long 4096",
                "late 200",
            ],
        ),
        (
            "write",
            &[
                "error 28",
                "+error 107",
                "odd 5",
                "short 512",
                "+value 0",
                "late 200",
            ],
        ),
        ("truncate", &["error 5", "odd 5"]),
        ("sync", &["error 5", "odd 5", "late 200"]),
        ("discard", &["error 5"]),
        ("zero", &["error 5", "+error 95"]),
        ("unlink", &["error 13"]),
        ("close", &["error 5", "late 200"]),
    ],
};

/// What a command did, and how often it made each call.
struct Done {
    ran: Ran,
    calls: BTreeMap<String, u64>,
}

fn is_of_what_is_left(line: &str) -> bool {
    let words = [
        "is left behind",
        "may have been made",
        "could not be removed",
    ];
    words.iter().any(|word| line.contains(word))
}

impl Fake {
    /// A directory with the images and what they hold.
    fn place(&self, made: &Dir) -> Dir {
        let dir = Dir::new();
        for name in ["a.raw", "b.qcow2", "r.raw"] {
            std::fs::copy(made.path(name), dir.path(name)).expect("a copy");
        }
        dir
    }

    fn run(&self, line: &str, dir: &Dir, fault: &str) -> Done {
        let put = |word: &str| match word {
            "U" | "if=U" => word.replace('U', &(self.name)("b.qcow2")),
            "R" => (self.name)("r.raw"),
            "N" => (self.name)("new"),
            word => word.to_owned(),
        };
        let line: Vec<String> = line.split(' ').map(put).collect();
        let line = line.join(" ");
        let (out, err) = (dir.path("stdout"), dir.path("stderr"));
        let file = |path: &Path| Stdio::from(std::fs::File::create(path).expect("a file"));
        let mut command = ours_command(&words(&line), dir.root());
        command
            .env("LD_LIBRARY_PATH", build::fakes())
            .env("PLATTER_FAKE_DIR", dir.root())
            .env("PLATTER_FAKE_TRACE", dir.path("trace"))
            .env("PLATTER_FAKE_FAULT", fault)
            .stdout(file(&out))
            .stderr(file(&err));
        let mut child = command.spawn().expect("the tool");
        let status = end_of(&mut child, &format!("{line}, {fault}"));
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let mut calls = BTreeMap::new();
        for call in read(&dir.path("trace")).lines() {
            *calls.entry(call.to_owned()).or_default() += 1;
        }
        Done {
            ran: Ran {
                code: status.code().unwrap_or(-1),
                out: read(&out),
                err: read(&err),
            },
            calls,
        }
    }

    /// Runs a line with a fault; true where it failed, and what is wrong with that.
    fn fail(&self, made: &Dir, line: &str, clean: &Ran, fault: &str) -> Result<bool, String> {
        let dir = self.place(made);
        let started = Instant::now();
        let ran = self.run(line, &dir, fault).ran;
        let taken = started.elapsed();
        let wrong = |what: &str| Err(format!("{what}: {line}, {fault}: {ran:?}"));
        if taken > END {
            return wrong("later than all it may wait for");
        }
        let same = |format: &str, file: &str| {
            let args = ["compare", "-f", format, "-F", "raw", file, "a.raw"];
            dir.qemu_img(&args).code == 0
        };
        let format = match line.contains("-O qcow2 a.raw") {
            true => "qcow2",
            false => "raw",
        };
        let made_here = dir.path("out").exists();
        let made_there = dir.path("new").exists();
        if ran.code == 0 {
            if ran.out != clean.out {
                return wrong("another output");
            }
            if (line.ends_with(" out") || line.contains("of=out")) && !same("raw", "out") {
                return wrong("other bytes here");
            }
            if line.ends_with(" N") && !same(format, "new") {
                return wrong("other bytes there");
            }
        } else {
            // Of two images, 1 says that they differ.
            let codes: &[i32] = match line.starts_with("compare") {
                true => &[2, 3, 4],
                false => &[1],
            };
            if !codes.contains(&ran.code) {
                return wrong("another code");
            }
            // A line of the tool's, with its cause and what helps below; before it, what is left.
            let told = ran.err.lines().filter(|line| !is_of_what_is_left(line));
            let told: Vec<&str> = told.collect();
            if told.join("\n").matches("qemu-img: ").count() != 1 || told.len() > 3 {
                return wrong("more than is to be said");
            }
            if made_here {
                return wrong("a file is left");
            }
            if made_there && !ran.err.lines().any(is_of_what_is_left) {
                return wrong("an image is left");
            }
        }
        // What opens it next repairs what is wrong under the dirty bit.
        let header = std::fs::read(dir.path("b.qcow2")).expect("the image");
        if header[79] & 1 != 0 {
            dir.qemu_img(&["check", "-q", "-r", "all", "-f", "qcow2", "b.qcow2"]);
        }
        let check = dir.qemu_img(&["check", "-q", "-f", "qcow2", "b.qcow2"]);
        // Clusters may be lost, and no bytes.
        if ![0, 3].contains(&check.code) || !same("qcow2", "b.qcow2") {
            return wrong(&format!("{check:?}, the image is not sound"));
        }
        if !same("raw", "r.raw") {
            return wrong("other bytes in what is only read");
        }
        Ok(ran.code != 0)
    }

    /// Each fault of each call of each command, so many at once.
    fn table(&self, at_once: usize) {
        let made = Dir::new();
        prepare(&made);
        std::fs::copy(made.path("a.raw"), made.path("r.raw")).expect("a copy");
        let clean: Vec<Done> = COMMANDS
            .iter()
            .map(|line| {
                let done = self.run(line, &self.place(&made), "");
                assert_eq!(done.ran.code, 0, "{line}: {:?}", done.ran);
                done
            })
            .collect();
        let mut tasks = VecDeque::new();
        for (line, done) in COMMANDS.iter().zip(&clean) {
            for (call, kinds) in self.faults {
                let count = done.calls.get(*call).copied().unwrap_or(0);
                let mut places = vec![0, count / 2, count.saturating_sub(1)];
                places.dedup();
                for (nth, kind) in places
                    .iter()
                    .flat_map(|nth| kinds.iter().map(move |k| (nth, k)))
                {
                    // Nothing but the server tells the length of a raw disk.
                    let is_believed = ["size", "fstat"].contains(call)
                        && kind.contains("value")
                        && !line.contains("-f qcow2");
                    if *nth < count && !is_believed {
                        tasks.push_back((*line, &done.ran, format!("{call} {nth} {kind}")));
                    }
                }
            }
        }
        let (wrong, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let tasks = Mutex::new(tasks);
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    loop {
                        let task = tasks.lock().expect("the tasks").pop_front();
                        let Some((line, clean, fault)) = task else {
                            break;
                        };
                        match self.fail(&made, line, clean, &fault) {
                            Ok(true) => failed.lock().expect("the faults").push(fault),
                            Ok(false) => {}
                            Err(what) => wrong.lock().expect("what is wrong").push(what),
                        }
                    }
                });
            }
        });
        let wrong = wrong.into_inner().expect("what is wrong");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        // An error of what a command cannot do without is met.
        let failed = failed.into_inner().expect("the faults");
        for call in ["open", "read", "write"] {
            let is_met = failed.iter().any(|fault| fault.starts_with(call));
            assert!(is_met, "{call}: {}", (self.name)("x"));
        }
    }
}

#[test]
fn a_library_of_ceph_that_fails_or_lies_leads_to_one_line_and_no_wrong_byte() {
    RBD.table(4);
}

#[test]
fn a_library_of_ceph_that_does_not_come_back_is_left() {
    // They sleep.
    SILENT_RBD.table(48);
}

#[test]
fn a_library_of_gluster_that_fails_or_lies_leads_to_one_line_and_no_wrong_byte() {
    GLUSTER.table(4);
}

/// The library takes ten seconds to end a client of a volume, here far longer: no command waits for that.
#[test]
fn the_end_of_a_client_of_gluster_is_not_waited_for() {
    let made = Dir::new();
    prepare(&made);
    std::fs::copy(made.path("a.raw"), made.path("r.raw")).expect("a copy");
    for line in COMMANDS {
        let done = GLUSTER.run(line, &GLUSTER.place(&made), "fini 0 +late 1000000");
        assert_eq!(done.ran.code, 0, "{line}: {:?}", done.ran);
    }
}

#[test]
fn objects_of_a_cluster_are_written_whole_and_no_write_crosses_from_one_to_the_next() {
    const OBJECT: u64 = 4 << 20;
    const LEN: u64 = 12 * OBJECT + 4096;
    let dir = Dir::new();
    let mut disk: Vec<u8> = (0..LEN).map(|at| (at / 512 % 255 + 1) as u8).collect();
    // Zeroes within an object, over a border, and of more than one.
    for hole in [
        12 << 10..20 << 10,
        2 * OBJECT - 8192..2 * OBJECT + 4096,
        5 * OBJECT + 65536..8 * OBJECT - 65536,
    ] {
        disk[hole.start as usize..hole.end as usize].fill(0);
    }
    std::fs::write(dir.path("a.raw"), &disk).expect("a file");
    let run = |line: &str| {
        let mut cat = Command::new("cat");
        let mut cat = cat
            .arg(dir.path("a.raw"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("cat");
        let pipe = cat.stdout.take().expect("a pipe");
        let done = ours_command(&words(line), dir.root())
            .env("LD_LIBRARY_PATH", build::fakes())
            .env("PLATTER_FAKE_DIR", dir.root())
            .env("PLATTER_FAKE_WRITES", dir.path("writes"))
            .stdin(pipe)
            .output()
            .expect("the tool");
        cat.wait().expect("cat");
        assert!(done.status.success(), "{line}: {done:?}");
        let writes = std::fs::read_to_string(dir.path("writes")).unwrap_or_default();
        let _ = std::fs::remove_file(dir.path("writes"));
        let mut writes: Vec<(u64, u64)> = writes
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(at, len)| {
                (
                    at.parse().expect("a number"),
                    len.parse().expect("a number"),
                )
            })
            .collect();
        writes.sort_unstable();
        writes
    };
    let has_data = |from: u64| {
        let object = &disk[from as usize..(from + OBJECT).min(LEN) as usize];
        !object
            .chunks(4096)
            .any(|page| page.iter().all(|byte| *byte == 0))
    };
    let whole = (0..LEN / OBJECT)
        .map(|n| n * OBJECT)
        .filter(|at| has_data(*at));
    let whole: Vec<u64> = whole.collect();
    assert!(whole.len() >= 6, "{whole:?}");
    run("create -q -f raw rbd:rbd/there 50335744");
    run("convert -f raw -O qcow2 a.raw b.qcow2");
    for line in [
        "convert -f raw -O raw a.raw rbd:rbd/new",
        "convert -f qcow2 -O raw b.qcow2 rbd:rbd/new2",
        "convert -n -f raw -O raw a.raw rbd:rbd/there",
        "convert -f raw -O raw /dev/stdin rbd:rbd/streamed",
    ] {
        let writes = run(line);
        for (at, len) in &writes {
            assert!(at / OBJECT == (at + len - 1) / OBJECT, "{line}: {at} {len}");
        }
        for at in &whole {
            // The first block of a new disk is written before, to see whether it can be.
            let of_it = writes
                .iter()
                .filter(|(from, _)| from / OBJECT == at / OBJECT);
            let of_it: Vec<_> = of_it.collect();
            assert!(of_it.contains(&&(*at, OBJECT)), "{line}: {of_it:?}");
            assert!(of_it.len() == 1 || *at == 0, "{line}: {of_it:?}");
        }
        let name = line.rsplit('/').next().expect("a name");
        assert!(
            std::fs::read(dir.path(name)).expect("the image") == disk,
            "{line}"
        );
    }
}
