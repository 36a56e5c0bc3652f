//! Both tools on the same images of the same server: what they tell of them is the same, and what one of them writes the
//! other one reads.

use std::path::Path;
use std::process::Command;

use crate::common::{Dir, Ran};
use crate::pair::words;

/// How often a line is given to QEMU's tool, whose clients of web servers may wait for ever.
const TRIES: usize = 4;
/// Seconds until one that does not end is begun again.
const PATIENCE: &str = "60";

/// Images on a server, which both tools reach by the same names.
pub struct Beside<'a> {
    pub dir: &'a Dir,
    /// A program and its arguments, where they reach the server.
    pub command: &'a dyn Fn(&str, &[&str]) -> Command,
    /// The short name of a file.
    pub name: &'a dyn Fn(&str) -> String,
    /// The options that stand for it, whose first one is the driver.
    pub options: &'a dyn Fn(&str) -> String,
    /// What ours prints in the place of what theirs does.
    pub renamed: &'a dyn Fn(String) -> String,
}

/// Whether QEMU's tool has the driver; says so where not.
pub fn peer_has(driver: &str) -> bool {
    let told = Command::new("qemu-img")
        .args(["info", "--image-opts", &format!("driver={driver}")])
        .output()
        .expect("qemu-img");
    let is_missing = String::from_utf8_lossy(&told.stderr).contains("Unable to load module");
    if is_missing {
        eprintln!("SKIPPED: QEMU's tool has no {driver} here (ci/modules.sh)");
    }
    !is_missing
}

/// What QEMU's tool or a library of its says beside the matter.
fn is_aside(line: &str) -> bool {
    line.contains("warning: 'gluster' is deprecated")
        || line.contains("warning: RBD options encoded in the filename")
        || line.starts_with("[20")
}

/// The options as they stand below a format: each key behind `file.`.
fn below(options: &str) -> String {
    let keys = options.split(',').map(|pair| format!("file.{pair}"));
    keys.collect::<Vec<_>>().join(",")
}

/// The options as one object of JSON.
fn json(options: &str) -> String {
    let pairs = options.split(',').filter_map(|pair| pair.split_once('='));
    let pairs = pairs.map(|(key, value)| match value {
        "off" => format!("\"{key}\":false"),
        _ => format!("\"{key}\":\"{value}\""),
    });
    format!("json:{{{}}}", pairs.collect::<Vec<_>>().join(","))
}

/// The text with the short name in the place of a node whose options stand in that order, and of the images on it.
pub fn with_short_name(text: String, options: &str, order: &[&str], short: &str) -> String {
    let pairs = order.iter().map(|key| {
        let mut given = options.split(',').filter_map(|pair| pair.split_once('='));
        let value = given.find(|pair| pair.0 == *key).map(|pair| pair.1);
        format!("\"{key}\": \"{}\"", value.unwrap_or_default())
    });
    let node = format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "));
    let images =
        ["raw", "qcow2"].map(|format| format!("{{\"driver\": \"{format}\", \"file\": {node}}}"));
    images.iter().chain([&node]).fold(text, |text, name| {
        let text = text.replace(&format!("json:{name}"), short);
        text.replace(&format!("json:{}", name.replace('"', "\\\"")), short)
    })
}

