//! Every command that changes an image of an SSH server which fails in the middle of it: the command goes on and does
//! what it would have done, or it ends with one line. Whatever comes of it, the bytes of the image are those of before
//! or those of after, its tables contradict nothing, and what is not complete does not look so.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Instant;

use crate::common::{Dir, Ran};
use crate::faulty::{Fault, Proxy};
use crate::pair::{ours, ours_command, words};
use crate::remote_faults::end_of;
use crate::site::disk;
use crate::ssh;

/// What is done: `S/NAME` stands for a file of the server.
const WRITING: &[&str] = &[
    "convert -f raw -O qcow2 a.raw S/new",
    "convert -f raw -O raw a.raw S/new",
    "create -q -f qcow2 -o preallocation=metadata S/new 64M",
    "resize -q -f qcow2 S/image 16M",
    "commit -q -f qcow2 over",
    "rebase -f qcow2 -b '' S/top",
    "amend -f qcow2 -o lazy_refcounts=on S/image",
    "snapshot -c two S/image",
    "snapshot -a one S/image",
    "snapshot -d one S/image",
    "bitmap --add -f qcow2 S/image bits",
    "check -q -r all -f qcow2 S/leaky",
];

/// The server, and what stands ready to be copied for each run.
struct Far {
    server: ssh::server::Server,
    made: Dir,
    hash: String,
}

/// A run: its files, and what stands between the tool and the server.
struct Place {
    dir: Dir,
    proxy: Proxy,
}

impl Far {
    fn new() -> Self {
        let made = Dir::new();
        disk(&made, "a.raw");
        let io = |image: &str, command: &str| made.qemu_io("qcow2", image, &[command]);
        made.qemu_img_ok(&words("convert -f raw -O qcow2 a.raw image"));
        made.qemu_img_ok(&words("snapshot -c one image"));
        io("image", "write -q -P 7 1M 3M");
        // Clusters of a snapshot that nobody knows any more.
        std::fs::copy(made.path("image"), made.path("leaky")).expect("an image");
        let mut bytes = std::fs::read(made.path("leaky")).expect("an image");
        // The number of snapshots and their place in the header.
        bytes[60..72].fill(0);
        std::fs::write(made.path("leaky"), bytes).expect("an image");
        made.qemu_img_ok(&words("convert -f raw -O qcow2 a.raw base"));
        for (name, at) in [("over", "2M"), ("top", "5M")] {
            made.qemu_img_ok(&words(&format!(
                "create -q -f qcow2 -b base -F qcow2 {name}"
            )));
            io(name, &format!("write -q -P 9 {at} 2M"));
            made.qemu_img_ok(&words(&format!("convert -O raw {name} {name}.raw")));
        }
        made.qemu_img_ok(&words("convert -O raw image image.raw"));
        let server = ssh::server::Server::new(&made);
        let hash = ssh::fingerprint(&made, "sha256sum");
        Self { server, made, hash }
    }

    fn place(&self) -> Place {
        let (dir, proxy) = (Dir::new(), Proxy::new(self.server.port, false));
        for name in ["a.raw", "image", "leaky", "base", "over", "top"] {
            std::fs::copy(self.made.path(name), dir.path(name)).expect("a copy");
        }
        let place = Place { dir, proxy };
        let far = self.line("S/base", &place, "1");
        for (name, base) in [("over", &far), ("top", &place.dir.str("base"))] {
            let named = [
                "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", base, name,
            ];
            let ran = ours(&named, place.dir.root());
            assert_eq!(ran.code, 0, "{ran:?}");
        }
        place
    }

