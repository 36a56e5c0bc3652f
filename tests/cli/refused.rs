//! What is refused changes nothing: a target keeps its bytes, its length and its times, and no file
//! appears; whatever the reason, the command and the name of the file.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use platter::{Image, Location, OpenOptions};

use crate::common::{Dir, Ran};
use crate::pair::{ours, words};

/// Name, contents and time of the last change of every file; a link's own for a link.
type Seen = BTreeMap<String, (Vec<u8>, i64, i64)>;

fn seen(dir: &Dir) -> Seen {
    let entries = std::fs::read_dir(dir.root()).unwrap().map(Result::unwrap);
    entries
        .filter(|entry| !entry.path().is_dir())
        .map(|entry| {
            let meta = entry.path().symlink_metadata().unwrap();
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            let name = entry.file_name().into_string().unwrap();
            (name, (bytes, meta.mtime(), meta.mtime_nsec()))
        })
        .collect()
}

fn run(dir: &Dir, line: &str) -> Ran {
    ours(&words(line), dir.root())
}

/// Runs the line, which must be refused with that text and change nothing.
fn refused(dir: &Dir, line: &str, text: &str) {
    let before = seen(dir);
    let ran = run(dir, line);
    assert_eq!(ran.code, 1, "{line}: {ran:?}");
    assert!(ran.err.contains(text), "{line}: {ran:?}");
    assert!(seen(dir) == before, "{line} has changed files");
}

fn made(dir: &Dir, line: &str) {
    let ran = run(dir, line);
    assert_eq!(ran.code, 0, "{line}: {ran:?}");
}

/// A source, a secret, and an image whose files this process holds for writing.
fn images() -> Dir {
    let dir = Dir::new();
    std::fs::write(dir.path("src.raw"), vec![0x5a; 1 << 20]).unwrap();
    std::fs::write(dir.path("pw"), "password").unwrap();
    std::fs::create_dir(dir.path("dir")).unwrap();
    made(&dir, "create -q -f qcow2 held.qcow2 1M");
    dir
}

fn hold(path: &Path) -> Image {
    let options = OpenOptions {
        format: Some("qcow2".to_owned()),
        writable: true,
        ..OpenOptions::default()
    };
    Image::open(&Location::from_path(path), &options).unwrap()
}

/// Format, options, and what the refusal says.
const REASONS: &[(&str, &str, &str)] = &[
    (
        "luks",
        "key-secret=none,iter-time=1",
        "No secret with id 'none'",
    ),
    ("luks", "iter-time=1", "Parameter 'key-secret' is required"),
    (
        "luks",
        "key-secret=s,iter-time=4000000000",
        "choose a shorter one",
    ),
    (
        "luks",
        "key-secret=s,cipher-alg=rot13",
        "does not accept value 'rot13'",
    ),
    (
        "qcow2",
        "encrypt.format=luks,encrypt.key-secret=none",
        "No secret with id 'none'",
    ),
    (
        "qcow2",
        "encrypt.format=aes,encrypt.key-secret=none",
        "No secret with id 'none'",
    ),
    (
        "qcow2",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=4000000000",
        "choose a shorter one",
    ),
    (
        "qcow2",
        "cluster_size=3",
        "Cluster size must be a power of two",
    ),
    (
        "qcow2",
        "data_file=no/such/file",
        "No such file or directory",
    ),
    ("qcow2", "data_file=dir", "Is a directory"),
    ("qcow2", "data_file=TARGET", "it is the same file"),
    ("qcow2", "data_file=./TARGET", "it is the same file"),
    ("qcow2", "data_file=dir/../TARGET", "it is the same file"),
    ("qcow2", "data_file=held.qcow2", "Failed to get"),
    (
        "qcow2",
        "data_file=data,encrypt.format=luks,encrypt.key-secret=none",
        "No secret with id 'none'",
    ),
    (
        "raw",
        "preallocation=metadata",
        "Unsupported preallocation mode",
    ),
    ("raw", "bogus=1", "Invalid parameter 'bogus'"),
    ("qcow2", "data_file=src.raw", ""),
];

#[test]
fn a_refused_creation_or_conversion_leaves_every_file_as_it_was() {
    let dir = images();
    let _holder = hold(&dir.path("held.qcow2"));
    std::fs::write(dir.path("there"), "what was here").unwrap();
    std::fs::write(dir.path("data.old"), "data").unwrap();
    let secret = "--object secret,id=s,file=pw";
    for target in ["there", "missing"] {
        for (format, options, text) in REASONS {
            let options = options.replace("TARGET", target);
            let convert =
                format!("convert {secret} -f raw -O {format} -o {options} src.raw {target}");
            refused(&dir, &convert, text);
            if !text.is_empty() {
                let create = format!("create -q {secret} -f {format} -o {options} {target} 1M");
                refused(&dir, &create, text);
            }
        }
    }
    // The data file that is there already, too.
    refused(
        &dir,
        "create -q -f qcow2 -o data_file=there,encrypt.format=luks,encrypt.key-secret=none missing 1M",
        "No secret with id 'none'",
    );
}

