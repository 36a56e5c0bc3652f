//! Images created by an operation.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::object::Objects;
use crate::options::Values;
use crate::storage::aside::aside_or_undo;
use crate::storage::creation::NewStorage;
use crate::storage::driver::CreateContext;
use crate::storage::modes::Preallocation;
use crate::storage::remote_file::make;
use crate::storage::traits::Storage;
use crate::sys::librbd::{self, Image};

use super::client::{Client, connect, failed};
use super::encryption::Wanted;
use super::options::Settings;
use super::storage::{Opened, RbdStorage, encrypt};

/// Time allowed for the cluster to remove the new image when the operation has failed: one with many objects takes a
/// while.
const REMOVAL: Duration = Duration::from_secs(60);
/// How long the removal may go without progress.
const PATIENCE: Duration = Duration::from_secs(15);
/// The same where the operation was cancelled, because someone is waiting for it to return, or where the cluster has
/// already stopped responding.
const QUICK: Duration = Duration::from_secs(4);

/// Minimum object size that the library accepts.
const SMALLEST: u64 = 4096;

/// Large enough for the header of any encryption format.
const HEADER: u64 = 64 << 20;

/// Settings of the image to be created.
fn settings_of(context: &CreateContext<'_>) -> Result<Settings> {
    let objects: &Objects = context.objects;
    let mut settings = Settings::of(&context.target, &Values::default(), objects)?;
    if settings.snapshot.is_some() {
        return Err(Error::new(
            ErrorKind::ReadOnly,
            "rbd snapshots are read-only",
        ));
    }
    settings.encryption = Wanted::of(context.options, objects)?;
    if let Some(id) = context.options.str("password-secret") {
        settings.key = Some(objects.secret_text(id)?);
    }
    Ok(settings)
}

/// The base-2 logarithm of the object size; 0 selects the cluster's default.
fn order_of(options: &Values) -> Result<u8> {
    let Some(size) = options.num("cluster_size").filter(|size| *size > 0) else {
        return Ok(0);
    };
    if !size.is_power_of_two() {
        return Err(Error::invalid("obj size needs to be power of 2"));
    }
    if size < SMALLEST {
        return Err(Error::invalid("obj size too small"));
    }
    // At most 63.
    Ok(size.trailing_zeros() as u8)
}

/// Creates the image, empty. An existing one is left alone: it may belong to someone else.
pub(super) fn claim(context: &CreateContext<'_>) -> Result<Box<dyn NewStorage>> {
    let settings = settings_of(context)?;
    let order = order_of(context.options)?;
    let control = context.control;
    let client = connect(&settings, context.cache, control)?;
    let opened = {
        let (client, settings) = (client.clone(), settings.clone());
        let name = settings.short();
        let (own, image) = (client.clone(), settings.image.clone());
        let patience = Some(client.patience);
        let call = move || made(&client, &settings, order);
        let undo = move |opened| {
            drop(opened);
            let _ = librbd::remove(&own.pool, &image, &AtomicU64::new(0));
        };
        make(name, control, |control| {
            aside_or_undo(control, patience, call, undo)
        })?
    };
    let storage = Arc::new(RbdStorage::new(settings, client, opened, true, control));
    let new = Box::new(NewImage {
        shown: storage.clone(),
        storage,
    });
    if new.storage.len()? > 0
        && let Err(error) = new.storage.set_len(0, Preallocation::Off)
    {
        let _ = new.remove();
        return Err(error);
    }
    Ok(new)
}

/// Creates the image for [`claim`], and removes it again on failure. Blocks on the cluster.
fn made(client: &Client, settings: &Settings, order: u8) -> Result<Opened> {
    let (pool, name) = (&client.pool, &settings.image);
    let size = settings.encryption.as_ref().map_or(0, |_| HEADER);
    librbd::create(pool, name, size, order).map_err(|errno| failed(errno, "error rbd create"))?;
    let open = || {
        let shown = name.to_string_lossy();
        let image = Image::open(pool, name, None, true)
            .map_err(|errno| failed(errno, format!("error reading header from {shown}")))?;
        let raw = match &settings.encryption {
            None => size,
            Some(wanted) => {
                encrypt(&image, wanted).map_err(|errno| failed(errno, "encryption format fail"))?
            }
        };
        Opened::of(client, settings, image, raw)
    };
    open().inspect_err(|_| {
        let _ = librbd::remove(pool, name, &AtomicU64::new(0));
    })
}

#[derive(Debug)]
struct NewImage {
    storage: Arc<RbdStorage>,
    shown: Arc<dyn Storage>,
}

impl NewStorage for NewImage {
    fn storage(&self) -> &Arc<dyn Storage> {
        &self.shown
    }

    fn check_room(&self, _len: u64) -> Result<()> {
        // A cluster allocates space when it is written to.
        Ok(())
    }

    fn empty(&self) -> Result<Option<String>> {
        // It was created empty.
        Ok(None)
    }

    fn is_made(&self) -> bool {
        true
    }

    fn remove(&self) -> Result<bool> {
        let patience = match self.storage.is_cancelled() || self.storage.is_silent() {
            true => QUICK,
            false => PATIENCE,
        };
        self.storage.remove(REMOVAL, patience)?;
        Ok(true)
    }
}
