//! qcow, the first version: clusters behind tables in two levels, over a backing file or none, compressed one
//! by one or encrypted. What the tables name keeps its place, and what is new goes to the end of the file.
//!
//! The order on disk: guest data, a barrier, the entries that name it and new tables, a barrier, the entries
//! of the upper table that name those. A crash leaves space that nothing names at most.

mod ahead;
mod backing;
mod check;
mod create;
mod disk;
mod driver;
mod inspect;
mod map;
mod open;
mod pack;
mod packed;
mod space;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use bstr::BString;
use parking_lot::{Mutex, RwLock};

use crate::format::IoUsers;
use crate::format::decoded::DecodedUnits;
use crate::format::inflight::InFlight;
use crate::format::read_ahead::ReadAhead;
use crate::format::table_cache::Cache;
use crate::storage::data_cipher::DataCipher;
use crate::storage::{Durability, Storage};

use disk::{Geometry, Header};
use space::Space;

pub use driver::DRIVER;

/// An open image.
///
/// Lock order, outermost first: an in-flight reservation, `flushing`, `space`, `tables`. No lock is held
/// across data I/O except `flushing`.
#[derive(Debug)]
struct Qcow {
    storage: Arc<dyn Storage>,
    geometry: Geometry,
    /// Where the upper table stands, and where it ends.
    l1_offset: u64,
    l1_end: u64,
    /// The virtual size.
    len: u64,
    header: Mutex<Header>,
    /// The name of the backing file, as it stands in the image.
    backing: Mutex<Option<BString>>,
    /// What no table holds is below, else it reads as zeroes.
    is_overlay: AtomicBool,
    /// The upper table: where each table of the lower level stands, or 0.
    l1: Vec<AtomicU64>,
    /// Where those tables stand, in order; None until the first write asks.
    tables: RwLock<Option<Vec<u64>>>,
    cache: Cache,
    read_ahead: ReadAhead,
    decoded: DecodedUnits,
    /// How guest data is encrypted; None also where only metadata is wanted.
    cipher: Option<DataCipher>,
    encrypted: bool,
    read_only: bool,
    durability: Durability,
    compression_level: Option<i64>,
    /// What is known of the length of the file.
    file_len: AtomicU64,
    space: Mutex<Space>,
    inflight: InFlight,
    users: IoUsers,
    /// Held while tables are written.
    flushing: Mutex<()>,
    /// Tables were changed and are not written.
    is_dirty: AtomicBool,
    /// A flush has failed: what it covered may be lost.
    lost: AtomicBool,
}
