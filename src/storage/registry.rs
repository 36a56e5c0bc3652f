//! The protocols that this build has. A new protocol is one line here.

use crate::storage::driver::StorageDriver;
use crate::storage::{file, ftp, gluster, http, iscsi, nbd, nfs, null, rbd, ssh, vvfat};

/// Every protocol, sorted by name.
static DRIVERS: &[&StorageDriver] = &[
    &file::FILE,
    &file::HOST_CDROM,
    &file::HOST_DEVICE,
    &ftp::FTP,
    &ftp::FTPS,
    &gluster::DRIVER,
    &http::HTTP,
    &http::HTTPS,
    &iscsi::ISCSI,
    &iscsi::ISER,
    &nbd::DRIVER,
    &nfs::DRIVER,
    &null::AIO,
    &null::CO,
    #[cfg(feature = "nvme")]
    &crate::storage::nvme::DRIVER,
    &rbd::DRIVER,
    &ssh::DRIVER,
    &vvfat::DRIVER,
];

/// Every protocol of this build.
pub fn drivers() -> &'static [&'static StorageDriver] {
    DRIVERS
}

/// The driver of that name.
pub fn find(name: &str) -> Option<&'static StorageDriver> {
    DRIVERS.iter().copied().find(|driver| driver.name == name)
}

/// The driver of file names that begin with `scheme:`.
pub fn for_scheme(scheme: &str) -> Option<&'static StorageDriver> {
    let mut drivers = DRIVERS.iter().copied();
    drivers.find(|driver| driver.schemes.contains(&scheme))
}
