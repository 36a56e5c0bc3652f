//! Images that another process holds.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use platter::{Image, Location, OpenOptions, OpenPolicy};

use crate::common::Dir;
use crate::pair::{Loose, Pair};

/// A `qemu-io` that holds an image until it is dropped.
struct Holder {
    child: Child,
    stdin: ChildStdin,
}

impl Holder {
    fn new(directory: &Path, args: &[&str]) -> Self {
        let mut child = Command::new("qemu-io")
            .args(args)
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("qemu-io must be installed for this test");
        let mut stdin = child.stdin.take().expect("a pipe");
        // Its answer shows that the image is open.
        stdin.write_all(b"length\n").expect("to write to qemu-io");
        let mut answer = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        while !answer.contains("MiB") {
            answer.clear();
            let read = out.read_line(&mut answer).expect("to read from qemu-io");
            assert_ne!(read, 0, "qemu-io ended");
        }
        Self { child, stdin }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.stdin.write_all(b"quit\n");
        let _ = self.child.wait();
    }
}

/// A `qemu-nbd` on a socket of its own that holds an image until it is dropped.
struct Server(Child);

impl Server {
    fn new(directory: &Path, args: &[&str]) -> Self {
        let sockets = crate::common::Dir::new();
        let socket = sockets.path("s");
        let mut child = Command::new("qemu-nbd")
            .args(["-t", "-k"])
            .arg(&socket)
            .args(args)
            .current_dir(directory)
            .spawn()
            .expect("qemu-nbd must be installed for this test");
        // It listens once the image is open.
        while !socket.exists() {
            let ended = child.try_wait().expect("the state of qemu-nbd");
            assert!(ended.is_none(), "qemu-nbd {args:?}: {ended:?}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn images() -> Pair {
    Pair::with(&[
        "create -q -f qcow2 lk.qcow2 1M",
        "create -q lk.raw 1M",
        "create -q -f qcow2 -b lk.qcow2 -F qcow2 top.qcow2",
        "create -q free.raw 1M",
    ])
}

fn held(args: &[&str]) -> (Pair, [Holder; 2]) {
    let pair = images();
    let holders = [pair.theirs(), pair.ours()].map(|dir| Holder::new(dir.root(), args));
    (pair, holders)
}

const LINES: &[&str] = &[
    "info lk.qcow2",
    "info -U lk.qcow2",
    "info --output=json lk.qcow2",
    "map lk.qcow2",
    "map -U lk.qcow2",
    "check lk.qcow2",
    "check -U lk.qcow2",
    "compare lk.qcow2 free.raw",
    "compare free.raw lk.qcow2",
    "compare -U free.raw lk.qcow2",
    "convert lk.qcow2 out.raw",
    "convert -U lk.qcow2 out.raw",
    "convert -O qcow2 free.raw lk.qcow2",
    "convert -n -O qcow2 free.raw lk.qcow2",
    "create lk.qcow2 1M",
    "create -f qcow2 lk.qcow2 1M",
    "create -f qcow2 -b lk.qcow2 -F qcow2 over.qcow2",
    "map top.qcow2",
    "map -U top.qcow2",
    "check top.qcow2",
    "info top.qcow2",
    "info -b top.qcow2",
    "convert top.qcow2 out.raw",
    "info lk.raw",
    "info -U lk.raw",
    "map lk.raw",
    "map -U lk.raw",
    "compare lk.raw free.raw",
    "convert lk.raw out.raw",
    "convert -U lk.raw out.raw",
    "convert free.raw lk.raw",
    "convert -n free.raw lk.raw",
    "create lk.raw 1M",
];

/// What holds an image up or is held up by its locks, beyond [`LINES`]; some change images.
const CHANGES: &[&str] = &[
    "convert over-raw.qcow2 out.raw",
    "convert -U over-raw.qcow2 out.raw",
    "convert data.qcow2 out.raw",
    "map over-raw.qcow2",
    "map data.qcow2",
    "dd if=lk.qcow2 of=out.raw",
    "dd if=lk.raw of=out.raw",
    "measure -O qcow2 lk.qcow2",
    "measure -O qcow2 lk.raw",
    "bitmap --add lk.qcow2 b",
    "bitmap --add top.qcow2 b",
    "bitmap --merge b -b lk.qcow2 -F qcow2 top.qcow2 b",
    "amend -o lazy_refcounts=off lk.qcow2",
    "check -q -r all lk.qcow2",
    "snapshot -l lk.qcow2",
    "snapshot -c s lk.qcow2",
    "resize -f raw lk.raw 1M",
    "resize -f raw lk.raw 512k",
    "resize -f raw lk.raw 2M",
    "resize lk.qcow2 2M",
    "resize data.qcow2 2M",
    "resize -f raw lk.data 2M",
    "commit -d top.qcow2",
    "commit -b lk.qcow2 top.qcow2",
    "commit -b lk.qcow2 higher.qcow2",
    "commit -d over-raw.qcow2",
    "commit -b nothing.qcow2 free.raw",
    "rebase -u -b lk.qcow2 -F qcow2 top.qcow2",
    "dd -O qcow2 if=free.raw of=lk.qcow2",
];

#[test]
fn holders_of_every_kind_let_the_same_pass() {
    for (kind, args) in [
        ("io", "-f qcow2 lk.qcow2"),
        ("io", "-r -f qcow2 lk.qcow2"),
        ("io", "-f raw lk.raw"),
        ("io", "-r -U -f qcow2 top.qcow2"),
        ("io", "-f qcow2 data.qcow2"),
        ("io", "-f raw lk.data"),
        ("nbd", "-f qcow2 lk.qcow2"),
        ("nbd", "-r -e 3 -f qcow2 lk.qcow2"),
        ("nbd", "-f raw lk.raw"),
    ] {
        let pair = images();
        for line in [
            "create -q -f qcow2 -b top.qcow2 -F qcow2 higher.qcow2",
            "create -q -f qcow2 -b lk.raw -F raw over-raw.qcow2",
            "create -q -f qcow2 -o data_file=lk.data data.qcow2 1M",
        ] {
            pair.qemu(line);
        }
        let words = crate::pair::words(args);
        let dirs = [pair.theirs().root(), pair.ours().root()];
        let holders = dirs.map(|dir| match kind {
            "io" => (Some(Holder::new(dir, &words)), None),
            _ => (None, Some(Server::new(dir, &words))),
        });
        pair.all_same(CHANGES);
        drop(holders);
    }
}

/// Who has a volume open knows the old keys.
#[test]
fn keys_are_changed_alone() {
    const LUKS: &str = "driver=luks,key-secret=s,file.filename=lk.luks";
    let secret = "--object secret,id=s,data=abc";
    let pair = Pair::new();
    pair.qemu(&format!(
        "create {secret} -q -f luks -o key-secret=s,iter-time=10 lk.luks 1M"
    ));
    let change =
        format!("amend {secret} -o state=active,new-secret=s,iter-time=10 --image-opts {LUKS}");
    for mode in ["-r -U", "-r", ""] {
        let line = format!("{mode} {secret} --image-opts {LUKS}");
        let args = crate::pair::words(&line);
        let _holders = [pair.theirs(), pair.ours()].map(|dir| Holder::new(dir.root(), &args));
        let ran = pair.same(&change);
        assert!(ran.err.contains("\"consistent read\" lock"), "{ran:?}");
    }
    pair.same(&change);
}

/// A tool that was stopped in the middle of a conversion: its locks stay until it is dropped.
struct Stopped(Child);

impl Stopped {
    /// Starts `tool`, which makes `dir`/out at a low rate, until its target is open and written to.
    fn converting(dir: &Dir, tool: impl Fn() -> Command) -> Self {
        let out = dir.path("out");
        // More than a creation leaves, after which QEMU's tool closes the file and opens it again.
        let began = || out.metadata().is_ok_and(|m| m.blocks() * 512 > 1 << 19);
        // One that ended before it was stopped, whatever its rate, begins again.
        for _ in 0..20 {
            let mut child = tool().spawn().expect("a tool that starts");
            let ended = loop {
                if child.try_wait().expect("the state of a tool").is_some() {
                    break true;
                }
                if began() {
                    break false;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            };
            let mut stopped = Self(child);
            if !ended && stopped.stop() {
                return stopped;
            }
            drop(stopped);
            std::fs::remove_file(&out).expect("a target to remove");
        }
        panic!("no conversion lasted long enough to be stopped");
    }

    /// Whether it was stopped before its end.
    fn stop(&mut self) -> bool {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args(["-STOP", &pid]).status();
        assert!(sent.expect("kill").success());
        let state = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a child");
            let after_name = stat.rfind(')').expect("a name in brackets") + 2;
            stat[after_name..].chars().next().expect("a state")
        };
        // The signal takes effect when the process runs next.
        loop {
            match state() {
                'T' => return true,
                'Z' => return false,
                _ => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// While a tool of ours or of theirs converts, others are let in or kept out alike.
#[test]
fn a_running_conversion_holds_its_files() {
    // A qcow2 image of ours has no header before it is complete, so it cannot be opened as one.
    let raw = &[
        "info a.qcow2",
        "resize a.qcow2 8M",
        "info out",
        "map out",
        "compare out out",
        "bench -w -c 1 -f raw out",
        "dd if=out of=copy.raw",
        "convert out copy.raw",
        "resize -f raw out 4M",
        "create out 4M",
    ][..];
    let qcow2 = &[
        "map a.qcow2",
        "amend -o compat=1.1 a.qcow2",
        "create -f qcow2 out 4M",
    ];
    for (format, lines) in [("raw", raw), ("qcow2", qcow2)] {
        let pair = Pair::with(&["create -q -f qcow2 a.qcow2 4M", "create -q free.raw 4M"]);
        pair.qemu_io("qcow2", "a.qcow2", &["write -P 1 0 4M"]);
        let args = ["convert", "-r", "128k", "-O", format, "a.qcow2", "out"];
        let theirs = || {
            let mut command = Command::new("qemu-img");
            command.args(args).current_dir(pair.theirs().root());
            command
        };
        let ours = || crate::pair::ours_command(&args, pair.ours().root());
        let holders = [
            Stopped::converting(pair.theirs(), theirs),
            Stopped::converting(pair.ours(), ours),
        ];
        let mut wrong = Vec::new();
        for line in lines {
            let words = crate::pair::words(line);
            let expected = pair.theirs().qemu_img(&words);
            let theirs = pair.ours().qemu_img(&words);
            // What can be read depends on how far each is; whether it can be read does not.
            if (expected.code == 0) != (theirs.code == 0) || expected.err != theirs.err {
                wrong.push(format!(
                    "{line}: {expected:?}\n  while ours runs: {theirs:?}"
                ));
            }
        }
        drop(holders);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn a_writer_holds_a_qcow2_image() {
    let (pair, _holders) = held(&["-f", "qcow2", "lk.qcow2"]);
    pair.all_same(LINES);
}

#[test]
fn a_reader_holds_a_qcow2_image() {
    let (pair, _holders) = held(&["-r", "-f", "qcow2", "lk.qcow2"]);
    pair.all_same(LINES);
}

#[test]
fn a_writer_holds_a_raw_image() {
    let (pair, _holders) = held(&["-f", "raw", "lk.raw"]);
    // The lines make images of their own, which are longer than QEMU's.
    pair.all_same_but(LINES, Loose::DiskSize);
}

#[test]
fn a_reader_holds_a_raw_image() {
    let (pair, _holders) = held(&["-r", "-f", "raw", "lk.raw"]);
    pair.all_same_but(LINES, Loose::DiskSize);
}

#[test]
fn nothing_is_created_over_a_raw_disk_in_use() {
    // QEMU's tool finds the other writer too late, and removes the disk.
    let pair = Pair::with(&["create -q lk.raw 1M"]);
    let dir = pair.ours();
    dir.qemu_io("raw", "lk.raw", &["write -P 7 0 64k"]);
    let before = std::fs::read(dir.path("lk.raw")).expect("the disk");
    let _holder = Holder::new(dir.root(), &["-f", "raw", "lk.raw"]);
    for args in [
        &["create", "-q", "-f", "qcow2", "lk.raw", "1M"][..],
        &["convert", "-O", "qcow2", "free.raw", "lk.raw"],
    ] {
        dir.qemu_img_ok(&["create", "-q", "free.raw", "1M"]);
        let ran = crate::pair::ours(args, dir.root());
        assert_eq!(ran.code, 1, "{args:?}");
        assert!(
            ran.err
                .contains("Failed to get shared \"write\" lock\nIs another process"),
            "{ran:?}"
        );
        let after = std::fs::read(dir.path("lk.raw")).expect("the disk");
        assert!(before == after, "{args:?} changed the disk");
    }
}

/// How an image is held: format, name, and whether for writing.
const HOLDS: &[(&str, &str, bool)] = &[
    ("qcow2", "lk.qcow2", true),
    ("qcow2", "lk.qcow2", false),
    ("raw", "lk.raw", true),
    ("raw", "lk.raw", false),
];

fn open(path: std::path::PathBuf, format: &str, writable: bool) -> platter::Result<Image> {
    let options = OpenOptions {
        format: Some(format.to_owned()),
        writable,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Image::open(&Location::from_path(path), &options)
}

/// QEMU's tool and ours meet an image that this library holds as QEMU's tool meets one that
/// `qemu-io` holds.
#[test]
fn the_library_holds_an_image_as_qemu_does() {
    for (format, name, writable) in HOLDS {
        let pair = images();
        let read_only = if *writable { &[][..] } else { &["-r"] };
        let args = [read_only, &["-f", format, name]].concat();
        let _theirs = Holder::new(pair.theirs().root(), &args);
        let _ours = open(pair.ours().path(name), format, *writable).expect("a free image");
        for line in LINES {
            let words = crate::pair::words(line);
            let expected = pair.theirs().qemu_img(&words);
            let theirs = pair.ours().qemu_img(&words);
            let ours = crate::pair::ours(&words, pair.ours().root());
            for (who, ran) in [("QEMU's tool", theirs), ("ours", ours)] {
                assert_eq!(
                    (ran.code, &ran.err),
                    (expected.code, &expected.err),
                    "{who}, {name} held, writable {writable}: {line}"
                );
            }
            for dir in [pair.theirs(), pair.ours()] {
                for new in ["out.raw", "over.qcow2"] {
                    let _ = std::fs::remove_file(dir.path(new));
                }
            }
        }
    }
}

/// Two handles of one process exclude each other as two of `qemu-io` do.
#[test]
fn two_threads_exclude_each_other_as_two_processes_do() {
    for (format, name, first) in HOLDS {
        for second in [true, false] {
            let pair = images();
            let mode = |writable| if writable { &[][..] } else { &["-r"] };
            let args = [mode(*first), &["-f", format, name]].concat();
            let _theirs = Holder::new(pair.theirs().root(), &args);
            let args = [mode(second), &["-f", format, "-c", "length", name]].concat();
            let expected = crate::common::run_in(pair.theirs().root(), "qemu-io", &args);
            let path = pair.ours().path(name);
            let _held = open(path.clone(), format, *first).expect("a free image");
            let opened = std::thread::scope(|scope| {
                let other = scope.spawn(|| open(path, format, second));
                other.join().expect("no panic")
            });
            let what = format!("{name}: {first}, then {second}");
            match opened {
                Ok(_) => assert_eq!(expected.code, 0, "{what}: {expected:?}"),
                Err(error) => {
                    let line = error.to_string();
                    let reason = line.rsplit(": ").next().expect("a reason");
                    if *format == "raw" && *first && second {
                        // Two processes may, and two handles of one are a mistake.
                        assert_eq!(expected.code, 0, "{expected:?}");
                        assert!(line.contains("in this process already"), "{line}");
                        continue;
                    }
                    assert!(
                        expected.err.contains(reason),
                        "{what}: {line}, {expected:?}"
                    );
                }
            }
        }
    }
}

/// What is written to one child alone would be outvoted, or lost.
#[test]
fn a_quorum_keeps_writers_from_its_children() {
    for children in [
        "{'driver':'file','filename':'lk.raw'},{'driver':'file','filename':'free.raw'}",
        "{'driver':'raw','file':{'driver':'file','filename':'free.raw'}},\
         {'driver':'raw','file':{'driver':'file','filename':'lk.raw'}}",
    ] {
        let name = format!("json:{{'driver':'quorum','vote-threshold':1,'children':[{children}]}}");
        let inner = &name["json:".len()..];
        let above = format!("json:{{'driver':'raw','file':{inner}}}");
        let lines = [
            "info @",
            "info -U @",
            "compare @ free.raw",
            "convert -U -O raw @ out.raw",
            "bench -c 1 -w @",
            "bench -c 1 @",
        ];
        for mode in [&["-f", "raw", "lk.raw"][..], &["-r", "-f", "raw", "lk.raw"]] {
            let (pair, _holders) = held(mode);
            for line in lines {
                for name in [&name, &above] {
                    let words = crate::pair::words(line).into_iter();
                    let args: Vec<&str> = words
                        .map(|word| if word == "@" { name } else { word })
                        .collect();
                    let (theirs, ours, _) = pair.both(&args, Loose::Time);
                    assert_eq!(theirs.code, ours.code, "{args:?}: {theirs:?} {ours:?}");
                    let lock = "Failed to get shared \"write\" lock";
                    let told = [&theirs, &ours].map(|ran| ran.err.contains(lock));
                    assert_eq!(told[0], told[1], "{args:?}: {theirs:?} {ours:?}");
                }
            }
        }
    }
}
