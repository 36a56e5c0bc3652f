//! The command line itself: global options, option tables, abbreviations, usage errors.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::build;
use crate::common::Dir;
use crate::pair::{Loose, Pair, ours};

const COMMANDS: [&str; 11] = [
    "amend", "bitmap", "check", "commit", "compare", "convert", "create", "info", "map", "rebase",
    "resize",
];

fn images() -> Pair {
    Pair::with(&[
        "create -q a.raw 1M",
        "create -q -f qcow2 b.qcow2 1M",
        "create -q -f qcow2 -b a.raw -F raw o.qcow2",
    ])
}

#[test]
fn global_usage_errors() {
    let pair = images();
    pair.all_same(&[
        "",
        "bogus",
        "''",
        "help",
        "-z",
        "--zz",
        "--zz info a.raw",
        "-T",
        "-T foo=x info a.raw",
        "-T events=/nonexistent info a.raw",
        "-T file=/nonexistent/x info a.raw",
        "--version=x",
        "--trace",
        "-- bogus",
        "-- info nope",
        "--tr qcow2* info nope",
        "-T qcow2*,events=/dev/null info nope",
    ]);
}

#[test]
fn the_same_usage_errors_for_every_command() {
    let pair = images();
    let mut lines = Vec::new();
    for command in COMMANDS {
        for rest in [
            "",
            "-z",
            "--zz",
            "-z -y x",
            "x -Z",
            "-f",
            "x -f",
            "--help=x",
            "--object",
            "--object secret x",
            "--object secret,id=s x",
            "--object secret,id=s,data=x,file=y x",
            "--object secret,id=s,data=x,format=foo x",
            "--object secret,id=1s,data=x x",
            "--object secret,id=s,data x",
            "--object secret,id=s,file=nope x",
            "--object secret,id=s,data=x --object secret,id=s,data=y x",
            "--object , x",
            "--object '' x",
            "--object id=f x",
            "--object {} x",
            "--object [] x",
            "--object {\"qom-type\":\"secret\",\"id\":\"a\",\"data\":\"x\" x",
            "--object {\"qom-type\":\"secret\",\"id\":3,\"data\":\"x\"} x",
            "--object {\"qom-type\":\"secret\",\"id\":\"a\",\"data\":\"x\",\"data\":\"y\"} x",
            "--object help",
            "--object ? nope",
        ] {
            lines.push(format!("{command} {rest}"));
        }
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

#[test]
fn objects_are_accepted_in_both_forms() {
    let pair = images();
    for object in [
        "secret,id=s,data=x",
        "id=s,qom-type=secret,data=x",
        "secret,id=s,data=a,,b",
        "secret,id=s,data=x,",
        "{'qom-type':'secret','id':'a','data':'x'}",
        "{\"qom-type\": \"secret\", \"id\": \"a\", \"data\": \"\\u00e9\\n\"}",
        "throttle-group,id=a",
    ] {
        pair.same_args(&["info", "--object", object, "b.qcow2"], Loose::Exact);
    }
}

#[test]
fn limits_of_throttle_groups_are_judged_alike() {
    let pair = images();
    for group in [
        "help",
        "id=g,limits.bps-total=1000,limits.iops-total=5",
        "id=g,limits.iops-total=5,limits.iops-total-max=50,limits.iops-total-max-length=60",
        "id=g,x-bps-read=5,limits.bps-read=6",
        "id=g,x-bps-total=1k",
        "id=g,x-bps-total=-1",
        "id=g,x-bps-total=",
        "id=g,x-bps-total=0x10",
        "id=g,x-bps-total=1.5",
        "id=g,limits.bps-total=abc",
        "id=g,x-bps-total=1,x-bps-read=1",
        "id=g,x-bps-total-max=1",
        "id=g,x-bps-total=10,x-bps-total-max=5",
        "id=g,x-bps-total-max-length=5",
        "id=g,x-bps-total-max-length=0",
        "id=g,x-iops-size=5",
        "id=g,foo=1",
        "id=g,limits.foo=1",
        "id=g,x-bps-total=1000000000000001",
        "id=g,limits=x",
        "id=g,throttling.bps-total=1",
        "id=g,limits.bps-total=-1",
        "id=g,limits.bps-total=5,limits.bps-total-max=-1",
        "id=g,limits.bps-total=5,limits.bps-total-max-length=-1",
        "id=g,limits.bps-total=5,limits.bps-total-max-length=4294967296",
        "id=g,limits.iops-total=5,limits.iops-size=-1",
        "id=g,limits.iops-total=-99999999999999999999",
        "id=1x",
        "x-bps-total=1",
    ] {
        let object = format!("throttle-group,{group}");
        pair.same_args(&["info", "--object", &object, "b.qcow2"], Loose::Exact);
    }
    for object in [
        "{'qom-type':'throttle-group','id':'g','limits':{'bps-total':100000,'iops-read':7}}",
        "{'qom-type':'throttle-group','id':'g','limits':{}}",
        "{'qom-type':'throttle-group','id':'g','x-bps-total':100000}",
        "{'qom-type':'throttle-group','id':'g','limits':{'bps-tota':100000}}",
    ] {
        pair.same_args(&["info", "--object", object, "b.qcow2"], Loose::Exact);
    }
    // One list of IDs.
    for second in ["throttle-group,id=g", "secret,id=g,data=x"] {
        let args = [
            "info",
            "--object",
            "throttle-group,id=g",
            "--object",
            second,
            "b.qcow2",
        ];
        pair.same_args(&args, Loose::Exact);
    }
}

#[test]
fn every_abbreviation_means_the_same() {
    let pair = images();
    let mut lines = Vec::new();
    for command in COMMANDS {
        for letter in 'a'..='z' {
            // Ours alone has --untrusted; the help is in our own words.
            // Theirs has bitmap --format in its help alone.
            if letter != 'u' && letter != 'h' && (command, letter) != ("bitmap", 'f') {
                lines.push(format!("{command} --{letter}"));
                lines.push(format!("{command} --{letter}=x"));
            }
        }
        for letter in ('a'..='z').chain('A'..='Z') {
            if letter == 'h' {
                continue;
            }
            lines.push(format!("{command} -{letter}"));
            // With several things wrong at once, which of them is named first may differ.
            if command != "convert" || !"lBt".contains(letter) {
                lines.push(format!("{command} -{letter} x1 x2 x3 x4 x5"));
            }
        }
        for name in [
            "ba",
            "backing",
            "backing-",
            "ca",
            "co",
            "fo",
            "im",
            "ob",
            "op",
            "ou",
            "out",
            "outp",
            "output",
            "output-",
            "pa",
            "pr",
            "ra",
            "re",
            "sa",
            "sk",
            "sn",
            "so",
            "source-",
            "sp",
            "sta",
            "str",
            "ta",
            "target-i",
            "target-im",
            "target-is",
            "progress",
            "compress",
            "no-create",
            "target-format",
            "target-options",
            "source-snapshot",
            "left",
            "right",
            "a-format",
            "b-format",
            "source-image-opts",
            "image-opts",
            "oob",
            "copy",
        ] {
            if (command, name) != ("bitmap", "fo") {
                lines.push(format!("{command} --{name}"));
            }
        }
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

#[test]
fn operands_and_options_may_be_mixed() {
    let pair = images();
    pair.all_same(&[
        "info b.qcow2 -f qcow2",
        "info b.qcow2 --",
        "info -- b.qcow2",
        "info -- -f",
        "info --out json --out human b.qcow2",
        "info --output=json b.qcow2 -U",
        "info -f raw -f qcow2 b.qcow2",
        "map b.qcow2 --output json",
        "check b.qcow2 --output=json -q",
        "compare a.raw -f raw b.qcow2 -F qcow2",
        "convert a.raw -O qcow2 y",
        "create z 1M -f qcow2",
        "create -- z 1M",
        "create x -1",
        "create x -- -1",
    ]);
}

#[test]
fn posixly_correct_ends_options_at_the_first_operand() {
    let pair = images();
    let run = |program: &std::path::Path, dir: &Dir| {
        Command::new(program)
            .arg0("qemu-img")
            .args(["info", "b.qcow2", "-f", "qcow2"])
            .env("POSIXLY_CORRECT", "1")
            .env("LC_ALL", "C")
            .current_dir(dir.root())
            .output()
            .expect("the tool runs")
    };
    let theirs = run("qemu-img".as_ref(), pair.theirs());
    let ours = run(build::tool(), pair.ours());
    assert_eq!(ours.stderr, theirs.stderr);
    assert_eq!(ours.status.code(), theirs.status.code());
}

#[test]
fn messages_follow_the_name_of_the_program() {
    let dir = Dir::new();
    for (name, args) in [
        ("/x/y/foo-img", vec!["info", "nope"]),
        ("/x/y/foo-img", vec!["info", "--zz"]),
        ("/x/y/foo-img", vec!["--zz"]),
        ("/x/y/foo-img", vec!["zz"]),
        ("foo-img", vec!["compare"]),
        ("", vec!["info", "nope"]),
    ] {
        let run = |program: &std::path::Path| {
            let output = Command::new(program)
                .arg0(name)
                .args(&args)
                .env("LC_ALL", "C")
                .current_dir(dir.root())
                .output()
                .expect("the tool runs");
            (
                String::from_utf8_lossy(&output.stderr).into_owned(),
                output.status.code(),
            )
        };
        assert_eq!(
            run(build::tool()),
            run("qemu-img".as_ref()),
            "{name} {args:?}"
        );
    }
}

/// The options that a help text lists, as `-f, --format FMT` lines.
fn listed(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.starts_with("  -"))
        .flat_map(|line| {
            line.split([' ', ',', '['])
                .filter(|word| word.starts_with('-'))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn the_help_of_each_command_lists_the_options_that_exist() {
    let dir = Dir::new();
    // Advertised by qemu-img 10.0.2, which refuses them.
    let absent: BTreeSet<String> = [
        "--progress",
        "--compress",
        "--no-create",
        "--target-format",
        "--target-options",
        "--target-cache",
        "--source-snapshot",
    ]
    .map(str::to_owned)
    .into();
    for command in COMMANDS {
        let ours = ours(&[command, "--help"], dir.root());
        assert_eq!((ours.code, ours.err.as_str()), (0, ""), "{command}");
        let theirs = listed(&dir.qemu_img_ok(&[command, "--help"]));
        let ours = listed(&ours.out);
        for option in &theirs {
            assert!(
                ours.contains(option)
                    || (command == "convert" && absent.contains(option))
                    || (command == "amend" && option == "--progres"),
                "{command} --help does not list {option}"
            );
        }
        assert!(ours.contains("--untrusted"), "{command}");
        // What the help lists is accepted: the complaint is never about the option itself.
        for option in &ours {
            let ran = crate::pair::ours(&[command, option], dir.root());
            assert!(
                !ran.err.contains("unrecognized") && !ran.err.contains("invalid option"),
                "{command} {option}: {ran:?}"
            );
        }
    }
}

#[test]
fn help_is_answered_wherever_it_stands() {
    let dir = Dir::new();
    for line in [
        vec!["create", "-q", "z", "1M", "--help"],
        vec!["create", "--h"],
        vec!["info", "x", "y", "-h"],
        vec!["--help"],
        vec!["-h", "info"],
    ] {
        let ran = ours(&line, dir.root());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{line:?}");
        assert!(ran.out.contains("Usage"), "{line:?}");
        assert!(!dir.path("z").exists());
    }
    let ran = ours(&["create", "-z", "--help"], dir.root());
    assert_eq!(ran.code, 1);
}

#[test]
fn the_version_can_be_read_by_scripts() {
    let dir = Dir::new();
    for line in [vec!["-V"], vec!["--version", "info"], vec!["-V", "--zz"]] {
        let ran = ours(&line, dir.root());
        assert_eq!(ran.code, 0);
        let word = ran.out.split_whitespace().nth(2).expect("a version");
        assert!(ran.out.starts_with("qemu-img version "), "{}", ran.out);
        assert!(
            word.split('.').all(|part| part.parse::<u32>().is_ok()),
            "{word}"
        );
        assert!(ran.out.contains("Platter"));
    }
}

#[test]
fn commands_that_do_not_exist_are_not_listed() {
    let dir = Dir::new();
    let ran = ours(&["--help"], dir.root());
    for command in COMMANDS {
        assert!(ran.out.contains(&format!("\n  {command} - ")), "{command}");
    }
    for command in ["clone", "defragment"] {
        assert!(!ran.out.contains(&format!("\n  {command} - ")), "{command}");
        let ran = ours(&[command, "x"], dir.root());
        assert_eq!(ran.code, 1);
        assert!(
            ran.err.starts_with("qemu-img: Command not found: "),
            "{}",
            ran.err
        );
    }
    for format in ["raw", "qcow2"] {
        let formats = ran.out.split("Supported image formats:").nth(1);
        assert!(formats.is_some_and(|f| f.split_whitespace().any(|f| f == format)));
    }
}

#[test]
fn a_full_device_behind_stdout_is_an_error() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "b.qcow2", "1M"]);
    for (args, code) in [
        (vec!["info", "b.qcow2"], 1),
        (vec!["info", "--output=json", "b.qcow2"], 1),
        (vec!["map", "b.qcow2"], 1),
        (vec!["check", "b.qcow2"], 1),
        (vec!["compare", "b.qcow2", "b.qcow2"], 2),
        (vec!["--help"], 1),
        (vec!["info", "--help"], 1),
    ] {
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("/dev/full");
        let output = crate::pair::ours_command(&args, dir.root())
            .stdout(full)
            .output()
            .expect("the tool runs");
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {err}");
        assert!(
            err.ends_with("Could not write to standard output: No space left on device\n"),
            "{args:?}: {err}"
        );
    }
}

fn manual() -> String {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/man/platter-img.1");
    std::fs::read_to_string(page).expect("the manual")
}

/// The commands that the general help lists.
fn listed_commands(dir: &Dir) -> Vec<String> {
    let help = ours(&["--help"], dir.root()).out;
    let lines = help.lines().filter_map(|line| line.strip_prefix("  "));
    let commands: Vec<_> = lines
        .filter_map(|line| Some(line.split_once(" - ")?.0.to_owned()))
        .collect();
    assert!(commands.len() > 10, "{help}");
    commands
}

/// The options that a part of the manual names.
fn named(part: &str) -> BTreeSet<String> {
    // Changes of the font end a word.
    let mut text = part.to_owned();
    for font in ["\\fB", "\\fI", "\\fP", "\\fR"] {
        text = text.replace(font, " ");
    }
    let text = text.replace("\\-", "-").replace("\\&", "");
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let options = words.filter(|word| word.starts_with('-'));
    options.map(str::to_owned).collect()
}

#[test]
fn every_option_of_a_command_is_in_its_section_of_the_manual_or_in_the_general_ones() {
    let dir = Dir::new();
    let page = manual().replace("\n.SH ", "\n.SS ");
    let commands = listed_commands(&dir);
    let head = |command: &str| format!("\"{command} ");
    let (own, general): (Vec<_>, Vec<_>) = page.split("\n.SS ").partition(|section| {
        let mut commands = commands.iter();
        commands.any(|command| section.starts_with(&head(command)))
    });
    let general = named(&general.join("\n"));
    let mut missing = Vec::new();
    for command in &commands {
        let sections = own.iter().filter(|part| part.starts_with(&head(command)));
        let there: BTreeSet<String> = sections.flat_map(|part| named(part)).collect();
        let help = ours(&[command, "--help"], dir.root()).out;
        for line in help.lines() {
            let spellings = listed(line);
            if !spellings.is_empty()
                && spellings.is_disjoint(&there)
                && spellings.is_disjoint(&general)
            {
                missing.push(format!("{command} {spellings:?}"));
            }
        }
    }
    assert!(missing.is_empty(), "not in the manual: {missing:#?}");
}

#[test]
fn every_command_has_its_place_in_the_manual() {
    let page = manual();
    for command in listed_commands(&Dir::new()) {
        assert!(
            page.lines()
                .any(|line| line.starts_with(&format!(".SS \"{command} "))),
            "{command} has no section"
        );
    }
    for section in [
        "EXIT STATUS",
        "FILES",
        "ENVIRONMENT",
        "SIGNALS",
        "EXAMPLES",
        "SEE ALSO",
    ] {
        assert!(
            page.lines().any(|line| line == format!(".SH {section}")),
            "{section}"
        );
    }
}
