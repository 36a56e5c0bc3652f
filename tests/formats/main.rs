//! What each format promises. `qcow2/` has the odd cases of qcow2: they are in one program, because
//! each program links the whole crate.

#[path = "../common/mod.rs"]
mod common;
mod luks;
mod qcow2;
mod raw;
