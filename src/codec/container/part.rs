//! Unpacking a part of the file separately.

use std::io::{self, Read};

use bstr::ByteSlice;
use flate2::bufread::GzDecoder;
use libdeflater::{Decompressor, crc32};
use liblzma::stream::{Action, Status, Stream};
use lz4_flex::frame::FrameDecoder;

use super::member::{self, Wanted};
use super::{Container, is_skipped};
use crate::bytes::le32;

/// Fills `out` with the contents of complete members; returns their length. All of `packed` must be used.
///
/// # Errors
/// If the decoder fails, or the contents are longer than `out`.
pub(super) fn unpack_members(kind: Container, packed: &[u8], out: &mut [u8]) -> io::Result<usize> {
    match kind {
        Container::Zstd => zstd::bulk::Decompressor::new()?.decompress_to_buffer(packed, out),
        Container::Gzip => bgzf(packed, out),
        Container::Lz4 => lz4(packed, out),
        Container::Xz | Container::Bzip2 => Err(io::Error::other("it has no such members")),
    }
}

fn bgzf(mut packed: &[u8], out: &mut [u8]) -> io::Result<usize> {
    let mut decoder = Decompressor::new();
    let mut done = 0usize;
    while !packed.is_empty() {
        let (len, plain) = next(Container::Gzip, packed)?;
        let (this, rest) = packed.split_at(len);
        let room = out.get_mut(done..done.saturating_add(plain));
        let room = room.ok_or_else(too_long)?;
        match decoder.gzip_decompress(this, room) {
            Ok(got) if got == plain && is_all(this, room) => done += got,
            _ => return Err(io::Error::other("a block does not hold what it says")),
        }
        packed = rest;
    }
    Ok(done)
}

/// Whether a gzip member that contains `plain` ends where `packed` does; the decoder reports neither that, nor what is
/// left over.
fn is_all(packed: &[u8], plain: &[u8]) -> bool {
    let mut trailer = crc32(plain).to_le_bytes().to_vec();
    trailer.extend((plain.len() as u32).to_le_bytes());
    if !packed.ends_with(&trailer) {
        return false;
    }
    // If the member ended earlier, its trailer would occur there too. Within compressed bytes it occurs only by chance.
    let earlier = packed.get(..packed.len() - 1).unwrap_or_default();
    if earlier.find(&trailer).is_none() {
        return true;
    }
    let mut left = packed;
    let read = io::copy(&mut GzDecoder::new(&mut left), &mut io::sink());
    read.is_ok() && left.is_empty()
}

fn lz4(mut packed: &[u8], out: &mut [u8]) -> io::Result<usize> {
    let mut done = 0usize;
    while !packed.is_empty() {
        let (len, plain) = next(Container::Lz4, packed)?;
        let (this, rest) = packed.split_at(len);
        let room = out.get_mut(done..done.saturating_add(plain));
        let room = room.ok_or_else(too_long)?;
        if !le32(this, 0).is_some_and(is_skipped) {
            let mut decoder = FrameDecoder::new(this);
            decoder.read_exact(room)?;
            // Reading the end verifies the checksum.
            if decoder.read(&mut [0])? > 0 {
                return Err(too_long());
            }
        }
        done += plain;
        packed = rest;
    }
    Ok(done)
}

/// The length of the next member, and its decompressed length.
fn next(kind: Container, packed: &[u8]) -> io::Result<(usize, usize)> {
    let mut look = |at: u64, buf: &mut [u8]| {
        let from = packed.get(at as usize..).unwrap_or_default();
        let len = from.len().min(buf.len());
        let (buf, _) = buf.split_at_mut(len);
        buf.copy_from_slice(from.get(..len).unwrap_or_default());
        Ok(len)
    };
    let wanted = Wanted {
        limit: usize::MAX as u64 >> 1,
        exact: true,
    };
    let found = member::find(kind, &mut look, wanted).map_err(io::Error::other)?;
    let found = found.filter(|member| member.packed <= packed.len() as u64);
    match found.map(|member| (member.packed, member.plain.exactly())) {
        Some((len, Some(plain))) => Ok((len as usize, plain as usize)),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn too_long() -> io::Error {
    io::Error::other("it holds more than it says")
}

/// Fills `out` with the contents of an xz stream, which must be exactly that long. `memory` is the decoder's limit.
///
/// # Errors
/// If the decoder fails.
pub(super) fn unpack_xz(stream: &[u8], out: &mut [u8], memory: u64) -> io::Result<()> {
    let mut decoder = Stream::new_stream_decoder(memory, 0)?;
    loop {
        let (read, written) = (decoder.total_in(), decoder.total_out());
        let from = stream.get(read as usize..).unwrap_or_default();
        let to = out.get_mut(written as usize..).unwrap_or_default();
        match decoder.process(from, to, Action::Run)? {
            Status::StreamEnd if decoder.total_out() == out.len() as u64 => return Ok(()),
            Status::StreamEnd => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if (read, written) == (decoder.total_in(), decoder.total_out()) => {
                return Err(too_long());
            }
            _ => {}
        }
    }
}
