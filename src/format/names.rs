//! The names of drivers that may stand in images and options, whether this build has the driver or not.

use crate::format::registry;
use crate::storage::registry as protocols;

/// What QEMU's tools record as the format of a backing file, beyond the drivers of this build. Sorted.
const ELSEWHERE: &[&str] = &[
    "blkdebug",
    "blklogwrites",
    "blkreplay",
    "blkverify",
    "bochs",
    "cloop",
    "compress",
    "copy-before-write",
    "copy-on-read",
    "dmg",
    "file",
    "ftp",
    "ftps",
    "gluster",
    "host_cdrom",
    "host_device",
    "http",
    "https",
    "iscsi",
    "luks",
    "nbd",
    "nfs",
    "null-aio",
    "null-co",
    "nvme",
    "parallels",
    "preallocate",
    "qcow",
    "qcow2",
    "qed",
    "quorum",
    "raw",
    "rbd",
    "replication",
    "snapshot-access",
    "ssh",
    "throttle",
    "vdi",
    "vhdx",
    "vmdk",
    "vpc",
    "vvfat",
];

/// Whether an image can be opened with a driver of that name here.
pub fn is_built(name: &str) -> bool {
    registry::by_name(name).is_some() || protocols::find(name).is_some()
}

/// Whether the name may be recorded, be it that only other tools can open such an image.
pub fn is_known(name: &str) -> bool {
    is_built(name) || ELSEWHERE.binary_search(&name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_tools_are_known_and_all_others_are_not() {
        assert!(ELSEWHERE.is_sorted());
        for known in [
            "raw",
            "qcow2",
            "file",
            "host_device",
            "nbd",
            "vmdk",
            "null-co",
        ] {
            assert!(is_known(known), "{known}");
        }
        for unknown in ["", "RAW", "raw ", "bogus", "qcow3"] {
            assert!(!is_known(unknown), "{unknown}");
        }
        assert!(is_built("file") && !is_built("vvfat"));
    }
}
