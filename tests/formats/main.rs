//! What each format promises. `kit/` drives every format of the registry through the same tests;
//! the other modules have the odd cases of one format each.

mod asif;
#[path = "../cli/build.rs"]
mod build;
mod bundle;
#[path = "../common/mod.rs"]
mod common;
mod dmg;
mod encrcdsa;
mod ewf;
mod from_nothing;
mod kit;
mod luks;
mod parallels;
mod products;
mod qcow;
mod qcow2;
mod qed;
#[path = "../crash/random.rs"]
mod random;
mod raw;
mod served;
mod sparsebundle;
#[path = "../crash/states.rs"]
mod states;
mod vdi;
mod vhdx;
mod vmdk;
mod vpc;
mod witnesses;
