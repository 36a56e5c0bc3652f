//! Formats that are only read: what the tool prints and ends with, beside QEMU's.

use crate::encrcdsa::{LOCKS, PASS, encrypt};
use crate::given::{self, GIVEN};
use crate::pair::{Loose, Pair, ours};

#[test]
fn what_is_printed_is_what_qemu_prints() {
    for given in GIVEN.iter().filter(|given| given.known_to_peer) {
        let pair = Pair::new();
        let name = format!("a.{}", given.format);
        pair.file(&name, &given.make().1);
        let format = given.format;
        for line in [
            format!("info {name}"),
            format!("info --output=json {name}"),
            format!("info -f {format} {name}"),
            format!("map {name}"),
            format!("map --output=json {name}"),
            format!("check {name}"),
            format!("check -r all {name}"),
            format!("measure -O qcow2 {name}"),
            format!("measure -O raw {name}"),
            format!("measure --size 1M -O {format}"),
            format!("compare {name} {name}"),
            format!("resize {name} +1M"),
            format!("snapshot -l {name}"),
            format!("snapshot -c s {name}"),
            format!("commit {name}"),
            format!("rebase -u -b '' {name}"),
            format!("amend -o a=b {name}"),
            format!("bitmap --add {name} b"),
            format!("create -f {format} new 1M"),
            format!("create -f {format} -o help"),
            format!("convert -f raw -O {format} {name} new"),
            format!("convert -O raw {name} new"),
            format!("create -f qcow2 -b {name} -F {format} new"),
            format!("info -f raw {name}"),
        ] {
            // What is checked is in the images of this format alone, and theirs has no check for it.
            if line.starts_with("check") && format == "dmg" {
                continue;
            }
            pair.all_same_but(&[&line], Loose::DiskSize);
        }
    }
}

/// The image of that name.
fn given(name: &str) -> Vec<u8> {
    let mut all = GIVEN.iter();
    all.find(|given| given.name == name).expect(name).make().1
}

#[test]
fn numbers_of_a_bochs_image_that_cannot_be_are_refused_alike() {
    let pair = Pair::new();
    let whole = given("bochs");
    let cases: [(usize, &[u8]); 12] = [
        (0, b"b"),
        (32, b"r"),
        (64, &[0, 0, 3, 0]),
        (72, &[0, 0, 0, 0]),
        (72, &[1, 0, 0x10, 0]),
        (72, &[0xff; 16]),
        (80, &[0, 1, 0, 0]),
        (80, &[0, 0, 3, 0]),
        (80, &[0, 0, 0, 1]),
        (80, &[0, 2, 0, 0]),
        (88, &[0xff; 8]),
        (93, &[1]),
    ];
    for (n, (at, bytes)) in cases.into_iter().enumerate() {
        let mut damaged = whole.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        let name = format!("{n}.bochs");
        pair.file(&name, &damaged);
        let ran = pair.same(&format!("info -f bochs {name}"));
        assert_eq!(ran.code, 1, "{ran:?}");
    }
}

#[test]
fn numbers_of_a_cloop_image_that_cannot_be_are_refused_alike() {
    let pair = Pair::new();
    let whole = given("cloop");
    let at = |n: usize| 136 + n * 8;
    let word = |at: usize| u64::from_be_bytes(whole[at..at + 8].try_into().expect("8 bytes"));
    let cases: [(usize, &[u8]); 10] = [
        (128, &[0, 0, 0, 0]),
        (128, &1000_u32.to_be_bytes()),
        (128, &[4, 0, 2, 0]),
        (128, &[0xff, 0xff, 0xfe, 0]),
        (132, &[0xff; 4]),
        (132, &[0x20, 0, 0, 0]),
        (132, &[0x04, 0, 0, 0]),
        (at(7), &[0; 8]),
        (at(40), &[0xff; 8]),
        (at(1), &(word(at(0)) + (1 << 27) + 1).to_be_bytes()),
    ];
    for (n, (at, bytes)) in cases.into_iter().enumerate() {
        let mut damaged = whole.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        let name = format!("{n}.cloop");
        pair.file(&name, &damaged);
        let ran = pair.same(&format!("info {name}"));
        assert_eq!(ran.code, 1, "{ran:?}");
        pair.same(&format!("convert -O raw {name} out"));
    }
    // One that is read, up to a block that is damaged.
    let mut damaged = whole.clone();
    damaged[word(at(0)) as usize + 1000] ^= 1;
    pair.file("damaged.cloop", &damaged);
    let ran = ours(
        &["convert", "-O", "raw", "damaged.cloop", "out"],
        pair.ours().root(),
    );
    let lines: Vec<_> = ran.err.lines().collect();
    assert_eq!((ran.code, lines.len()), (1, 2), "{ran:?}");
    assert!(lines[0].ends_with(": Input/output error"), "{ran:?}");
    assert!(
        lines[1].starts_with("'damaged.cloop' cannot be read: "),
        "{ran:?}"
    );
    assert!(!pair.ours().path("out").exists());
}

