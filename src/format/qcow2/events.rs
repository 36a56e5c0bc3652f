//! The trace events of the driver.

use crate::trace::Event;

/// A run of host clusters was allocated.
pub(super) static ALLOCATE: Event = Event::new("qcow2_allocate");
/// Metadata is written out, and made durable as far as requested.
pub(super) static FLUSH: Event = Event::new("qcow2_flush");
/// A barrier between writes of metadata.
pub(super) static BARRIER: Event = Event::new("qcow2_barrier");
/// Slices of an L2 table were loaded into the cache.
pub(super) static L2_LOAD: Event = Event::new("qcow2_l2_load");
/// Slices of a refcount block were loaded into the cache.
pub(super) static REFCOUNT_LOAD: Event = Event::new("qcow2_refcount_load");

/// All events of the driver.
pub(super) static ALL: &[&Event] = &[&ALLOCATE, &FLUSH, &BARRIER, &L2_LOAD, &REFCOUNT_LOAD];
