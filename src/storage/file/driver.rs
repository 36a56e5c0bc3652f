//! The drivers `file`, `host_device` and `host_cdrom`.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use super::create::claim_by;
use super::{DISC_DRIVER, FileCreate, FileOpen, Locking, claim, open};
use crate::error::{Error, Result};
use crate::location::path_behind_protocol;
use crate::options::{OptionKind, OptionSpec, option};
use crate::storage::creation::NewStorage;
use crate::storage::driver::{
    CreateContext, OpenContext, StorageDriver, StorageFeatures, StorageTarget,
};
use crate::storage::identity::Identity;
use crate::storage::traits::Storage;

/// Regular files.
pub static FILE: StorageDriver = StorageDriver {
    name: "file",
    schemes: &["file"],
    features: StorageFeatures::all(),
    is_local: true,
    info_type: Some("file"),
    open_options: OPEN,
    weak_options: WEAK,
    create_options: FILE_CREATE,
    parse_file_name: None,
    file_name: None,
    open: |context| open_file("file", context),
    stands_on,
    create: Some(create_file),
    exports: None,
};

/// Host devices.
pub static HOST_DEVICE: StorageDriver = DEVICE;

const DEVICE: StorageDriver = StorageDriver {
    name: "host_device",
    schemes: &["host_device"],
    features: StorageFeatures::all().difference(StorageFeatures::RESIZE),
    is_local: true,
    info_type: Some("file"),
    open_options: OPEN,
    weak_options: WEAK,
    create_options: DEVICE_CREATE,
    parse_file_name: None,
    file_name: None,
    open: |context| open_file("host_device", context),
    stands_on,
    create: Some(|context| create_device("host_device", context)),
    exports: None,
};

/// Optical drives.
pub static HOST_CDROM: StorageDriver = StorageDriver {
    name: DISC_DRIVER,
    schemes: &[DISC_DRIVER],
    open: |context| open_file(DISC_DRIVER, context),
    create: Some(|context| create_device(DISC_DRIVER, context)),
    ..DEVICE
};

const SIZE: OptionSpec = option("size", OptionKind::Size, "Virtual disk size");

const FILE_CREATE: &[OptionSpec] = &[
    option(
        "extent_size_hint",
        OptionKind::Size,
        "Extent size hint for the image file, 0 to disable",
    )
    .default_to("1048576"),
    option(
        "nocow",
        OptionKind::Bool,
        "Turn off copy-on-write (valid only on btrfs)",
    )
    .default_to("off"),
    OptionSpec {
        allowed: &["off", "falloc", "full"],
        default: Some("off"),
        ..option(
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
        default: Some("off"),
        ..option(
            "preallocation",
            OptionKind::Str,
            "Preallocation mode (allowed values: off)",
        )
    },
    SIZE,
];

/// Options of [`OPEN`] that do not change which bytes are read.
const WEAK: &[&str] = &[
    "aio",
    "drop-cache",
    "locking",
    "pr-manager",
    "x-check-cache-dropped",
];

const OPEN: &[OptionSpec] = &[
    OptionSpec {
        allowed: &["threads", "native", "io_uring"],
        ..option(
            "aio",
            OptionKind::Str,
            "How requests are sent to the kernel, which is chosen here for each of them",
        )
    },
    option(
        "drop-cache",
        OptionKind::Bool,
        "Drop the page cache when a virtual machine has moved, which none does here",
    ),
    option("filename", OptionKind::Name, "File name of the image"),
    OptionSpec {
        allowed: &["auto", "on", "off"],
        default: Some("auto"),
        ..option("locking", OptionKind::Str, "File locking mode")
    },
    option(
        "pr-manager",
        OptionKind::Str,
        "ID of the helper for persistent reservations",
    ),
    option(
        "x-check-cache-dropped",
        OptionKind::Bool,
        "Check that drop-cache has worked",
    ),
];

/// Refuses options that cannot be satisfied.
fn check_options(context: &OpenContext<'_>) -> Result<()> {
    let options = context.options;
    options.check_words(OPEN)?;
    if options.str("aio") == Some("native") && !context.how.cache.direct() {
        return Err(Error::invalid(
            "aio=native was specified, but it requires cache.direct=on, which was not specified.",
        ));
    }
    match options.str("pr-manager") {
        Some(id) => Err(Error::invalid(format!(
            "No persistent reservation manager with id '{id}'"
        ))),
        None => Ok(()),
    }
}

fn open_file(driver: &'static str, context: &OpenContext<'_>) -> Result<Arc<dyn Storage>> {
    check_options(context)?;
    let how = FileOpen {
        writable: context.how.writable,
        cache: context.how.cache,
        locking: match context.options.str("locking") {
            Some("on") => Locking::On,
            Some("off") => Locking::Off,
            _ => Locking::Auto,
        },
        driver: Some(driver),
        named_by_image: context.how.named_by_image,
    };
    let path = path_of(driver, &context.target)?;
    Ok(Arc::new(open(&path, &how)?))
}

/// Visits the identity of what is at the path, even if this driver would refuse it.
fn stands_on(context: &OpenContext<'_>, visit: &mut dyn FnMut(Identity)) {
    let path = path_of(FILE.name, &context.target);
    if let Some(id) = path.ok().and_then(|path| Identity::of_path(&path)) {
        visit(id);
    }
}

fn create_options(context: &CreateContext<'_>) -> FileCreate {
    let defaults = FileCreate::default();
    let values = context.options;
    FileCreate {
        cache: context.cache,
        is_filled: context.is_filled,
        nocow: values.bool("nocow").unwrap_or(defaults.nocow),
        extent_size_hint: values
            .num("extent_size_hint")
            .unwrap_or(defaults.extent_size_hint),
        ..defaults
    }
}

fn create_file(context: &CreateContext<'_>) -> Result<Box<dyn NewStorage>> {
    let path = path_of("file", &context.target)?;
    Ok(Box::new(claim(&path, &create_options(context))?))
}

fn create_device(driver: &'static str, context: &CreateContext<'_>) -> Result<Box<dyn NewStorage>> {
    let path = path_of(driver, &context.target)?;
    Ok(Box::new(claim_by(driver, &path, &create_options(context))?))
}

/// The path of a target: the protocol prefix is removed, nothing is decoded.
fn path_of<'a>(driver: &str, target: &'a StorageTarget<'_>) -> Result<Cow<'a, Path>> {
    match target {
        StorageTarget::Path(path) => Ok(Cow::Borrowed(path)),
        StorageTarget::Uri(uri) => Ok(Cow::Owned(path_behind_protocol(uri))),
        StorageTarget::Unnamed => Err(Error::invalid(format!(
            "The '{driver}' block driver requires a file name"
        ))),
    }
}
