//! The drivers that an image may name: those of this build, and those that QEMU's tools know.

use crate::driver_names::{self, canonical};
use crate::format::registry;
use crate::storage::registry as protocols;

/// Whether there is a driver with that name, in this build or elsewhere.
pub(crate) fn is_known(name: &str) -> bool {
    driver_names::is_known(name) || is_here(name)
}

/// Whether a new image may record a driver with that name for its backing file.
pub(crate) fn may_be_recorded(name: &str) -> bool {
    // Of what QEMU's tools know, only what they may record.
    match driver_names::is_known(name) {
        true => driver_names::may_be_recorded(name),
        false => is_here(name),
    }
}

fn is_here(name: &str) -> bool {
    let name = canonical(name);
    registry::by_name(name).is_some() || protocols::find(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_build_has_may_be_recorded_although_other_tools_do_not_know_it() {
        let formats = registry::drivers().iter().map(|driver| driver.name);
        let protocols = protocols::drivers().iter().map(|driver| driver.name);
        for name in formats.chain(protocols).filter(|name| *name != "iser") {
            assert!(is_known(name) && may_be_recorded(name), "{name}");
        }
        for name in ["iscsi", "vhd"] {
            assert!(is_known(name) && may_be_recorded(name), "{name}");
        }
        assert!(is_known("iser") && !may_be_recorded("iser"));
        assert!(!is_known("bogus") && !may_be_recorded("bogus"));
    }
}
