//! The concurrent parts of the qcow2 driver under every interleaving of a few threads: the source
//! is that of the crate, over loom's locks and atomics.
#![cfg(test)]

mod sync;

#[path = "../../../src/error.rs"]
#[allow(dead_code, reason = "the crate's errors, of which the parts make few")]
mod error;
#[path = "../../../src/printable.rs"]
#[allow(dead_code, reason = "the parts use a share of it")]
mod printable;
#[path = "../../../src/sys"]
#[allow(dead_code, reason = "the parts use a share of it")]
mod sys {
    mod aligned;
    mod io_buf;
    mod payload;
    mod pool;
    pub(crate) use aligned::AlignedBuf;
    pub use io_buf::IoBuf;
    pub(crate) use payload::{Payload, lend};
}
#[path = "../../../src/lack.rs"]
mod lack;
#[path = "../../../src/memory.rs"]
#[allow(dead_code, unused_imports, reason = "the parts use some of it")]
mod memory;
#[allow(dead_code, reason = "the models use the core of each part")]
#[path = "../../../src/format/qcow2"]
mod parts {
    #[path = "cache.rs"]
    mod cache;
    #[path = "../../../tests/loom/src/models.rs"]
    mod models;
}
#[path = "../../../src/format/io_users.rs"]
#[allow(dead_code, reason = "the models use the core of each part")]
mod io_users;
#[path = "../../../src/format/inflight.rs"]
#[allow(dead_code, reason = "the models use the core of each part")]
mod inflight;
#[path = "../../../src/format/limbo.rs"]
#[allow(dead_code, reason = "the models use the core of each part")]
mod limbo;
/// What the parts import from the crate's formats.
mod format {
    pub(crate) use crate::io_users::IoUsers;
    pub use crate::io_users::{IoGuard, LongIoGuard};
}
