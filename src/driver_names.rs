//! The names of drivers and protocols that QEMU's tools know, whether or not this build has the driver: they may be
//! recorded in images and printed, and are not treated as typing errors.

use crate::error::Error;

/// A driver's name, and the prefixes before the colon of the file names that it accepts.
type Known = (&'static str, &'static [&'static str]);

/// The drivers, sorted by name.
const DRIVERS: &[Known] = &[
    ("blkdebug", &["blkdebug"]),
    ("blklogwrites", &[]),
    ("blkreplay", &[]),
    ("blkverify", &["blkverify"]),
    ("bochs", &[]),
    ("cloop", &[]),
    ("compress", &[]),
    ("copy-before-write", &[]),
    ("copy-on-read", &[]),
    ("dmg", &[]),
    ("file", &["file"]),
    ("ftp", &["ftp"]),
    ("ftps", &["ftps"]),
    ("gluster", &["gluster", "gluster+tcp", "gluster+unix"]),
    ("host_cdrom", &["host_cdrom"]),
    ("host_device", &["host_device"]),
    ("http", &["http"]),
    ("https", &["https"]),
    ("iscsi", &["iscsi"]),
    ("iser", &["iser"]),
    ("luks", &[]),
    (
        "nbd",
        &[
            "nbd",
            "nbd+tcp",
            "nbd+unix",
            "nbd+vsock",
            "nbds",
            "nbds+tcp",
            "nbds+unix",
            "nbds+vsock",
        ],
    ),
    ("nfs", &["nfs"]),
    ("null-aio", &["null-aio"]),
    ("null-co", &["null-co"]),
    ("nvme", &["nvme"]),
    ("parallels", &[]),
    ("preallocate", &[]),
    ("qcow", &[]),
    ("qcow2", &[]),
    ("qed", &[]),
    ("quorum", &[]),
    ("raw", &[]),
    ("rbd", &["rbd"]),
    ("replication", &[]),
    ("snapshot-access", &[]),
    ("ssh", &["ssh"]),
    ("throttle", &[]),
    ("vdi", &[]),
    ("vhdx", &[]),
    ("vmdk", &[]),
    ("vpc", &[]),
    ("vvfat", &["fat"]),
];

/// Alternative names by which users know a driver; accepted wherever a driver is named, but never shown.
const ALIASES: &[(&str, &str)] = &[("vhd", "vpc")];

/// The canonical name of the driver called `name`, which may be an alias.
pub fn canonical(name: &str) -> &str {
    let mut aliases = ALIASES.iter();
    let found = aliases.find(|(alias, _)| *alias == name);
    found.map_or(name, |(_, driver)| driver)
}

/// Filters between parts of a running machine: an image tool has nothing to put them between.
const OF_RUNNING_MACHINES: [&str; 2] = ["replication", "snapshot-access"];

/// Whether QEMU's tools have a driver with that name.
pub fn is_known(name: &str) -> bool {
    let name = canonical(name);
    DRIVERS.iter().any(|(known, _)| *known == name)
}

/// Whether a new image may record a driver with that name for its backing file.
pub fn may_be_recorded(name: &str) -> bool {
    // QEMU's image schema has no such name; it uses iscsi there.
    is_known(name) && name != "iser"
}

/// Whether file names may begin with `scheme:`, even if another build is needed for them.
pub fn is_known_scheme(scheme: &str) -> bool {
    let mut drivers = DRIVERS.iter();
    drivers.any(|(_, schemes)| schemes.contains(&scheme))
}

/// What a driver that is not in this build needs, if the same can be achieved in another way.
fn wants(name: &str) -> &'static str {
    match name {
        "nvme" => {
            ": it needs a device that is bound to vfio-pci; one that the kernel has is a block device, which can be opened"
        }
        _ => "",
    }
}

/// The error for a driver that is not available.
pub fn unknown_driver(name: &str) -> Error {
    let name = canonical(name);
    Error::unsupported(if OF_RUNNING_MACHINES.contains(&name) {
        format!("The driver '{name}' works inside a running machine alone")
    } else if is_known(name) {
        format!(
            "The driver '{name}' is not part of this build{}",
            wants(name)
        )
    } else {
        format!("Unknown driver '{name}'")
    })
}

/// The error for the format of a new image that is not available.
pub fn unknown_format(name: &str) -> Error {
    match is_known(name) {
        true => unknown_driver(name),
        false => Error::invalid(format!("Unknown file format '{name}'")),
    }
}

/// The error for a file name that begins with `scheme:` if this build has no driver for it.
pub fn unknown_protocol(scheme: &str) -> Error {
    match is_known_scheme(scheme) {
        true => Error::unsupported(format!(
            "The protocol '{scheme}' is not part of this build{}",
            wants(scheme)
        )),
        false => Error::invalid(format!("Unknown protocol '{scheme}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::registry;

    #[test]
    fn what_needs_a_running_machine_is_refused_in_its_own_words() {
        assert!(DRIVERS.is_sorted());
        for name in OF_RUNNING_MACHINES {
            assert!(is_known(name), "{name}");
            let text = unknown_driver(name).to_string();
            assert!(text.contains("inside a running machine"), "{text}");
        }
    }

    #[test]
    fn further_names_stand_for_a_driver_and_are_no_drivers() {
        for (alias, driver) in ALIASES {
            assert_eq!(canonical(alias), *driver);
            assert!(DRIVERS.iter().all(|(known, _)| known != alias));
            assert!(DRIVERS.iter().any(|(known, _)| known == driver));
            assert!(is_known(alias) && may_be_recorded(alias));
            let by_alias = registry::by_name(alias).map(|driver| driver.name);
            assert_eq!(
                by_alias,
                registry::by_name(driver).map(|driver| driver.name)
            );
        }
        assert_eq!(canonical("raw"), "raw");
        assert_eq!(canonical("vhdx"), "vhdx");
    }

    #[test]
    fn what_other_tools_know_is_not_taken_for_a_typing_error() {
        for unknown in ["", "RAW", "raw ", "bogus", "qcow3", "fat"] {
            assert!(!is_known(unknown), "{unknown}");
        }
        assert!(is_known("iser") && !may_be_recorded("iser"));
        assert!(may_be_recorded("iscsi") && !may_be_recorded("bogus"));
        for (error, text) in [
            (
                unknown_driver("vmdk"),
                "The driver 'vmdk' is not part of this build",
            ),
            (unknown_driver("fat"), "Unknown driver 'fat'"),
            (
                unknown_format("nfs"),
                "The driver 'nfs' is not part of this build",
            ),
            (unknown_format("qcow3"), "Unknown file format 'qcow3'"),
            (
                unknown_protocol("rbd"),
                "The protocol 'rbd' is not part of this build",
            ),
            (unknown_protocol("vvfat"), "Unknown protocol 'vvfat'"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
