//! The available formats, protocols and filters, what each can do, and the options of each.

use std::ffi::{CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use crate::capi::boundary::{call_out, check_flags};
use crate::capi::error::platter_error;
use crate::capi::location::{LOCATION_FLAGS, location};
use crate::capi::text::{c_string, owned, utf8};
use crate::driver_names::{canonical, unknown_driver};
use crate::error::{Error, ErrorKind, Result};
use crate::filter;
use crate::format::unstated::{self, Unstated};
use crate::format::{ChildSpec, Features, registry};
use crate::image::NODE_OPTIONS;
use crate::ops::help;
use crate::options::{OptionKind, OptionSpec};
use crate::storage::{self, StorageFeatures};

/// Kind of driver: an image format.
pub const PLATTER_DRIVER_FORMAT: u32 = 1;
/// Kind of driver: a protocol, by which image files are accessed.
pub const PLATTER_DRIVER_PROTOCOL: u32 = 2;
/// Kind of driver: a filter, which is layered on other nodes: `driver=throttle,file.driver=…`.
pub const PLATTER_DRIVER_FILTER: u32 = 3;

/// Feature: new images can be created.
pub const PLATTER_FEATURE_CREATE: u32 = 1;
/// Feature: images can be written.
pub const PLATTER_FEATURE_WRITE: u32 = 2;
/// Feature: images can name a backing file.
pub const PLATTER_FEATURE_BACKING: u32 = 4;
/// Feature: clusters can be compressed.
pub const PLATTER_FEATURE_COMPRESS: u32 = 8;
/// Feature: internal snapshots.
pub const PLATTER_FEATURE_SNAPSHOTS: u32 = 16;
/// Feature: persistent dirty bitmaps.
pub const PLATTER_FEATURE_BITMAPS: u32 = 32;
/// Feature: images can be checked.
pub const PLATTER_FEATURE_CHECK: u32 = 64;
/// Feature: images can be repaired.
pub const PLATTER_FEATURE_REPAIR: u32 = 128;
/// Feature: images can be resized.
pub const PLATTER_FEATURE_RESIZE: u32 = 256;
/// Feature: options of an existing image can be changed.
pub const PLATTER_FEATURE_AMEND: u32 = 512;
/// Feature: the size of an image can be measured before it is created.
pub const PLATTER_FEATURE_MEASURE: u32 = 1024;
/// Feature: encryption.
pub const PLATTER_FEATURE_ENCRYPT: u32 = 2048;

/// A format, protocol or filter. The library owns it; it lives for ever.
#[repr(C)]
#[derive(Debug)]
pub struct platter_driver_info {
    /// Size of this struct in the library in use; later versions append members.
    pub size: usize,
    /// The name: `qcow2`, `file`, `throttle`.
    pub name: *const c_char,
    /// `PLATTER_DRIVER_FORMAT`, `PLATTER_DRIVER_PROTOCOL` or `PLATTER_DRIVER_FILTER`.
    pub kind: u32,
    /// Bits of `PLATTER_FEATURE_*`; 0 for a filter: images can do the same with it as without it.
    pub features: u32,
}

/// Operation: creating an image.
pub const PLATTER_OPERATION_CREATE: u32 = 1;
/// Operation: opening an image (the keys of `driver=…` strings).
pub const PLATTER_OPERATION_OPEN: u32 = 2;
/// Operation: changing the options of an image.
pub const PLATTER_OPERATION_AMEND: u32 = 3;

/// Type of option: text.
pub const PLATTER_OPTION_STRING: u32 = 1;
/// Type of option: a number.
pub const PLATTER_OPTION_NUMBER: u32 = 2;
/// Type of option: a number of bytes, with an optional suffix.
pub const PLATTER_OPTION_SIZE: u32 = 3;
/// Type of option: `on` or `off`.
pub const PLATTER_OPTION_BOOL: u32 = 4;

/// Property of an option: its value is the ID of a secret, see `platter_open_options_set_secrets()`.
pub const PLATTER_OPTION_PROPERTY_SECRET: u32 = 1;
/// Property of an option: each `*` in its key stands for an index into a list, counted from 0.
pub const PLATTER_OPTION_PROPERTY_LIST: u32 = 2;
/// Property of an option for opening: nodes of every driver accept it.
pub const PLATTER_OPTION_PROPERTY_COMMON: u32 = 4;
/// Property of an option for opening: it determines what is read, and is therefore part of the name of the image, see
/// `platter_image_filename()`. The others determine how that is opened.
pub const PLATTER_OPTION_PROPERTY_SELECTS: u32 = 8;

/// An option of a driver. The library owns it; it lives for ever.
#[repr(C)]
#[derive(Debug)]
pub struct platter_option_info {
    /// Size of this struct in the library in use; later versions append members.
    pub size: usize,
    /// The key.
    pub name: *const c_char,
    /// One line of help.
    pub help: *const c_char,
    /// The value if the option is not given, even one that no help prints; NULL if there is none, if it depends on
    /// other options, the size or the image, and for an amendment if the old value stays.
    pub default_value: *const c_char,
    /// The allowed values, terminated by NULL; NULL if any value of the type is allowed, and if there are many.
    pub allowed: *const *const c_char,
    /// A type of option: `PLATTER_OPTION_STRING` to `PLATTER_OPTION_BOOL`.
    pub kind: u32,
    /// Bits of `PLATTER_OPTION_PROPERTY_*`.
    pub properties: u32,
}

/// Property of a child: a node cannot be described without it.
pub const PLATTER_CHILD_REQUIRED: u32 = 1;
/// Property of a child: it is a list of children: `children.0`, `children.1`…
pub const PLATTER_CHILD_LIST: u32 = 2;
/// Property of a child: it is an image, whose contents show its format if none is named.
pub const PLATTER_CHILD_IMAGE: u32 = 4;

/// A child that nodes of a driver can have, described by options under its name, such as `file.driver=…`. The library
/// owns it; it lives for ever.
#[repr(C)]
#[derive(Debug)]
pub struct platter_child_info {
    /// Size of this struct in the library in use; later versions append members.
    pub size: usize,
    /// The name, for a list without the indices: `file`, `backing`, `children`.
    pub name: *const c_char,
    /// Bits of `PLATTER_CHILD_*`.
    pub properties: u32,
    /// 0.
    pub reserved: u32,
}

/// One driver with its strings and tables.
pub(super) struct Entry {
    info: platter_driver_info,
    children: Vec<platter_child_info>,
    name: &'static str,
    options: [Vec<platter_option_info>; 3],
    _strings: Vec<CString>,
    _lists: Vec<Box<[*const c_char]>>,
}

impl Entry {
    pub(super) fn name(&self) -> &'static str {
        self.name
    }
}

