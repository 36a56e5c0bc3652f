//! The permissions that an open image takes on its files, so that QEMU's tools and this library exclude each other in
//! the same way as each does by itself.

mod held;

use crate::storage::{LockRequest, Permissions};

/// The purpose for which an image file is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    /// The format has metadata; otherwise the file is the disk itself.
    pub(super) has_metadata: bool,
    /// Guest bytes are written.
    pub(super) writable: bool,
    /// No guest bytes are read.
    pub(super) metadata_only: bool,
    /// Others must not write in the meantime, whatever the format.
    pub(super) deny_writers: bool,
    /// Take no exclusive locks.
    pub(super) force_share: bool,
}

const CHANGE: Permissions = Permissions::WRITE.union(Permissions::RESIZE);

/// The locks of a file that is about to be emptied. Others that write to a plain disk are only in the way if the new
/// image has metadata.
pub(super) fn of_creator(has_metadata: bool) -> LockRequest {
    let mut denies = Permissions::RESIZE;
    denies.set(Permissions::WRITE, has_metadata);
    LockRequest {
        uses: CHANGE,
        denies,
    }
}

/// The locks of an image file.
pub(super) fn of_image(open: Use) -> LockRequest {
    let mut uses = Permissions::CONSISTENT_READ;
    let mut denies = if open.has_metadata || open.deny_writers {
        CHANGE
    } else {
        Permissions::empty()
    };
    if open.writable {
        uses |= Permissions::WRITE;
        if open.has_metadata {
            uses |= Permissions::RESIZE;
        } else if !open.deny_writers {
            // Two writers of a plain disk may be coordinated with each other.
            denies = Permissions::empty();
        }
    } else if open.metadata_only {
        uses = Permissions::empty();
    }
    if open.force_share {
        denies = Permissions::empty();
    }
    LockRequest { uses, denies }
}

/// The locks of a new image that is being filled.
pub(super) fn of_new_image(has_metadata: bool) -> LockRequest {
    of_image(Use {
        has_metadata,
        writable: true,
        metadata_only: false,
        deny_writers: false,
        force_share: false,
    })
}

/// The locks of a plain disk that is open for writing, with or without the right to change its size, and with other
/// writers denied or not.
pub(super) fn of_plain_disk(resizes: bool, deny_writers: bool) -> LockRequest {
    let mut uses = Permissions::CONSISTENT_READ | Permissions::WRITE;
    if resizes {
        uses |= Permissions::RESIZE;
    }
    LockRequest {
        uses,
        denies: match deny_writers {
            true => CHANGE,
            false => Permissions::empty(),
        },
    }
}

/// The locks of a plain disk whose keys are being changed: no one may read or write it in the meantime.
pub(super) fn of_key_change(deny_writers: bool) -> LockRequest {
    let plain = of_plain_disk(false, deny_writers);
    LockRequest {
        uses: plain.uses,
        denies: plain.denies | Permissions::CONSISTENT_READ | Permissions::WRITE,
    }
}

/// The locks of a layer that must not be read while one below it changes.
pub(super) fn of_hidden_layer() -> LockRequest {
    LockRequest {
        uses: Permissions::CONSISTENT_READ,
        denies: CHANGE | Permissions::CONSISTENT_READ,
    }
}

/// The locks of a file that is open alongside another handle in this process that writes to it.
pub(super) fn of_neighbour() -> LockRequest {
    LockRequest {
        uses: Permissions::CONSISTENT_READ,
        denies: Permissions::empty(),
    }
}

/// The locks of a file that contains the header of a plain disk.
pub(super) fn of_header(writable: bool, metadata_only: bool) -> LockRequest {
    of_image(Use {
        has_metadata: false,
        writable,
        metadata_only,
        deny_writers: false,
        force_share: false,
    })
}

/// The locks of a data file or extent.
pub(super) fn of_data_file(writable: bool, force_share: bool) -> LockRequest {
    let mut uses = Permissions::CONSISTENT_READ;
    if writable {
        uses |= CHANGE;
    }
    let denies = if force_share {
        Permissions::empty()
    } else {
        Permissions::RESIZE
    };
    LockRequest { uses, denies }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(request: LockRequest) -> Vec<u32> {
        let of = |base: u32, p: Permissions| {
            (0..4)
                .filter(move |n| p.bits() & (1 << n) != 0)
                .map(move |n| base + n)
        };
        of(100, request.uses)
            .chain(of(200, request.denies))
            .collect()
    }

    #[test]
    fn the_bytes_are_those_that_qemu_takes() {
        let open = |has_metadata, writable, metadata_only, deny_writers, force_share| {
            bytes(of_image(Use {
                has_metadata,
                writable,
                metadata_only,
                deny_writers,
                force_share,
            }))
        };
        assert_eq!(open(true, false, true, false, false), [201, 203]);
        assert_eq!(open(false, false, true, false, false), [0; 0]);
        assert_eq!(open(true, false, false, false, false), [100, 201, 203]);
        assert_eq!(open(false, false, false, false, false), [100]);
        assert_eq!(open(false, false, false, true, false), [100, 201, 203]);
        assert_eq!(open(false, false, false, true, true), [100]);
        assert_eq!(open(true, false, true, false, true), [0; 0]);
        assert_eq!(
            open(true, true, false, false, false),
            [100, 101, 103, 201, 203]
        );
        assert_eq!(open(false, true, false, false, false), [100, 101]);
        assert_eq!(open(false, true, false, true, false), [100, 101, 201, 203]);
        assert_eq!(bytes(of_plain_disk(false, false)), [100, 101]);
        assert_eq!(bytes(of_plain_disk(true, false)), [100, 101, 103]);
        assert_eq!(bytes(of_plain_disk(false, true)), [100, 101, 201, 203]);
        assert_eq!(bytes(of_key_change(false)), [100, 101, 200, 201]);
        assert_eq!(bytes(of_key_change(true)), [100, 101, 200, 201, 203]);
        assert_eq!(bytes(of_hidden_layer()), [100, 200, 201, 203]);
        assert_eq!(bytes(of_data_file(false, false)), [100, 203]);
        assert_eq!(bytes(of_data_file(true, false)), [100, 101, 103, 203]);
    }
}
