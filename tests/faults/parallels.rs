//! The command lines on Parallels images.

use super::table::{Case, Content, case, make};
use crate::common::Dir;

pub const MAKE: &[Case] = &[
    make("create -q -f parallels new.hdd 1M"),
    make("create -q -f parallels -o cluster_size=4096 new.hdd 9M"),
    make("convert -f raw -O parallels plain.raw new.hdd"),
    make("convert -f raw -O parallels -o cluster_size=4096 plain.raw new.hdd"),
    make("convert -O raw disk.hdd new.raw"),
];

pub const READ: &[Case] = &[
    make("info disk.hdd"),
    make("map --output=json disk.hdd"),
    make("measure -O parallels disk.hdd"),
    Case {
        failures: &[1, 2],
        ..make("check disk.hdd")
    },
    Case {
        code: 2,
        failures: &[1, 2, 3],
        ..make("check marred.hdd")
    },
    Case {
        failures: &[2, 3, 4],
        ..make("compare disk.hdd disk.hdd")
    },
];

const DISK: &[&str] = &["disk.hdd"];

pub const CHANGE: &[Case] = &[
    case("resize -q disk.hdd 3M", DISK, Content::Either),
    // The table grows over clusters, which move away.
    case("resize -q disk.hdd 16M", DISK, Content::Either),
    case("resize -q --shrink disk.hdd 300k", DISK, Content::Either),
    case(
        "convert -n -O parallels plain.raw disk.hdd",
        DISK,
        Content::Any,
    ),
    Case {
        failures: &[1, 2, 3],
        damaged: true,
        ..case("check -q -r all marred.hdd", &["marred.hdd"], Content::Same)
    },
    Case {
        failures: &[1, 2, 3],
        damaged: true,
        ..case("check -q -r all open.hdd", &["open.hdd"], Content::Same)
    },
    Case {
        failures: &[1, 2, 3],
        ..case("check -q -r leaks leaky.hdd", &["leaky.hdd"], Content::Same)
    },
];

/// Makes the images that a line names.
pub fn images(dir: &Dir, line: &str) {
    for name in ["disk.hdd", "marred.hdd", "open.hdd", "leaky.hdd"] {
        if !line.contains(name) {
            continue;
        }
        let create = "create -q -f parallels -o cluster_size=4096";
        let args: Vec<&str> = create.split(' ').chain([name, "1M"]).collect();
        dir.qemu_img_ok(&args);
        let commands = ["write -P 1 0 300k", "write -P 2 700k 100k"];
        dir.qemu_io("parallels", name, &commands);
        let mut bytes = std::fs::read(dir.path(name)).expect("an image");
        let (at, word) = match name {
            // A cluster without data that names what the first one does.
            "marred.hdd" => (
                64 + 4 * 100,
                u32::from_le_bytes([64, 65, 66, 67].map(|at| bytes[at])),
            ),
            "open.hdd" => (44, 0x746f_6e59),
            // The last cluster, which nothing names then.
            "leaky.hdd" => (64 + 4 * 199, 0),
            _ => continue,
        };
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        std::fs::write(dir.path(name), bytes).expect("an image");
    }
}
