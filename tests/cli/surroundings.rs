//! What a process finds around it: closed standard streams, a limit on the size of files, an output that
//! takes nothing.

use std::path::Path;
use std::process::Command;

use crate::common::{Dir, Ran};

/// Runs the tool under a shell that redirects or limits first; `line` has the tool as `$P`.
fn under_shell(directory: &Path, line: &str) -> Ran {
    let output = Command::new("sh")
        .args(["-c", line])
        .env("P", crate::build::tool())
        .env("LC_ALL", "C")
        .current_dir(directory)
        .output()
        .expect("sh");
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Every way to close some of the standard streams.
const CLOSED: [&str; 7] = [
    "<&-",
    ">&-",
    "2>&-",
    "<&- >&-",
    "<&- 2>&-",
    ">&- 2>&-",
    "<&- >&- 2>&-",
];

/// An image with a leaked cluster, which check reports on stderr.
fn leaky(dir: &Dir) -> Vec<u8> {
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "leaky.qcow2", "1M"]);
    let path = dir.path("leaky.qcow2");
    let mut bytes = std::fs::read(&path).unwrap();
    let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let block = number(number(48));
    let cluster = bytes.len().div_ceil(65536);
    bytes[block + 2 * cluster + 1] = 1;
    bytes.resize((cluster + 1) * 65536, 0);
    std::fs::write(&path, &bytes).unwrap();
    bytes
}

#[test]
fn no_message_lands_in_an_image_where_a_standard_stream_is_closed() {
    let dir = Dir::new();
    let image = leaky(&dir);
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "a.raw", "2M"]);
    dir.qemu_io("raw", "a.raw", &["write -P 1 0 2M"]);
    let source = std::fs::read(dir.path("a.raw")).unwrap();
    for closed in CLOSED {
        std::fs::write(dir.path("leaky.qcow2"), &image).unwrap();
        let ran = under_shell(dir.root(), &format!("$P check leaky.qcow2 {closed}"));
        // A report that nobody can read is no success.
        let unseen = closed.contains(">&- ") || closed.ends_with(" >&-") || closed == ">&-";
        assert_eq!(ran.code, if unseen { 1 } else { 3 }, "{closed}: {ran:?}");
        let now = std::fs::read(dir.path("leaky.qcow2")).unwrap();
        assert!(now == image, "check {closed} changes the image");
        under_shell(
            dir.root(),
            &format!("$P check -r leaks leaky.qcow2 {closed}"),
        );
        let checked = dir.qemu_img(&["check", "leaky.qcow2"]);
        assert_eq!(checked.code, 0, "{closed}: {checked:?}");
        for line in [
            "convert -f raw -O raw a.raw out.raw",
            "convert -p -f raw -O raw a.raw out.raw",
            "dd -f raw -O raw if=a.raw of=out.raw",
            "create -q -f raw out.raw 2M && $P convert -n -p -f raw -O raw a.raw out.raw",
        ] {
            let ran = under_shell(dir.root(), &format!("{{ $P {line}; }} {closed}"));
            assert_eq!(ran.code, 0, "{line} {closed}: {ran:?}");
            let copy = std::fs::read(dir.path("out.raw")).unwrap();
            assert!(copy == source, "{line} {closed}: another content");
            std::fs::remove_file(dir.path("out.raw")).unwrap();
        }
    }
}

#[test]
fn a_closed_stream_is_neither_an_empty_source_nor_a_target() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "a.raw", "64k"]);
    for line in [
        "convert -f raw -O raw /dev/stdin out.raw <&-",
        "dd of=out.raw <&-",
        "convert -f raw -O raw a.raw /dev/stdout >&-",
        "info a.raw >&-",
        "map --output=json a.raw >&-",
    ] {
        let ran = under_shell(dir.root(), &format!("$P {line}"));
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        assert_ne!(ran.err, "", "{line}");
        assert!(!dir.path("out.raw").exists(), "{line}");
    }
    assert_eq!(
        under_shell(dir.root(), "$P info a.raw >&-")
            .err
            .split(": ")
            .last(),
        Some("Bad file descriptor\n")
    );
}

