//! The log (section 2.3): changes of metadata are logged before they are carried out, so that a crash leaves either all
//! of an entry or nothing.

mod overlay;
mod replay;
mod scan;
mod write;

pub(super) use replay::{Replayed, replay};
pub(super) use scan::LogArea;
pub(super) use write::{LogWriter, NewPage};
