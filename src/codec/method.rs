//! Compression methods and levels.

use std::ops::RangeInclusive;

use crate::error::{Error, Result};

/// A compression method, by its own name; formats have names and numbers of their own for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Raw deflate, without a header.
    Deflate,
    /// Deflate with zlib's header and checksum.
    Zlib,
    /// Zstandard.
    Zstd,
}

impl Method {
    /// The name used in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deflate => "deflate",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }

    /// The range of its levels.
    pub fn levels(self) -> RangeInclusive<i32> {
        match self {
            Self::Deflate | Self::Zlib => 1..=12,
            Self::Zstd => zstd::zstd_safe::min_c_level()..=zstd::zstd_safe::max_c_level(),
        }
    }
}

/// A compression method and level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Compression {
    method: Method,
    level: i32,
}

/// Units up to this size contain little repetition, and so are worth a higher level.
const SMALL: u64 = 16 << 10;
/// Units up to this size, in which every byte counts, are worth an even higher one.
const TINY: u64 = 2 << 10;

impl Compression {
    /// With the default level: on programs, libraries and documents the result is no larger than what other writers
    /// store.
    pub const fn new(method: Method) -> Self {
        let level = match method {
            // On large clusters of such files, no larger than zlib's default level in the small window that other qcow2
            // writers use, at four times its speed. Lists of numbers take up to 2.4 % more.
            Method::Deflate => 2,
            // As small as zlib's default level in its largest window, at three times its speed: readers of such streams
            // compare them with those.
            Method::Zlib => 5,
            Method::Zstd => 3,
        };
        Self { method, level }
    }

    /// With this level for units of that many bytes, or with the default level for them.
    ///
    /// # Errors
    /// As [`Compression::at_level`].
    pub fn of_units(method: Method, level: Option<i64>, unit: u64) -> Result<Self> {
        match (method, level) {
            // As above, measured on clusters of 512 bytes to 2 KiB, and of 4 to 16 KiB.
            (Method::Deflate, None) if unit <= TINY => Ok(Self { method, level: 11 }),
            (Method::Deflate, None) if unit <= SMALL => Ok(Self { method, level: 6 }),
            _ => Self::at_level(method, level),
        }
    }

    /// With this level, or with the default level.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`], naming the valid levels.
    pub fn at_level(method: Method, level: Option<i64>) -> Result<Self> {
        let Some(level) = level else {
            return Ok(Self::new(method));
        };
        let range = method.levels();
        let found = i32::try_from(level)
            .ok()
            .filter(|level| range.contains(level));
        match found {
            Some(level) => Ok(Self { method, level }),
            None => Err(Error::invalid(format!(
                "Compression level {level} is none of {}: its levels are {} to {}",
                method.name(),
                range.start(),
                range.end()
            ))),
        }
    }

    /// The compression method.
    pub fn method(self) -> Method {
        self.method
    }

    /// The level, of libdeflate or zstd.
    pub fn level(self) -> i32 {
        self.level
    }
}