// SAFETY: the pointers refer to strings and lists that the entry owns and that never change.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

/// The option tables of a driver.
struct Tables {
    create: &'static [OptionSpec],
    /// What the creation table leaves out.
    unstated: &'static [Unstated],
    open: &'static [OptionSpec],
    /// Whether an option for opening determines what is read.
    selects: Box<dyn Fn(&str) -> bool>,
    amend: &'static [OptionSpec],
}

fn drivers() -> &'static [Entry] {
    static DRIVERS: OnceLock<Vec<Entry>> = OnceLock::new();
    DRIVERS.get_or_init(|| {
        let formats = registry::drivers().iter().map(|driver| {
            let tables = Tables {
                create: driver.create_options,
                unstated: driver.unstated,
                open: driver.open_options,
                selects: Box::new(|key| driver.strong_options.contains(&key)),
                amend: driver.amend_options,
            };
            let features = features(driver.features());
            let kind = PLATTER_DRIVER_FORMAT;
            entry(driver.name, kind, features, driver.children, &tables)
        });
        let protocols = storage::registry::drivers().iter().map(|driver| {
            let tables = Tables {
                create: driver.create_options,
                unstated: &[],
                open: driver.open_options,
                selects: Box::new(|key| !driver.weak_options.contains(&key)),
                amend: &[],
            };
            let features = protocol_features(driver.features);
            let kind = PLATTER_DRIVER_PROTOCOL;
            entry(driver.name, kind, features, &[], &tables)
        });
        let filters = filter::registry::drivers().iter().map(|driver| {
            let tables = Tables {
                create: &[],
                unstated: &[],
                open: driver.open_options,
                selects: Box::new(|key| !driver.weak_options.contains(&key)),
                amend: &[],
            };
            let kind = PLATTER_DRIVER_FILTER;
            entry(driver.name, kind, 0, driver.children, &tables)
        });
        let mut drivers: Vec<_> = formats.chain(protocols).chain(filters).collect();
        drivers.sort_by_key(|entry| (entry.info.kind, entry.name));
        drivers
    })
}

