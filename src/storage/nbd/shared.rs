//! State shared by all storages of one export in this process: connections, as a server may accept only a few, and
//! what is known about holes, which a write through any of them changes.

use std::os::fd::{AsFd, RawFd};
use std::sync::{Arc, Weak};

use bstr::BString;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::job::JobControl;
use crate::nbd::flags::StateFlags;
use crate::storage::status::StatusCache;
use crate::sys::{attr, fd};

use super::options::Settings;
use super::pool::Pool;

static SHARED: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// An export that is in use.
#[derive(Debug)]
pub(super) struct Shared {
    settings: Settings,
    /// Identifies the socket behind the descriptor, if one is used as the connection.
    socket: Option<Socket>,
    /// Its connections.
    pub(super) pool: Pool,
    /// What is known about holes and zeroes.
    pub(super) status: StatusCache<StateFlags>,
    /// Held while part of a block is modified.
    pub(super) partial: Mutex<()>,
}

impl Shared {
    /// The shared state of an export; connects if it is not in use yet. The timeouts of the first opener apply to all.
    ///
    /// # Errors
    /// If connecting fails.
    pub(super) fn open(
        settings: &Settings,
        name: &BString,
        control: &JobControl,
    ) -> Result<Arc<Self>> {
        let socket = settings.descriptor().map(socket_behind).transpose()?;
        if let Some(known) = find(&mut SHARED.lock(), settings, socket) {
            return Ok(known);
        }
        let fresh = Arc::new(Self {
            settings: settings.clone(),
            socket,
            pool: Pool::open(settings, name.clone(), control)?,
            status: StatusCache::default(),
            partial: Mutex::new(()),
        });
        let mut all = SHARED.lock();
        // Another thread may have been faster.
        if let Some(known) = find(&mut all, settings, socket) {
            return Ok(known);
        }
        all.push(Arc::downgrade(&fresh));
        Ok(fresh)
    }
}

fn find(
    all: &mut Vec<Weak<Shared>>,
    settings: &Settings,
    socket: Option<Socket>,
) -> Option<Arc<Shared>> {
    all.retain(|one| one.strong_count() > 0);
    all.iter().filter_map(Weak::upgrade).find(|one| {
        one.settings.same_export(settings) && one.socket == socket && one.pool.is_usable()
    })
}

/// Device and inode, which identify the socket behind a descriptor for as long as it is open.
type Socket = (u64, u64);

fn socket_behind(number: RawFd) -> Result<Socket> {
    let fd = fd::duplicate_number(number).map_err(|error| Error::io(&error))?;
    let stat = attr::stat(fd.as_fd()).map_err(|error| Error::io(&error))?;
    Ok(stat.identity)
}