#[test]
fn progress_that_cannot_be_shown_spoils_nothing() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "a.raw", "2M"]);
    dir.qemu_io("raw", "a.raw", &["write -P 1 0 2M"]);
    for output in [">&-", ">/dev/full"] {
        let line = format!("$P convert -p -f raw -O qcow2 a.raw a.qcow2 {output}");
        let ran = under_shell(dir.root(), &line);
        assert_eq!(ran.code, 0, "{output}: {ran:?}");
        let line = format!("$P compare -p -f raw -F qcow2 a.raw a.qcow2 {output}");
        let ran = under_shell(dir.root(), &line);
        assert_eq!(ran.code, 2, "{output}: the verdict is lost: {ran:?}");
    }
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_that_leaves_nothing() {
    let dir = Dir::new();
    std::fs::write(dir.path("r.raw"), vec![7; 4 << 20]).unwrap();
    for line in [
        "convert -f raw -O raw r.raw o",
        "convert -f raw -O qcow2 r.raw o",
        "convert -t none -f raw -O raw r.raw o",
        "convert -W -f raw -O qcow2 -S 0 r.raw o",
        "dd -f raw -O raw if=r.raw of=o",
        "dd -f raw -O qcow2 if=r.raw of=o",
        "create -q -f raw o 1G",
        "create -q -f raw -o preallocation=falloc o 8M",
        "create -q -f raw -o preallocation=full o 8M",
        "create -q -f qcow2 -o preallocation=full o 64M",
        "create -q -f qcow2 -o preallocation=falloc o 64M",
        "create -q -f qcow2 -o data_file=d,data_file_raw=on o 64M",
    ] {
        let ran = under_shell(dir.root(), &format!("ulimit -f 4096; $P {line}"));
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        assert!(!dir.path("o").exists(), "{line} leaves a file");
        assert!(!dir.path("d").exists(), "{line} leaves a data file");
        assert!(ran.err.contains("too large"), "{line}: {ran:?}");
    }
    // What changes an image that is there leaves one that is whole.
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "i.qcow2", "64M"]);
    dir.qemu_img_ok(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        "i.qcow2",
        "-F",
        "qcow2",
        "top.qcow2",
    ]);
    dir.qemu_io("qcow2", "top.qcow2", &["write -P 5 0 4M"]);
    for line in [
        "convert -n -f raw -O qcow2 r.raw i.qcow2",
        "commit -f qcow2 top.qcow2",
        "bench -w -c 64 -s 65536 -f qcow2 i.qcow2",
        "resize -f qcow2 --preallocation=full i.qcow2 128M",
        "resize -f raw r.raw 8M",
    ] {
        let ran = under_shell(dir.root(), &format!("ulimit -f 4096; $P {line}"));
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        assert!(ran.err.contains("File too large"), "{line}: {ran:?}");
        let image = if line.contains("top") {
            "top.qcow2"
        } else {
            "i.qcow2"
        };
        let checked = dir.qemu_img(&["check", "-q", image]);
        assert!([0, 3].contains(&checked.code), "{line}: {checked:?}");
    }
    assert_eq!(dir.path("r.raw").metadata().unwrap().len(), 4 << 20);
}

#[test]
fn a_report_of_any_length_tells_why_it_could_not_be_written() {
    let dir = Dir::new();
    let args = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "cluster_size=4k",
        "a.qcow2",
        "64M",
    ];
    dir.qemu_img_ok(&args);
    // Every other cluster, so that the map is longer than any buffer.
    let writes: Vec<String> = (0..2000)
        .map(|n| format!("write -P 1 {} 4k", n * 8192))
        .collect();
    let writes: Vec<&str> = writes.iter().map(String::as_str).collect();
    dir.qemu_io("qcow2", "a.qcow2", &writes);
    for line in [
        "map a.qcow2",
        "map --output=json a.qcow2",
        "info a.qcow2",
        "check a.qcow2",
        "measure -O qcow2 a.qcow2",
        "snapshot -c s a.qcow2 && $P snapshot -l a.qcow2",
        "inspect a.qcow2",
        "create -f qcow2 -o help",
        "amend -f qcow2 -o help",
        "--help",
        "--version",
        "--trace help",
        "bench -c 1 a.qcow2",
    ] {
        let ran = under_shell(dir.root(), &format!("{{ $P {line}; }} >/dev/full"));
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        assert!(
            ran.err
                .ends_with("Could not write to standard output: No space left on device\n"),
            "{line}: {ran:?}"
        );
    }
}

