//! Something happens to the server in the middle of every command: the command fails and says why, or goes on with a
//! server that has come back; what it has called done is there, and no image is damaged.

use std::cell::RefCell;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::scripted::{Fault, Scripted};
use super::{bytes, disk};
use crate::common::{Dir, bitmaps_of, dirty_ranges};
use crate::pair::{ours_command, words};

const MIB: u64 = 1 << 20;

/// A command over the export.
struct Case {
    /// `Q` stands for the image on the server, `N` for the server, and `D` in a path for the directory.
    line: &'static str,
    /// What the export holds at first.
    image: &'static str,
    /// What the disk of the image is then, and what it is when the command has succeeded.
    disks: [&'static str; 2],
    effect: Effect,
    /// The bitmap that it is about.
    bitmap: Option<&'static str>,
}

/// What a command does to the export.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Nothing.
    Reads,
    /// It writes, and one of the two disks is there at any time.
    Keeps,
    /// It writes, and has changed a part of the disk when it has failed.
    Changes,
    /// It mends the image, of which the disk is there at any time.
    Repairs,
    /// It makes an image in the place of the one that is there: there is one of them, or none. Its name has no place
    /// for a delay.
    Makes,
    /// It fills the export with a disk, from its beginning, of which a part is there when it has failed. Its name has no
    /// place for a delay.
    Fills,
}

const fn reads(line: &'static str) -> Case {
    Case {
        effect: Effect::Reads,
        ..keeps(line)
    }
}

/// A command that writes, and leaves the disk as it is.
const fn keeps(line: &'static str) -> Case {
    Case {
        line,
        image: "t.qcow2",
        disks: ["old.raw"; 2],
        effect: Effect::Keeps,
        bitmap: None,
    }
}

/// One that changes a bitmap, too.
const fn marks(line: &'static str, bitmap: &'static str) -> Case {
    Case {
        bitmap: Some(bitmap),
        ..keeps(line)
    }
}

const fn changes(line: &'static str, disk: &'static str) -> Case {
    Case {
        disks: ["old.raw", disk],
        effect: Effect::Changes,
        ..keeps(line)
    }
}

const fn repairs(line: &'static str, image: &'static str, disk: &'static str) -> Case {
    Case {
        image,
        disks: [disk; 2],
        effect: Effect::Repairs,
        ..keeps(line)
    }
}

const fn makes(line: &'static str, disk: &'static str) -> Case {
    Case {
        disks: ["old.raw", disk],
        effect: Effect::Makes,
        ..keeps(line)
    }
}

const fn fills(line: &'static str, disk: &'static str) -> Case {
    Case {
        effect: Effect::Fills,
        ..makes(line, disk)
    }
}

