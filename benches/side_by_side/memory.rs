//! The most memory that conversions take.

use crate::formats::KINDS;
use crate::packed::{self, PACKED};
use crate::rows::{remove, wanted};
use crate::{Setup, run};

/// MiB that a conversion is not to exceed.
pub const LIMIT: f64 = 64.0;
/// For compressed files it is what the policy lets decoders take.
const DECODERS: f64 = 256.0;

/// Prints the head of the table.
pub fn head() {
    println!("\n| peak memory | Platter MiB | qemu-img MiB | limit |");
    println!("|---|---:|---:|---:|");
}

/// Runs our command and theirs, if there is one, and prints a row. The output is removed before each.
pub fn row(
    name: &str,
    ours: &[&str],
    theirs: Option<&[&str]>,
    output: Option<&str>,
    limit: f64,
) -> Result<(), String> {
    let mut mib = Vec::new();
    for argv in [Some(ours), theirs].into_iter().flatten() {
        if let Some(output) = output {
            remove(output)?;
        }
        mib.push(run::peak(argv)? as f64 / 1024.0);
    }
    let of = |at: usize| mib.get(at).map(|it| format!("{it:.1}")).unwrap_or_default();
    let is_met = mib.first().is_some_and(|it| *it <= limit);
    let verdict = if is_met { "" } else { " (missed)" };
    println!("| {name} | {} | {} | {limit}{verdict} |", of(0), of(1));
    Ok(())
}

/// Of other formats, both ways, of compressed images that are only read, and of compressed files; `source` is a
/// qcow2 image of the disk. A row has the word `peak`.
pub fn measure(setup: &Setup, source: &str) -> Result<(), String> {
    let named = |name: &str| format!("peak of {name}");
    let (p, q) = (setup.platter.as_str(), setup.qemu.as_str());
    let mut is_first = true;
    let mut one = |name: String, line: &[&str], is_theirs: bool, output: &str| {
        if std::mem::take(&mut is_first) {
            head();
        }
        let theirs = [&[q][..], line].concat();
        let ours = [&[p][..], line].concat();
        let (theirs, limit) = match is_theirs {
            true => (Some(theirs.as_slice()), LIMIT),
            false => (None, DECODERS),
        };
        row(&name, &ours, theirs, Some(output), limit)
    };
    let raw = setup.path("out.raw");
    for kind in KINDS {
        let to = named(&format!("qcow2 to {}", kind.name));
        if wanted(setup, &to) {
            let out = setup.path(&format!("out.{}", kind.format));
            let line = ["convert", "-O", kind.format];
            let line = [&line[..], kind.options, &[source, &out]].concat();
            one(to, &line, true, &out)?;
            remove(&out)?;
        }
        let back = named(&format!("{} to raw", kind.name));
        if wanted(setup, &back) {
            let image = kind.made(setup, source)?;
            let line = ["convert", "-f", kind.format, "-O", "raw", &image, &raw];
            one(back, &line, true, &raw)?;
        }
    }
    for format in ["dmg", "cloop"] {
        let name = named(&format!("{format} to raw"));
        if wanted(setup, &name) {
            let image = packed::image(setup, format)?;
            let line = ["convert", "-f", format, "-O", "raw", &image, &raw];
            one(name, &line, true, &raw)?;
        }
    }
    for packing in &PACKED {
        let name = named(packing.name);
        if wanted(setup, &name) {
            let file = packing.file(setup, source)?;
            let line = ["convert", "--decompress", "-f", packing.format()];
            let line = [&line[..], &["-O", "raw", &file, &raw][..]].concat();
            one(name, &line, false, &raw)?;
        }
    }
    remove(&raw)
}
