//! Which compression, and how hard.

use std::ops::RangeInclusive;

use crate::error::{Error, Result};

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

    /// The levels that it has.
    pub fn levels(self) -> RangeInclusive<i32> {
        match self {
            Self::Deflate | Self::Zlib => 1..=12,
            Self::Zstd => zstd::zstd_safe::min_c_level()..=zstd::zstd_safe::max_c_level(),
        }
    }
}

/// A compression, and how hard it tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Compression {
    method: Method,
    level: i32,
}

/// Bytes of units that repeat little within themselves, and so want a harder try.
const SMALL: u64 = 16 << 10;
/// The same of units in which each byte counts.
const TINY: u64 = 2 << 10;

impl Compression {
    /// At the level that is taken where none is asked for: of programs, libraries and documents no larger than what
    /// other writers store.
    pub const fn new(method: Method) -> Self {
        let level = match method {
            // On large clusters of such files no larger than zlib's default level in the small window that
            // other qcow2 writers use, at four times its speed. Lists of numbers take up to 2.4 % more.
            Method::Deflate => 2,
            // As small as zlib's default level in its largest window, at three times its speed: what
            // reads such streams compares them with those.
            Method::Zlib => 5,
            Method::Zstd => 3,
        };
        Self { method, level }
    }

    /// At this level for units of so many bytes, or at the one that is taken for them where none is asked for.
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

    /// At this level, where one is asked for.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] that names the levels there are.
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

    /// How bytes are compressed.
    pub fn method(self) -> Method {
        self.method
    }

    /// How hard: a level of libdeflate or zstd.
    pub fn level(self) -> i32 {
        self.level
    }
}
