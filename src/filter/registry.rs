//! The filters that this build has. A new filter is one line here.

use crate::filter::{
    FileNameFn, FilterDriver, blkdebug, blklogwrites, blkverify, compress, copy_before_write,
    copy_on_read, decompress, preallocate, quorum, tar, throttle,
};

/// Every filter, sorted by name.
static DRIVERS: &[&FilterDriver] = &[
    &blkdebug::DRIVER,
    &blklogwrites::DRIVER,
    &blkverify::DRIVER,
    &compress::DRIVER,
    &copy_before_write::DRIVER,
    &copy_on_read::DRIVER,
    &decompress::DRIVER,
    &preallocate::DRIVER,
    &quorum::DRIVER,
    &tar::DRIVER,
    &throttle::DRIVER,
];

/// Every filter of this build.
pub fn drivers() -> &'static [&'static FilterDriver] {
    DRIVERS
}

/// The filter of that name, as used with `driver=`.
pub fn by_name(name: &str) -> Option<&'static FilterDriver> {
    DRIVERS.iter().copied().find(|driver| driver.name == name)
}

/// The filter that takes file names which begin with `name:`, and what takes them apart.
pub fn for_file_name(name: &str) -> Option<(&'static FilterDriver, FileNameFn)> {
    let driver = by_name(name)?;
    Some((driver, driver.file_names?.parse))
}

/// Whether some filter takes the location of a child by this option.
pub fn is_child_name(option: &str) -> bool {
    let names = DRIVERS.iter().filter_map(|driver| driver.file_names);
    names
        .flat_map(|names| names.options)
        .any(|(name, _)| *name == option)
}