fn entry(
    name: &'static str,
    kind: u32,
    features: u32,
    children: &[ChildSpec],
    tables: &Tables,
) -> Entry {
    let mut strings = Vec::new();
    let mut lists = Vec::new();
    let create = tables.create.iter().map(|spec| {
        let more = unstated::find(tables.unstated, spec.name);
        (stated(spec, more), properties(spec))
    });
    let open = tables.open.iter().map(|spec| {
        let selects = match (tables.selects)(spec.name) {
            true => PLATTER_OPTION_PROPERTY_SELECTS,
            false => 0,
        };
        (*spec, properties(spec) | selects)
    });
    let common = NODE_OPTIONS.iter();
    let common = common.map(|spec| (*spec, properties(spec) | PLATTER_OPTION_PROPERTY_COMMON));
    // Options that are not given keep their values, except those that determine how a new key is created.
    let amend = tables.amend.iter().map(|spec| {
        let more = unstated::of_luks(spec.name);
        (stated(spec, more), properties(spec))
    });
    let options = [
        create.collect(),
        open.chain(common).collect(),
        amend.collect(),
    ];
    let options = options.map(|mut table: Vec<_>| {
        table.sort_by_key(|(spec, _)| spec.name);
        let table = table.iter();
        table
            .map(|(spec, properties)| describe(spec, *properties, &mut strings, &mut lists))
            .collect()
    });
    let children = children
        .iter()
        .map(|spec| describe_child(spec, &mut strings))
        .collect();
    let info = platter_driver_info {
        size: size_of::<platter_driver_info>(),
        name: keep(name, &mut strings),
        kind,
        features,
    };
    Entry {
        info,
        children,
        name,
        options,
        _strings: strings,
        _lists: lists,
    }
}

/// The properties that options of every table can have.
fn properties(spec: &OptionSpec) -> u32 {
    [
        (spec.is_secret(), PLATTER_OPTION_PROPERTY_SECRET),
        (spec.name.contains('*'), PLATTER_OPTION_PROPERTY_LIST),
    ]
    .iter()
    .filter(|(has, _)| *has)
    .map(|(_, bit)| bit)
    .sum()
}

/// An option, completed with what its table leaves out.
fn stated(spec: &OptionSpec, more: Option<&'static Unstated>) -> OptionSpec {
    let Some(more) = more else {
        return *spec;
    };
    OptionSpec {
        default: spec.default.or(more.default),
        allowed: match spec.allowed {
            [] => more.allowed,
            allowed => allowed,
        },
        ..*spec
    }
}

fn describe_child(spec: &ChildSpec, strings: &mut Vec<CString>) -> platter_child_info {
    let properties = [
        (spec.required, PLATTER_CHILD_REQUIRED),
        (spec.list().is_some(), PLATTER_CHILD_LIST),
        (spec.is_image, PLATTER_CHILD_IMAGE),
    ];
    let properties = properties.iter().filter(|(has, _)| *has);
    platter_child_info {
        size: size_of::<platter_child_info>(),
        name: keep(spec.list().unwrap_or(spec.name), strings),
        properties: properties.map(|(_, bit)| bit).sum(),
        reserved: 0,
    }
}