    fn line(&self, line: &str, place: &Place, timeout: &str) -> String {
        let (root, keys) = (place.dir.root().display(), self.made.root().display());
        let words = line.split(' ').map(|word| match word.strip_prefix("S/") {
            Some(name) => format!(
                "ssh://root@127.0.0.1:{}{root}/{name}?host_key_check=sha256:{}&identity={keys}/id&timeout={timeout}",
                place.proxy.port, self.hash
            ),
            None => word.to_owned(),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// How many bytes the server sends where nothing fails.
    fn clean(&self, line: &str) -> u64 {
        let place = self.place();
        place.proxy.arm(Fault::None, 0);
        let ran = ours(&words(&self.line(line, &place, "1")), place.dir.root());
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
        self.judge(line, &place.dir, true)
            .unwrap_or_else(|what| panic!("{line}: {what}"));
        place.proxy.came()
    }

    /// What is wrong with what is on the server now.
    fn judge(&self, line: &str, dir: &Dir, done: bool) -> Result<(), String> {
        let same = |format: &str, name: &str, as_in: &str| {
            let raw = self.made.str(as_in);
            let args = ["compare", "-f", format, "-F", "raw", name, &raw];
            dir.qemu_img(&args).code == 0
        };
        let is = |what: bool, text: &str| match what {
            true => Ok(()),
            false => Err(text.to_owned()),
        };
        let sound = |name: &str| {
            let ran = dir.qemu_img(&["check", "-f", "qcow2", name]);
            // Clusters may be lost, and no bytes.
            let leaks = ran.code == 3 && (!done || name == "leaky");
            is(ran.code == 0 || leaks, &format!("{name}: {ran:?}"))
        };
        let new = dir.path("new");
        let (command, _) = line.split_once(' ').unwrap_or_default();
        match command {
            "convert" | "create" if done => {
                let format = if line.contains("qcow2") {
                    "qcow2"
                } else {
                    "raw"
                };
                if format == "qcow2" {
                    sound("new")?;
                }
                is(
                    command == "create" || same(format, "new", "a.raw"),
                    "other bytes",
                )
            }
            "convert" | "create" => {
                let is_image = |path: &Path| {
                    std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"QFI\xfb"))
                };
                // A server that is gone keeps what was sent.
                let whole = || {
                    sound("new").is_ok() && (command == "create" || same("qcow2", "new", "a.raw"))
                };
                is(!is_image(&new) || whole(), "a part looks complete")
            }
            "commit" => {
                sound("base")?;
                let base = dir.str("base");
                let back = [
                    "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", &base, "over",
                ];
                dir.qemu_img_ok(&back);
                is(
                    same("qcow2", "over", "over.raw"),
                    "the overlay shows something else",
                )?;
                let came = same("qcow2", "base", "over.raw");
                is(!done || came, "what was committed is not there")
            }
            "rebase" => {
                sound("top")?;
                is(
                    same("qcow2", "top", "top.raw"),
                    "the overlay shows something else",
                )
            }
            "check" => {
                sound("leaky")?;
                let repaired = dir.qemu_img(&["check", "-f", "qcow2", "leaky"]).code == 0;
                is(!done || repaired, "the leaks are there")?;
                is(same("qcow2", "leaky", "image.raw"), "other bytes")
            }
            _ => {
                sound("image")?;
                let reverted = line.contains(" -a ");
                let before = same("qcow2", "image", "image.raw");
                let after = reverted && same("qcow2", "image", "a.raw");
                is(
                    if reverted && done {
                        after
                    } else {
                        before || after
                    },
                    "other bytes",
                )
            }
        }
    }

    fn fail(&self, line: &str, all: u64, eighths: u64, fault: Fault) -> Result<bool, String> {
        let place = self.place();
        place.proxy.arm(fault, all * eighths / 8);
        let text = self.line(line, &place, "1");
        let ran: Ran = ours(&words(&text), place.dir.root());
        let wrong = |what: &str| Err(format!("{what}: {line}, {fault:?} at {eighths}/8: {ran:?}"));
        if let Err(what) = self.judge(line, &place.dir, ran.code == 0) {
            return wrong(&what);
        }
        // A line of the tool's, with its cause and what helps below, beside what a check has found.
        let is_finding = |line: &str| line.starts_with("Leaked ") || line.starts_with("Repairing ");
        // What stays on the server is told too.
        let is_left = |line: &str| line.contains("warning: ") && line.contains(" is left ");
        let lines = ran.err.lines();
        let lines: Vec<_> = lines
            .filter(|line| !is_finding(line) && !is_left(line))
            .collect();
        let own = lines.iter().filter(|line| line.contains("qemu-img: "));
        if ran.code != 0 && (own.count() != 1 || lines.len() > 3) {
            return wrong("more than is to be said");
        }
        Ok(ran.code != 0)
    }
}

#[test]
fn images_of_ssh_servers_that_fail_are_as_before_or_as_after() {
    if ssh::server::sshd_is_missing() {
        return;
    }
    let (far, stranger) = (Far::new(), Dir::new());
    let other = ssh::server::Server::new(&stranger);
    // Ended and there again, ended for good, another machine in its place, and quiet.
    let faults = [
        Fault::Says(b"", 0),
        Fault::Gone,
        Fault::Elsewhere(other.port),
        Fault::Silent,
    ];
    let far = &far;
    let sent: Vec<u64> = std::thread::scope(|scope| {
        let all: Vec<_> = WRITING
            .iter()
            .map(|line| scope.spawn(move || far.clean(line)))
            .collect();
        all.into_iter()
            .map(|one| one.join().expect("a clean run"))
            .collect()
    });
    let mut tasks = VecDeque::new();
    for (row, fault) in faults.into_iter().enumerate() {
        for (number, line) in WRITING.iter().enumerate() {
            let eighths = [3, 5, 6, 7][(row + number) % 4];
            tasks.push_back((line, sent[number], eighths, fault));
        }
    }
    let (tasks, wrong) = (Mutex::new(tasks), Mutex::new(Vec::new()));
    let failed = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some((line, all, eighths, fault)) =
                    { tasks.lock().expect("the tasks").pop_front() }
                {
                    match far.fail(line, all, eighths, fault) {
                        Ok(has_failed) => {
                            *failed.lock().expect("the count") += usize::from(has_failed)
                        }
                        Err(what) => wrong.lock().expect("what is wrong").push(what),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("what is wrong");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(failed.into_inner().expect("the count") > 0);
}

#[test]
fn a_signal_ends_what_is_written_to_an_ssh_server_that_keeps_quiet() {
    if ssh::server::sshd_is_missing() {
        return;
    }
    let far = Far::new();
    for line in [WRITING[0], WRITING[4], WRITING[5]] {
        let all = far.clean(line);
        let place = far.place();
        place.proxy.arm(Fault::Silent, all * 6 / 8);
        let text = far.line(line, &place, "0");
        let mut command = ours_command(&words(&text), place.dir.root());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the tool");
        let met = place
            .proxy
            .wait(|| child.try_wait().expect("its state").is_some());
        let told = Instant::now();
        if met {
            let pid = child.id().to_string();
            let _ = std::process::Command::new("kill")
                .args(["-TERM", &pid])
                .status();
        }
        let status = end_of(&mut child, line);
        eprintln!("{line}: {:?} after the signal", told.elapsed());
        assert!(!met || status.signal() == Some(15), "{line}: {status:?}");
        far.judge(line, &place.dir, !met)
            .unwrap_or_else(|what| panic!("{line}: {what}"));
    }
}