/// What follows the size of an image or of a cluster is asked for and may be refused.
#[test]
fn a_limit_on_memory_ends_a_command_with_an_error_and_not_by_an_abort() {
    let dir = Dir::new();
    for line in [
        "create -q -f qcow2 big.qcow2 8T",
        "create -q -f qcow2 -o cluster_size=512 small.qcow2 64G",
        "create -q -f qcow2 -o cluster_size=2M large.qcow2 1T",
    ] {
        dir.qemu_img_ok(&line.split(' ').collect::<Vec<_>>());
    }
    all_without_an_abort(
        &dir,
        &[
            "resize big.qcow2 +4T",
            "resize small.qcow2 +64G",
            "resize --shrink large.qcow2 1G",
            "check small.qcow2",
            "snapshot -c s small.qcow2",
            "snapshot -a s small.qcow2",
            "bitmap --add -g 512 small.qcow2 b",
            "convert -O qcow2 small.qcow2 o.qcow2",
            "create -f qcow2 -o cluster_size=512 new.qcow2 64G",
            "create -f qcow2 -o preallocation=metadata new.qcow2 1T",
            "measure -O qcow2 --size 1P",
            "inspect large.qcow2",
        ],
    );
}

/// Runs the lines in little memory: none may be aborted, and some have to lack it.
fn all_without_an_abort(dir: &Dir, lines: &[&str]) {
    none_is_aborted(dir, lines, &[0, 300, 1300, 3300]);
}

/// As [`all_without_an_abort`], with so many KiB beyond what the program itself takes.
fn none_is_aborted(dir: &Dir, lines: &[&str], limits: &[u32]) {
    let mut lacking = 0;
    let least = least_memory(dir);
    for line in lines {
        for kib in limits.iter().map(|more| least + more) {
            let ran = under_shell(dir.root(), &format!("ulimit -d {kib}; exec \"$P\" {line}"));
            let known = (0..=3).contains(&ran.code) || ran.code == 63;
            let aborted = ran.err.contains("memory allocation of") || !known;
            assert!(!aborted, "{line}, {kib} KiB: {ran:?}");
            lacking += usize::from(ran.err.contains("Cannot allocate memory"));
        }
    }
    assert!(lacking > 0, "none of {lines:?} lacked memory");
}

/// The KiB of data with which the tool can start: what the program itself takes.
fn least_memory(dir: &Dir) -> u32 {
    let starts = |kib: &u32| {
        let line = format!("ulimit -d {kib}; exec \"$P\" --version >/dev/null 2>&1");
        under_shell(dir.root(), &line).code == 0
    };
    let found = (500..4000).step_by(50).find(starts);
    found.expect("a limit that the tool starts under")
}

