//! Which protocol takes a name, and which part of it.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use bstr::ByteSlice;

use crate::driver_names::{unknown_driver, unknown_protocol};
use crate::error::{Error, Result};
use crate::location::tree::first_key;
use crate::location::{Location, Node, plain_path};
use crate::storage::driver::{StorageDriver, StorageTarget};
use crate::storage::file;
use crate::storage::registry::{find, for_scheme};
use crate::value::{Map, Value};

/// The driver of that name.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] where there is none.
pub fn driver_of_name(name: &str) -> Result<&'static StorageDriver> {
    find(name).ok_or_else(|| unknown_driver(name))
}

/// The driver of file names that begin with `scheme:`.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] where there is none.
pub fn driver_of_scheme(scheme: &str) -> Result<&'static StorageDriver> {
    for_scheme(scheme).ok_or_else(|| unknown_protocol(scheme))
}

/// The driver of a path that no protocol was named for: what is there decides.
pub fn driver_of_path(path: &Path) -> &'static StorageDriver {
    match path.metadata() {
        Ok(meta) if file::is_disc_drive(&meta) => &file::HOST_CDROM,
        Ok(meta) if meta.file_type().is_block_device() || meta.file_type().is_char_device() => {
            &file::HOST_DEVICE
        }
        _ => &file::FILE,
    }
}

/// The driver that creates at `location`, and its target. A path that names a device is the device
/// driver's, unless the location names the protocol.
///
/// # Errors
/// An unknown protocol, driver or option.
pub fn for_create(location: &Location) -> Result<(&'static StorageDriver, StorageTarget<'_>)> {
    match location.node() {
        Node::Path(path) => {
            let driver = match location.protocol() {
                Some(name) => driver_of_scheme(name)?,
                None => driver_of_path(path),
            };
            Ok((driver, StorageTarget::Path(path.into())))
        }
        Node::Uri { protocol, uri } => Ok((
            driver_of_scheme(protocol)?,
            StorageTarget::Uri(uri.as_bstr()),
        )),
        Node::Tree(tree) => for_create_by_options(tree),
    }
}

fn for_create_by_options(
    tree: &Map<String, Value>,
) -> Result<(&'static StorageDriver, StorageTarget<'_>)> {
    let path = tree.get("filename").and_then(Value::as_name);
    let path = path.map(|name| plain_path(OsStr::from_bytes(name)));
    let driver = match (tree.get("driver").and_then(Value::as_str), &path) {
        (Some(name), _) => driver_of_name(name)?,
        (None, Some(path)) => driver_of_path(path),
        (None, None) => return Err(Error::invalid("Must specify either driver or file")),
    };
    let mut others = tree.clone();
    others.retain(|key, _| key != "driver" && (key != "filename" || path.is_none()));
    match first_key(&others) {
        // How to open it would be a question of the open that follows.
        Some(key) => Err(driver.unknown_option(&key)),
        None => Ok((
            driver,
            path.map_or(StorageTarget::Unnamed, |path| {
                StorageTarget::Path(Cow::Owned(path))
            }),
        )),
    }
}
