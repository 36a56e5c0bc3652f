//! A virtual machine with a Linux of its own boots beside the block device: it reads the disk, changes it from two
//! processors, and turns itself off; what it says is compared with what is in the image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::images;
use super::vhost_user::Served;
use crate::common::{Dir, Ran, run_in};

const MIB: usize = 1 << 20;
const LEN: usize = 64 * MIB;

/// The kernel and its modules, if there are all that a machine needs; says so where not.
fn kernel() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let kernel = target.join("machine");
    let found = Command::new("qemu-system-x86_64")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    let found = found.is_ok_and(|status| status.success());
    if found && kernel.join("vmlinuz").exists() {
        return Some(kernel);
    }
    eprintln!("SKIPPED: virtual machines need qemu-system-x86_64 and what ci/setup.sh fetches");
    None
}

/// An archive of the form "newc" (cpio(5)), with which a machine begins.
fn archive(files: &[(&str, u32, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut entry = |number: usize, name: &str, mode: u32, bytes: &[u8]| {
        let fields = [
            number,
            mode as usize,
            0,
            0,
            1,
            0,
            bytes.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0,
        ];
        archive.extend(b"070701");
        for field in fields {
            archive.extend(format!("{field:08x}").bytes());
        }
        archive.extend(name.bytes().chain([0]));
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(bytes);
        archive.resize(archive.len().next_multiple_of(4), 0);
    };
    for (number, (name, mode, bytes)) in files.iter().enumerate() {
        entry(number + 1, name, *mode, bytes);
    }
    entry(0, "TRAILER!!!", 0, &[]);
    archive
}

fn write_archive(dir: &Dir, kernel: &Path) {
    let read = |path: &Path| fs::read(path).expect("a part of the machine");
    let mut files = vec![
        ("init".to_owned(), 0o100_755, read(crate::build::guest())),
        ("dev".to_owned(), 0o040_755, Vec::new()),
        ("sys".to_owned(), 0o040_755, Vec::new()),
    ];
    for entry in fs::read_dir(kernel).expect("the modules") {
        let path = entry.expect("a module").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        if name.ends_with(".ko") {
            files.push((name.into_owned(), 0o100_644, read(&path)));
        }
    }
    let files: Vec<_> = files
        .iter()
        .map(|(name, mode, bytes)| (name.as_str(), *mode, bytes.clone()))
        .collect();
    fs::write(dir.path("initrd"), archive(&files)).expect("the archive");
}

/// Boots the machine until it turns itself off; returns what its program says.
fn boot(dir: &Dir, kernel: &Path, what: &str) -> Vec<String> {
    let vmlinuz = kernel.join("vmlinuz").to_string_lossy().into_owned();
    let append = format!("console=ttyS0 quiet panic=-1 -- {what}");
    let ran: Ran = run_in(
        dir.root(),
        "timeout",
        &[
            "-s",
            "KILL",
            "300",
            "qemu-system-x86_64",
            "-accel",
            "tcg",
            "-machine",
            "q35,memory-backend=memory",
            "-m",
            "128",
            "-object",
            "memory-backend-memfd,id=memory,size=128M,share=on",
            "-smp",
            "2",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "stdio",
            "-kernel",
            &vmlinuz,
            "-initrd",
            "initrd",
            "-append",
            &append,
            "-chardev",
            "socket,id=disk,path=v.sock",
            "-device",
            "vhost-user-blk-pci,chardev=disk,num-queues=2",
        ],
    );
    let said = ran.out.lines().filter_map(|line| {
        let (_, words) = line.trim_end().split_once("guest: ")?;
        Some(words.to_owned())
    });
    let said: Vec<String> = said.collect();
    assert!(
        ran.code == 0 && said.last().is_some_and(|last| last == "done"),
        "{ran:?}"
    );
    said
}

/// FNV-1a over words of eight bytes, as the machine reckons it.
fn checksum(bytes: &[u8]) -> String {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for word in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        sum = (sum ^ word).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{sum:016x}")
}

/// What the machine does to its disk.
fn change(bytes: &mut [u8]) {
    for number in 0..4 {
        for page in (1..1024).step_by(2) {
            let at = 32 * MIB + number * 4 * MIB + page * 4096;
            bytes[at..at + 4096].fill((number * 50 + page % 50 + 1) as u8);
        }
    }
    bytes[2 * MIB..3 * MIB + 512].fill(0);
    bytes[48 * MIB..52 * MIB].fill(0);
}

/// The bytes of an image, as QEMU reads them.
fn bytes(dir: &Dir, format: &str, file: &str) -> Vec<u8> {
    dir.qemu_img_ok(&["convert", "-f", format, "-O", "raw", file, "bytes.raw"]);
    fs::read(dir.path("bytes.raw")).expect("the bytes")
}

#[test]
fn a_linux_boots_beside_it_and_changes_it_from_two_processors() {
    let Some(kernel) = kernel() else {
        return;
    };
    let dir = Dir::new();
    write_archive(&dir, &kernel);
    images(&dir);
    // A plain disk, and a thin one above another.
    for (format, file) in [("raw", "a.raw"), ("qcow2", "f.qcow2")] {
        dir.qemu_img_ok(&["resize", "-q", "-f", format, file, "64M"]);
        dir.qemu_io(format, file, &["write -q -P 5 44M 10M"]);
        let mut wanted = bytes(&dir, format, file);
        assert_eq!(wanted.len(), LEN);

        let mut served = Served::ours(&dir, &["-w", "-x", "the disk", "-f", format, file]);
        let said = boot(&dir, &kernel, "write");
        let before = checksum(&wanted);
        change(&mut wanted);
        let after = checksum(&wanted);
        let all = [
            "queues 2",
            "ro 0",
            "serial the disk",
            "queue/logical_block_size 512",
            "size 67108864",
            &format!("sum {before}"),
            &format!("changed {after}"),
            "done",
        ];
        assert_eq!(said, all, "{file}");
        // What the machine flushed is there, however the server ends.
        served.child.kill().expect("to kill it");
        drop(served);
        assert!(bytes(&dir, format, file) == wanted, "{file}");
        if format == "raw" {
            continue;
        }
        let check = dir.qemu_img(&["check", "-f", format, file]);
        assert!(check.code == 0 || check.code == 3, "{check:?}");

        // The next machine finds what this one left, and may only read it.
        let served = Served::ours(&dir, &["-f", format, file]);
        let said = boot(&dir, &kernel, "read");
        let sum = format!("sum {after}");
        let all = [
            "queues 2",
            "ro 1",
            "serial",
            "queue/logical_block_size 512",
            "size 67108864",
            &sum,
            "done",
        ];
        assert_eq!(said, all, "{file}");
        served.end();
    }
}
