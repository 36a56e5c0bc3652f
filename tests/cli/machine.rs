//! Virtual machines with a Linux of their own: the kernel and its modules are those that `ci/machine.sh` fetches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::{Dir, Ran, run_in};

/// The kernel and its modules, if there are all that a machine needs; says so where not.
pub fn kernel() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let kernel = target.join("machine");
    if emulator_is_missing() {
        return None;
    }
    if kernel.join("vmlinuz").exists() {
        return Some(kernel);
    }
    eprintln!("SKIPPED: virtual machines need the kernel that ci/setup.sh fetches");
    None
}

/// Whether there is nothing that runs a machine; says so then.
pub fn emulator_is_missing() -> bool {
    let found = Command::new("qemu-system-x86_64")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    let missing = !found.is_ok_and(|status| status.success());
    if missing {
        eprintln!("SKIPPED: virtual machines need qemu-system-x86_64, which ci/setup.sh installs");
    }
    missing
}

/// An archive of the form "newc" (cpio(5)), with which a machine begins.
fn archive(files: &[(String, u32, Vec<u8>)]) -> Vec<u8> {
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

/// Writes what a machine begins with: its first program, the modules of the kernel, and other files by their names.
pub fn write_archive(dir: &Dir, kernel: &Path, init: &Path, more: &[(&str, &Path)]) {
    let read = |path: &Path| fs::read(path).expect("a part of the machine");
    let mut files = vec![
        ("init".to_owned(), 0o100_755, read(init)),
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
    for (name, path) in more {
        files.push(((*name).to_owned(), 0o100_755, read(path)));
    }
    fs::write(dir.path("initrd"), archive(&files)).expect("the archive");
}

/// Boots a machine of so many MiB with these arguments of QEMU, until it turns itself off; returns what its program,
/// which is told `append`, says.
pub fn boot(dir: &Dir, kernel: &Path, memory: u32, append: &str, args: &[&str]) -> Vec<String> {
    let vmlinuz = kernel.join("vmlinuz").to_string_lossy().into_owned();
    // A host that is busy may let the test of the timer fail, which the kernel panics at.
    let append = format!("console=ttyS0 quiet panic=-1 no_timer_check {append}");
    let linux = ["-kernel", &vmlinuz, "-initrd", "initrd", "-append", &append];
    run(dir, memory, &[&linux, args].concat())
}

/// Runs a machine of so many MiB with these arguments of QEMU, until it turns itself off; returns the lines that it says
/// on its serial port behind "guest: ", the last of which is "done".
pub fn run(dir: &Dir, memory: u32, args: &[&str]) -> Vec<String> {
    let memory = memory.to_string();
    let mut all = vec![
        "-s",
        "KILL",
        "300",
        "qemu-system-x86_64",
        "-accel",
        "tcg",
        "-m",
        &memory,
        "-smp",
        "2",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        "stdio",
    ];
    all.extend(args);
    let ran: Ran = run_in(dir.root(), "timeout", &all);
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
