//! Machines in one file: an archive of a description, digests and a disk.

use std::os::unix::fs::FileTypeExt;
use std::process::{Command, Stdio};

use crate::build::tool;
use crate::common::{Dir, Ran};
use crate::pair::{ours, words};

fn disk() -> Dir {
    let dir = Dir::new();
    dir.qemu_img_ok(&words("create -q -f qcow2 disk.qcow2 300M"));
    let commands = [
        "write -P 5 64k 200k",
        "write -P 7 9M 3M",
        "write -P 9 299M 1M",
    ];
    dir.qemu_io("qcow2", "disk.qcow2", &commands);
    dir
}

fn run(dir: &Dir, line: &str) -> Ran {
    ours(&words(line), dir.root())
}

fn done(dir: &Dir, line: &str) -> String {
    let ran = run(dir, line);
    assert_eq!((ran.code, &*ran.err), (0, ""), "{line}");
    ran.out
}

fn shell(dir: &Dir, line: &str) -> String {
    let run = Command::new("sh")
        .args(["-ec", line])
        .current_dir(dir.root())
        .env("P", tool())
        .output()
        .expect("sh must run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(run.status.success(), "{line}: {}", text(&run.stderr));
    text(&run.stdout)
}

/// The reasons for which the archive would be refused.
fn objections(dir: &Dir, file: &str) -> Vec<String> {
    let ran = run(dir, &format!("inspect --profile ova --output=json {file}"));
    let json: serde_json::Value =
        serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
    let found = json["objections"].as_array().expect("a list").iter();
    let found: Vec<String> = found
        .map(|objection| {
            assert_ne!(objection["remedy"], "", "{json}");
            objection["reason"].as_str().expect("a reason").to_owned()
        })
        .collect();
    match found.is_empty() {
        true => assert_eq!(ran.code, 0, "{json}"),
        false => assert_eq!((ran.code, &json["verdict"]), (2, &"fail".into()), "{json}"),
    }
    found
}

/// What an archive that was made here has to be.
fn assert_whole(dir: &Dir, file: &str, stem: &str) {
    assert_eq!(objections(dir, file), Vec::<String>::new(), "{file}");
    let names: Vec<_> = [".ovf", ".mf", "-disk1.vmdk"]
        .iter()
        .map(|ending| format!("{stem}{ending}"))
        .collect();
    assert_eq!(
        shell(dir, &format!("tar -tf {file}"))
            .lines()
            .collect::<Vec<_>>(),
        names
    );
    let list = done(dir, &format!("info {file}"));
    for name in &names {
        assert!(list.contains(name.as_str()), "{list}");
    }
    let member = format!("driver=tar,member={stem}-disk1.vmdk,file.filename={file}");
    let compared = done(
        dir,
        &format!(
            "compare --image-opts driver=qcow2,file.filename=disk.qcow2 driver=vmdk,file.{}",
            member.replace(",", ",file.")
        ),
    );
    assert_eq!(compared, "Images are identical.\n");
    // By others: unpacked, the digests fit, and QEMU's tools read the disk.
    shell(
        dir,
        &format!("rm -rf out; mkdir out; tar -xf {file} -C out"),
    );
    let digests = shell(
        dir,
        &format!("cd out; sha256sum {stem}.ovf {stem}-disk1.vmdk"),
    );
    let manifest = std::fs::read_to_string(dir.path(&format!("out/{stem}.mf"))).expect("a file");
    for line in digests.lines() {
        let (digest, name) = line.split_once("  ").expect("a digest");
        assert!(
            manifest.contains(&format!("SHA256({name})= {digest}\n")),
            "{manifest}"
        );
    }
    assert_eq!(manifest.lines().count(), 2);
    let compared = dir.qemu_img_ok(&words(&format!(
        "compare -F vmdk disk.qcow2 out/{stem}-disk1.vmdk"
    )));
    assert!(compared.contains("identical"), "{compared}");
    let len = std::fs::metadata(dir.path(&format!("out/{stem}-disk1.vmdk")))
        .expect("a file")
        .len();
    let ovf = std::fs::read_to_string(dir.path(&format!("out/{stem}.ovf"))).expect("a file");
    // 200 KiB from 64 KiB on, 3 MiB and 1 MiB, in grains of 64 KiB.
    let populated = (4 << 16) + (4 << 20);
    for part in [
        format!("ovf:href=\"{stem}-disk1.vmdk\" ovf:id=\"file1\" ovf:size=\"{len}\""),
        format!("ovf:capacity=\"{}\"", 300 << 20),
        format!("ovf:populatedSize=\"{populated}\""),
        "vmdk.html#streamOptimized\"".to_owned(),
        "<rasd:ResourceSubType>lsilogic<".to_owned(),
    ] {
        assert!(ovf.contains(&part), "{part} in {ovf}");
    }
}

#[test]
fn a_disk_becomes_a_machine_in_one_file() {
    let dir = disk();
    for (name, stem) in [("vm.ova", "vm"), ("a b&c.v2.ova", "a_b_c.v2")] {
        let args = ["convert", "--profile", "ova", "disk.qcow2", name];
        let ran = ours(&args, dir.root());
        assert_eq!((ran.code, &*ran.err), (0, ""), "{name}");
        std::fs::rename(dir.path(name), dir.path("x.ova")).expect("a file");
        assert_whole(&dir, "x.ova", stem);
    }
    // Over a longer file, without a cache, and with promises of durability.
    std::fs::write(dir.path("vm.ova"), vec![0xaa; 40 << 20]).expect("a file");
    for cache in ["none", "writethrough"] {
        done(
            &dir,
            &format!("convert -t {cache} --profile ova disk.qcow2 vm.ova"),
        );
        assert_whole(&dir, "vm.ova", "vm");
    }
}

#[test]
fn an_archive_leaves_through_a_pipe_with_what_stands_in_front() {
    let dir = disk();
    shell(
        &dir,
        "$P convert --profile ova disk.qcow2 /dev/stdout | cat >x.ova",
    );
    assert_whole(&dir, "x.ova", "disk");
    shell(
        &dir,
        "$P convert -p -m 1 --profile ova disk.qcow2 /dev/fd/3 3>&1 >progress | cat >y.ova",
    );
    assert_whole(&dir, "y.ova", "disk");
    let shown = std::fs::read_to_string(dir.path("progress")).expect("a file");
    let percents: Vec<f64> = shown
        .split('(')
        .filter_map(|part| part.split('/').next()?.trim().parse().ok())
        .collect();
    assert!(percents.is_sorted(), "{shown}");
    assert_eq!(percents.last(), Some(&100.0), "{shown}");
    // What is read once cannot be read twice.
    shell(&dir, "$P convert -O raw disk.qcow2 disk.raw");
    let piped = Command::new("sh")
        .args([
            "-c",
            "cat disk.raw | $P convert --profile ova -f raw /dev/stdin /dev/stdout | cat",
        ])
        .current_dir(dir.root())
        .env("P", tool())
        .output()
        .expect("sh must run");
    let error = String::from_utf8_lossy(&piped.stderr).into_owned();
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(piped.stdout.is_empty());
}

#[test]
fn what_cannot_become_an_archive_is_refused_and_leaves_nothing() {
    let dir = disk();
    dir.qemu_img_ok(&words(
        "create -q -f qcow2 -b disk.qcow2 -F qcow2 top.qcow2",
    ));
    dir.qemu_img_ok(&words("create -q -f vmdk base.vmdk 300M"));
    for (line, reason) in [
        (
            "convert --profile ova --chain top.qcow2 x.ova",
            "a whole chain is several",
        ),
        (
            "convert --profile ova -B base.vmdk -F vmdk disk.qcow2 x.ova",
            "no backing file",
        ),
        (
            "convert --profile ova -o subformat=vmfs disk.qcow2 x.ova",
            "needs subformat=streamOptimized",
        ),
        (
            "convert --profile ova disk.qcow2 /dev/null",
            "'/dev/null' has a fixed length",
        ),
        ("convert --profile ova disk.qcow2 no/x.ova", "No such file"),
    ] {
        let ran = run(&dir, line);
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{line}: {ran:?}");
        assert!(ran.err.contains(reason), "{line}: {ran:?}");
        assert!(!dir.path("x.ova").exists(), "{line}");
    }
    assert!(
        std::fs::metadata("/dev/null")
            .expect("a device")
            .file_type()
            .is_char_device()
    );
    // Ended half-way.
    dir.qemu_img_ok(&words("create -q -f raw big.raw 2G"));
    let file = std::fs::File::options()
        .write(true)
        .open(dir.path("big.raw"))
        .expect("a file");
    for at in 0..64u64 {
        use std::os::unix::fs::FileExt;
        file.write_all_at(&[at as u8 + 1; 4096], at << 25)
            .expect("a file");
    }
    let mut child = Command::new(tool())
        .args(words("convert -r 1M --profile ova -f raw big.raw x.ova"))
        .current_dir(dir.root())
        .stderr(Stdio::null())
        .spawn()
        .expect("the tool must run");
    while !dir.path("x.ova").exists() {
        std::thread::yield_now();
    }
    let status = Command::new("kill").arg(child.id().to_string()).status();
    assert!(status.expect("kill must run").success());
    assert!(!child.wait().expect("a child").success());
    assert!(!dir.path("x.ova").exists());
}

#[test]
fn what_readers_would_refuse_in_a_foreign_archive_is_said() {
    let dir = disk();
    done(&dir, "convert --profile ova disk.qcow2 vm.ova");
    shell(
        &dir,
        "mkdir out; tar -xf vm.ova -C out; cd out; cp ../disk.qcow2 other.vmdk",
    );
    // What the shell does in the directory of the unpacked files, and what is said of the outcome.
    for (change, reasons) in [
        (
            "tar --format=ustar -cf ../x.ova vm.ovf vm.mf vm-disk1.vmdk",
            &[][..],
        ),
        ("tar --format=ustar -cf ../x.ova vm.ovf vm-disk1.vmdk", &[]),
        (
            "tar --format=ustar -cf ../x.ova vm.mf vm.ovf vm-disk1.vmdk",
            &["'vm.ovf' is not the first file", "'vm.mf' does not follow"],
        ),
        (
            "tar --format=ustar -cf ../x.ova vm.ovf vm-disk1.vmdk vm.mf",
            &["'vm.mf' does not follow"],
        ),
        (
            "tar --format=pax -cf ../x.ova vm.ovf vm.mf vm-disk1.vmdk",
            &[
                "'vm.ovf' is extended as in pax",
                "'vm.mf' is",
                "'vm-disk1.vmdk' is",
            ],
        ),
        (
            "sed -i s/2048/4096/ vm.ovf; tar --format=ustar -cf ../x.ova vm.ovf vm.mf vm-disk1.vmdk",
            &["'vm.ovf' is not what the manifest says: its SHA256 is "],
        ),
        (
            "tar --format=ustar -cf ../x.ova vm.ovf",
            &["names 'vm-disk1.vmdk', which is not in the archive"],
        ),
        (
            "echo 'MD5(vm.ovf)= 00' >vm.mf; echo junk >>vm.mf; echo 'SHA1(no)= 00' >>vm.mf; tar --format=ustar -cf ../x.ova vm.ovf vm.mf vm-disk1.vmdk",
            &[
                "kind MD5",
                "no digest: 'junk'",
                "names 'no'",
                "'vm-disk1.vmdk' has no digest",
            ],
        ),
        (
            "sed 's/capacity=\"[0-9]*/capacity=\"512/; s/:size=\"[0-9]*/:size=\"7/; s/envelope.1\"/envelope\\/2\"/g; s/Parent>3/Parent>8/; s/#streamO/#o/' vm.ovf >v2.ovf; tar --format=ustar -cf ../x.ova v2.ovf vm-disk1.vmdk",
            &[
                "of another version",
                "at the controller 8",
                "by the description 7",
                "said to have the format",
                "by the description 512",
            ],
        ),
        (
            "cp other.vmdk vm-disk1.vmdk; sed 's/ ovf:size=\"[0-9]*\"//' vm.ovf >v3.ovf; tar --format=ustar -cf ../x.ova v3.ovf vm-disk1.vmdk",
            &["The file is no image in the format 'vmdk'"],
        ),
        (
            "echo junk >j.ovf; tar --format=ustar -cf ../x.ova j.ovf",
            &["The description cannot be read"],
        ),
        (
            "tar --format=ustar -cf ../x.ova vm.mf",
            &["no description", "does not follow", "", "", ""],
        ),
        ("cp ../disk.qcow2 ../x.ova", &["no tar archive"]),
    ] {
        shell(&dir, &format!("cd out; {change}"));
        let found = objections(&dir, "x.ova");
        assert_eq!(found.len(), reasons.len(), "{change}: {found:?}");
        for (found, reason) in found.iter().zip(reasons) {
            assert!(found.contains(reason), "{change}: {found}");
        }
    }
    let bytes = std::fs::read(dir.path("vm.ova")).expect("an archive");
    std::fs::write(dir.path("cut.ova"), &bytes[..bytes.len() / 2]).expect("a file");
    let found = objections(&dir, "cut.ova");
    assert!(found[0].contains("past the end"), "{found:?}");
}
