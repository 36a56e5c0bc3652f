//! Compression of one unit at a time.

use std::fmt;

use libdeflater::{CompressionLvl, Compressor};
use zstd::zstd_safe::{CCtx, CParameter};

use crate::error::{Error, ErrorKind, Result};

use super::method::{CompressionType, DeflateLevel, ZstdLevel};

/// A worker's compression state, kept between units. Tables are made when first used.
#[derive(Default)]
pub struct Encoder {
    deflate: Option<(DeflateLevel, Compressor)>,
    zstd: Option<CCtx<'static>>,
    zstd_level: ZstdLevel,
    deflate_level: DeflateLevel,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder")
            .field("deflate_level", &self.deflate_level)
            .field("zstd_level", &self.zstd_level)
            .finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder of the default levels.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compresses `unit` into `out`, replacing what is there. False where the result would have
    /// `limit` bytes or more; `out` is empty then.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the compressor fails for another reason.
    pub fn encode(
        &mut self,
        method: CompressionType,
        unit: &[u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool> {
        out.clear();
        let Some(room) = limit.checked_sub(1).filter(|&room| room > 0) else {
            return Ok(false);
        };
        out.resize(room, 0);
        let len = match method {
            CompressionType::Zlib => self.deflate(unit, out),
            CompressionType::Zstd => self.zstd(unit, out)?,
        };
        out.truncate(len.unwrap_or(0));
        Ok(len.is_some())
    }

    fn deflate(&mut self, unit: &[u8], out: &mut [u8]) -> Option<usize> {
        let level = self.deflate_level;
        if self.deflate.as_ref().is_none_or(|(has, _)| *has != level) {
            let number = CompressionLvl::new(level.number()).unwrap_or_default();
            self.deflate = Some((level, Compressor::new(number)));
        }
        let (_, compressor) = self.deflate.as_mut()?;
        // The only failure is a lack of room.
        compressor.deflate_compress(unit, out).ok()
    }

    fn zstd(&mut self, unit: &[u8], out: &mut [u8]) -> Result<Option<usize>> {
        let context = match &mut self.zstd {
            Some(context) => context,
            empty => {
                let mut context = CCtx::create();
                context
                    .set_parameter(CParameter::CompressionLevel(self.zstd_level.0))
                    .map_err(internal)?;
                empty.insert(context)
            }
        };
        match context.compress2(out, unit) {
            Ok(len) => Ok(Some(len)),
            // "Destination buffer is too small": the only failure that a valid call can meet,
            // besides a lack of memory, which does not get better by failing.
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
