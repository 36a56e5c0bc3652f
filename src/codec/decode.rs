//! Decompression of one unit at a time, into exactly as many bytes as a unit has.

use std::fmt;

use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::Decompressor;
use zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer};

use crate::error::{Error, Result};

use super::method::Method;

/// log2 of the maximum zstd window for which memory is allocated: four times the maximum cluster size.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A worker's decompression state, retained between units. Tables are allocated when first used.
#[derive(Default)]
pub struct Decoder {
    deflate: Option<Decompressor>,
    /// For raw deflate, and for zlib.
    inflate: [Option<Decompress>; 2],
    zstd: Option<DCtx<'static>>,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fills all of `out` from the stream at the start of `input`; bytes after the stream are ignored, and so is any
    /// output of the stream beyond `out`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if the stream is damaged or ends before `out` is full.
    pub fn decode(&mut self, method: Method, input: &[u8], out: &mut [u8]) -> Result<()> {
        let full = match method {
            Method::Deflate => self.deflate(input, out) || self.inflate(input, out, false),
            Method::Zlib => self.zlib(input, out) || self.inflate(input, out, true),
            Method::Zstd => self.zstd_frames(input, out) || self.zstd_stream(input, out),
        };
        if full {
            Ok(())
        } else {
            Err(Error::corrupt(format!(
                "Compressed data does not decode as {}",
                method.name()
            )))
        }
    }

    fn deflate(&mut self, input: &[u8], out: &mut [u8]) -> bool {
        let decoder = self.deflate.get_or_insert_with(Decompressor::new);
        decoder
            .deflate_decompress(input, out)
            .is_ok_and(|len| len == out.len())
    }

    fn zlib(&mut self, input: &[u8], out: &mut [u8]) -> bool {
        let decoder = self.deflate.get_or_insert_with(Decompressor::new);
        decoder
            .zlib_decompress(input, out)
            .is_ok_and(|len| len == out.len())
    }

    /// The slow path, for streams without their end mark and for those longer than a unit.
    fn inflate(&mut self, input: &[u8], out: &mut [u8], header: bool) -> bool {
        let decoder = &mut self.inflate[usize::from(header)];
        let decoder = decoder.get_or_insert_with(|| Decompress::new(header));
        decoder.reset(header);
        loop {
            let (read, written) = (decoder.total_in(), decoder.total_out());
            let (Some(from), Some(to)) =
                (input.get(read as usize..), out.get_mut(written as usize..))
            else {
                return false;
            };
            if to.is_empty() {
                return true;
            }
            let status = decoder.decompress(from, to, FlushDecompress::None);
            let full = decoder.total_out() == out.len() as u64;
            let stuck = decoder.total_in() == read && decoder.total_out() == written;
            match status {
                Ok(Status::Ok) if !full && !stuck => {}
                _ => return full,
            }
        }
    }

    /// Complete frames, decoded without a window.
    fn zstd_frames(&mut self, input: &[u8], out: &mut [u8]) -> bool {
        let context = self.zstd.get_or_insert_with(DCtx::create);
        let (mut from, mut done) = (0, 0);
        while done < out.len() {
            let Some(rest) = input.get(from..).filter(|rest| !rest.is_empty()) else {
                return false;
            };
            let Some(frame) = zstd_safe::find_frame_compressed_size(rest)
                .ok()
                .filter(|&len| len > 0)
                .and_then(|len| rest.get(..len))
            else {
                return false;
            };
            let Some(to) = out.get_mut(done..) else {
                return false;
            };
            match context.decompress(to, frame) {
                Ok(len) => done += len,
                Err(_) => return false,
            }
            from += frame.len();
        }
        true
    }

