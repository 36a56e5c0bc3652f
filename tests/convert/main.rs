//! `convert` against `qemu-img`: whatever is converted compares identical and checks clean.

#[path = "../common/mod.rs"]
mod common;

mod backing;
mod behaviour;
mod chain;
mod existing;
mod formats;
mod support;
