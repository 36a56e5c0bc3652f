//! Devices that the machine of these tests does not have, in a virtual one that has them: an NVMe controller that
//! vfio-pci holds behind an IOMMU, and a drive with a disc.

use std::fs;
use std::path::Path;

use crate::build::{lone_tool, machine as program};
use crate::common::Dir;
use crate::machine;

const MIB: u64 = 1 << 20;
const NVME: &str = "0000:00:03.0";

/// That a command fails, in whatever way.
const NOT_DONE: &str = "!";

/// What a command has said, and how it ended.
struct Carried<'a> {
    line: &'a str,
    said: &'a [String],
    ended: &'a str,
}

fn carried(said: &[String]) -> Vec<Carried<'_>> {
    let mut all = Vec::new();
    let mut rest = said;
    while let Some(at) = rest.iter().position(|line| line.starts_with("= ")) {
        let (command, then) = rest.split_at(at);
        if let [line, said @ ..] = command {
            let (line, ended) = (
                line.trim_start_matches("$ "),
                then[0].trim_start_matches("= "),
            );
            all.push(Carried { line, said, ended });
        }
        rest = &then[1..];
    }
    all
}

#[test]
fn nvme_namespaces_and_discs_are_read_and_written_as_images() {
    let Some(kernel) = machine::kernel() else {
        return;
    };
    if !kernel.join("vfio-pci.ko").exists() {
        eprintln!("SKIPPED: the machine has no VFIO yet (ci/machine.sh fetches it)");
        return;
    }
    let dir = Dir::new();
    // A disk with data and holes, and a namespace full of something else.
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "disk.qcow2", "6M"]);
    let writes = [
        "write -q -P 1 0 1M",
        "write -q -P 2 2M 100k",
        "write -q -z 3M 1M",
        "write -q -P 3 5M 1M",
    ];
    dir.qemu_io("qcow2", "disk.qcow2", &writes);
    dir.qemu_img_ok(&["convert", "-O", "raw", "disk.qcow2", "disk.raw"]);
    fs::write(dir.path("nvme.raw"), vec![0xee; 6 << 20]).expect("a namespace");
    fs::write(dir.path("small.raw"), vec![0xee; 4 << 20]).expect("a namespace");
    fs::copy(dir.path("disk.raw"), dir.path("disc.iso")).expect("a disc");

    let [device, second] = [1, 2].map(|number| format!("nvme://{NVME}/{number}"));
    let tool = |args: &str| {
        let args = args.replace("NVME", &device).replace("SECOND", &second);
        format!("/tool {args}")
    };
    let modules = [
        "virtio_ring",
        "virtio",
        "virtio_pci_legacy_dev",
        "virtio_pci_modern_dev",
        "virtio_pci",
        "scsi_common",
        "scsi_mod",
        "virtio_scsi",
        "cdrom",
        "sr_mod",
        "sg",
        "irqbypass",
        "vfio",
        "vfio_virqfd",
        "vfio_iommu_type1",
        "vfio-pci-core",
        "vfio-pci",
    ];
    let mut commands: Vec<String> = modules
        .iter()
        .map(|name| format!("load /{name}.ko"))
        .collect();
    let loads = commands.len();
    // Each with how it ends and a part of what it says.
    let steps: &[(String, &str, &str)] = &[
        (tool("info NVME"), "1", "/dev/vfio/"),
        (format!("vfio {NVME}"), "0", ""),
        (
            tool("info NVME"),
            "0",
            "virtual size: 6 MiB (6291456 bytes)",
        ),
        (tool("info NVME"), "0", "protocol type: nvme"),
        (
            tool("info nvme://0000:00:1f.7/1"),
            "1",
            "No such file or directory",
        ),
        (tool("info nvme://0000:00:03.0/3"), "1", "There is no"),
        (tool("convert -n -f qcow2 -O raw /disk.qcow2 NVME"), "0", ""),
        (
            tool("compare -f qcow2 -F raw /disk.qcow2 NVME"),
            "0",
            "Images are identical.",
        ),
        (tool("convert -f raw -O qcow2 NVME /back.qcow2"), "0", ""),
        (
            tool("compare -f qcow2 -F qcow2 /disk.qcow2 /back.qcow2"),
            "0",
            "Images are identical.",
        ),
        (
            tool("map -f raw --output=json NVME"),
            "0",
            "\"length\": 6291456",
        ),
        (
            tool("resize -f raw NVME 32M"),
            "1",
            "Cannot resize NVMe namespaces",
        ),
        (
            tool("create -f raw NVME 32M"),
            "1",
            "Cannot grow NVMe namespaces",
        ),
        (tool("create -q -f qcow2 SECOND 4M"), "0", ""),
        (
            tool("convert -n -f raw -O qcow2 -S 0 NVME SECOND"),
            "1",
            "smaller than",
        ),
        (
            tool("dd -f raw -O raw bs=1000 count=1000 if=NVME of=/part.raw"),
            "0",
            "",
        ),
        (tool("check SECOND"), "0", "No errors were found"),
        (tool("snapshot -c s SECOND"), "0", ""),
        (
            tool("bench -f raw -w -c 100 -s 4096 -o 4194304 --pattern=9 NVME"),
            "0",
            "Run completed",
        ),
        (tool("info /dev/sr0"), "0", "protocol type: host_cdrom"),
        (tool("convert -f raw -O raw /dev/sr0 /disc.raw"), "0", ""),
        (
            tool("compare -f raw -F qcow2 /disc.raw /disk.qcow2"),
            "0",
            "Images are identical.",
        ),
        (
            tool("compare -f raw -F raw host_cdrom:/dev/sr0 /disc.raw"),
            "0",
            "Images are identical.",
        ),
        (
            tool("resize -f raw /dev/sr0 32M"),
            "1",
            "Read-only file system",
        ),
        (tool("info /dev/sg0"), "1", "it is a generic SCSI device"),
        (
            tool("convert -f raw -O raw -r 1 /dev/sr0 /held.raw").replacen(
                "/tool",
                "held /dev/sr0 /tool",
                1,
            ),
            NOT_DONE,
            "",
        ),
        ("eject /dev/sr0".to_owned(), "0", ""),
        (tool("info /dev/sr0"), "1", "No medium found"),
        (tool("info host_cdrom:/dev/sr0"), "1", "No medium found"),
    ];
    commands.extend(steps.iter().map(|(line, ..)| line.clone()));
    fs::write(dir.path("commands"), commands.join("\n") + "\n").expect("the commands");
    let (tool, disk, list) = (lone_tool(), dir.path("disk.qcow2"), dir.path("commands"));
    let files: [(&str, &Path); 3] = [("tool", tool), ("disk.qcow2", &disk), ("commands", &list)];
    machine::write_archive(&dir, &kernel, program(), &files);
    let append = "intel_iommu=on rdinit=/init";
    let said = machine::boot(
        &dir,
        &kernel,
        512,
        append,
        &[
            "-machine",
            "q35",
            "-device",
            "intel-iommu",
            "-device",
            "nvme,id=nvme,serial=platter,addr=3",
            "-drive",
            "if=none,id=first,file=nvme.raw,format=raw",
            "-device",
            "nvme-ns,drive=first,bus=nvme,nsid=1",
            "-drive",
            "if=none,id=second,file=small.raw,format=raw",
            "-device",
            "nvme-ns,drive=second,bus=nvme,nsid=2,logical_block_size=4096,physical_block_size=4096",
            "-device",
            "virtio-scsi-pci",
            "-drive",
            "if=none,id=disc,file=disc.iso,format=raw,media=cdrom,readonly=on",
            "-device",
            "scsi-cd,drive=disc",
        ],
    );

    let all = carried(&said);
    assert_eq!(all.len(), commands.len(), "{said:#?}");
    for (one, (line, ended, part)) in all[loads..].iter().zip(steps) {
        let whole = one.said.join("\n");
        let ended_so = match *ended {
            NOT_DONE => one.ended != "0",
            ended => one.ended == ended,
        };
        assert!(
            one.line == line && ended_so,
            "{line}: {}: {whole}",
            one.ended
        );
        assert!(whole.contains(part), "{line}: {whole}");
        // An error is one line, and what it advises another.
        assert!(*ended != "1" || one.said.len() <= 2, "{line}: {whole}");
    }
    // What the controller has is what was written to it.
    let mut wanted = fs::read(dir.path("disk.raw")).expect("the disk");
    wanted[(4 * MIB) as usize..][..100 * 4096].fill(9);
    assert!(fs::read(dir.path("nvme.raw")).expect("the namespace") == wanted);
    dir.qemu_img_ok(&["check", "-f", "qcow2", "small.raw"]);
    let listed = dir.qemu_img_ok(&["snapshot", "-l", "small.raw"]);
    assert!(listed.contains(" s "), "{listed}");
}
