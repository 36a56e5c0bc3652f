//! The ways in which storages are opened, written, grown and locked.

/// How far a write must have come when [`Storage::sync`](crate::storage::Storage::sync) returns, and how barriers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Durability {
    /// The target is new and disposable: no order is kept, nothing is synced.
    None,
    /// Writes reach the kernel in order: survives the end of the process, not of the machine.
    Ordered,
    /// A data sync at each barrier: survives a power cut.
    #[default]
    Synced,
}

/// How the host's page cache is used; the names are those of `-t` and `-T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// O_DIRECT; a flush syncs. Also called `off`.
    None,
    /// Page cache; a flush syncs.
    #[default]
    Writeback,
    /// Page cache; every write is synced before it returns.
    Writethrough,
    /// O_DIRECT; every write is synced before it returns.
    Directsync,
    /// Page cache; a flush does nothing.
    Unsafe,
}

impl CacheMode {
    /// The mode of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "none" | "off" => Self::None,
            "writeback" => Self::Writeback,
            "writethrough" => Self::Writethrough,
            "directsync" => Self::Directsync,
            "unsafe" => Self::Unsafe,
            _ => return None,
        })
    }

    /// Bypasses the page cache.
    pub fn direct(self) -> bool {
        matches!(self, Self::None | Self::Directsync)
    }

    /// Every write is synced before it returns.
    pub fn write_through(self) -> bool {
        matches!(self, Self::Writethrough | Self::Directsync)
    }

    /// The guarantee of a flush and of metadata barriers in this mode.
    pub fn durability(self) -> Durability {
        if self == Self::Unsafe {
            Durability::Ordered
        } else {
            Durability::Synced
        }
    }
}

/// How space for a new or grown range is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Preallocation {
    /// Sparse.
    #[default]
    Off,
    /// The format's tables only.
    Metadata,
    /// Space is reserved, contents are not written.
    Falloc,
    /// Zeroes are written.
    Full,
}

impl Preallocation {
    const NAMES: [(&'static str, Self); 4] = [
        ("off", Self::Off),
        ("metadata", Self::Metadata),
        ("falloc", Self::Falloc),
        ("full", Self::Full),
    ];

    /// The mode of that name, as options spell it.
    pub fn from_name(name: &str) -> Option<Self> {
        let mut names = Self::NAMES.into_iter();
        names
            .find(|(known, _)| *known == name)
            .map(|(_, mode)| mode)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        let mut names = Self::NAMES.into_iter();
        names
            .find(|(_, mode)| *mode == self)
            .map_or("", |(name, _)| name)
    }
}

bitflags::bitflags! {
    /// Modifies [`Storage::write_zeroes`](crate::storage::Storage::write_zeroes).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct ZeroFlags: u32 {
        /// The range may become a hole.
        const MAY_UNMAP = 1;
        /// Fail with [`crate::ErrorKind::Unsupported`] instead of writing zero bytes slowly.
        const NO_FALLBACK = 2;
    }
}

/// The permissions that an open image uses and those that it shares with other openers, as QEMU's
/// tools record them in advisory locks on bytes 100–103 and 200–203 of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LockRequest {
    /// Permissions used (held as byte 100 + n).
    pub uses: Permissions,
    /// Permissions that others must not use (held as byte 200 + n).
    pub denies: Permissions,
}

bitflags::bitflags! {
    /// A permission on a storage, by QEMU's numbering of lock bytes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Permissions: u8 {
        /// Reads that must see consistent data (bytes 100, 200).
        const CONSISTENT_READ = 1;
        /// Writes (bytes 101, 201).
        const WRITE = 2;
        /// Resizes (bytes 103, 203).
        const RESIZE = 8;
    }
}
