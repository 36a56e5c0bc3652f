//! Chains of overlays: many with pieces of a disk each, and sparse ones over large disks.
//!
//! All are filled by `qemu-io` from lists that are the same in every run.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::chains::{Costs, in_turn};
use crate::rows::{Row, measure_row, remove, wanted};
use crate::run;
use crate::{Setup, table};

const CLUSTER: u64 = 64 << 10;
/// What an L2 table of such clusters covers.
const TABLE: u64 = 512 << 20;

const MANY: u64 = 20;
const MANY_SIZE: u64 = 4 << 30;
/// Clusters in each of many overlays: 480 MiB together.
const MANY_CLUSTERS: u64 = 384;

const FEW: u64 = 5;

const COMMIT: &str = "commit of 240 MiB into 4 GiB";

/// Measures all rows.
pub fn measure(setup: &Setup) -> Result<(), String> {
    let many = ["20 overlays to qcow2", "20 overlays to raw"];
    if many.iter().any(|name| wanted(setup, name)) {
        let top = chain(setup, "many", MANY_SIZE, MANY, scattered)?;
        for (name, format) in many.into_iter().zip(["qcow2", "raw"]) {
            converted(setup, name, &top, format, 0.7)?;
        }
    }
    for (name, size) in [
        ("5 sparse overlays, 64 GiB", 64u64 << 30),
        ("5 sparse overlays, 1 TiB", 1 << 40),
    ] {
        if wanted(setup, name) {
            let top = chain(setup, &format!("sparse-{}", size >> 30), size, FEW, sparse)?;
            converted(setup, name, &top, "qcow2", 0.7)?;
        }
    }
    if wanted(setup, COMMIT) {
        commit(setup)?;
    }
    Ok(())
}

fn converted(
    setup: &Setup,
    name: &str,
    top: &str,
    format: &str,
    target: f64,
) -> Result<(), String> {
    let out = setup.path("overlays.out");
    let argv = ["convert", "-f", "qcow2", "-O", format, top, &out];
    measure_row(
        setup,
        &Row {
            name,
            ours: [&[setup.platter.as_str()], argv.as_slice()].concat(),
            theirs: vec![(
                "",
                [&[setup.qemu.as_str()], argv.as_slice()].concat(),
                target,
            )],
            output: Some(&out),
            format: None,
            equals: Some(top),
            over: false,
            before: vec![],
        },
    )
}

/// Random clusters of a disk, as far as one overlay has them.
fn scattered(layer: u64, size: u64, script: &mut String) -> std::fmt::Result {
    let mut state = layer + 1;
    for n in 0..MANY_CLUSTERS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let offset = state % (size / CLUSTER) * CLUSTER;
        writeln!(
            script,
            "write -q -P {} {offset} {CLUSTER}",
            (layer + n) % 255 + 1
        )?;
    }
    Ok(())
}

/// One cluster for each table, in each layer at another place.
fn sparse(layer: u64, size: u64, script: &mut String) -> std::fmt::Result {
    for table in 0..size / TABLE {
        let offset = table * TABLE + (layer * 1400 + 700) * CLUSTER;
        writeln!(
            script,
            "write -q -P {} {offset} {CLUSTER}",
            (layer + table) % 255 + 1
        )?;
    }
    Ok(())
}

/// Makes a chain over an empty image, or takes the one that an earlier run has made; gives its top.
fn chain(
    setup: &Setup,
    name: &str,
    size: u64,
    layers: u64,
    fill: impl Fn(u64, u64, &mut String) -> std::fmt::Result,
) -> Result<String, String> {
    let path = |layer: u64| setup.path(&format!("{name}-{layer}.qcow2"));
    let top = path(layers);
    if Path::new(&top).exists() {
        return Ok(top);
    }
    eprintln!("building {top}");
    make(setup, &path(0), None, size)?;
    for layer in 1..=layers {
        let (below, file) = (path(layer - 1), path(layer));
        // The top comes last and under another name, so that only a whole chain is used again.
        let fresh = format!("{file}.new");
        make(setup, &fresh, Some(&below), size)?;
        let mut script = String::new();
        fill(layer, size, &mut script).map_err(|e| e.to_string())?;
        write(setup, &fresh, script)?;
        fs::rename(&fresh, &file).map_err(|e| format!("{file}: {e}"))?;
    }
    Ok(top)
}

fn make(setup: &Setup, path: &str, backing: Option<&str>, size: u64) -> Result<(), String> {
    let size = size.to_string();
    let mut argv = vec![setup.qemu.as_str(), "create", "-q", "-f", "qcow2"];
    let full;
    if let Some(backing) = backing {
        full = fs::canonicalize(backing)
            .map_err(|e| format!("{backing}: {e}"))?
            .display()
            .to_string();
        argv.extend(["-b", &full, "-F", "qcow2"]);
    }
    argv.extend([path, &size]);
    run::quiet(&argv)
}

fn write(setup: &Setup, path: &str, script: String) -> Result<(), String> {
    let argv = [setup.qemu_io.as_str(), "-t", "unsafe", "-f", "qcow2", path];
    run::fed(&argv, script.into_bytes())
}

/// 60 pieces of 4 MiB go into an empty base.
fn commit(setup: &Setup) -> Result<(), String> {
    const PIECE: u64 = 4 << 20;
    let size = MANY_SIZE;
    let (base, top) = (
        setup.path("commit-base.qcow2"),
        setup.path("commit-top.qcow2"),
    );
    let mut script = String::new();
    for n in 0..60 {
        let offset = n * (size / 60) / PIECE * PIECE;
        writeln!(script, "write -q -P {} {offset} {PIECE}", n + 1).map_err(|e| e.to_string())?;
    }
    let costs: [Costs; 2] = in_turn(setup, 1, |program| {
        remove(&base).and_then(|()| remove(&top))?;
        make(setup, &base, None, size)?;
        make(setup, &top, Some(&base), size)?;
        write(setup, &top, script.clone())?;
        run::settle(&base)?;
        let cost = run::timed(&[program, "commit", "-q", &top])?;
        run::quiet(&[&setup.qemu, "check", "-q", &base])?;
        Ok(vec![cost])
    })?;
    let [ours, theirs] = &costs;
    for (ours, theirs) in ours.iter().zip(theirs) {
        table::row(COMMIT, ours, theirs, 0.9, "");
    }
    remove(&base).and_then(|()| remove(&top))
}
