//! The trace events of open images.

use crate::trace::Event;

/// A layer of an image was opened.
pub static OPEN: Event = Event::new("image_open");
/// A layer was closed.
pub static CLOSE: Event = Event::new("image_close");
/// A file was locked.
pub static LOCK: Event = Event::new("image_lock");

/// All events.
pub static ALL: &[&Event] = &[&OPEN, &CLOSE, &LOCK];
