//! Options for opening a qcow2 image.

use crate::error::{Error, Result};
use crate::format::crypt;
use crate::options::{OptionKind, OptionSpec, Values, option};

const IGNORED: &str = "Accepted and without effect: the open policy sizes the metadata cache";
const BUILT_IN: &str = "Accepted and without effect: the driver has one way of doing this";

const OVERLAP: &[&str] = &["none", "constant", "cached", "all"];

/// The options, sorted by name. Those that tune QEMU's caches or select one of its implementations are checked and have
/// no effect here.
pub(super) const OPTIONS: &[OptionSpec] = &[
    option("cache-clean-interval", OptionKind::Num, IGNORED),
    option("cache-size", OptionKind::Size, IGNORED),
    option("discard-no-unref", OptionKind::Bool, BUILT_IN),
    option(
        "encrypt.format",
        OptionKind::Str,
        "The encryption that the header must name: 'aes' or 'luks'",
    )
    .one_of(&["aes", crypt::METHOD]),
    option(
        "encrypt.key-secret",
        OptionKind::Str,
        "ID of secret providing qcow AES key or LUKS passphrase",
    ),
    option("l2-cache-entry-size", OptionKind::Size, IGNORED),
    option("l2-cache-size", OptionKind::Size, IGNORED),
    option("lazy-refcounts", OptionKind::Bool, BUILT_IN),
    option("overlap-check", OptionKind::Str, BUILT_IN).one_of(OVERLAP),
    option("overlap-check.active-l1", OptionKind::Bool, BUILT_IN),
    option("overlap-check.active-l2", OptionKind::Bool, BUILT_IN),
    option("overlap-check.bitmap-directory", OptionKind::Bool, BUILT_IN),
    option("overlap-check.inactive-l1", OptionKind::Bool, BUILT_IN),
    option("overlap-check.inactive-l2", OptionKind::Bool, BUILT_IN),
    option("overlap-check.main-header", OptionKind::Bool, BUILT_IN),
    option("overlap-check.refcount-block", OptionKind::Bool, BUILT_IN),
    option("overlap-check.refcount-table", OptionKind::Bool, BUILT_IN),
    option("overlap-check.snapshot-table", OptionKind::Bool, BUILT_IN),
    option("overlap-check.template", OptionKind::Str, BUILT_IN).one_of(OVERLAP),
    option("pass-discard-other", OptionKind::Bool, BUILT_IN),
    option("pass-discard-request", OptionKind::Bool, BUILT_IN),
    option("pass-discard-snapshot", OptionKind::Bool, BUILT_IN),
    option("refcount-cache-size", OptionKind::Size, IGNORED),
];

/// Refuses meaningless values; `cluster_size` is the image's, in bytes.
pub(super) fn check(values: &Values, cluster_size: u64) -> Result<()> {
    if let Some(size) = values.num("l2-cache-entry-size")
        && !(size.is_power_of_two() && (512..=cluster_size).contains(&size))
    {
        return Err(Error::invalid(format!(
            "L2 cache entry size must be a power of two between 512 and the cluster size \
             ({cluster_size})"
        )));
    }
    check_caches(values)?;
    check_overlap(values)
}

/// `cache-size` is the total for both kinds of tables; the other two options divide it between them.
fn check_caches(values: &Values) -> Result<()> {
    let both = values.num("cache-size");
    let parts = ["l2-cache-size", "refcount-cache-size"].map(|key| (key, values.num(key)));
    let Some(both) = both else {
        return Ok(());
    };
    if parts.iter().all(|(_, size)| size.is_some()) {
        return Err(Error::invalid(
            "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time",
        ));
    }
    match parts.iter().find(|(_, size)| *size > Some(both)) {
        None => Ok(()),
        Some((key, _)) => Err(Error::invalid(format!("{key} may not exceed cache-size"))),
    }
}

fn check_overlap(values: &Values) -> Result<()> {
    let (short, long) = (
        values.str("overlap-check"),
        values.str("overlap-check.template"),
    );
    if let (Some(short), Some(long)) = (short, long)
        && short != long
    {
        return Err(Error::invalid(format!(
            "Conflicting values for qcow2 options 'overlap-check' ('{short}') and 'overlap-check.template' ('{long}')"
        )));
    }
    match short.or(long) {
        Some(other) if !OVERLAP.contains(&other) => Err(Error::invalid(format!(
            "Unsupported value '{other}' for qcow2 option 'overlap-check'. Allowed are any of the \
             following: {}",
            OVERLAP.join(", ")
        ))),
        _ => Ok(()),
    }
}
