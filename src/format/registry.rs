//! The formats in this build. Adding one takes one line here.

use crate::driver_names::canonical;
use crate::format::FormatDriver;
use crate::format::{
    asif, bochs, cloop, dmg, ewf, luks, parallels, qcow, qcow2, qed, raw, sparsebundle,
    sparseimage, vdi, vhdx, vmdk, vpc,
};

/// Every format, in the order of listings.
static DRIVERS: &[&FormatDriver] = &[
    &raw::DRIVER,
    &luks::DRIVER,
    &qcow2::DRIVER,
    &vdi::DRIVER,
    &vmdk::DRIVER,
    &vhdx::DRIVER,
    &vpc::DRIVER,
    &qed::DRIVER,
    &parallels::DRIVER,
    &qcow::DRIVER,
    &bochs::DRIVER,
    &cloop::DRIVER,
    &dmg::DRIVER,
    &sparseimage::DRIVER,
    &sparsebundle::DRIVER,
    &ewf::DRIVER,
    &asif::DRIVER,
];

/// Every format of this build.
pub fn drivers() -> &'static [&'static FormatDriver] {
    DRIVERS
}

/// The format that presents the bytes of a file unchanged: used if no format is recognised, if a protocol or filter is
/// given in place of a format, and if no format is named.
pub fn plain() -> &'static FormatDriver {
    &raw::DRIVER
}

/// The format with that name, as used with `-f`, or with an alias of it.
pub fn by_name(name: &str) -> Option<&'static FormatDriver> {
    let name = canonical(name);
    DRIVERS.iter().copied().find(|driver| driver.name == name)
}