const CASES: [Case; 35] = [
    reads("info --image-opts Q"),
    reads("map --image-opts Q"),
    reads("check --image-opts Q"),
    reads("compare --image-opts Q driver=raw,file.filename=old.raw"),
    reads("convert --image-opts -O raw Q out.raw"),
    reads("dd --image-opts bs=64k if=Q of=out.raw"),
    reads("measure --image-opts -O qcow2 Q"),
    reads("bench -c 40 -d 4 -s 64k --image-opts Q"),
    reads(
        "rebase -b base.qcow2 -F qcow2 --image-opts driver=qcow2,file.filename=o.qcow2,backing.B",
    ),
    keeps("resize -q --image-opts Q 3M"),
    keeps("snapshot -c s --image-opts Q"),
    keeps("snapshot -d first --image-opts Q"),
    Case {
        image: "changed.qcow2",
        disks: ["committed.raw", "old.raw"],
        ..keeps("snapshot -a first --image-opts Q")
    },
    marks("bitmap --add --image-opts Q b", "b"),
    marks("bitmap --remove --image-opts Q before", "before"),
    marks("bitmap --merge before --image-opts Q idle", "idle"),
    marks("bitmap --clear --image-opts Q before", "before"),
    marks("bitmap --enable --image-opts Q idle", "idle"),
    marks("bitmap --disable --image-opts Q before", "before"),
    keeps("amend --image-opts -o lazy_refcounts=on Q"),
    repairs(
        "check -q -r leaks --image-opts Q",
        "leaky.qcow2",
        "committed.raw",
    ),
    repairs("check -q -r all --image-opts Q", "damaged.qcow2", "old.raw"),
    Case {
        image: "top.qcow2",
        disks: ["committed.raw"; 2],
        ..keeps("rebase -b '' --image-opts Q")
    },
    Case {
        image: "top.qcow2",
        disks: ["committed.raw"; 2],
        ..keeps("rebase -b D/new.qcow2 -F qcow2 --image-opts Q")
    },
    changes(
        "convert -t writeback -n -f raw --target-image-opts new.raw Q",
        "new.raw",
    ),
    Case {
        image: "empty.qcow2",
        disks: ["empty.raw", "new.raw"],
        ..changes(
            "convert -c -t writeback -n -f raw --target-image-opts new.raw Q",
            "new.raw",
        )
    },
    changes(
        "bench -w -c 16 -d 4 -s 64k --pattern 9 --image-opts Q",
        "benched.raw",
    ),
    changes(
        "bench -w -c 16 -d 4 -s 64k --pattern 9 --flush-interval 4 --image-opts Q",
        "benched.raw",
    ),
    changes(
        "commit --image-opts driver=qcow2,file.filename=o.qcow2,backing.B",
        "committed.raw",
    ),
    makes("create -q -f qcow2 nbd+unix:///?socket=N 2M", "empty.raw"),
    makes(
        "convert -t writeback -f raw -O qcow2 new.raw nbd+unix:///?socket=N",
        "new.raw",
    ),
    makes(
        "convert -c -t writeback -f raw -O qcow2 new.raw nbd+unix:///?socket=N",
        "new.raw",
    ),
    makes(
        "dd -f raw -O qcow2 bs=64k if=new.raw of=nbd+unix:///?socket=N",
        "new.raw",
    ),
    fills(
        "dd -f raw -O raw bs=64k if=new.raw of=nbd+unix:///?socket=N",
        "new.raw",
    ),
    fills(
        "convert -t writeback -n -f raw -O raw new.raw nbd+unix:///?socket=N",
        "new.raw",
    ),
];

/// The files that the cases are about.
fn prepare(dir: &Dir) {
    disk(dir, "large.raw");
    let old = &bytes(dir, "large.raw")[..2 * MIB as usize];
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path(name), bytes).unwrap();
    write("old.raw", old);
    let mut new = old.to_vec();
    new.rotate_left(300_000);
    write("new.raw", &new);
    new.copy_from_slice(old);
    new[1_000_000..1_500_000].fill(9);
    write("committed.raw", &new);
    new.copy_from_slice(old);
    new[..16 << 16].fill(9);
    write("benched.raw", &new);
    write("empty.raw", &vec![0; 2 * MIB as usize]);
    for line in [
        "create -q -f qcow2 t.qcow2 2M",
        "bitmap --add t.qcow2 before",
        "bitmap --add --disable t.qcow2 idle",
        "convert -n -f raw -O qcow2 old.raw t.qcow2",
        "snapshot -c first t.qcow2",
        "create -q -f qcow2 base.qcow2 2M",
        "create -q -f qcow2 empty.qcow2 2M",
        "create -q -f qcow2 -b t.qcow2 -F qcow2 overlay.qcow2",
        "convert -f raw -O qcow2 new.raw new.qcow2",
        "convert -f raw -O qcow2 old.raw changed.qcow2",
        "snapshot -c first changed.qcow2",
        // An image behind a server has no directory.
        &format!(
            "create -q -f qcow2 -b {} -F qcow2 top.qcow2",
            dir.str("t.qcow2")
        ),
    ] {
        dir.qemu_img_ok(&words(line));
    }
    for image in ["overlay.qcow2", "changed.qcow2", "top.qcow2"] {
        dir.qemu_io("qcow2", image, &["write -P 9 1000000 500000"]);
    }
    // Clusters of a snapshot that nobody knows any more: the header tells of none.
    let mut leaky = bytes(dir, "changed.qcow2");
    leaky[60..72].fill(0);
    write("leaky.qcow2", &leaky);
    // Clusters in use that count as free.
    let mut damaged = bytes(dir, "t.qcow2");
    let number = |bytes: &[u8], at: usize| {
        let word = bytes[at..at + 8].try_into().unwrap();
        u64::from_be_bytes(word) as usize
    };
    let block = number(&damaged, number(&damaged, 48));
    damaged[block + 2 * 6..block + 2 * 20].fill(0);
    write("damaged.qcow2", &damaged);
}
/// Waits for the end of the command, which gets a signal when the fault has come, if one is given.
fn end(server: &Scripted, child: &mut Child, signal: bool, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut told = false;
    while child.try_wait().unwrap().is_none() {
        let struck = server.has_struck();
        if struck && signal && !told {
            told = true;
            let id = child.id().to_string();
            assert!(Command::new("kill").arg(id).status().unwrap().success());
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{what} does not end");
        }
    }
}