#[test]
fn a_dmg_without_its_trailer_is_a_plain_disk_and_says_so() {
    let pair = Pair::new();
    pair.file("plain.dmg", &[7; 4096]);
    // Theirs refuses it.
    pair.same("info -f dmg plain.dmg");
    let dir = pair.ours();
    let ran = ours(&["info", "plain.dmg"], dir.root());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("file format: raw\n"), "{ran:?}");
    assert!(
        ran.err
            .contains("warning: 'plain.dmg' is named like a dmg image"),
        "{ran:?}"
    );
    let ran = ours(&["resize", "plain.dmg", "8k"], dir.root());
    assert_eq!(ran.code, 1, "{ran:?}");
    pair.same("info -f raw plain.dmg");
    let whole = given("dmg");
    pair.file("image.dmg", &whole);
    pair.file("renamed.img", &whole);
    pair.same("info image.dmg");
    pair.same("info renamed.img");
    pair.same("info -f dmg renamed.img");
    pair.file("empty.dmg", b"");
    pair.same("info -f dmg empty.dmg");
}

/// What macOS has encrypted, with the passphrase in a file.
#[test]
fn every_command_reads_an_encrypted_image_with_its_secret() {
    let pair = Pair::new();
    let dir = pair.ours();
    pair.file("pass", PASS.as_bytes());
    pair.file("other", b"another");
    let secret = ["--object", "secret,id=s,file=pass"];
    for (format, name) in [("dmg", "dmg"), ("sparseimage", "sparseimage")] {
        let (disk, plain) = given::by_name(name).make();
        pair.file("disk.raw", &disk);
        pair.file("image", &encrypt(&plain, LOCKS[1]));
        let image = format!("driver={format},key-secret=s,file.filename=image");
        let ran = |command: &str, more: &[&str]| {
            let words: Vec<&str> = command.split(' ').collect();
            let head = [&words[..], &secret, &["--image-opts"], more].concat();
            ours(&head, dir.root())
        };
        let info = ran("info", &[&image]);
        assert_eq!(info.code, 0, "{info:?}");
        assert!(info.out.contains("encrypted: yes"), "{info:?}");
        let target = ["--target-image-opts"];
        let raw = "driver=raw,file.filename=disk.raw";
        for (command, more) in [
            ("map --output=json", vec![&*image]),
            ("measure -O qcow2", vec![&image]),
            ("check", vec![&image]),
            ("compare", vec![&image, raw]),
            ("convert -O qcow2", vec![&image, "out.qcow2"]),
        ] {
            let ran = ran(command, &more);
            // There is nothing that a check could compare.
            let fine = ran.code == 0 || (command == "check" && ran.code == 63);
            assert!(fine, "{format} {command}: {ran:?}");
            let shown = format!("{}{}", ran.out, ran.err);
            assert!(!shown.contains(PASS), "{shown}");
        }
        let same = ours(&["compare", "out.qcow2", "disk.raw"], dir.root());
        assert_eq!(same.code, 0, "{same:?}");

        // Without the secret, or with another, nothing is made.
        let wrong = ["--object", "secret,id=s,file=other"];
        let convert = ["convert", "-O", "raw", "--image-opts"];
        for (objects, says) in [
            (
                &wrong[..],
                "Invalid password, cannot unlock the encrypted image",
            ),
            (&[], "No secret with id 's'"),
        ] {
            let refused = [&convert[..], objects, &[&image, "none.raw"]].concat();
            let refused = ours(&refused, dir.root());
            assert_eq!(refused.code, 1, "{refused:?}");
            assert!(refused.err.contains(says), "{refused:?}");
            assert!(!dir.path("none.raw").exists());
        }
        let bare = ours(&["info", "-f", format, "image"], dir.root());
        assert_eq!(bare.code, 1, "{bare:?}");
        assert!(bare.err.contains("'key-secret' is required"), "{bare:?}");
        // A target that is only read.
        let onto = [
            &["convert", "-n", "-O", format][..],
            &secret,
            &target,
            &["disk.raw", &image],
        ];
        let refused = ours(&onto.concat(), dir.root());
        assert_eq!(refused.code, 1, "{refused:?}");
    }
}

#[test]
fn checking_a_dmg_compares_its_checksums() {
    let pair = Pair::new();
    let whole = given("dmg");
    pair.file("a.dmg", &whole);
    let dir = pair.ours();
    let ran = ours(&["check", "a.dmg"], dir.root());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.out, "No errors were found on the image.\n");
    // Nothing is repaired.
    let ran = ours(&["check", "-r", "all", "a.dmg"], dir.root());
    assert_eq!(ran.code, 1, "{ran:?}");
    // The checksum of the data fork, at the end of the file.
    let mut damaged = whole.clone();
    let at = whole.len() - 512 + 91;
    damaged[at] ^= 1;
    pair.file("b.dmg", &damaged);
    let ran = ours(&["check", "b.dmg"], dir.root());
    assert_eq!(ran.code, 2, "{ran:?}");
    let text = format!("{}{}", ran.out, ran.err);
    assert!(
        text.contains("ERROR: the checksum of the data fork is "),
        "{ran:?}"
    );
}
