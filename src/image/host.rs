//! Opens the host file of a plan.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bstr::{BString, ByteSlice};

use crate::error::Result;
use crate::image::OpenOptions;
use crate::image::adapter::ImageStorage;
use crate::image::plan::{HostFile, HostName, Plan};
use crate::location::Location;
use crate::location::tree::flatten;
use crate::storage::driver::{OpenContext, StorageOpen, StorageTarget};
use crate::storage::location::{driver_of_name, driver_of_path, driver_of_scheme};
use crate::storage::{Identity, Storage, file};
use crate::value::{Map, Value};

/// An open host storage, or a node that serves as one.
#[derive(Debug)]
pub(super) struct Opened {
    /// The storage.
    pub(super) storage: Arc<dyn Storage>,
    /// The file name to which names inside the image are relative.
    pub(super) base: OsString,
    /// The name, where a plain one says all.
    pub(super) plain: Option<BString>,
    /// The options that open it again.
    pub(super) tree: Map<String, Value>,
    /// Locks are taken already, by the node that it is.
    pub(super) locked: bool,
    /// That node.
    pub(super) node: Option<Arc<ImageStorage>>,
}

impl Opened {
    /// A storage that the caller made.
    pub(super) fn given(storage: Arc<dyn Storage>) -> Self {
        let name = storage.name().to_owned();
        let mut tree = Map::new();
        tree.insert("driver".to_owned(), storage.driver().into());
        tree.insert("filename".to_owned(), name.clone().into());
        Self {
            base: OsStr::from_bytes(&name).to_owned(),
            plain: Some(name),
            tree,
            locked: false,
            node: None,
            storage,
        }
    }
}

/// Opens the storage of a plan.
///
/// # Errors
/// Of the protocol.
pub(super) fn open(
    host: &HostFile,
    writable: bool,
    named_by_image: bool,
    options: &OpenOptions,
) -> Result<Opened> {
    let how = StorageOpen {
        writable,
        named_by_image,
        cache: host.common.cache(options.cache),
    };
    let storage = match given(host, &how, options) {
        Some(storage) => storage?,
        None => open_storage(host, &how, options)?,
    };
    let base = host.name.base();
    let name = BString::from(base.as_bytes());
    // `locking` says how to open, not what.
    let strong = || host.options.iter().filter(|(key, _)| *key != "locking");
    let mut tree = Map::new();
    tree.insert("driver".to_owned(), storage.driver().into());
    for (key, value) in strong() {
        tree.insert(key.clone(), value.clone());
    }
    if !name.is_empty() {
        tree.insert("filename".to_owned(), name.clone().into());
    }
    Ok(Opened {
        plain: (!name.is_empty() && strong().next().is_none()).then_some(name),
        base,
        tree,
        locked: false,
        node: None,
        storage,
    })
}

/// The storage that the caller keeps under the name.
fn given(
    host: &HostFile,
    how: &StorageOpen,
    options: &OpenOptions,
) -> Option<Result<Arc<dyn Storage>>> {
    match (&options.storages, &host.name) {
        (Some(storages), HostName::Path(path)) => storages.find(path, how),
        _ => None,
    }
}

fn open_storage(
    host: &HostFile,
    how: &StorageOpen,
    options: &OpenOptions,
) -> Result<Arc<dyn Storage>> {
    let driver = match (host.protocol.as_deref(), &host.name) {
        (Some(name), _) => driver_of_name(name)?,
        (None, HostName::Uri { protocol, .. }) => driver_of_scheme(protocol)?,
        (None, HostName::Path(path)) => driver_of_path(path),
        (None, HostName::None) => &file::FILE,
    };
    driver.open_storage(&OpenContext {
        target: match &host.name {
            HostName::Path(path) => StorageTarget::Path(path.into()),
            HostName::Uri { uri, .. } => StorageTarget::Uri(uri.as_bstr()),
            HostName::None => StorageTarget::Unnamed,
        },
        options: &driver.check_options(&flatten(&host.options))?,
        how: *how,
        secrets: &options.secrets,
        policy: &options.policy,
        control: &options.control,
    })
}

/// The identity of the file at the end of a location, if there is one; nothing is opened.
pub(crate) fn location_id(location: &Location) -> Option<Identity> {
    let plan = Plan::new(location, None).ok()?;
    Identity::of_path(&plan.file().name.path()?)
}
