//! The trace events of open images.

use crate::trace::Event;

/// A layer of an image was opened.
pub static OPEN: Event = Event::new("image_open");
/// The use of a layer ended.
pub static CLOSE: Event = Event::new("image_close");
/// The lock bytes of a file were taken.
pub static LOCK: Event = Event::new("image_lock");

/// All of them.
pub static ALL: &[&Event] = &[&OPEN, &CLOSE, &LOCK];