/// What a bitmap of an image of the directory has: its flags, and, where they may be believed, what is dirty.
type Bits = Option<(Vec<String>, Vec<(u64, u64)>)>;

fn bits_of(dir: &Dir, image: &str, bitmap: &str) -> Bits {
    let mut all = bitmaps_of(dir, image).into_iter();
    let (_, _, flags) = all.find(|(name, _, _)| name == bitmap)?;
    let ranges = match is_in_use(&flags) {
        true => Vec::new(),
        false => dirty_ranges(dir, image, bitmap),
    };
    Some((flags, ranges))
}

fn is_in_use(flags: &[String]) -> bool {
    flags.iter().any(|flag| flag == "in-use")
}

/// A case, and what has been found of it.
struct Tried<'a> {
    case: &'a Case,
    dir: &'a Dir,
    server: &'a Scripted,
    /// The export at first.
    image: Vec<u8>,
    /// What the bitmap has then, and what it has when QEMU's tool has done the same.
    bits: Option<[Bits; 2]>,
    /// Exports that were sound, and whether the command had succeeded.
    sound: RefCell<Vec<(bool, Vec<u8>)>>,
}

impl<'a> Tried<'a> {
    fn new(dir: &'a Dir, server: &'a Scripted, case: &'a Case) -> Self {
        let mut image = bytes(dir, case.image);
        image.resize(5 * MIB as usize, 0);
        let bits = case.bitmap.map(|bitmap| {
            std::fs::copy(dir.path(case.image), dir.path("model.qcow2")).unwrap();
            let model = "driver=qcow2,file.filename=model.qcow2";
            dir.qemu_img_ok(&words(&case.line.replace('Q', model)));
            [case.image, "model.qcow2"].map(|image| bits_of(dir, image, bitmap))
        });
        Self {
            case,
            dir,
            server,
            image,
            bits,
            sound: RefCell::default(),
        }
    }

    /// The export holds what the command may leave.
    #[track_caller]
    fn check(&self, export: Vec<u8>, done: bool, what: &str) {
        let Self { case, dir, .. } = self;
        let key = (done, export);
        if self.sound.borrow().contains(&key) {
            return;
        }
        if case.effect == Effect::Fills {
            let disk = bytes(dir, case.disks[1]);
            assert!(!done || key.1.starts_with(&disk), "{what}");
            return;
        }
        let is_image = key.1.starts_with(b"QFI\xfb");
        if case.effect == Effect::Makes && !done && !is_image {
            return;
        }
        std::fs::write(dir.path("seen.qcow2"), &key.1).unwrap();
        let check = dir.qemu_img(&words("check -f qcow2 seen.qcow2"));
        let codes: &[i32] = match case.effect {
            _ if done => &[0],
            Effect::Repairs => &[0, 2, 3],
            _ => &[0, 3],
        };
        assert!(codes.contains(&check.code), "{what}: {check:?}");
        let disks = match case.effect {
            _ if done => &case.disks[1..],
            Effect::Changes => &[],
            _ => &case.disks[..],
        };
        let compared = disks.iter().map(|disk| {
            dir.qemu_img(&words(&format!(
                "compare -f raw -F qcow2 {disk} seen.qcow2"
            )))
        });
        let compared: Vec<_> = compared.collect();
        let is_one = compared.is_empty() || compared.iter().any(|ran| ran.code == 0);
        assert!(is_one, "{what}: {compared:?}");
        if let (Some(bitmap), Some(wanted)) = (case.bitmap, &self.bits) {
            let bits = bits_of(dir, "seen.qcow2", bitmap);
            let unknown = bits.as_ref().is_some_and(|(flags, _)| is_in_use(flags));
            let is_wanted = match done {
                true => bits == wanted[1],
                false => unknown || wanted.contains(&bits),
            };
            assert!(is_wanted, "{what}: {bits:?} is none of {wanted:?}");
        }
        self.sound.borrow_mut().push(key);
    }

