//! Crash replay: operations over storages that log every write and barrier, then every prefix of
//! the log and random subsets between barriers, each opened and checked. Clusters may be leaked;
//! nothing may be corrupt, and what was flushed must be there.
//!
//! `tests/qcow2_crash.rs` has the same judged by QEMU's tools, on fewer states.

mod bitmaps;
mod chain;
mod damaged;
mod fresh;
mod made;
mod model;
mod operations;
mod random;
mod repair;
mod replay;
mod rig;
mod states;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::SECTORS;
use platter::storage::{CacheMode, Durability, Preallocation};
use rig::Config;

const fn config(name: &'static str, options: &'static str, overlay: bool) -> Config {
    Config {
        name,
        options,
        overlay,
    }
}

const CONFIGS: &[Config] = &[
    config("v3", "cluster_size=4096", false),
    config("overlay", "cluster_size=4096", true),
    config("small", "cluster_size=512,refcount_bits=64", true),
    config("narrow", "cluster_size=1024,refcount_bits=1", false),
    config("v2", "cluster_size=4096,compat=0.10", true),
    config("extended", "cluster_size=16384,extended_l2=on", true),
    config("default", "", true),
    config("lazy", "cluster_size=4096,lazy_refcounts=on", false),
    config(
        "lazy extended",
        "cluster_size=16384,extended_l2=on,lazy_refcounts=on",
        true,
    ),
    config(
        "extended data",
        "cluster_size=16384,extended_l2=on,lazy_refcounts=on,data_file=data",
        true,
    ),
    config("zstd", "cluster_size=4096,compression_type=zstd", true),
    config("data", "cluster_size=4096,data_file=data", true),
    config(
        "raw data",
        "cluster_size=4096,data_file=data,data_file_raw=on",
        false,
    ),
    config(
        "aes",
        "cluster_size=4096,encrypt.format=aes,encrypt.key-secret=s",
        true,
    ),
];

/// Keys take a while to derive: fewer states.
const LUKS: Config = config(
    "luks",
    "cluster_size=4096,encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1",
    true,
);

/// Runs per configuration, each with a seed of its own: one, or what `PLATTER_CRASH_RUNS` says.
fn runs() -> u64 {
    let given = std::env::var("PLATTER_CRASH_RUNS").ok();
    given.map_or(1, |n| n.parse().expect("a number of runs"))
}

/// Runs every configuration, two side by side; returns the number of states. All that fail are told.
fn run(durability: Durability) -> usize {
    let (next, states) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failed = AtomicUsize::new(0);
    let work = || {
        while let Some(config) = CONFIGS.get(next.fetch_add(1, Ordering::Relaxed)) {
            for seed in 0..runs() {
                match std::panic::catch_unwind(|| replay::run(config, durability, seed, 1)) {
                    Ok(count) => states.fetch_add(count, Ordering::Relaxed),
                    Err(_) => failed.fetch_add(1, Ordering::Relaxed),
                };
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let (states, failed) = (states.into_inner(), failed.into_inner());
    println!("{states} states");
    assert_eq!(failed, 0, "runs failed");
    states
}

/// Every configuration after a power cut: more than 10,000 states.
#[test]
fn a_power_cut_at_any_instant_leaves_a_whole_image() {
    let states = run(Durability::Synced);
    assert!(states >= 10_000, "only {states} states were checked");
}

/// The end of the process: the kernel has all writes, in order, and no barrier is needed.
#[test]
fn a_kill_at_any_instant_leaves_a_whole_image() {
    let states = run(Durability::Ordered);
    assert!(states >= 2_000, "only {states} states were checked");
}

#[test]
fn a_crash_leaves_a_whole_image_encrypted_with_luks() {
    let states = replay::run(&LUKS, Durability::Synced, 0, 8)
        + replay::run(&LUKS, Durability::Ordered, 0, 4);
    println!("{states} states");
    assert!(states >= 200, "only {states} states were checked");
}

/// What a shrink cut off never comes back, wherever growing again is interrupted.
#[test]
fn grown_sectors_are_zeroes_at_any_instant() {
    for config in CONFIGS {
        let states = replay::sequence(
            config,
            Durability::Synced,
            &[
                |run| operations::write_to(run, 500..SECTORS),
                operations::flush,
                |run| operations::resize_to(run, 701, Preallocation::Off),
                operations::flush,
                |run| operations::resize_to(run, SECTORS, Preallocation::Off),
                operations::flush,
            ],
        );
        assert!(states >= 10, "{}: only {states} states", config.name);
    }
}

/// Growing within a cluster keeps what that cluster holds.
#[test]
fn the_last_cluster_stays_when_its_image_grows_a_little() {
    for config in CONFIGS {
        let states = replay::sequence(
            config,
            Durability::Synced,
            &[
                |run| operations::resize_to(run, 993, Preallocation::Off),
                |run| operations::write_to(run, 900..993),
                operations::flush,
                |run| operations::resize_to(run, 994, Preallocation::Off),
                operations::flush,
            ],
        );
        assert!(states >= 10, "{}: only {states} states", config.name);
    }
}

/// Commit, rebase and resize along a chain.
#[test]
fn a_crash_leaves_a_whole_chain() {
    for (cache, least) in [(CacheMode::Writeback, 500), (CacheMode::Unsafe, 100)] {
        let states = chain::run(cache);
        println!("{states} states");
        assert!(states >= least, "only {states} states were checked");
    }
}

/// `check -r` of images whose tables are damaged.
#[test]
fn an_interrupted_repair_of_damage_can_be_carried_on() {
    let mut kinds = BTreeSet::new();
    let configs = CONFIGS[..3].iter();
    let states: usize = configs.map(|one| damaged::run(one, &mut kinds)).sum();
    println!("{states} states of {kinds:?}");
    assert_eq!(kinds.len(), 6, "not all tables were repaired");
    assert!(states >= 1000, "only {states} states were checked");
}

/// Create and convert, as operations.
#[test]
fn a_target_is_no_image_before_it_is_complete() {
    for (cache, least) in [(CacheMode::Writeback, 400), (CacheMode::Unsafe, 100)] {
        let states = made::run(cache);
        println!("{states} states");
        assert!(states >= least, "only {states} states were checked");
    }
}

/// The writers of new images, used in another order than by create and convert.
#[test]
fn an_unfinished_image_never_opens() {
    for (durability, least) in [(Durability::Synced, 2000), (Durability::Ordered, 500)] {
        let states = fresh::run(durability);
        println!("{states} states");
        assert!(states >= least, "only {states} states were checked");
    }
}
