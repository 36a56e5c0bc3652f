//! Crash replay of the qcow2 driver: random operations over a storage that logs every write and
//! barrier, then every prefix of the log and random subsets between barriers, each opened and
//! checked. Clusters may be leaked; nothing may be corrupt, and what was flushed must be there.

mod model;
mod replay;
mod rig;

use platter::storage::Durability;
use rig::Config;

const CONFIGS: &[Config] = &[
    Config {
        name: "v3",
        options: "cluster_size=4096",
        overlay: false,
    },
    Config {
        name: "overlay",
        options: "cluster_size=4096",
        overlay: true,
    },
    Config {
        name: "small",
        options: "cluster_size=512,refcount_bits=64",
        overlay: true,
    },
    Config {
        name: "narrow",
        options: "cluster_size=1024,refcount_bits=1",
        overlay: false,
    },
    Config {
        name: "v2",
        options: "cluster_size=4096,compat=0.10",
        overlay: true,
    },
    Config {
        name: "extended",
        options: "cluster_size=16384,extended_l2=on",
        overlay: true,
    },
    Config {
        name: "lazy",
        options: "cluster_size=4096,lazy_refcounts=on",
        overlay: false,
    },
];

/// Seeds per configuration; each is a run of its own.
const SEEDS: u64 = 3;

fn run(config: &Config, durability: Durability) -> usize {
    (0..SEEDS)
        .map(|seed| replay::run(config, durability, seed))
        .sum()
}

/// Every configuration after a power cut: more than 10,000 states.
#[test]
fn a_power_cut_at_any_instant_leaves_a_whole_image() {
    let states: usize = CONFIGS
        .iter()
        .map(|config| run(config, Durability::Synced))
        .sum();
    assert!(states >= 10_000, "only {states} states were checked");
}

/// The end of the process: the kernel has all writes, in order, and no barrier is needed.
#[test]
fn a_kill_at_any_instant_leaves_a_whole_image() {
    let states: usize = CONFIGS
        .iter()
        .map(|config| run(config, Durability::Ordered))
        .sum();
    assert!(states >= 2_000, "only {states} states were checked");
}
