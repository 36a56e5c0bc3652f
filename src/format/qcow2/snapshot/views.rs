//! Which snapshots are being read through views: they must stay, and so must their tables.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};

/// The views of one open image.
#[derive(Clone, Debug, Default)]
pub(in crate::format::qcow2) struct Views(Arc<Mutex<Vec<Vec<u8>>>>);

/// A view of a snapshot, registered until it is dropped.
#[derive(Debug)]
pub(in crate::format::qcow2) struct View {
    views: Views,
    id: Vec<u8>,
}

impl Views {
    /// Registers a view of the snapshot with this ID.
    pub(super) fn enter(&self, id: &[u8]) -> View {
        self.0.lock().push(id.to_vec());
        View {
            views: self.clone(),
            id: id.to_vec(),
        }
    }

    /// Refuses to delete a snapshot that is being read.
    pub(super) fn check_unused(&self, id: &[u8]) -> Result<()> {
        let used = self.0.lock().iter().any(|viewed| viewed == id);
        busy_if(used, "The snapshot is being read")
    }

    /// Refuses to rewrite tables of snapshots while one is being read.
    pub(in crate::format::qcow2) fn check_none(&self) -> Result<()> {
        busy_if(!self.0.lock().is_empty(), "A snapshot is being read")
    }
}

fn busy_if(used: bool, message: &str) -> Result<()> {
    if used {
        return Err(Error::new(ErrorKind::Busy, message).with_errno(libc::EBUSY));
    }
    Ok(())
}

impl Drop for View {
    fn drop(&mut self) {
        let mut views = self.views.0.lock();
        if let Some(at) = views.iter().position(|viewed| *viewed == self.id) {
            views.swap_remove(at);
        }
    }
}
