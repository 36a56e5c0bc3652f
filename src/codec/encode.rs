//! Compression of one unit at a time.

use std::fmt;

use libdeflater::{CompressionLvl, Compressor};
use zstd::zstd_safe::{CCtx, CParameter};

use crate::error::{Error, ErrorKind, Result};
use crate::memory::{self, IoBuf};

use super::method::{Compression, Method};

/// The name of zstd's error when memory runs out.
const NO_MEMORY: &str = "Allocation error : not enough memory";

/// A worker's compression state, retained between units. Tables are allocated when first used.
#[derive(Default)]
pub struct Encoder {
    deflate: Option<(i32, Compressor)>,
    zstd: Option<(i32, CCtx<'static>)>,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compresses `unit` into `out`, replacing its contents. False if the result would have `limit` bytes or more;
    /// `out` is empty then.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the compressor fails for another reason.
    pub fn encode(
        &mut self,
        compression: Compression,
        unit: &[u8],
        limit: usize,
        out: &mut IoBuf,
    ) -> Result<bool> {
        out.clear();
        let Some(room) = limit.checked_sub(1).filter(|&room| room > 0) else {
            return Ok(false);
        };
        out.room(room)?;
        let level = compression.level();
        let len = match compression.method() {
            Method::Deflate => self.deflate(level, unit, out, false)?,
            Method::Zlib => self.deflate(level, unit, out, true)?,
            Method::Zstd => self.zstd(level, unit, out)?,
        };
        out.truncate(len.unwrap_or(0));
        Ok(len.is_some())
    }

    fn deflate(
        &mut self,
        level: i32,
        unit: &[u8],
        out: &mut [u8],
        header: bool,
    ) -> Result<Option<usize>> {
        if self.deflate.as_ref().is_none_or(|(has, _)| *has != level) {
            let number = CompressionLvl::new(level).unwrap_or_default();
            // The crate offers no other way to detect a failed allocation.
            let made = std::panic::catch_unwind(|| Compressor::new(number));
            self.deflate = Some((level, made.map_err(|_| memory::lack())?));
        }
        let compressed = self.deflate.as_mut().map(|(_, compressor)| {
            // The only possible failure is that `out` is too short.
            match header {
                true => compressor.zlib_compress(unit, out).ok(),
                false => compressor.deflate_compress(unit, out).ok(),
            }
        });
        Ok(compressed.flatten())
    }

    fn zstd(&mut self, level: i32, unit: &[u8], out: &mut [u8]) -> Result<Option<usize>> {
        let (has, context) = match &mut self.zstd {
            Some(made) => made,
            empty => {
                let context = CCtx::try_create().ok_or_else(memory::lack)?;
                empty.insert((zstd::zstd_safe::CLEVEL_DEFAULT, context))
            }
        };
        if *has != level {
            context
                .set_parameter(CParameter::CompressionLevel(level))
                .map_err(internal)?;
            *has = level;
        }
        match context.compress2(out, unit) {
            Ok(len) => Ok(Some(len)),
            Err(code) if zstd::zstd_safe::get_error_name(code) == NO_MEMORY => {
                // A failed call leaves the context in an undefined state.
                self.zstd = None;
                Err(memory::lack())
            }
            // "Destination buffer is too small": the only other failure that is possible for a valid call.
            Err(_) => Ok(None),
        }
    }
}

fn internal(code: usize) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("zstd: {}", zstd::zstd_safe::get_error_name(code)),
    )
}