fn keep(text: &str, strings: &mut Vec<CString>) -> *const c_char {
    let text = c_string(text);
    let pointer = text.as_ptr();
    strings.push(text);
    pointer
}

fn describe(
    spec: &OptionSpec,
    properties: u32,
    strings: &mut Vec<CString>,
    lists: &mut Vec<Box<[*const c_char]>>,
) -> platter_option_info {
    let allowed = if spec.allowed.is_empty() {
        std::ptr::null()
    } else {
        let values = spec.allowed.iter().map(|value| keep(value, strings));
        let list: Box<[_]> = values.chain([std::ptr::null()]).collect();
        let pointer = list.as_ptr();
        lists.push(list);
        pointer
    };
    platter_option_info {
        size: size_of::<platter_option_info>(),
        name: keep(spec.name, strings),
        help: keep(spec.help, strings),
        default_value: spec
            .default
            .map_or(std::ptr::null(), |text| keep(text, strings)),
        allowed,
        kind: match spec.kind {
            OptionKind::Str | OptionKind::Name => PLATTER_OPTION_STRING,
            OptionKind::Num => PLATTER_OPTION_NUMBER,
            OptionKind::Size => PLATTER_OPTION_SIZE,
            OptionKind::Bool => PLATTER_OPTION_BOOL,
        },
        properties,
    }
}

/// Maps the bits of the core, which may change, to those of the ABI, which never do.
pub(super) fn features(features: Features) -> u32 {
    [
        (Features::CREATE, PLATTER_FEATURE_CREATE),
        (Features::WRITE, PLATTER_FEATURE_WRITE),
        (Features::BACKING, PLATTER_FEATURE_BACKING),
        (Features::COMPRESS, PLATTER_FEATURE_COMPRESS),
        (Features::SNAPSHOTS, PLATTER_FEATURE_SNAPSHOTS),
        (Features::BITMAPS, PLATTER_FEATURE_BITMAPS),
        (Features::CHECK, PLATTER_FEATURE_CHECK),
        (Features::REPAIR, PLATTER_FEATURE_REPAIR),
        (Features::RESIZE, PLATTER_FEATURE_RESIZE),
        (Features::AMEND, PLATTER_FEATURE_AMEND),
        (Features::MEASURE, PLATTER_FEATURE_MEASURE),
        (Features::ENCRYPT, PLATTER_FEATURE_ENCRYPT),
    ]
    .iter()
    .filter(|(feature, _)| features.contains(*feature))
    .map(|(_, bit)| bit)
    .sum()
}

fn protocol_features(features: StorageFeatures) -> u32 {
    [
        (StorageFeatures::CREATE, PLATTER_FEATURE_CREATE),
        (StorageFeatures::WRITE, PLATTER_FEATURE_WRITE),
        (StorageFeatures::RESIZE, PLATTER_FEATURE_RESIZE),
    ]
    .iter()
    .filter(|(feature, _)| features.contains(*feature))
    .map(|(_, bit)| bit)
    .sum()
}

/// The driver with that name or alias.
///
/// # Errors
/// [`ErrorKind::NotFound`].
pub(super) fn find(name: &str, kind: u32) -> Result<&'static Entry> {
    let canonical = canonical(name);
    drivers()
        .iter()
        .find(|entry| entry.name == canonical && (kind == 0 || entry.info.kind == kind))
        .ok_or_else(|| unknown_driver(name).with_kind(ErrorKind::NotFound))
}

/// Returns the driver at `index`, counted from 0: formats by name, then protocols by name, then filters by name. `*out`
/// lives for ever. `flags` must be 0.
///
/// Statuses: NOT_FOUND past the last one, INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_driver_describe(
    out: Option<&mut MaybeUninit<*const platter_driver_info>>,
    index: usize,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        drivers()
            .get(index)
            .map(|entry| &raw const entry.info)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("No driver at {index}")))
    })
}

