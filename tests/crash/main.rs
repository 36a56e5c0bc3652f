//! Crash replay: operations over storages that log every write and barrier, then every prefix of
//! the log and random subsets between barriers, each opened and checked. Clusters may be leaked;
//! nothing may be corrupt, and what was flushed must be there.
//!
//! A format has its lines in `configs.rs`, `made.rs` and `chain.rs`. `tests/formats/qcow2/crash.rs` has the same judged by QEMU's tools, on fewer states.

mod bitmaps;
mod chain;
mod configs;
mod damaged;
mod environment;
mod fresh;
mod made;
mod model;
mod operations;
mod parts;
mod random;
mod repair;
mod replay;
mod rig;
mod states;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use configs::{CONFIGS, FIXED_VHD, LUKS};
use environment::given;
use platter::storage::{CacheMode, Durability, Preallocation};

/// The seeds of the runs of each configuration, and which of the states of each are looked at: all of the
/// first seed, every ninth of a few more. `PLATTER_CRASH_SEED` names the first, `PLATTER_CRASH_RUNS`
/// says how many are looked at in full; `PLATTER_CRASH_CONFIG` names the one configuration that is run.
fn seeds() -> Vec<(u64, usize)> {
    let first = given("PLATTER_CRASH_SEED").unwrap_or(0);
    match given("PLATTER_CRASH_RUNS") {
        Some(runs) => (first..first + runs).map(|seed| (seed, 1)).collect(),
        None => (first..first + 4)
            .map(|seed| (seed, if seed == first { 1 } else { 9 }))
            .collect(),
    }
}

/// Runs every configuration, two side by side; returns the number of states. All that fail are told.
fn run(durability: Durability, seeds: &[(u64, usize)]) -> usize {
    let (next, states) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failed = AtomicUsize::new(0);
    let only = std::env::var("PLATTER_CRASH_CONFIG").ok();
    let work = || {
        while let Some(config) = CONFIGS.get(next.fetch_add(1, Ordering::Relaxed)) {
            if only.as_ref().is_some_and(|only| only != config.name) {
                continue;
            }
            for (seed, step) in seeds {
                match std::panic::catch_unwind(|| replay::run(config, durability, *seed, *step)) {
                    Ok(count) => states.fetch_add(count, Ordering::Relaxed),
                    Err(_) => {
                        println!("{}: failed with PLATTER_CRASH_SEED={seed}", config.name);
                        failed.fetch_add(1, Ordering::Relaxed)
                    }
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
    let states = run(Durability::Synced, &seeds());
    assert!(states >= 10_000, "only {states} states were checked");
}

/// The end of the process: the kernel has all writes, in order, and no barrier is needed.
#[test]
fn a_kill_at_any_instant_leaves_a_whole_image() {
    let states = run(Durability::Ordered, &seeds());
    assert!(states >= 2_000, "only {states} states were checked");
}

/// The seed with which a bitmap that the next, torn event drops was missed.
#[test]
fn a_torn_write_may_count_as_done() {
    let config = CONFIGS.iter().find(|config| config.name == "extended");
    let states = replay::run(
        config.expect("that configuration"),
        Durability::Ordered,
        1009,
        1,
    );
    assert!(states >= 100, "only {states} states were checked");
}

/// Seed after seed until `PLATTER_CRASH_MINUTES` have passed; each is printed, and
/// `PLATTER_CRASH_SEED` runs one of them again.
#[test]
#[ignore = "runs for as long as it is told: make crash"]
fn any_seed_leaves_whole_images_for_a_given_time() {
    let end =
        Instant::now() + Duration::from_secs(60 * given("PLATTER_CRASH_MINUTES").unwrap_or(1));
    let mut random = random::Random(RandomState::new().hash_one(std::process::id()));
    let mut states = 0;
    loop {
        let seed = given("PLATTER_CRASH_SEED").unwrap_or_else(|| random.next() >> 32);
        println!("seed {seed}");
        for durability in [Durability::Synced, Durability::Ordered] {
            states += run(durability, &[(seed, 1)]);
        }
        if Instant::now() >= end {
            break;
        }
    }
    println!("{states} states in all");
}

#[test]
fn a_crash_leaves_a_whole_image_encrypted_with_luks() {
    let states = replay::run(&LUKS, Durability::Synced, 0, 8)
        + replay::run(&LUKS, Durability::Ordered, 0, 4);
    println!("{states} states");
    assert!(states >= 200, "only {states} states were checked");
}

#[test]
fn a_crash_while_parts_come_and_go_leaves_the_disk_of_before_or_after() {
    let mut states = 0;
    for durability in [Durability::Synced, Durability::Ordered] {
        states += parts::run(durability);
    }
    println!("{states} states");
    assert!(states >= 100, "only {states} states were checked");
}

#[test]
fn a_kill_leaves_a_whole_fixed_vhd() {
    let states: usize = (0..4)
        .map(|seed| replay::run(&FIXED_VHD, Durability::Ordered, seed, 1))
        .sum();
    assert!(states >= 100, "only {states} states were checked");
}

/// So many sectors of the guest behind a place.
fn behind(run: &replay::Run<'_>, start: usize, sectors: usize) -> usize {
    start + sectors * run.config.per_sector
}

/// What a shrink cut off never comes back, wherever growing again is interrupted.
#[test]
fn grown_sectors_are_zeroes_at_any_instant() {
    for config in CONFIGS.iter().filter(|config| config.shrinks) {
        let states = replay::sequence(
            config,
            Durability::Synced,
            &[
                |run| operations::write_to(run, behind(run, 496, 4)..run.config.sectors()),
                operations::flush,
                |run| operations::resize_to(run, behind(run, 696, 5), Preallocation::Off),
                operations::flush,
                |run| operations::resize_to(run, run.config.sectors(), Preallocation::Off),
                operations::flush,
            ],
        );
        assert!(states >= 10, "{}: only {states} states", config.name);
    }
}

/// Growing within a cluster keeps what that cluster holds.
#[test]
fn the_last_cluster_stays_when_its_image_grows_a_little() {
    for config in CONFIGS.iter().filter(|config| config.shrinks) {
        let states = replay::sequence(
            config,
            Durability::Synced,
            &[
                |run| operations::resize_to(run, behind(run, 992, 1), Preallocation::Off),
                |run| operations::write_to(run, behind(run, 896, 4)..behind(run, 992, 1)),
                operations::flush,
                |run| operations::resize_to(run, behind(run, 992, 2), Preallocation::Off),
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
    let names = [
        "v3",
        "overlay",
        "small",
        "vmdk",
        "vmdk overlay",
        "vmdk zeroed",
        "qed",
        "qed overlay",
        "qcow",
        "qcow overlay",
        "parallels",
    ];
    let configs = CONFIGS.iter().filter(|one| names.contains(&one.name));
    let states: usize = configs.map(|one| damaged::run(one, &mut kinds)).sum();
    println!("{states} states of {kinds:?}");
    assert_eq!(kinds.len(), 15, "not all tables were repaired");
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
