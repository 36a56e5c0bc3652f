//! Images on targets that are not empty and cannot be emptied, as devices and exports are: nothing of what was there
//! passes for a part of the image, neither at once nor when the disk grows.

use std::os::unix::fs::FileExt;

use crate::common::Dir;
use crate::nbd::server::Server;
use crate::pair::{ours, words};

/// Bytes of the disk: the last cluster of every format ends behind it.
const LEN: usize = (3 << 20) + 3 * 512;
/// Bytes of the target.
const ROOM: usize = 24 << 20;
/// Bytes of the disk once it has grown.
const GROWN: u64 = 16 << 20;

/// Who lets the disk grow.
#[derive(Clone, Copy, PartialEq)]
enum Grows {
    Both,
    Ours,
    Nobody,
}

/// What becomes of the rest of the target.
#[derive(Clone, Copy, PartialEq)]
enum Rest {
    /// Nothing is said of it.
    Unseen,
    /// Space that nothing names, as after QEMU's tool.
    Leaked,
}

/// A format, options of a new image, who grows it, and whether QEMU's tool checks it.
const KINDS: &[(&str, &str, Grows, Option<Rest>)] = &[
    ("raw", "", Grows::Nobody, None),
    ("qcow2", "", Grows::Both, Some(Rest::Unseen)),
    (
        "qcow2",
        "compat=0.10,cluster_size=512",
        Grows::Both,
        Some(Rest::Unseen),
    ),
    ("qcow2", "extended_l2=on", Grows::Both, Some(Rest::Unseen)),
    ("qcow2", "cluster_size=2M", Grows::Both, Some(Rest::Unseen)),
    ("qed", "", Grows::Both, Some(Rest::Leaked)),
    (
        "qed",
        "cluster_size=4096,table_size=16",
        Grows::Both,
        Some(Rest::Leaked),
    ),
    ("qcow", "", Grows::Nobody, None),
    ("parallels", "", Grows::Ours, Some(Rest::Leaked)),
    ("vdi", "", Grows::Ours, Some(Rest::Unseen)),
    ("vdi", "static=on", Grows::Nobody, Some(Rest::Unseen)),
    ("vhdx", "", Grows::Ours, Some(Rest::Unseen)),
    ("vhdx", "subformat=fixed", Grows::Nobody, Some(Rest::Unseen)),
    ("vpc", "", Grows::Ours, None),
    ("vpc", "force_size=on", Grows::Ours, None),
    ("vmdk", "", Grows::Ours, Some(Rest::Unseen)),
    ("vmdk", "zeroed_grain=on", Grows::Ours, Some(Rest::Unseen)),
];

/// An export full of what is not to be seen again.
struct Filled {
    dir: Dir,
    server: Server,
}

impl Filled {
    fn new() -> Self {
        let dir = Dir::new();
        std::fs::write(dir.path("export"), vec![0xa5; ROOM]).expect("an export");
        let mut disk = vec![0; LEN];
        for range in [0..70_000, 1 << 20..(1 << 20) + 4096, LEN - 5000..LEN] {
            disk[range].fill(7);
        }
        std::fs::write(dir.path("disk.raw"), &disk).expect("a disk");
        std::fs::write(dir.path("empty.raw"), vec![0; LEN]).expect("a disk");
        let export = dir.str("export");
        let server = Server::qemu_nbd(&dir, "n", &["-f", "raw", "-e", "8", &export]);
        Self { dir, server }
    }

    fn fill(&self) {
        let export = std::fs::OpenOptions::new()
            .write(true)
            .open(self.dir.path("export"))
            .expect("the export");
        export.write_all_at(&vec![0xa5; ROOM], 0).expect("a write");
    }

    #[track_caller]
    fn ours(&self, line: &str) {
        let ran = ours(&words(line), self.dir.root());
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
    }

    /// Judges an image by QEMU's tool; a disk that is longer than `expected` has zeroes behind it.
    #[track_caller]
    fn judge(&self, label: &str, (file, format): (&str, &str), expected: &str, rest: Option<Rest>) {
        let line = format!("compare -f {format} -F raw {file} {expected}");
        let ran = self.dir.qemu_img(&words(&line));
        assert_eq!(ran.code, 0, "{label}: {ran:?}");
        self.check(label, (file, format), rest);
    }

    #[track_caller]
    fn check(&self, label: &str, (file, format): (&str, &str), rest: Option<Rest>) {
        if let Some(rest) = rest {
            let ran = self.dir.qemu_img(&["check", "-f", format, file]);
            let leaked = rest == Rest::Leaked && ran.code == 3;
            assert!(ran.code == 0 || leaked, "{label}: {ran:?}");
        }
    }
}

#[test]
fn nothing_of_what_a_target_held_is_in_a_new_image() {
    let filled = Filled::new();
    let url = filled.server.url("");
    for (format, options, grows, rest) in KINDS {
        let options = match *options {
            "" => String::new(),
            options => format!("-o {options}"),
        };
        for (line, expected) in [
            (
                format!("create -q -f {format} {options} {url} {LEN}"),
                "empty.raw",
            ),
            (
                format!("convert -f raw -O {format} {options} disk.raw {url}"),
                "disk.raw",
            ),
        ] {
            filled.fill();
            filled.ours(&line);
            let copy = |name: &str| {
                std::fs::copy(filled.dir.path("export"), filled.dir.path(name)).expect("a copy");
            };
            copy("image");
            if *format == "raw" {
                // All of the target is the disk; one that is created shows what was there.
                let bytes = std::fs::read(filled.dir.path("image")).expect("the image");
                let wanted = std::fs::read(filled.dir.path("disk.raw")).expect("a disk");
                assert!(expected == "empty.raw" || bytes[..LEN] == wanted, "{line}");
                continue;
            }
            let is_in_place = ["static", "fixed"].iter().any(|it| line.contains(it));
            if is_in_place && expected == "empty.raw" {
                // The same of blocks that have their places from the start.
                filled.check(&line, ("image", format), *rest);
                continue;
            }
            filled.judge(&line, ("image", format), expected, *rest);
            let growers = match grows {
                Grows::Both => &["ours", "theirs"][..],
                Grows::Ours => &["ours"],
                Grows::Nobody => &[],
            };
            for grower in growers {
                copy("grown");
                let grow = format!("resize -q -f {format} grown {GROWN}");
                match *grower {
                    "ours" => filled.ours(&grow),
                    _ => drop(filled.dir.qemu_img_ok(&words(&grow))),
                }
                let label = format!("{line}, grown by {grower}");
                filled.judge(&label, ("grown", format), expected, *rest);
            }
        }
    }
}
