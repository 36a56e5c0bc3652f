//! The protocol drivers: how a location's node becomes a storage.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bstr::{BStr, ByteSlice};

use crate::error::{Error, Result};
use crate::location::{Location, Node, path_behind_protocol, plain_path};
use crate::options::{OptionKind, OptionSpec, Values};
use crate::storage::creation::{Creation, NewStorage};
use crate::storage::file::{self, FileCreate, FileOpen, Locking};
use crate::storage::node::NodeOptions;
use crate::storage::null::NullStorage;
use crate::storage::traits::{CacheMode, Storage};
use crate::value::{Map, Value};

bitflags::bitflags! {
    /// What a protocol can do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct StorageFeatures: u32 {
        /// Can be written.
        const WRITE = 1;
        /// Can be created, or taken as the target of a creation.
        const CREATE = 1 << 1;
        /// Can change its length.
        const RESIZE = 1 << 2;
        /// Takes locks against other processes.
        const LOCKS = 1 << 3;
        /// Tells data from holes.
        const EXTENTS = 1 << 4;
    }
}

/// How to open a storage.
#[derive(Clone, Copy, Debug, Default)]
pub struct StorageOpen {
    /// Open for writing as well.
    pub writable: bool,
    /// Page cache use and flush guarantees.
    pub cache: CacheMode,
    /// Whether locks are taken.
    pub locking: Locking,
    /// An image names it: see [`FileOpen::named_by_image`].
    pub named_by_image: bool,
}

/// How to create a storage. Its options (`nocow`…) come as [`Values`].
#[derive(Clone, Copy, Debug, Default)]
pub struct StorageCreate {
    /// Page cache use and flush guarantees.
    pub cache: CacheMode,
    /// Whether locks are taken.
    pub locking: Locking,
}

/// Storages that the caller keeps under names of its own, such as chains in memory.
pub trait NamedStorages: Debug + Send + Sync {
    /// The storage of that name, asked before the protocols; None leaves the name to them. What is
    /// to be created there is emptied first; locks among its users are the caller's matter.
    fn find(&self, name: &Path, how: &StorageOpen) -> Option<Result<Arc<dyn Storage>>>;
}