#[test]
fn a_refused_dd_leaves_every_file_as_it_was() {
    let dir = images();
    let _holder = hold(&dir.path("held.qcow2"));
    std::fs::write(dir.path("there"), "what was here").unwrap();
    for (line, text) in [
        ("dd -O luks if=src.raw of=there", "'key-secret' is required"),
        (
            "dd -O luks if=src.raw of=missing",
            "'key-secret' is required",
        ),
        ("dd -O bogus if=src.raw of=there", "Unknown file format"),
        ("dd if=src.raw of=no/such", "No such file or directory"),
        ("dd if=src.raw of=held.qcow2 -O qcow2", "Failed to get"),
        ("dd if=src.raw of=src.raw", "is also read as the input"),
        ("dd if=src.raw of=./src.raw", "is also read as the input"),
        ("dd if=nope of=there", "No such file or directory"),
    ] {
        refused(&dir, line, text);
    }
}

#[test]
fn locked_targets_and_files_too_large_keep_what_they_hold() {
    let dir = images();
    let _holder = hold(&dir.path("held.qcow2"));
    for line in [
        "create -q -f qcow2 held.qcow2 1M",
        "create -q -f raw held.qcow2 1M",
        "convert -f raw -O raw src.raw held.qcow2",
        "convert -f raw -O qcow2 src.raw held.qcow2",
        "convert -n -f raw -O qcow2 src.raw held.qcow2",
    ] {
        refused(&dir, line, "Failed to get");
    }
    std::fs::write(dir.path("there"), "what was here").unwrap();
    for target in ["there", "missing"] {
        for format in [
            "-f raw",
            "-f qcow2 -o preallocation=metadata",
            "-f luks -o key-secret=s,iter-time=1",
        ] {
            let before = seen(&dir);
            // More than the process may write.
            let line = format!("create -q --object secret,id=s,file=pw {format} {target} 1G");
            let mut command = crate::pair::ours_command(&words(&line), dir.root());
            limit_files(&mut command);
            let output = command.output().unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{line}: {text}");
            assert!(text.contains("too large"), "{line}: {text}");
            assert!(seen(&dir) == before, "{line}");
        }
    }
}

/// Lets the command write files of at most 64 MiB.
fn limit_files(command: &mut std::process::Command) {
    let program = command.get_program().to_owned();
    let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let directory = command.get_current_dir().map(ToOwned::to_owned);
    let mut limited = std::process::Command::new("prlimit");
    limited.arg("--fsize=67108864").arg(program).args(args);
    if let Some(directory) = directory {
        limited.current_dir(directory);
    }
    *command = limited;
}

/// A chain with files of every role: `top.qcow2` over `mid.qcow2` (data file `mid.data`) over
/// `base.qcow2` (data file `base.data`), and `vol.luks` with its header in `vol.header`.
fn chain() -> Dir {
    let dir = images();
    for line in [
        "create -q -f qcow2 -o data_file=base.data base.qcow2 1M",
        "create -q -f qcow2 -b base.qcow2 -F qcow2 -o data_file=mid.data mid.qcow2",
        "create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2",
        "create -q --object secret,id=s,file=pw -f luks -o key-secret=s,iter-time=1,detached-header=on vol.header",
    ] {
        made(&dir, line);
    }
    std::fs::write(dir.path("vol.luks"), vec![7; 1 << 20]).unwrap();
    for file in FILES {
        std::fs::hard_link(dir.path(file), dir.path(&format!("hard.{file}"))).unwrap();
        std::os::unix::fs::symlink(file, dir.path(&format!("sym.{file}"))).unwrap();
    }
    dir
}

/// The files of the chain, in every role and at every depth.
const FILES: &[&str] = &[
    "top.qcow2",
    "mid.qcow2",
    "mid.data",
    "base.qcow2",
    "base.data",
];

