//! Images within tar archives, read where they lie.

use std::process::Command;

use crate::common::{Dir, Ran};
use crate::pair::{ours, words};

/// The forms in which this machine's tar writes.
const FORMS: [&str; 4] = ["ustar", "pax", "gnu", "oldgnu"];

fn tar(dir: &Dir, args: &[&str]) {
    let status = Command::new("tar")
        .args(args)
        .current_dir(dir.root())
        .status();
    assert!(status.expect("tar must run").success(), "tar {args:?}");
}

/// A name that does not fit into the field of the header.
fn long_name() -> String {
    format!("{}disk.raw", "folder/".repeat(22))
}

/// For each form an archive of text, a qcow2 image and its raw copy under a long name.
fn archives() -> Dir {
    let dir = Dir::new();
    dir.qemu_img_ok(&words("create -q -f qcow2 disk.qcow2 1M"));
    dir.qemu_io("qcow2", "disk.qcow2", &["write -P 5 64k 200k"]);
    dir.qemu_img_ok(&words("convert -O raw disk.qcow2 disk.raw"));
    std::fs::write(dir.path("machine.ovf"), "<Envelope/>\n").expect("a file");
    let rename = format!("--transform=s|^disk.raw|{}|", long_name());
    for form in FORMS {
        let (file, form) = (format!("{form}.tar"), format!("--format={form}"));
        let names = ["machine.ovf", "./disk.qcow2", "disk.raw"];
        tar(
            &dir,
            &[&["-cf", &file, &form, &rename], &names[..]].concat(),
        );
    }
    dir
}

fn run(dir: &Dir, line: &str) -> Ran {
    ours(&words(line), dir.root())
}

fn refused(dir: &Dir, line: &str) -> String {
    let ran = run(dir, line);
    assert_eq!(ran.code, 1, "{line}: {ran:?}");
    assert_eq!(ran.err.lines().count(), 1, "{line}: {ran:?}");
    ran.err
}

#[test]
fn a_member_is_read_where_it_lies_whatever_its_format() {
    let dir = archives();
    for form in FORMS {
        let member = |name: &str| format!("driver=tar,member={name},file.filename={form}.tar");
        for name in [
            "disk.qcow2".to_owned(),
            "./disk.qcow2".to_owned(),
            long_name(),
        ] {
            let line = format!("convert --image-opts {} -O raw out.raw", member(&name));
            let ran = run(&dir, &line);
            assert_eq!((ran.code, &*ran.err), (0, ""), "{line}");
            let same = |file: &str| std::fs::read(dir.path(file)).expect("an image");
            assert!(same("out.raw") == same("disk.raw"), "{line}");
        }
        let info = run(&dir, &format!("info --image-opts {}", member("disk.qcow2")));
        assert!(info.out.contains("file format: qcow2\n"), "{info:?}");
        assert!(
            info.out.contains("virtual size: 1 MiB (1048576 bytes)\n"),
            "{info:?}"
        );
        let named = format!(
            r#"json:{{"driver":"qcow2","file":{{"driver":"tar","member":"disk.qcow2","file":{{"driver":"file","filename":"{form}.tar"}}}}}}"#
        );
        for line in [
            format!("check {named}"),
            format!("compare {named} disk.raw"),
        ] {
            let ran = run(&dir, &line);
            assert_eq!((ran.code, &*ran.err), (0, ""), "{line}");
        }
        let backing = format!("create -q -f qcow2 -F qcow2 -b {named} over.qcow2");
        assert_eq!(run(&dir, &backing).code, 0, "{backing}");
        let ran = run(&dir, "compare over.qcow2 disk.raw");
        assert_eq!((ran.code, &*ran.err), (0, ""), "{form}");
    }
}

#[test]
fn info_lists_what_an_archive_holds() {
    let dir = archives();
    for form in FORMS {
        let long = long_name();
        let text = run(&dir, &format!("info {form}.tar")).out;
        let length = |name: &str| std::fs::metadata(dir.path(name)).expect("a file").len();
        assert!(
            text.contains("\nContents:\n    machine.ovf: 12 B (12 bytes)\n    "),
            "{text}"
        );
        assert!(
            text.contains(&format!("    {long}: 1 MiB (1048576 bytes)\n")),
            "{text}"
        );
        let json = run(&dir, &format!("info --output=json {form}.tar")).out;
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["format"], "raw");
        let contents = json["contents"].as_array().expect("a list");
        assert_eq!(contents.len(), 3, "{json}");
        assert_eq!(contents[1]["length"], length("disk.qcow2"), "{json}");
        let name = contents[1]["filename"].as_str().expect("a name");
        let ran = ours(&["compare", name, "disk.raw"], dir.root());
        assert_eq!((ran.code, &*ran.err), (0, ""), "{name}");
    }
    // A disk that is no archive has no such lines.
    for line in ["info disk.raw", "info disk.qcow2"] {
        assert!(!run(&dir, line).out.contains("Contents"), "{line}");
    }
}

#[test]
fn what_is_no_member_or_would_be_changed_is_refused() {
    let dir = archives();
    let before = std::fs::read(dir.path("gnu.tar")).expect("an archive");
    let none = refused(
        &dir,
        "info --image-opts driver=tar,member=no,file.filename=gnu.tar",
    );
    assert!(
        none.contains("no member 'no'; it has 'machine.ovf', "),
        "{none}"
    );
    let which = refused(&dir, "info --image-opts driver=tar,file.filename=gnu.tar");
    assert!(which.contains("name a member"), "{which}");
    let raw = refused(
        &dir,
        "info --image-opts driver=tar,member=x,file.filename=disk.raw",
    );
    assert!(
        raw.contains("'disk.raw': the archive holds no files"),
        "{raw}"
    );
    let member = "driver=tar,member=disk.qcow2,file.filename=gnu.tar";
    for line in [
        format!("resize --image-opts {member} 2M"),
        format!("check -r all --image-opts {member}"),
        format!("snapshot -c s --image-opts {member}"),
        format!("convert -n --target-image-opts disk.raw {member}"),
    ] {
        let error = refused(&dir, &line);
        assert!(error.contains("can only be read"), "{error}");
    }
    // Onto the archive that it is read from.
    for line in [
        format!("convert --image-opts {member} -O raw gnu.tar"),
        format!("convert --image-opts {member} -O qcow2 ./gnu.tar"),
        format!("convert -U --image-opts {member} -O raw gnu.tar"),
        format!("dd --image-opts if={member} -O raw of=gnu.tar"),
        format!("dd -U --image-opts if={member} -O raw of=./gnu.tar"),
    ] {
        assert_eq!(run(&dir, &line).code, 1, "{line}");
    }
    assert!(before == std::fs::read(dir.path("gnu.tar")).expect("an archive"));
}

#[test]
fn a_sparse_member_is_refused_with_the_remedy() {
    let dir = archives();
    let sparse = |form: &str, name: &str| {
        let format = format!("--format={form}");
        tar(&dir, &["-Scf", name, &format, "disk.raw", "machine.ovf"]);
    };
    for (form, name) in [("pax", "pax-sparse.tar"), ("gnu", "gnu-sparse.tar")] {
        sparse(form, name);
        let line = format!("info --image-opts driver=tar,member=disk.raw,file.filename={name}");
        let error = refused(&dir, &line);
        assert!(error.contains("unpack it first"), "{error}");
        // What stands behind it is found all the same.
        let line = format!("info --image-opts driver=tar,member=machine.ovf,file.filename={name}");
        assert_eq!(run(&dir, &line).code, 0, "{line}");
    }
}
