//! Runs `platter-img` and `qemu-img` in turn on a realistic disk and prints a table of ratios.
//!
//! Environment: `PLATTER_IMG` (default `build/platter-img`), `QEMU_IMG` (default `qemu-img`),
//! `BENCH_DIR` (default `target/bench`), `BENCH_MIB` (files on the disk, default 1280),
//! `QEMU_IO` (default `qemu-io`), `BENCH_CLUSTERS` (of images with scattered clusters, default 200000),
//! `BENCH_PAIRS` (default 5), `BENCH_ROWS` (only rows whose name contains one of these words, or of these parts
//! of names with `;` between them).

mod chains;
mod clusters;
mod device;
mod disk;
mod encryption;
mod exports;
mod formats;
mod memory;
mod nbd;
mod network;
mod overlays;
mod packed;
mod random;
mod requests;
mod rows;
mod run;
mod server;
mod table;

// The servers of the tests, and what they stand on.
#[path = "../../tests/cli/apart.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod apart;
#[path = "../../tests/cli/build.rs"]
mod build;
#[path = "../../tests/cli/rbd/cluster.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod cluster;
#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/cli/gluster/server.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod gluster;
#[path = "../../tests/cli/iscsi/server.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod iscsi;
#[path = "../../tests/cli/nfs/server.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod nfs;
#[path = "../../tests/cli/pair.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod pair;
#[path = "../../tests/cli/ports.rs"]
mod ports;

use std::path::PathBuf;
use std::process::ExitCode;

/// What to measure with.
pub struct Setup {
    /// Our program.
    pub platter: String,
    /// Theirs.
    pub qemu: String,
    /// What fills images.
    pub qemu_io: String,
    /// Clusters of images with scattered clusters.
    pub clusters: u64,
    /// Where images go.
    pub dir: PathBuf,
    /// The disk to convert.
    pub disk: PathBuf,
    /// Runs per row and program.
    pub pairs: usize,
    /// Only rows whose name contains one of these.
    pub only: Vec<String>,
}

impl Setup {
    /// The path of `name` in the directory of the benchmark, as text.
    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn number(name: &str, default: usize) -> Result<usize, String> {
    let text = setting(name, &default.to_string());
    text.parse()
        .map_err(|_| format!("{name} must be a number, not '{text}'"))
}

/// Names of several words have `;` between them.
fn words(text: &str) -> Vec<String> {
    let words: Vec<&str> = match text.contains(';') {
        true => text.split(';').map(str::trim).collect(),
        false => text.split_whitespace().collect(),
    };
    let words = words.into_iter().filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

fn setup() -> Result<Setup, String> {
    let dir = PathBuf::from(setting("BENCH_DIR", "target/bench"));
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    // Servers are asked for the same files.
    let dir = std::fs::canonicalize(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let platter = setting("PLATTER_IMG", "build/platter-img");
    let qemu = setting("QEMU_IMG", "qemu-img");
    for program in [&platter, &qemu] {
        run::quiet(&[program.as_str(), "--version"])
            .map_err(|e| format!("cannot measure without {program}: {e}"))?;
    }
    Ok(Setup {
        disk: disk::build(&dir, number("BENCH_MIB", 1280)? as u64)?,
        platter,
        qemu,
        qemu_io: setting("QEMU_IO", "qemu-io"),
        clusters: number("BENCH_CLUSTERS", 200_000)? as u64,
        pairs: number("BENCH_PAIRS", 5)?.max(1),
        only: words(&setting("BENCH_ROWS", "")),
        dir,
    })
}

/// Writes to all memory that is free. In a virtual machine the first write to a page waits for the
/// host, several times as long as a copy takes, and falls on whichever program happens to get the page.
fn touch_free_memory() {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    let Some(free) = free else {
        return;
    };
    let mut pages = vec![0u8; (free << 10) / 10 * 7];
    pages.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::hint::black_box(pages);
}

/// Where this program was called to be the client of a row, does that.
fn as_client() -> Option<Result<(), String>> {
    let mut args = std::env::args().skip(1);
    let client = match args.next()?.as_str() {
        random::ARGUMENT => random::read,
        random::FILE => random::read_file,
        device::ARGUMENT => device::read,
        _ => return None,
    };
    let at = args.next().unwrap_or_default();
    let count = args.next().and_then(|count| count.parse().ok());
    Some(match count {
        Some(count) => client(&at, count),
        None => Err("how many reads?".to_owned()),
    })
}

fn main() -> ExitCode {
    let done = as_client().unwrap_or_else(|| {
        touch_free_memory();
        setup().and_then(|setup| rows::measure(&setup))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("side_by_side: {error}");
            ExitCode::FAILURE
        }
    }
}
