//! The profiles in this build. Adding one takes one line here.

use crate::error::{Error, Result};
use crate::format::profile::Profile;
use crate::format::{vhdx, vmdk, vpc};

/// Every profile, sorted by name.
static PROFILES: &[&Profile] = &[
    &vpc::AZURE,
    &vmdk::ESXI,
    &vmdk::ESXI_DATASTORE,
    &vhdx::HYPERV,
    &vmdk::OVA,
    &vpc::XEN,
];

/// Every profile of this build.
pub fn profiles() -> &'static [&'static Profile] {
    PROFILES
}

/// The profile with that name.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`], listing the available profiles.
pub fn by_name(name: &str) -> Result<&'static Profile> {
    let found = PROFILES
        .iter()
        .copied()
        .find(|profile| profile.name == name);
    found.ok_or_else(|| {
        let known: Vec<_> = PROFILES.iter().map(|profile| profile.name).collect();
        Error::invalid(format!(
            "There is no profile '{name}'; there are {}",
            known.join(", ")
        ))
    })
}