/// What a driver opens: a name, or options.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// A host path; need not be UTF-8.
    Path(&'a Path),
    /// `scheme:rest` as typed.
    Uri(&'a BStr),
    /// `driver=…` options without `driver`.
    Options(&'a Map<String, Value>),
}

/// Opens a storage of one protocol.
pub type OpenFn = fn(Target<'_>, &StorageOpen) -> Result<Arc<dyn Storage>>;
/// Claims a storage of one protocol for an operation that is to fill it; makes it where it is missing
/// and changes nothing else.
pub type ClaimFn = fn(Target<'_>, &Values, &StorageCreate) -> Result<Box<dyn NewStorage>>;

/// A protocol, as one line of the registry.
#[derive(Debug)]
pub struct StorageDriver {
    /// The name used as `driver=`.
    pub name: &'static str,
    /// What stands before the colon of a file name of this protocol.
    pub schemes: &'static [&'static str],
    /// What it can do.
    pub features: StorageFeatures,
    /// Options of opening beyond those that every node has, sorted by name.
    pub open_options: &'static [OptionSpec],
    /// Options of creation, sorted by name.
    pub create_options: &'static [OptionSpec],
    /// Opens.
    pub open: OpenFn,
    /// Begins to create, where the protocol can.
    pub create: Option<ClaimFn>,
}

const fn spec(name: &'static str, kind: OptionKind, help: &'static str) -> OptionSpec {
    OptionSpec {
        name,
        kind,
        help,
        default: None,
        allowed: &[],
    }
}

const SIZE: OptionSpec = spec("size", OptionKind::Size, "Virtual disk size");

const FILE_CREATE: &[OptionSpec] = &[
    spec(
        "extent_size_hint",
        OptionKind::Size,
        "Extent size hint for the image file, 0 to disable",
    ),
    spec(
        "nocow",
        OptionKind::Bool,
        "Turn off copy-on-write (valid only on btrfs)",
    ),
    OptionSpec {
        allowed: &["off", "falloc", "full"],
        ..spec(
            "preallocation",
            OptionKind::Str,
            "Preallocation mode (allowed values: off, falloc, full)",
        )
    },
    SIZE,
];

const DEVICE_CREATE: &[OptionSpec] = &[
    OptionSpec {
        allowed: &["off"],
        ..spec(
            "preallocation",
            OptionKind::Str,
            "Preallocation mode (allowed values: off)",
        )
    },
    SIZE,
];

const FILE_OPEN: &[OptionSpec] = &[
    spec("filename", OptionKind::Name, "File name of the image"),
    OptionSpec {
        allowed: &["auto", "on", "off"],
        default: Some("auto"),
        ..spec("locking", OptionKind::Str, "File locking mode")
    },
];

const NULL_OPEN: &[OptionSpec] = &[
    OptionSpec {
        default: Some("off"),
        ..spec("read-zeroes", OptionKind::Bool, "Reads give zeroes")
    },
    OptionSpec {
        default: Some("1G"),
        ..spec("size", OptionKind::Size, "Size of the device")
    },
];

const FILE_FEATURES: StorageFeatures = StorageFeatures::all();

static DRIVERS: &[StorageDriver] = &[
    StorageDriver {
        name: "file",
        schemes: &["file"],
        features: FILE_FEATURES,
        open_options: FILE_OPEN,
        create_options: FILE_CREATE,
        open: |target, how| open_file("file", target, how),
        create: Some(|target, values, how| claim_file("file", target, values, how)),
    },
    StorageDriver {
        name: "host_device",
        schemes: &["host_device"],
        features: FILE_FEATURES.difference(StorageFeatures::RESIZE),
        open_options: FILE_OPEN,
        create_options: DEVICE_CREATE,
        open: |target, how| open_file("host_device", target, how),
        create: Some(|target, values, how| claim_file("host_device", target, values, how)),
    },
    StorageDriver {
        name: "null-aio",
        schemes: &["null-aio"],
        features: StorageFeatures::WRITE,
        open_options: NULL_OPEN,
        create_options: &[],
        open: |target, how| NullStorage::open("null-aio", target, how),
        create: None,
    },
    StorageDriver {
        name: "null-co",
        schemes: &["null-co"],
        features: StorageFeatures::WRITE,
        open_options: NULL_OPEN,
        create_options: &[],
        open: |target, how| NullStorage::open("null-co", target, how),
        create: None,
    },
];

/// All protocol drivers of this build, sorted by name.
pub fn drivers() -> &'static [StorageDriver] {
    DRIVERS
}

/// The driver of that name.
pub fn find(name: &str) -> Option<&'static StorageDriver> {
    DRIVERS.iter().find(|driver| driver.name == name)
}

/// The driver of file names that begin with `scheme:`.
pub fn for_scheme(scheme: &str) -> Option<&'static StorageDriver> {
    DRIVERS
        .iter()
        .find(|driver| driver.schemes.contains(&scheme))
}

fn known_scheme(scheme: &str) -> Result<&'static StorageDriver> {
    for_scheme(scheme).ok_or_else(|| Error::invalid(format!("Unknown protocol '{scheme}'")))
}

/// The driver that creates at `location`: for its table of options. A path that names a device is
/// the device driver's, unless the location names the protocol.
///
/// # Errors
/// An unknown protocol or driver.
pub fn driver_for_create(location: &Location) -> Result<&'static StorageDriver> {
    match location.node() {
        Node::Path(path) => match location.protocol() {
            Some(name) => known_scheme(name),
            None => Ok(path_driver(path)),
        },
        Node::Uri { protocol, .. } => known_scheme(protocol),
        Node::Tree(tree) => match tree.get("driver").and_then(Value::as_str) {
            Some(name) => {
                find(name).ok_or_else(|| Error::invalid(format!("Unknown driver '{name}'")))
            }
            None => match tree.get("filename").and_then(Value::as_name) {
                Some(name) => driver_for_create(&Location::parse(OsStr::from_bytes(name))?),
                None => Err(no_driver()),
            },
        },
    }
}

fn path_driver(path: &Path) -> &'static StorageDriver {
    use std::os::unix::fs::FileTypeExt;
    let device = path
        .metadata()
        .is_ok_and(|meta| meta.file_type().is_block_device() || meta.file_type().is_char_device());
    &DRIVERS[usize::from(device)]
}

fn no_driver() -> Error {
    Error::invalid("Must specify either driver or file")
}

/// Opens the storage at `node`.
///
/// # Errors
/// An unknown protocol or driver, or of the open.
pub fn open(node: &Node, how: &StorageOpen) -> Result<Arc<dyn Storage>> {
    match node {
        Node::Path(path) => open_path(path, how),
        Node::Uri { protocol, uri } => {
            (known_scheme(protocol)?.open)(Target::Uri(uri.as_bstr()), how)
        }
        Node::Tree(tree) => open_options(tree, how),
    }
}

