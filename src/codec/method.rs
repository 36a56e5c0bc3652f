//! Which compression, and how hard.

/// How clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub enum CompressionType {
    /// Raw deflate.
    #[default]
    Zlib,
    /// Zstandard.
    Zstd,
}

impl CompressionType {
    /// From the number that qcow2 stores.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Zlib),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The number that qcow2 stores.
    pub fn number(self) -> u8 {
        match self {
            Self::Zlib => 0,
            Self::Zstd => 1,
        }
    }

    /// From an option's value.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "zlib" => Some(Self::Zlib),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The name in options and in `info`.
    pub fn name(self) -> &'static str {
        match self {
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