impl Beside<'_> {
    /// The line with names in the place of `U/x`, options in that of `O/x` and JSON in that of `J/x`; `Q/x` are the
    /// options of a qcow2 image.
    fn line(&self, line: &str) -> Vec<String> {
        let put = |word: &&str| match word.split_once('/') {
            Some(("U", name)) => (self.name)(name),
            Some(("O", name)) => (self.options)(name),
            Some(("Q", name)) => format!("driver=qcow2,{}", below(&(self.options)(name))),
            Some(("J", name)) => json(&(self.options)(name)),
            _ => (*word).to_owned(),
        };
        words(line).iter().map(put).collect()
    }

    fn run(&self, program: &str, line: &str) -> Ran {
        let line = self.line(line);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        for _ in 0..TRIES {
            let args = [&[PATIENCE, program], line.as_slice()].concat();
            let output = (self.command)("timeout", &args).output().expect("a tool");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let err = text(&output.stderr);
            let own = err.split_inclusive('\n').filter(|line| !is_aside(line));
            let ran = Ran {
                code: output.status.code().unwrap_or(-1),
                out: text(&output.stdout),
                err: own.collect(),
            };
            // It was waited for in vain.
            if ran.code != 124 {
                return ran;
            }
        }
        panic!("{program} {line:?}: no end");
    }

    fn ours(&self, line: &str) -> Ran {
        let tool = crate::build::tool();
        let mut ran = self.run(tool.to_str().expect("a path"), line);
        // Each names itself by its file.
        let own = tool.file_name().and_then(|name| name.to_str());
        ran.err = ran.err.replace(own.expect("a name"), "qemu-img");
        ran
    }

    /// Both tools print the same and end alike.
    #[track_caller]
    pub fn same(&self, lines: &[&str]) {
        let wrong = lines.iter().filter_map(|line| {
            let (mut theirs, ours) = (self.run("qemu-img", line), self.ours(line));
            theirs.out = (self.renamed)(theirs.out);
            let text = format!(
                "{:?}\n  theirs: {theirs:?}\n  ours:   {ours:?}",
                self.line(line)
            );
            (theirs != ours).then_some(text)
        });
        let wrong: Vec<String> = wrong.collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    }

    /// Whatever is told of the raw image `r` and the qcow2 image `q` by any of their names, which hold what `a.raw`
    /// holds here.
    #[track_caller]
    pub fn tells(&self) {
        self.same(&[
            "info U/r",
            "info -f raw --output=json U/r",
            "info U/q",
            "info --output=json U/q",
            "info J/q",
            "info --output=json J/r",
            "info --image-opts O/r",
            "info --output=json --image-opts O/r",
            "info --image-opts Q/q",
            "info --output=json --image-opts Q/q",
            "map U/q",
            "map --output=json U/q",
            "map --output=json -f raw U/r",
            "check U/q",
            "check --output=json --image-opts Q/q",
            "measure -O qcow2 U/q",
            "measure --output=json -f raw -O qcow2 U/r",
            "snapshot -l U/q",
            "compare -f qcow2 -F raw U/q a.raw",
        ]);
    }

    /// What either tool writes as `t` and `o`, the other one reads.
    #[track_caller]
    pub fn crosses(&self, options: &str) {
        let done = |ran: Ran| assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
        let same = |name: &str| {
            let read = |name: &str| std::fs::read(self.dir.path(name)).expect("a file");
            assert!(read(name) == read("a.raw"), "{name}");
        };
        let (theirs, ours) = (
            |line: &str| done(self.run("qemu-img", line)),
            |line: &str| done(self.ours(line)),
        );
        // What is written to is an image already where the server makes none.
        if options == "-n" {
            let len = std::fs::metadata(self.dir.path("a.raw"))
                .expect("a disk")
                .len();
            theirs(&format!("create -q -f qcow2 U/tqcow2 {len}"));
            ours(&format!("create -q -f qcow2 U/oqcow2 {len}"));
        }
        for format in ["raw", "qcow2"] {
            let write = format!("convert {options} -f raw -O {format} a.raw U");
            let read = format!("convert -f {format} -O raw U");
            theirs(&format!("{write}/t{format}"));
            ours(&format!("{read}/t{format} theirs"));
            same("theirs");
            ours(&format!("{write}/o{format}"));
            theirs(&format!("{read}/o{format} ours"));
            same("ours");
        }
        theirs("check -q U/oqcow2");
        ours("check -q U/tqcow2");
    }
}

/// A command in this network, with an environment of that much more.
pub fn here(dir: &Path, environment: &[(&str, &str)], program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .envs(environment.iter().copied())
        .env("LC_ALL", "C")
        .current_dir(dir);
    command
}
