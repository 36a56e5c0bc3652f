//! The options that nodes of every driver have.

use crate::options::{OptionKind, OptionSpec, option};

/// The options, sorted by name.
pub const NODE_OPTIONS: &[OptionSpec] = &[
    option(
        "active",
        OptionKind::Bool,
        "Off: a virtual machine elsewhere still writes, so nobody may here",
    )
    .default_to("on"),
    option(
        "auto-read-only",
        OptionKind::Bool,
        "Accepted and without effect: nothing is opened otherwise than it was asked for",
    )
    .default_to("off"),
    option(
        "cache.direct",
        OptionKind::Bool,
        "Pass the page cache by; as the whole image is opened where it is not given",
    ),
    option(
        "cache.no-flush",
        OptionKind::Bool,
        "Make nothing durable; as the whole image is opened where it is not given",
    ),
    option(
        "detect-zeroes",
        OptionKind::Str,
        "Whether written zeroes take no space, or give up what space they had",
    )
    .default_to("off")
    .one_of(&["off", "on", "unmap"]),
    option(
        "discard",
        OptionKind::Str,
        "Whether discards reach the host; as the whole image is opened where it is not given",
    )
    .one_of(&["ignore", "off", "unmap", "on"]),
    option(
        "force-share",
        OptionKind::Bool,
        "Let others write meanwhile",
    )
    .default_to("off"),
    option(
        "node-name",
        OptionKind::Str,
        "The name by which other options refer to the node",
    ),
    option("read-only", OptionKind::Bool, "Refuse writes").default_to("off"),
];