/// Opens the file or device at `path`.
///
/// # Errors
/// As [`file::open`].
pub fn open_path(path: &Path, how: &StorageOpen) -> Result<Arc<dyn Storage>> {
    Ok(Arc::new(file::open(path, &file_open(None, how))?))
}

/// Opens from options: `driver` and what it takes, or a `filename` that decides.
///
/// # Errors
/// An unknown driver or option, or of the open.
pub fn open_options(tree: &Map<String, Value>, how: &StorageOpen) -> Result<Arc<dyn Storage>> {
    if let Some(name) = tree.get("driver").and_then(Value::as_str) {
        let driver =
            find(name).ok_or_else(|| Error::invalid(format!("Unknown driver '{name}'")))?;
        return (driver.open)(Target::Options(tree), how);
    }
    let name = tree
        .get("filename")
        .and_then(Value::as_name)
        .ok_or_else(no_driver)?;
    match Location::parse(OsStr::from_bytes(name))?.node() {
        Node::Path(path) => {
            let options = NodeOptions::parse("file", tree, how, FILE_OPEN)?;
            let open = file_open(None, &options.how);
            Ok(Arc::new(file::open(path, &open)?))
        }
        Node::Uri { protocol, uri } => {
            let options = NodeOptions::parse(protocol, tree, how, FILE_OPEN)?;
            (known_scheme(protocol)?.open)(Target::Uri(uri.as_bstr()), &options.how)
        }
        Node::Tree(_) => Err(Error::invalid("json: is not a file name")),
    }
}

/// Claims the storage at `location` for an operation that is to fill it. It is made where it is
/// missing, and removed again unless the operation succeeds; what is there stays as it is until
/// [`Creation::empty`]. No lock is taken.
///
/// # Errors
/// An unknown protocol, one that cannot create, or `Could not create 'X': …`.
pub fn claim(location: &Location, values: &Values, how: &StorageCreate) -> Result<Creation> {
    let driver = driver_for_create(location)?;
    let create = driver.create.ok_or_else(|| {
        Error::unsupported(format!(
            "Format driver '{}' does not support image creation",
            driver.name
        ))
    })?;
    match location.node() {
        Node::Path(path) => create(Target::Path(path), values, how),
        Node::Uri { uri, .. } => create(Target::Uri(uri.as_bstr()), values, how),
        Node::Tree(tree) => create(Target::Options(tree), values, how),
    }
    .map(Creation::new)
}

fn file_open(driver: Option<&'static str>, how: &StorageOpen) -> FileOpen {
    FileOpen {
        writable: how.writable,
        cache: how.cache,
        locking: how.locking,
        driver,
        named_by_image: how.named_by_image,
    }
}

/// The path of a target: the protocol is cut off, nothing is decoded.
fn path_of(driver: &str, target: &Target<'_>) -> Result<PathBuf> {
    Ok(match target {
        Target::Path(path) => path.to_path_buf(),
        Target::Uri(uri) => path_behind_protocol(uri),
        Target::Options(tree) => match tree.get("filename").and_then(Value::as_name) {
            Some(name) => plain_path(OsStr::from_bytes(name)),
            None => {
                return Err(Error::invalid(format!(
                    "The '{driver}' block driver requires a file name"
                )));
            }
        },
    })
}

fn open_file(
    driver: &'static str,
    target: Target<'_>,
    how: &StorageOpen,
) -> Result<Arc<dyn Storage>> {
    let mut how = *how;
    if let Target::Options(tree) = target {
        how = NodeOptions::parse(driver, tree, &how, FILE_OPEN)?.how;
    }
    let path = path_of(driver, &target)?;
    Ok(Arc::new(file::open(&path, &file_open(Some(driver), &how))?))
}

fn claim_file(
    driver: &'static str,
    target: Target<'_>,
    values: &Values,
    how: &StorageCreate,
) -> Result<Box<dyn NewStorage>> {
    let defaults = FileCreate::default();
    let path = path_of(driver, &target)?;
    let options = FileCreate {
        cache: how.cache,
        locking: how.locking,
        nocow: values.bool("nocow").unwrap_or(defaults.nocow),
        extent_size_hint: values
            .num("extent_size_hint")
            .unwrap_or(defaults.extent_size_hint),
    };
    Ok(Box::new(match driver {
        "host_device" => file::claim_device(&path, &options)?,
        _ => file::claim(&path, &options)?,
    }))
}
