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

impl Compression {
    /// At the level that is taken where none is asked for: never larger than what other writers store.
    pub const fn new(method: Method) -> Self {
        let level = match method {
            // On clusters of real files never larger than zlib's default level in the small window that
            // other qcow2 writers use, at four times its speed.
            Method::Deflate => 2,
            // As small as zlib's default level in its largest window, at three times its speed: what
            // reads such streams compares them with those.
            Method::Zlib => 5,
            Method::Zstd => 3,
        };
        Self { method, level }
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
