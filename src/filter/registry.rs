//! The filters that this build has. A new filter is one line here.

use crate::filter::{
    FileNameFn, FilterDriver, blkdebug, compress, copy_before_write, copy_on_read, preallocate, quorum, tar, throttle,
};
use crate::trace::Event;

/// Every filter, sorted by name.
static DRIVERS: &[&FilterDriver] = &[
    &blkdebug::DRIVER,
    &compress::DRIVER,
    &copy_before_write::DRIVER,
    &copy_on_read::DRIVER,
    &preallocate::DRIVER,
    &quorum::DRIVER,
    &tar::DRIVER,
    &throttle::DRIVER,
];

/// The trace events of filters.
pub static EVENTS: &[&Event] = &[&blkdebug::EVENT];

/// Every filter of this build.
pub fn drivers() -> &'static [&'static FilterDriver] {
    DRIVERS
}

/// The filter of that name, as used with `driver=`.
pub fn by_name(name: &str) -> Option<&'static FilterDriver> {
    DRIVERS.iter().copied().find(|driver| driver.name == name)
}

/// What takes file names apart that begin with `name:`, where that is the name of a filter which has such
/// names.
pub fn for_file_name(name: &str) -> Option<FileNameFn> {
    by_name(name)?.parse_file_name
}
