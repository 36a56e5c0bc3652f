//! Opens the host file of a plan.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bstr::{BString, ByteSlice};

use crate::error::Result;
use crate::image::node::{Node, NodeKind};
use crate::image::node_plan::{HostFile, HostName, NodePlan};
use crate::image::{OpenOptions, names};
use crate::location::Location;
use crate::location::tree::{flatten, flatten_values};
use crate::options::key_matches;
use crate::printable::without_passwords;
use crate::storage::driver::{OpenContext, StorageOpen, StorageTarget};
use crate::storage::exports::ExportInfo;
use crate::storage::location::{driver_of_name, driver_of_path, driver_of_scheme};
use crate::storage::{Identity, Storage, StorageDriver, file, registry};
use crate::value::{Map, Value};

/// Opens the storage of a plan.
///
/// # Errors
/// Those of the protocol.
pub(super) fn open(
    host: &HostFile,
    plan: &NodePlan,
    writable: bool,
    named_by_image: bool,
    options: &OpenOptions,
) -> Result<Node> {
    let how = StorageOpen {
        writable,
        named_by_image,
        cache: plan.common.cache(options.cache),
    };
    let storage = match given(host, &how, options) {
        Some(storage) => storage?,
        None => open_storage(host, &plan.given, &how, options)?,
    };
    let driver = registry::find(storage.driver());
    let base = host.name.base();
    let name = BString::from(base.as_bytes());
    let weak = driver.map_or(&[][..], |driver| driver.weak_options);
    let mut given = flatten_values(&plan.given);
    given.retain(|key, _| !weak.iter().any(|name| key_matches(name, key)));
    if let Some(Value::String(url)) = given.get_mut("url") {
        *url = without_passwords(url).into_owned().into();
    }
    let plain = match driver.and_then(|driver| driver.file_name) {
        Some(short) => short(&given),
        None => (!name.is_empty() && given.is_empty()).then(|| name.clone()),
    };
    let mut tree = Map::new();
    tree.insert("driver".to_owned(), storage.driver().into());
    tree.extend(given);
    if !name.is_empty() {
        tree.insert("filename".to_owned(), name.into());
    }
    Ok(Node {
        plain,
        base,
        tree: names::ordered(tree),
        name: None,
        shared: false,
        kind: NodeKind::Host,
        storage,
    })
}

/// The caller's storage with that name.
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
    given: &Map<String, Value>,
    how: &StorageOpen,
    options: &OpenOptions,
) -> Result<Arc<dyn Storage>> {
    with_driver(host, given, how, options, StorageDriver::open_storage)
}

/// Visits the identity of each file that the storage of a plan would stand on. Nothing is opened, except a named
/// storage of the caller.
pub(super) fn visit_identities(
    host: &HostFile,
    options_given: &Map<String, Value>,
    options: &OpenOptions,
    visit: &mut dyn FnMut(Identity),
) {
    let how = StorageOpen {
        writable: options.writable,
        ..StorageOpen::default()
    };
    if let Some(Ok(storage)) = given(host, &how, options) {
        return storage.visit_identities(visit);
    }
    let shown = with_driver(host, options_given, &how, options, |driver, context| {
        driver.visit_identities(context, visit);
        Ok(())
    });
    // The file exists even if the options are wrong for it.
    if shown.is_err()
        && let Some(id) = host.name.path().and_then(|path| Identity::of_path(&path))
    {
        visit(id);
    }
}

/// Whether the storages of the driver of a host file, if there is one, are on this host.
pub(super) fn is_local(host: &HostFile) -> bool {
    driver_of(host).is_ok_and(|driver| driver.is_local)
}

/// Lists the exports of the server that a location refers to; no storage is opened.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] if it does not refer to a server with such a list, and errors of the server.
pub(crate) fn exports(location: &Location, options: &OpenOptions) -> Result<Vec<ExportInfo>> {
    let (host, given) = NodePlan::of(location, options)?.into_host()?;
    let how = StorageOpen::default();
    with_driver(&host, &given, &how, options, StorageDriver::list_exports)
}

/// Calls an operation of the driver of a host file.
fn with_driver<T>(
    host: &HostFile,
    given: &Map<String, Value>,
    how: &StorageOpen,
    options: &OpenOptions,
    call: impl FnOnce(&StorageDriver, &OpenContext<'_>) -> Result<T>,
) -> Result<T> {
    let driver = driver_of(host)?;
    driver.check_nulls(&flatten_values(given))?;
    let checked = driver.check_options(&flatten(given))?;
    let context = OpenContext {
        target: match &host.name {
            HostName::Path(path) => StorageTarget::Path(path.into()),
            HostName::Uri { uri, .. } => StorageTarget::Uri(uri.as_bstr()),
            HostName::None => StorageTarget::Unnamed,
        },
        options: &checked,
        how: *how,
        objects: &options.objects,
        policy: &options.policy,
        control: &options.control,
    };
    call(driver, &context)
}

fn driver_of(host: &HostFile) -> Result<&'static StorageDriver> {
    match (host.protocol.as_deref(), &host.name) {
        (Some(name), _) => driver_of_name(name),
        (None, HostName::Uri { protocol, .. }) => driver_of_scheme(protocol),
        (None, HostName::Path(path)) => Ok(driver_of_path(path)),
        (None, HostName::None) => Ok(&file::FILE),
    }
}

/// The identity of the file that a location refers to, if there is one; nothing is opened.
pub(crate) fn location_id(location: &Location) -> Option<Identity> {
    let plan = NodePlan::new(location, None).ok()?;
    Identity::of_path(&plan.path()?)
}