    /// The slow path, for frames that are truncated or longer than a unit.
    fn zstd_stream(&mut self, input: &[u8], out: &mut [u8]) -> bool {
        let context = self.zstd.get_or_insert_with(DCtx::create);
        let limited = context
            .reset(zstd_safe::ResetDirective::SessionAndParameters)
            .and_then(|_| context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)));
        if limited.is_err() {
            return false;
        }
        let want = out.len();
        let mut from = InBuffer::around(input);
        let mut to = OutBuffer::around(out);
        while to.pos() < want {
            let before = (from.pos(), to.pos());
            let failed = context.decompress_stream(&mut to, &mut from).is_err();
            if failed || before == (from.pos(), to.pos()) {
                break;
            }
        }
        let full = to.pos() == want;
        // A truncated frame must not leak into the next unit.
        let _ = context.reset(zstd_safe::ResetDirective::SessionOnly);
        full
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::{Compression, Encoder};
    use crate::memory::{self, IoBuf};

    const METHODS: [Method; 3] = [Method::Deflate, Method::Zlib, Method::Zstd];

    fn text(len: usize) -> Vec<u8> {
        (0..len)
            .map(|i| b"the quick brown fox "[(i * i / 7) % 20])
            .collect()
    }

    #[test]
    fn round_trip_with_bytes_after_the_stream() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        for method in METHODS {
            for len in [512usize, 4096, 65536, 2 << 20] {
                let unit = text(len);
                let mut packed = IoBuf::new();
                assert!(
                    encoder
                        .encode(Compression::new(method), &unit, len, &mut packed)
                        .unwrap()
                );
                assert!(packed.len() < len);
                packed.extend_from_slice(&[0x5a; 600]).unwrap();
                let mut back = vec![1; len];
                decoder.decode(method, &packed, &mut back).unwrap();
                assert!(back == unit);
            }
        }
    }

    #[test]
    fn every_level_decodes_and_one_encoder_takes_them_in_turn() {
        let unit = text(65536);
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        for method in METHODS {
            let levels = method.levels();
            let first = *levels.start().max(&-7);
            for level in (first..=*levels.end()).chain([*levels.start(), first]) {
                let compression = Compression::at_level(method, Some(i64::from(level))).unwrap();
                let mut packed = IoBuf::new();
                let shrunk = encoder
                    .encode(compression, &unit, 65536, &mut packed)
                    .unwrap();
                // The fastest levels of zstd search for hardly any matches.
                assert!(shrunk || level < -7, "{compression:?}");
                if shrunk {
                    let mut back = vec![1; 65536];
                    decoder.decode(method, &packed, &mut back).unwrap();
                    assert!(back == unit, "{compression:?}");
                }
            }
            let above = i64::from(levels.end() + 1);
            assert!(Compression::at_level(method, Some(above)).is_err());
            assert!(Compression::at_level(method, Some(i64::MIN)).is_err());
        }
    }

    #[test]
    fn what_does_not_shrink_is_refused() {
        let mut noise = vec![0u8; 4096];
        let mut state = 1u32;
        for byte in &mut noise {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        let mut out = memory::copied(&[7]).unwrap();
        for method in METHODS {
            let shrunk = Encoder::new()
                .encode(Compression::new(method), &noise, 4096, &mut out)
                .unwrap();
            assert!(!shrunk && out.is_empty());
            assert!(
                !Encoder::new()
                    .encode(Compression::new(method), &noise, 0, &mut out)
                    .unwrap()
            );
        }
    }

    #[test]
    fn streams_without_end_or_beyond_the_unit_still_fill_it() {
        let unit = text(4096);
        let mut open = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        open.write_all(&unit).unwrap();
        open.flush().unwrap();
        let no_end = open.get_ref().clone();
        let mut back = vec![0; 4096];
        Decoder::new()
            .decode(Method::Deflate, &no_end, &mut back)
            .unwrap();
        assert!(back == unit);

        let long = text(8192);
        let mut decoder = Decoder::new();
        for method in METHODS {
            let mut packed = IoBuf::new();
            assert!(
                Encoder::new()
                    .encode(Compression::new(method), &long, 8192, &mut packed)
                    .unwrap()
            );
            decoder.decode(method, &packed, &mut back).unwrap();
            assert!(back[..] == long[..4096]);
            // The state is clean afterwards, too.
            let mut all = vec![0; 8192];
            decoder.decode(method, &packed, &mut all).unwrap();
            assert!(all == long);
        }
    }

    #[test]
    fn several_zstd_frames_make_one_unit() {
        let unit = text(4096);
        let mut packed = Vec::new();
        for half in unit.chunks(2048) {
            packed.extend_from_slice(&zstd::bulk::compress(half, 1).unwrap());
        }
        packed.extend_from_slice(&[0; 300]);
        let mut back = vec![0; 4096];
        Decoder::new()
            .decode(Method::Zstd, &packed, &mut back)
            .unwrap();
        assert!(back == unit);
    }

    #[test]
    fn short_streams_are_corrupt() {
        let unit = text(2048);
        for method in METHODS {
            let mut packed = IoBuf::new();
            assert!(
                Encoder::new()
                    .encode(Compression::new(method), &unit, 2048, &mut packed)
                    .unwrap()
            );
            let mut back = vec![0; 4096];
            let error = Decoder::new()
                .decode(method, &packed, &mut back)
                .unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Corrupt);
            assert!(Decoder::new().decode(method, &[], &mut back).is_err());
        }
    }

    proptest! {
        #[test]
        fn never_panics(input in proptest::collection::vec(any::<u8>(), 0..300), len in 0usize..5000, zstd: bool) {
            let mut input = input;
            if zstd && input.len() > 4 {
                input[..4].copy_from_slice(&[0x28, 0xb5, 0x2f, 0xfd]);
            }
            let mut out = vec![0; len];
            for method in METHODS {
                let _ = Decoder::new().decode(method, &input, &mut out);
            }
        }
    }
}
