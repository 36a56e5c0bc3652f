//! The formats that this build has. A new format is one line here.

use crate::driver_names::canonical;
use crate::format::FormatDriver;
use crate::format::{
    asif, bochs, cloop, dmg, ewf, luks, parallels, qcow, qcow2, qed, raw, sparsebundle,
    sparseimage, vdi, vhdx, vmdk, vpc,
};

/// Every format, in the order in which lists show them.
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

/// The format that shows the bytes of a file as they are: what a file is in which no format is found, what a
/// protocol or a filter is in the place of a format, and what is taken where none is named.
pub fn plain() -> &'static FormatDriver {
    &raw::DRIVER
}

/// The format of that name, as used with `-f`, or of a further name that users have for it.
pub fn by_name(name: &str) -> Option<&'static FormatDriver> {
    let name = canonical(name);
    DRIVERS.iter().copied().find(|driver| driver.name == name)
}
