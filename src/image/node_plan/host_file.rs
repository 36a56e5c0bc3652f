//! A host storage, given by name or by options alone.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use bstr::BString;

use crate::location::{path_behind_protocol, plain_path};
use crate::storage::{StorageDriver, registry as protocols};
use crate::value::{Map, Value};

/// A host storage.
#[derive(Clone, Debug)]
pub(in crate::image) struct HostFile {
    /// The protocol's name; None if it follows from the name.
    pub(in crate::image) protocol: Option<String>,
    /// The path or URI, if given.
    pub(in crate::image) name: HostName,
}

/// The name of a host storage.
#[derive(Clone, Debug)]
pub(in crate::image) enum HostName {
    /// A path.
    Path(PathBuf),
    /// `protocol:rest`.
    Uri {
        /// The part before the first colon.
        protocol: String,
        /// The whole name.
        uri: BString,
    },
    /// No name: it is described by options alone.
    None,
}

fn takes_paths(scheme: &str) -> bool {
    protocols::for_scheme(scheme).is_some_and(StorageDriver::takes_paths)
}

impl HostName {
    /// The path, if it refers to a file or device.
    pub(in crate::image) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Path(path) => Some(path.clone()),
            Self::Uri { protocol, uri } if takes_paths(protocol) => Some(path_behind_protocol(uri)),
            Self::Uri { .. } | Self::None => None,
        }
    }

    /// The name to which names inside the image are relative.
    pub(in crate::image) fn base(&self) -> OsString {
        match (self.path(), self) {
            (Some(path), _) => path.into_os_string(),
            (None, Self::Uri { uri, .. }) => OsString::from_vec(uri.to_vec()),
            (None, _) => OsString::new(),
        }
    }
}

pub(super) fn take_file_name(protocol: Option<&str>, tree: &mut Map<String, Value>) -> HostName {
    let driver = protocol.and_then(protocols::find);
    // For other protocols it is an ordinary option, which they may not have.
    if driver.is_some_and(|driver| !driver.takes("filename")) {
        return HostName::None;
    }
    match tree.shift_remove("filename") {
        Some(Value::String(name)) => HostName::Path(plain_path(OsString::from_vec(name.into()))),
        _ => HostName::None,
    }
}