/// The tables of the other formats, and what is made of them.
#[test]
fn a_limit_on_memory_ends_commands_on_other_formats_with_an_error() {
    let dir = Dir::new();
    for line in [
        "create -q -f vdi big.vdi 8T",
        "create -q -f vhdx -o block_size=1M big.vhdx 8T",
        "create -q -f vpc big.vpc 1T",
        "create -q -f vmdk big.vmdk 1T",
        "create -q -f vmdk -o subformat=twoGbMaxExtentSparse split.vmdk 200G",
        "create -q -f qcow2 empty.qcow2 1T",
    ] {
        dir.qemu_img_ok(&line.split(' ').collect::<Vec<_>>());
    }
    for name in ["big.vdi", "big.vhdx", "big.vpc", "big.vmdk"] {
        let format = &name[4..];
        dir.qemu_io(format, name, &["write -P 1 1G 4M", "write -P 2 500G 64k"]);
    }
    let mut lines = Vec::new();
    for name in ["big.vdi", "big.vhdx", "big.vpc", "big.vmdk", "split.vmdk"] {
        for command in [
            "check",
            "check -r all",
            "map",
            "info",
            "inspect",
            "measure -O qcow2",
        ] {
            lines.push(format!("{command} {name}"));
        }
        lines.push(format!("compare {name} {name}"));
        lines.push(format!("convert -O qcow2 {name} o.qcow2"));
    }
    for rest in [
        "resize big.vdi +8T",
        "resize big.vhdx +8T",
        "resize big.vpc +512G",
        "resize big.vmdk +1T",
        "create -f vdi new 16T",
        "create -f vhdx -o block_size=1M new 16T",
        "create -f vpc new 2000G",
        "create -f vmdk new 2T",
        "create -f vmdk -o subformat=twoGbMaxExtentSparse new 500G",
        "create -f vmdk -o subformat=streamOptimized new 2T",
        "convert -O vdi empty.qcow2 o",
        "convert -O vhdx empty.qcow2 o",
        "convert -O vpc empty.qcow2 o",
        "convert -O vmdk empty.qcow2 o",
        "convert -O vmdk -o subformat=streamOptimized empty.qcow2 o",
        "dd -O vdi if=big.vmdk of=o bs=1M count=8",
    ] {
        lines.push(rest.to_owned());
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    all_without_an_abort(&dir, &lines);
}

/// An image whose upper table names, in each of its entries, no table at all or the one that there is.
fn with_upper_table(dir: &Dir, format: &str, name: &str, shares: bool) {
    dir.qemu_io(format, name, &["write -P 1 0 64k"]);
    let path = dir.path(name);
    let mut bytes = std::fs::read(&path).expect("an image");
    // Both formats name it in the same place of the header, in their own order of bytes.
    let is_big = format == "qcow";
    let word = |bytes: &[u8], at: usize| {
        let word = bytes[at..at + 8].try_into().expect("a word");
        match is_big {
            true => u64::from_be_bytes(word),
            false => u64::from_le_bytes(word),
        }
    };
    let at = word(&bytes, 40) as usize;
    let entries = match is_big {
        true => word(&bytes, 24).div_ceil(512 << 12),
        // Tables of two clusters of 4 KiB, or of 16 of 64 KiB, as many as the disk has.
        false if shares => 256,
        false => 1 << 15,
    };
    let entry = match shares {
        true => word(&bytes, at),
        false => (1 << 50) + 3,
    };
    let entry = match is_big {
        true => entry.to_be_bytes(),
        false => entry.to_le_bytes(),
    };
    let end = at + 8 * entries as usize;
    bytes.resize(bytes.len().max(end), 0);
    for place in bytes[at..end].chunks_exact_mut(8) {
        place.copy_from_slice(&entry);
    }
    std::fs::write(&path, bytes).expect("an image");
}

/// What a check counts of damage follows the tables of the image.
#[test]
fn a_limit_on_memory_ends_checks_of_damaged_images_with_an_error() {
    let dir = Dir::new();
    for (line, shares) in [
        ("-f qcow lost.qcow 256G", false),
        ("-f qcow shared.qcow 128M", true),
        (
            "-f qed -o cluster_size=64k,table_size=16 lost.qed 256T",
            false,
        ),
        ("-f qed -o cluster_size=4k,table_size=2 shared.qed 1G", true),
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        dir.qemu_img_ok(&[&["create", "-q"], &args[..]].concat());
        let name = args[args.len() - 2];
        with_upper_table(&dir, args[1], name, shares);
    }
    // So close that one of them ends within each list.
    let close: Vec<u32> = (0..2200).step_by(100).collect();
    none_is_aborted(&dir, &["check lost.qcow", "check lost.qed"], &close);
    let repairs = ["check -r all shared.qcow", "check -r all shared.qed"];
    none_is_aborted(&dir, &repairs, &[0, 150, 300]);
}