/// Finds the driver with that name, or with another name that users have for it (`vhd` for `vpc`); `kind` is a
/// `PLATTER_DRIVER_*`, or 0 for any. `*out` lives for ever. `flags` must be 0.
///
/// Statuses: NOT_FOUND, INVALID. Threads: any. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_driver_find(
    out: Option<&mut MaybeUninit<*const platter_driver_info>>,
    name: *const c_char,
    kind: u32,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        if kind > PLATTER_DRIVER_FILTER {
            return Err(Error::invalid(format!("Unknown kind of driver {kind}")));
        }
        // SAFETY: by the contract of this function.
        let name = unsafe { utf8(name, "name")? };
        find(name, kind).map(|entry| &raw const entry.info)
    })
}

/// Returns the option at `index`, counted from 0 and sorted by name, of `driver` for an operation
/// (`PLATTER_OPERATION_*`): formats have options for all three, protocols for creating and opening, filters for
/// opening. Those for opening are what `platter_open_options_set_option()` and `driver=…` strings accept, including
/// those that every driver accepts; children have options of their own, see `platter_child_describe()`. An open image
/// keeps its options: to change one, open the image again. `*out` lives for ever. `flags` must be 0.
///
/// Statuses: NOT_FOUND for an unknown driver and past the last option, INVALID. Threads: any.
/// Since 0.1.
///
/// # Safety
/// `driver` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_option_describe(
    out: Option<&mut MaybeUninit<*const platter_option_info>>,
    driver: *const c_char,
    operation: u32,
    index: usize,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let driver = unsafe { utf8(driver, "driver")? };
        let entry = find(driver, 0)?;
        let table = match operation {
            PLATTER_OPERATION_CREATE => &entry.options[0],
            PLATTER_OPERATION_OPEN => &entry.options[1],
            PLATTER_OPERATION_AMEND => &entry.options[2],
            _ => return Err(unknown_operation(operation)),
        };
        table.get(index).map(std::ptr::from_ref).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("Driver '{driver}' has no option at {index}"),
            )
        })
    })
}

/// Returns the child at `index`, counted from 0 and in the driver's order, that nodes of `driver` can have. Protocols
/// have none. `*out` lives for ever. `flags` must be 0.
///
/// Statuses: NOT_FOUND for an unknown driver and past the last child, INVALID. Threads: any.
/// Since 0.1.
///
/// # Safety
/// `driver` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_child_describe(
    out: Option<&mut MaybeUninit<*const platter_child_info>>,
    driver: *const c_char,
    index: usize,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let driver = unsafe { utf8(driver, "driver")? };
        let children = &find(driver, 0)?.children;
        children.get(index).map(std::ptr::from_ref).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("Driver '{driver}' has no child at {index}"),
            )
        })
    })
}

/// Returns the help that `-o help` prints: one line per option, with newlines, under a title. For
/// `PLATTER_OPERATION_CREATE`, `target` (may be NULL) is where the image would be created: the options of its protocol
/// are listed too. `*out` belongs to the caller, who frees it with `platter_free()`. `flags` is at most one
/// `PLATTER_LOCATION_*`, for the target.
///
/// Statuses: INVALID (an unknown format, in the words for the user; an operation without such
/// help), UNSUPPORTED (the driver does not offer the operation), OS where there is no memory. Threads: any. Since 0.1.
///
/// # Safety
/// `driver` and `target` are NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_option_help(
    out: Option<&mut MaybeUninit<*mut c_char>>,
    driver: *const c_char,
    operation: u32,
    target: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, LOCATION_FLAGS)?;
        // SAFETY: by the contract of this function.
        let driver = unsafe { utf8(driver, "driver")? };
        let target = if target.is_null() {
            None
        } else {
            // SAFETY: by the contract of this function.
            Some(unsafe { location(target, "target", flags)? })
        };
        let help = match operation {
            PLATTER_OPERATION_CREATE => help::create_help(driver, target.as_ref())?,
            PLATTER_OPERATION_AMEND => help::amend_help(driver)?,
            _ => return Err(unknown_operation(operation)),
        };
        owned(&c_string(help))
    })
}

fn unknown_operation(operation: u32) -> Error {
    Error::invalid(format!("Unknown operation {operation}"))
}
