//! OVA: a virtual machine in one file, a tar archive with a description (OVF), the digests of the members and
//! the disk.
//!
//! Specification: DMTF DSP0243, Open Virtualization Format, version 1.1; sections 5.1 and 5.3 describe the archive and
//! the digests.

mod bulk;
mod check;
mod envelope;
mod front;
mod in_order;
mod manifest;
mod new;
mod parse;

use crate::format::package::Package;
use crate::format::profile::Profile;

use super::driver::DRIVER;
use super::profile::{SIZES, check_stream};

/// A machine that is to be imported.
pub static OVA: Profile = Profile {
    name: "ova",
    product: "an OVA, a virtual machine in one file, for VMware's products and VirtualBox",
    driver: &DRIVER,
    options: &[
        ("subformat", "streamOptimized"),
        ("adapter_type", "lsilogic"),
    ],
    package: Some(&PACKAGE),
    sizes: SIZES,
    notes: &[
        "The machine has 2 processors, 2 GiB of memory, the disk at an LSI Logic controller, no network, and \
         hardware version 13 (ESXi 6.5 and later); all of that can be changed on import.",
        "It starts by BIOS; a disk that needs UEFI needs another setting of the machine.",
    ],
    check: check_stream,
};

static PACKAGE: Package = Package {
    name: "ova",
    wrap: new::wrap,
    first_image: check::first_image,
    check: check::check,
};
