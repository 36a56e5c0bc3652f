//! Options of opening a qcow2 image.

use crate::error::{Error, Result};
use crate::options::{OptionKind, OptionSpec, Values, option};

const IGNORED: &str = "Accepted and without effect: the open policy sizes the metadata cache";
const BUILT_IN: &str = "Accepted and without effect: the driver has one way of doing this";

/// The options, sorted by name. Those that tune QEMU's caches or its choice among ways of doing a
/// thing are checked and have no effect here.
pub(super) const OPTIONS: &[OptionSpec] = &[
    option("cache-clean-interval", OptionKind::Num, IGNORED),
    option("cache-size", OptionKind::Size, IGNORED),
    option("discard-no-unref", OptionKind::Bool, BUILT_IN),
    option(
        "encrypt.format",
        OptionKind::Str,
        "The encryption that the header must name: 'aes' or 'luks'",
    ),
    option(
        "encrypt.key-secret",
        OptionKind::Str,
        "ID of secret providing qcow AES key or LUKS passphrase",
    ),
    option("l2-cache-entry-size", OptionKind::Size, IGNORED),
    option("l2-cache-size", OptionKind::Size, IGNORED),
    option("lazy-refcounts", OptionKind::Bool, BUILT_IN),
    option("overlap-check", OptionKind::Str, BUILT_IN),
    option("pass-discard-other", OptionKind::Bool, BUILT_IN),
    option("pass-discard-request", OptionKind::Bool, BUILT_IN),
    option("pass-discard-snapshot", OptionKind::Bool, BUILT_IN),
    option("refcount-cache-size", OptionKind::Size, IGNORED),
];

/// Refuses values that mean nothing; `cluster_size` is the image's, in bytes.
pub(super) fn check(values: &Values, cluster_size: u64) -> Result<()> {
    if let Some(size) = values.num("l2-cache-entry-size")
        && !(size.is_power_of_two() && (512..=cluster_size).contains(&size))
    {
        return Err(Error::invalid(format!(
            "L2 cache entry size must be a power of two between 512 and the cluster size \
             ({cluster_size})"
        )));
    }
    match values.str("overlap-check") {
        None | Some("none" | "constant" | "cached" | "all") => Ok(()),
        Some(other) => Err(Error::invalid(format!(
            "Unsupported value '{other}' for qcow2 option 'overlap-check'. Allowed are any of the \
             following: none, constant, cached, all"
        ))),
    }
}
