//! A virtual machine with a Linux of its own boots beside the block device: it reads the disk, changes it from two
//! processors, and turns itself off; what it says is compared with what is in the image. Another one has no Linux, and
//! its firmware boots from the block device.

use std::fs;
use std::path::Path;

use super::vhost_user::Served;
use super::{boot_sector, images};
use crate::common::Dir;
use crate::machine;

const MIB: usize = 1 << 20;
const LEN: usize = 64 * MIB;

/// The MiB of memory of a machine, and its arguments: that memory, which is shared, and the block device.
const MEMORY: u32 = 128;
const DEVICE: [&str; 8] = [
    "-machine",
    "q35,memory-backend=memory",
    "-object",
    "memory-backend-memfd,id=memory,size=128M,share=on",
    "-chardev",
    "socket,id=disk,path=v.sock",
    "-device",
    // A kernel that is given comes first.
    "vhost-user-blk-pci,chardev=disk,num-queues=2,bootindex=1",
];

/// Boots the machine beside the block device; returns what its program says.
fn boot(dir: &Dir, kernel: &Path, what: &str) -> Vec<String> {
    machine::boot(dir, kernel, MEMORY, &format!("-- {what}"), &DEVICE)
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
    let Some(kernel) = machine::kernel() else {
        return;
    };
    let dir = Dir::new();
    machine::write_archive(&dir, &kernel, crate::build::guest(), &[]);
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

/// A directory that is shown as a disk: the driver of another kernel mounts it, also through a loop device, and what it
/// writes is there.
#[test]
fn a_linux_mounts_a_directory_and_changes_its_files() {
    let Some(kernel) = machine::kernel() else {
        return;
    };
    if !kernel.join("loop.ko").exists() {
        eprintln!("SKIPPED: the virtual machine has no loop devices; ci/setup.sh fetches it");
        return;
    }
    let dir = Dir::new();
    machine::write_archive(&dir, &kernel, crate::build::guest(), &[]);
    fs::create_dir_all(dir.path("d/sub")).expect("a directory");
    let texts = [
        ("hello.txt", "hello\n"),
        ("A long file name.text", "long\n"),
        ("sub/x", "x"),
    ];
    for (name, text) in texts {
        fs::write(dir.path("d").join(name), text).expect("a file");
    }
    let served = Served::ours(&dir, &["-w", "-f", "raw", "fat:rw:d"]);
    let said = boot(&dir, &kernel, "files");
    let all = [
        "/fat/hello.txt: hello",
        "mounted by a loop device",
        "/fat/hello.txt: hello",
        "/fat/A long file name.text: long",
        "/fat/sub/x: x",
        "done",
    ];
    assert_eq!(said, all);
    served.end();
    let read = |name: &str| fs::read_to_string(dir.path("d").join(name)).expect("a file");
    assert_eq!(read("hello.txt"), "another text\n");
    assert_eq!(read("A long file name.text"), "long\n");
    assert_eq!(read("made by the guest/and its file"), "new\n");
    assert!(!dir.path("d/sub/x").exists());
}

/// A machine without a kernel: its firmware loads the boot sector from the device and starts it, and what that loads by
/// calls of the firmware is code that writes to the disk by another one.
#[test]
fn a_firmware_boots_from_it() {
    if machine::emulator_is_missing() {
        return;
    }
    let dir = Dir::new();
    fs::write(dir.path("first"), boot_sector::first()).expect("a sector");
    fs::write(dir.path("second"), boot_sector::second()).expect("a sector");
    images(&dir);
    // What is loaded by the boot sector comes from the base of an overlay.
    for (format, file, base) in [("raw", "a.raw", "a.raw"), ("qcow2", "f.qcow2", "base.raw")] {
        let put = |format, file, name, sector: u16| {
            let at = u64::from(sector) * 512;
            dir.qemu_io(format, file, &[&format!("write -q -s {name} {at} 512")]);
        };
        put(format, file, "first", 0);
        put("raw", base, "second", boot_sector::SECOND_AT);
        let mut wanted = bytes(&dir, format, file);
        let mut served = Served::ours(&dir, &["-w", "-f", format, file]);
        let said = machine::run(&dir, MEMORY, &DEVICE);
        assert_eq!(said, ["booted", "done"], "{file}");
        // What the firmware has written is there, however the server ends.
        served.child.kill().expect("to kill it");
        drop(served);
        let at = usize::from(boot_sector::COPY_AT) * 512;
        wanted[at..at + 512].copy_from_slice(&boot_sector::second());
        assert!(bytes(&dir, format, file) == wanted, "{file}");
    }
}
