//! The operations of the library against `qemu-img`, and the rules of opening.

#[path = "../cli/build.rs"]
mod build;
#[path = "../common/mod.rs"]
mod common;

mod chain;
mod check;
mod compare;
mod create;
mod documented;
mod filters;
mod info;
mod inspect;
mod locks;
mod map;
mod policy;
mod prefetch;
mod protocols;
mod small_stack;
mod tables;
