//! Compression types of compressed clusters ("Compression type" in the header).

use crate::codec::Method;

/// The compression type of all compressed clusters of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub enum CompressionType {
    /// Raw deflate, which qcow2 calls zlib.
    #[default]
    Zlib,
    /// Zstandard.
    Zstd,
}

impl CompressionType {
    /// From the number in the header.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Zlib),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The number in the header.
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

    /// The method that compresses and decompresses.
    pub fn method(self) -> Method {
        match self {
            Self::Zlib => Method::Deflate,
            Self::Zstd => Method::Zstd,
        }
    }
}
