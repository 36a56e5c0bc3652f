//! The options for creating an image.

use crate::options::{OptionKind, OptionSpec, option};

/// Options that QEMU does not have.
pub(in super::super) const OWN: &[&str] = &[
    "backing_file",
    "backing_fmt",
    "logical_sector_size",
    "physical_sector_size",
];

/// The allowed sector sizes.
const SECTORS: &[&str] = &["512", "4096"];

/// The options, sorted by name.
pub(in super::super) const OPTIONS: &[OptionSpec] = &[
    option(
        "backing_file",
        OptionKind::Name,
        "File name of a base image",
    ),
    option(
        "backing_fmt",
        OptionKind::Str,
        "Image format of the base image, which has to be vhdx",
    ),
    option(
        "block_size",
        OptionKind::Size,
        "Block Size; min 1MB, max 256MB. 0 means auto-calculate based on image size.",
    ),
    option(
        "block_state_zero",
        OptionKind::Bool,
        "Force use of payload blocks of type 'ZERO'. Non-standard, but default.  Do not set to 'off' when \
         using 'qemu-img convert' with subformat=dynamic.",
    ),
    option("log_size", OptionKind::Size, "Log size; min 1MB."),
    option(
        "logical_sector_size",
        OptionKind::Num,
        "Bytes of a sector of the disk, 512 or 4096. Default is that of the backing file, else 512.",
    )
    .one_of(SECTORS),
    option(
        "physical_sector_size",
        OptionKind::Num,
        "Bytes of a physical sector as the guest sees it, 512 or 4096. Default is that of the backing file, else the logical one.",
    )
    .one_of(SECTORS),
    option("size", OptionKind::Size, "Virtual disk size; max of 64TB."),
    option(
        "subformat",
        OptionKind::Str,
        "VHDX format type, can be either 'dynamic' or 'fixed'. Default is 'dynamic'.",
    ),
];

/// Keys of the "Formatting" line, with their defaults.
pub(in super::super) const SUMMARY: &[(&str, Option<&str>)] = &[
    ("size", None),
    ("backing_file", None),
    ("backing_fmt", None),
    ("log_size", Some("1048576")),
    ("block_size", Some("0")),
    ("subformat", None),
    ("block_state_zero", None),
    ("logical_sector_size", None),
    ("physical_sector_size", None),
];