    /// The command line, with the server in it.
    fn line(&self, delay: u32) -> Vec<String> {
        let file = format!(
            "file.driver=nbd,file.path={},file.reconnect-delay={delay}",
            self.server.socket()
        );
        let q = format!("driver=qcow2,{file}");
        let below = format!("backing.{}", q.replace(',', ",backing."));
        // In one step for each word: the socket has a random name, in which there may be any letter.
        let line = words(self.case.line).into_iter().map(|word| match word {
            _ if word.starts_with("D/") => self.dir.str(&word[2..]),
            _ if word.ends_with("backing.B") => word.replace("backing.B", &below),
            _ if word.contains('N') => word.replace('N', self.server.socket()),
            _ => word.replace('Q', &q),
        });
        line.collect()
    }

    /// Runs it with a fault; how many requests there were.
    fn run(&self, fault: Option<(usize, Fault)>, delay: u32) -> usize {
        let Self {
            case, dir, server, ..
        } = self;
        let what = format!("{}: {fault:?}, {delay}", case.line);
        server.begin(&self.image, fault);
        std::fs::copy(dir.path("overlay.qcow2"), dir.path("o.qcow2")).unwrap();
        let _ = std::fs::remove_file(dir.path("out.raw"));
        let line = self.line(delay);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let mut child = ours_command(&line, dir.root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stalls = fault.is_some_and(|(_, fault)| fault == Fault::Stall);
        end(server, &mut child, stalls, &what);
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        let done = output.status.success();
        match output.status.signal() {
            Some(signal) => assert!(stalls && signal == 15, "{what}: {signal}, {err}"),
            None => assert!(done || err.contains("-img: "), "{what}: {err}"),
        }
        assert!(!err.contains("panic"), "{what}: {err}");
        let requests = server.requests();
        let waits = delay > 0 && !matches!(case.effect, Effect::Makes | Effect::Fills);
        let slow = fault.is_some_and(|(_, fault)| fault == Fault::Slow);
        assert!(done || fault.is_some() && !waits && !slow, "{what}: {err}");
        if case.line.contains("out.raw") {
            match done {
                true => assert!(bytes(dir, "out.raw") == bytes(dir, "old.raw"), "{what}"),
                false => assert!(
                    !case.line.starts_with("convert") || !dir.path("out.raw").exists(),
                    "{what}"
                ),
            }
        }
        let durable = server.durable();
        let writes = case.effect != Effect::Reads;
        if durable == self.image && !(done && writes) {
            return requests;
        }
        assert!(writes, "{what}");
        self.check(durable, done, &what);
        requests
    }
}

#[test]
fn a_server_may_fail_in_the_middle_of_every_command() {
    let dir = Dir::new();
    prepare(&dir);
    let server = Scripted::new(&dir);
    for case in &CASES {
        let tried = Tried::new(&dir, &server, case);
        let requests = tried.run(None, 0);
        for (fault, delay) in [
            (Fault::Slow, 0),
            (Fault::Stall, 0),
            (Fault::Gone, 0),
            (Fault::Restart, 0),
            (Fault::Restart, 60),
            (Fault::Garbage, 0),
            (Fault::Error, 0),
        ] {
            let places = match case.effect {
                Effect::Reads => vec![requests / 2 + 1],
                _ => vec![requests / 2 + 1, requests],
            };
            for at in places {
                tried.run(Some((at, fault)), delay);
            }
        }
    }
}
