//! Which compression, and how hard.

/// A compression, by its own name; the numbers and names that formats give it are theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Raw deflate, without a header.
    Deflate,
    /// Deflate within the header and the checksum of zlib.
    Zlib,
    /// Zstandard.
    Zstd,
}

impl Method {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deflate => "deflate",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// How hard deflate tries: libdeflate's levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum DeflateLevel {
    /// Level 1.
    Fastest,
    /// Level 2: on clusters of real files never larger than zlib's default level in the small
    /// window that other qcow2 writers use, at four times its speed.
    #[default]
    Fast,
    /// Level 4.
    Balanced,
    /// Level 5: as small as zlib's default level in its largest window, at three times its speed.
    Even,
    /// Level 6: some 2 % smaller at two thirds of the speed.
    Small,
}

impl DeflateLevel {
    /// The number that libdeflate takes.
    pub fn number(self) -> i32 {
        match self {
            Self::Fastest => 1,
            Self::Fast => 2,
            Self::Balanced => 4,
            Self::Even => 5,
            Self::Small => 6,
        }
    }
}

/// How hard zstd tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ZstdLevel(pub i32);

impl Default for ZstdLevel {
    /// Level 3: no larger than what other qcow2 writers store.
    fn default() -> Self {
        Self(3)
    }
}
