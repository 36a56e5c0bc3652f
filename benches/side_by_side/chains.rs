//! Snapshots, checks, commits and rebases of images with many scattered clusters.
//!
//! Two images of 64 GiB, both filled by `qemu-io` from the same list of places in random order, so
//! that guest and host order have nothing in common. `scattered` has clusters of 64 KiB of which 4 KiB
//! are written: what works on metadata never looks at the rest. `overlay` has clusters of 4 KiB that
//! are full: moving 12 GiB would measure the disk.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::rows::{remove, wanted};
use crate::run::{self, Cost};
use crate::{Setup, table};

/// Virtual size.
const SIZE: u64 = 64 << 30;
/// Places lie so far apart at least: one cluster of the image with large ones.
const STEP: u64 = 64 << 10;
/// Bytes written at each place.
const WRITTEN: u64 = 4096;

const SNAPSHOTS: [(&str, &str); 3] = [
    ("snapshot create", "-c"),
    ("snapshot apply", "-a"),
    ("snapshot delete", "-d"),
];
const CHECK: &str = "check of scattered clusters";
const COMMIT: &str = "commit";
const REBASE: &str = "safe rebase";

/// Measures all rows.
pub fn measure(setup: &Setup) -> Result<(), String> {
    if SNAPSHOTS.iter().any(|(name, _)| wanted(setup, name)) || wanted(setup, CHECK) {
        metadata(setup)?;
    }
    if wanted(setup, COMMIT) || wanted(setup, REBASE) {
        moving(setup)?;
    }
    Ok(())
}

/// A list of writes for `qemu-io`: the same places in the same order in every run.
fn script(clusters: u64) -> Result<String, String> {
    let places = SIZE / STEP;
    if clusters > places {
        return Err(format!("BENCH_CLUSTERS must be at most {places}"));
    }
    let mut order: Vec<u64> = (0..places).collect();
    let mut state = 1u64;
    let mut text = String::new();
    for n in 0..clusters {
        // The first steps of a Fisher-Yates shuffle over a 64-bit xorshift generator.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let other = n + state % (places - n);
        order.swap(n as usize, other as usize);
        let (offset, pattern) = (order[n as usize] * STEP, n % 255 + 1);
        writeln!(text, "write -q -P {pattern} {offset} {WRITTEN}").map_err(|e| e.to_string())?;
    }
    Ok(text)
}

fn create(setup: &Setup, cluster: &str, backing: Option<&str>, path: &str) -> Result<(), String> {
    let size = SIZE.to_string();
    let mut argv = vec![
        setup.qemu.as_str(),
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        cluster,
    ];
    if let Some(backing) = backing {
        argv.extend(["-b", backing, "-F", "qcow2"]);
    }
    argv.extend([path, size.as_str()]);
    run::quiet(&argv)
}

/// Makes a filled image, or takes the one that an earlier run has made.
fn filled(setup: &Setup, name: &str, cluster: &str) -> Result<String, String> {
    let path = setup.path(&format!("{name}-{}.qcow2", setup.clusters));
    if Path::new(&path).exists() {
        return Ok(path);
    }
    eprintln!("building {path}");
    let fresh = format!("{path}.new");
    create(setup, cluster, None, &fresh)?;
    let argv = [
        setup.qemu_io.as_str(),
        "-t",
        "unsafe",
        "-f",
        "qcow2",
        &fresh,
    ];
    run::fed(&argv, script(setup.clusters)?.into_bytes())?;
    fs::rename(&fresh, &path).map_err(|e| format!("{path}: {e}"))?;
    Ok(path)
}

/// What one program needed, per row.
pub type Costs = Vec<Vec<Cost>>;

/// Runs `round` for both programs in turn; its costs are kept but those of the first round, which
/// warms the page cache.
pub fn in_turn(
    setup: &Setup,
    rows: usize,
    mut round: impl FnMut(&str) -> Result<Vec<Cost>, String>,
) -> Result<[Costs; 2], String> {
    let mut all = [vec![Vec::new(); rows], vec![Vec::new(); rows]];
    for n in 0..=setup.pairs.min(3) {
        for (program, costs) in [&setup.platter, &setup.qemu].into_iter().zip(&mut all) {
            if n == 0 && *program == setup.qemu {
                continue;
            }
            let measured = round(program)?;
            if n > 0 {
                for (row, cost) in costs.iter_mut().zip(measured) {
                    row.push(cost);
                }
            }
        }
    }
    Ok(all)
}

fn print(names: &[(&str, f64)], [ours, theirs]: &[Costs; 2], setup: &Setup) {
    for (((name, target), ours), theirs) in names.iter().zip(ours).zip(theirs) {
        let name = format!("{name}, {} clusters", setup.clusters);
        table::row(&name, ours, theirs, *target, "");
    }
}

/// Snapshots and checks.
fn metadata(setup: &Setup) -> Result<(), String> {
    let image = filled(setup, "scattered", "cluster_size=64k")?;
    let image = image.as_str();
    let costs = in_turn(setup, SNAPSHOTS.len() + 1, |program| {
        let mut costs = Vec::new();
        for (_, action) in SNAPSHOTS {
            // Writes of earlier rows and runs are none of this row's business.
            run::settle(image)?;
            costs.push(run::timed(&[program, "snapshot", action, "bench", image])?);
            if action == "-c" {
                continue;
            }
            run::quiet(&[&setup.qemu, "check", "-q", image])?;
        }
        costs.push(run::timed(&[program, "check", image])?);
        Ok(costs)
    })?;
    let mut names: Vec<_> = SNAPSHOTS.iter().map(|(name, _)| (*name, 0.6)).collect();
    names.push((CHECK, 0.5));
    print(&names, &costs, setup);
    Ok(())
}

/// Commits into an empty base, and rebases from the filled image to an empty one.
fn moving(setup: &Setup) -> Result<(), String> {
    let cluster = "cluster_size=4k";
    let kept = filled(setup, "overlay", cluster)?;
    let (base, top) = (
        setup.path("chain-base.qcow2"),
        setup.path("chain-top.qcow2"),
    );
    let (base, top) = (base.as_str(), top.as_str());
    let clear = || remove(base).and_then(|()| remove(top));
    let prepare = || -> Result<(), String> {
        clear()?;
        create(setup, cluster, None, base)
    };
    let committed = in_turn(setup, 1, |program| {
        prepare()?;
        run::quiet(&["cp", &kept, top])?;
        run::quiet(&[&setup.qemu, "rebase", "-u", "-b", base, "-F", "qcow2", top])?;
        run::settle(base)?;
        let cost = run::timed(&[program, "commit", "-q", top])?;
        run::quiet(&[&setup.qemu, "compare", "-q", &kept, base])?;
        run::quiet(&[&setup.qemu, "check", "-q", top])?;
        Ok(vec![cost])
    })?;
    print(&[(COMMIT, 0.6)], &committed, setup);
    let rebased = in_turn(setup, 1, |program| {
        prepare()?;
        create(setup, cluster, Some(&kept), top)?;
        run::settle(base)?;
        let cost = run::timed(&[program, "rebase", "-b", base, "-F", "qcow2", top])?;
        run::quiet(&[&setup.qemu, "compare", "-q", &kept, top])?;
        Ok(vec![cost])
    })?;
    print(&[(REBASE, 0.6)], &rebased, setup);
    clear()
}