/// Command lines of which NAME is to be a file of the chain, and what the refusal says.
const OVER_OWN_CHAIN: &[(&str, &str)] = &[
    (
        "create -q -f qcow2 -b top.qcow2 -F qcow2 NAME",
        "Error: Trying to create an image",
    ),
    (
        "convert -f qcow2 -O qcow2 -B top.qcow2 -F qcow2 src.qcow2 NAME",
        "Error: Trying to create an image",
    ),
    (
        "create -q -f qcow2 -b ./sym.top.qcow2 -F qcow2 NAME",
        "Error: Trying to create an image",
    ),
    (
        "create -q -f qcow2 -b top.qcow2 -F qcow2 -o data_file=NAME new",
        "Error: Trying to create an image",
    ),
    (
        r#"create -q -f qcow2 -b json:{"driver":"qcow2","file.filename":"top.qcow2"} -F qcow2 NAME"#,
        "Error: Trying to create an image",
    ),
    (
        "convert -f qcow2 -O qcow2 -B top.qcow2 -F qcow2 -o data_file=NAME src.qcow2 new",
        "Error: Trying to create an image",
    ),
    ("convert -f qcow2 -O raw top.qcow2 NAME", "\"write\" lock"),
    ("convert -f qcow2 -O qcow2 top.qcow2 NAME", "\"write\" lock"),
    (
        "convert -f qcow2 -O qcow2 -o data_file=NAME top.qcow2 new",
        "\"write\" lock",
    ),
    (
        "convert -n -f qcow2 -O raw top.qcow2 NAME",
        "\"write\" lock",
    ),
    (
        "dd -f qcow2 -O raw if=top.qcow2 of=NAME",
        "is also read as the input",
    ),
];

#[test]
fn nothing_is_made_over_a_file_of_its_own_chain() {
    let dir = chain();
    made(&dir, "create -q -f qcow2 src.qcow2 1M");
    // By other names: tests/cli/standing.rs.
    for file in FILES {
        for (line, text) in OVER_OWN_CHAIN {
            refused(&dir, &line.replace("NAME", file), text);
        }
    }
}

#[test]
fn a_description_that_names_other_files_counts_for_the_chain() {
    let dir = chain();
    // The image's own backing file and data file are replaced by the description.
    let other = r#"json:{"driver":"qcow2","file":{"filename":"top.qcow2"},"backing":{"driver":"raw","file":{"filename":"src.raw"}}}"#;
    refused(
        &dir,
        &format!("create -q -f qcow2 -b {other} -F qcow2 src.raw"),
        "Error: Trying to create an image",
    );
    let other = r#"json:{"driver":"qcow2","file":{"filename":"base.qcow2"},"data-file":{"filename":"src.raw"}}"#;
    refused(
        &dir,
        &format!("create -q -f qcow2 -b {other} -F qcow2 src.raw"),
        "Error: Trying to create an image",
    );
}

#[test]
fn the_lock_error_of_a_data_file_names_the_data_file() {
    let dir = images();
    for (name, line) in [
        (
            "src.raw",
            "convert -f raw -O qcow2 -o data_file=src.raw src.raw out",
        ),
        (
            "./src.raw",
            "convert -f raw -O qcow2 -o data_file=./src.raw src.raw out",
        ),
    ] {
        let text = format!("Is another process using the image [{name}]?");
        refused(&dir, line, &text);
    }
    let _holder = hold(&dir.path("held.qcow2"));
    refused(
        &dir,
        "create -q -f qcow2 -o data_file=held.qcow2 out 1M",
        "Is another process using the image [held.qcow2]?",
    );
}

/// As if the writer had been killed: whoever opens the image for writing counts the references anew.
fn mark_dirty(dir: &Dir, name: &str) {
    let mut bytes = std::fs::read(dir.path(name)).unwrap();
    bytes[79] |= 1;
    std::fs::write(dir.path(name), bytes).unwrap();
}

#[test]
fn a_dirty_image_is_not_repaired_for_a_conversion_that_is_refused() {
    let dir = images();
    made(&dir, "convert -f raw -O qcow2 src.raw src.qcow2");
    made(&dir, "bitmap --add src.qcow2 b");
    for line in [
        "small.qcow2 512k",
        "apart.qcow2 -o data_file=data 1M",
        "over.qcow2 -b src.raw -F raw",
        "marked.qcow2 1M",
        "good.qcow2 1M",
    ] {
        made(&dir, &format!("create -q -f qcow2 {line}"));
    }
    made(&dir, "bitmap --add marked.qcow2 b");
    let targets = ["small", "apart", "over", "marked", "good"];
    for name in targets {
        mark_dirty(&dir, &format!("{name}.qcow2"));
    }
    for (line, text) in [
        (
            "src.raw small.qcow2",
            "output file is smaller than input file",
        ),
        ("-c src.raw apart.qcow2", "Compression not supported"),
        ("--target-is-zero src.raw over.qcow2", "has a backing file"),
        (
            "--bitmaps src.qcow2 marked.qcow2",
            "Bitmap already exists: b",
        ),
        ("-B nope -F raw src.raw good.qcow2", "'nope'"),
        (
            "-B src.raw -F raw src.raw small.qcow2",
            "output file is smaller",
        ),
    ] {
        refused(&dir, &format!("convert -n -O qcow2 {line}"), text);
    }
    let ran = run(&dir, "convert -n -O qcow2 src.raw good.qcow2");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("was not closed properly"), "{ran:?}");
    made(&dir, "compare -q src.raw good.qcow2");
    made(&dir, "check -q good.qcow2");
}
