//! Decompression for formats that are only read: whole streams, each of which ends with its unit.

use std::fmt;

use bzip2::{Decompress, Status};
use libdeflater::Decompressor;
use liblzma::stream::{Action, Stream};
use lzfse_rust::LzfseRingDecoder;

use crate::bytes::le32;
use crate::error::{Error, Result};

use super::adc;

/// Memory limit of the xz decoder: enough for the largest window that the levels of its tools use.
const XZ_MEMORY: u64 = 80 << 20;

/// A compression method for whole streams, by its own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// Deflate with zlib's header and checksum.
    Zlib,
    /// bzip2.
    Bzip2,
    /// LZMA in the xz container format.
    Xz,
    /// LZFSE, including LZVN.
    Lzfse,
    /// Apple Data Compression.
    Adc,
    /// Uncompressed: the bytes as they are, followed by their Adler-32.
    Stored,
}

impl Packing {
    /// The name used in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Lzfse => "LZFSE",
            Self::Adc => "ADC",
            Self::Stored => "bytes with a checksum",
        }
    }
}

/// A worker's state, retained between units where that pays. Tables are allocated when first used.
#[derive(Default)]
pub struct Unpacker {
    zlib: Option<Decompressor>,
    lzfse: Option<Box<LzfseRingDecoder>>,
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

impl Unpacker {
    /// Fills all of `out` from the stream at the start of `input`, which must end with it; its checksum is verified.
    /// Bytes after the stream are ignored, except by LZFSE.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`].
    pub fn unpack(&mut self, packing: Packing, input: &[u8], out: &mut [u8]) -> Result<()> {
        let is_whole = match packing {
            Packing::Zlib => self.zlib(input, out),
            Packing::Bzip2 => bzip2(input, out),
            Packing::Xz => xz(input, out),
            Packing::Lzfse => self.lzfse(input, out),
            Packing::Adc => adc::decode(input, out),
            Packing::Stored => stored(input, out),
        };
        match is_whole {
            true => Ok(()),
            false => Err(Error::corrupt(format!(
                "Compressed data does not decode as {}",
                packing.name()
            ))),
        }
    }

    fn zlib(&mut self, input: &[u8], out: &mut [u8]) -> bool {
        let decoder = self.zlib.get_or_insert_with(Decompressor::new);
        decoder
            .zlib_decompress(input, out)
            .is_ok_and(|len| len == out.len())
    }

    fn lzfse(&mut self, input: &[u8], out: &mut [u8]) -> bool {
        let decoder = self.lzfse.get_or_insert_default();
        let (mut from, mut to) = (input, out);
        // A stream that is longer than its unit runs out of space.
        decoder.decode(&mut from, &mut to).is_ok() && to.is_empty()
    }
}

fn stored(input: &[u8], out: &mut [u8]) -> bool {
    let Some((bytes, behind)) = input.split_at_checked(out.len()) else {
        return false;
    };
    out.copy_from_slice(bytes);
    le32(behind, 0) == Some(libdeflater::adler32(bytes))
}

fn bzip2(input: &[u8], out: &mut [u8]) -> bool {
    let mut decoder = Decompress::new(false);
    loop {
        let (read, written) = (decoder.total_in(), decoder.total_out());
        let (Some(from), Some(to)) = (input.get(read as usize..), out.get_mut(written as usize..))
        else {
            return false;
        };
        match decoder.decompress(from, to) {
            Ok(Status::StreamEnd) => return decoder.total_out() == out.len() as u64,
            Ok(_) if (read, written) != (decoder.total_in(), decoder.total_out()) => {}
            _ => return false,
        }
    }
}

fn xz(input: &[u8], out: &mut [u8]) -> bool {
    let Ok(mut decoder) = Stream::new_stream_decoder(XZ_MEMORY, 0) else {
        return false;
    };
    loop {
        let (read, written) = (decoder.total_in(), decoder.total_out());
        let (Some(from), Some(to)) = (input.get(read as usize..), out.get_mut(written as usize..))
        else {
            return false;
        };
        match decoder.process(from, to, Action::Run) {
            Ok(liblzma::stream::Status::StreamEnd) => {
                return decoder.total_out() == out.len() as u64;
            }
            Ok(_) if (read, written) != (decoder.total_in(), decoder.total_out()) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn text(len: usize) -> Vec<u8> {
        (0..len)
            .map(|i| b"the quick brown fox "[(i * i / 7) % 20])
            .collect()
    }

    fn pack(packing: Packing, unit: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        match packing {
            Packing::Zlib => {
                let level = flate2::Compression::fast();
                let mut encoder = flate2::write::ZlibEncoder::new(&mut packed, level);
                encoder.write_all(unit).unwrap();
                encoder.finish().unwrap();
            }
            Packing::Bzip2 => {
                let level = bzip2::Compression::fast();
                let mut encoder = bzip2::write::BzEncoder::new(&mut packed, level);
                encoder.write_all(unit).unwrap();
                encoder.finish().unwrap();
            }
            Packing::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(&mut packed, 1);
                encoder.write_all(unit).unwrap();
                encoder.finish().unwrap();
            }
            Packing::Lzfse => {
                lzfse_rust::encode_bytes(unit, &mut packed).unwrap();
            }
            Packing::Stored => {
                packed.extend(unit);
                packed.extend(libdeflater::adler32(unit).to_le_bytes());
            }
            Packing::Adc => {
                for part in unit.chunks(128) {
                    packed.push(0x80 | (part.len() as u8 - 1));
                    packed.extend(part);
                }
            }
        }
        packed
    }

    #[test]
    fn a_stream_fills_its_unit_and_neither_more_nor_less() {
        let mut unpacker = Unpacker::default();
        for packing in [
            Packing::Zlib,
            Packing::Bzip2,
            Packing::Xz,
            Packing::Lzfse,
            Packing::Adc,
            Packing::Stored,
        ] {
            for len in [512, 70_000, 1 << 20] {
                let unit = text(len);
                let mut packed = pack(packing, &unit);
                let whole = packed.len();
                if packing != Packing::Lzfse {
                    packed.extend([0; 600]);
                }
                let mut back = vec![1; len];
                unpacker.unpack(packing, &packed, &mut back).unwrap();
                assert!(back == unit, "{packing:?}");
                let mut long = vec![0; len + 512];
                unpacker
                    .unpack(packing, &packed[..whole], &mut long)
                    .unwrap_err();
                unpacker
                    .unpack(packing, &packed[..whole / 2], &mut back)
                    .unwrap_err();
                unpacker.unpack(packing, &[], &mut back).unwrap_err();
                if packing != Packing::Adc {
                    let short = &mut back[..len - 128];
                    unpacker.unpack(packing, &packed, short).unwrap_err();
                }
                // The state is clean afterwards, too.
                unpacker.unpack(packing, &packed, &mut back).unwrap();
                assert!(back == unit, "{packing:?}");
            }
        }
    }

    #[test]
    fn damaged_streams_never_panic() {
        let unit = text(20_000);
        let mut unpacker = Unpacker::default();
        let mut out = vec![0; unit.len()];
        let mut state = 1_u64;
        for packing in [
            Packing::Zlib,
            Packing::Bzip2,
            Packing::Xz,
            Packing::Lzfse,
            Packing::Adc,
            Packing::Stored,
        ] {
            let packed = pack(packing, &unit);
            for _ in 0..300 {
                let mut bad = packed.clone();
                for _ in 0..3 {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let at = (state >> 33) as usize % bad.len();
                    bad[at] = (state >> 20) as u8;
                }
                let _ = unpacker.unpack(packing, &bad, &mut out);
            }
        }
    }
}
