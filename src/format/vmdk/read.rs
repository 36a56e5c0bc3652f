//! Reads compressed grains: neighbours in the file are read together, and each is decoded separately.

use std::cell::RefCell;
use std::sync::Arc;

use crate::codec::{Decoder, Method};
use crate::error::{Error, ErrorKind, Result};
use crate::format::decoded::DecodedUnits;
use crate::memory::{self, IoBuf};
use crate::storage::Step;
use crate::storage::steps;

use super::disk::marker::{self, GRAIN_MARKER};
use super::sparse::{Grain, Sparse};

/// Maximum number of bytes of the file that are read at once.
const BATCH: u64 = 1 << 20;

/// Number of bytes to read of a grain whose length cannot be estimated.
const PEEK: u64 = 16 << 10;

#[derive(Default)]
struct Tools {
    decoder: Decoder,
    /// What was read from the file.
    input: IoBuf,
    /// A grain that was read separately.
    rest: IoBuf,
}

thread_local! {
    static TOOLS: RefCell<Tools> = RefCell::default();
}

/// Cached decoded grains, by their place: a grain that changes gets another place.
#[derive(Clone, Copy)]
pub(super) struct Kept<'a>(pub(super) &'a DecodedUnits);

/// Offsets in a file fit into this many bits: no table refers to a sector past that.
const PLACE_BITS: u32 = 42;

impl Sparse {
    /// Reads a run of compressed grains.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if a grain cannot be decoded.
    pub(super) fn read_compressed(
        &self,
        kept: Kept<'_>,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<()> {
        // Taken out while in use: the storage below may be an image with compressed grains.
        let mut tools = TOOLS.take();
        let read = self.read_with(&mut tools, kept, buf, offset);
        TOOLS.set(tools);
        read
    }

    fn read_with(
        &self,
        tools: &mut Tools,
        kept: Kept<'_>,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<()> {
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let within = at % self.grain;
            if within != 0 || (rest.len() as u64) < self.bytes_of(at) {
                let len = (self.grain - within).min(rest.len() as u64) as usize;
                let (part, tail) = rest.split_at_mut(len);
                self.read_part(tools, kept, part, at)?;
                (rest, at) = (tail, at + len as u64);
                continue;
            }
            if !kept.0.is_empty()
                && let Grain::At(place) = self.lookup(at)?
                && let Some(unit) = kept.0.get_or_wait(self.key(place), 1)
            {
                let (part, tail) = rest.split_at_mut(self.bytes_of(at) as usize);
                copy_from(&unit, 0, part)?;
                (rest, at) = (tail, at + self.bytes_of(at));
                continue;
            }
            let places = self.row(at, rest.len() as u64)?;
            let Some(first) = places.first().copied() else {
                return Err(self.remapped(at));
            };
            self.read_row(&mut tools.input, &places)?;
            for place in places {
                let len = self.bytes_of(at) as usize;
                let (part, tail) = rest.split_at_mut(len);
                let skip = (place - first) as usize;
                match kept.0.get_or_wait(self.key(place), 1) {
                    Some(unit) => copy_from(&unit, 0, part)?,
                    None => self.decode(tools, skip, (place, at), part)?,
                }
                (rest, at) = (tail, at + len as u64);
            }
        }
        Ok(())
    }

    /// Number of guest bytes in the grain at `guest`.
    fn bytes_of(&self, guest: u64) -> u64 {
        let start = guest - guest % self.grain;
        self.len().saturating_sub(start).min(self.grain)
    }

    /// The places of the grains at the beginning of a range that follow one another in the file.
    fn row(&self, offset: u64, len: u64) -> Result<Vec<u64>> {
        let mut places: Vec<u64> = Vec::new();
        let mut at = offset;
        while self.bytes_of(at) > 0 && at - offset + self.bytes_of(at) <= len {
            let Grain::At(place) = self.lookup(at)? else {
                break;
            };
            if let (Some(first), Some(last)) = (places.first(), places.last())
                && (place <= *last || place - first > BATCH || place - last > 2 * self.grain)
            {
                break;
            }
            memory::push(&mut places, place)?;
            at += self.grain;
        }
        Ok(places)
    }

    /// Reads grains that follow one another, the last one as far as its length can be estimated.
    fn read_row(&self, input: &mut IoBuf, places: &[u64]) -> Result<()> {
        let (Some(first), Some(last)) = (places.first(), places.last()) else {
            return Ok(());
        };
        let guess = match places.len() as u64 {
            0 | 1 => PEEK.min(self.grain),
            count => (last - first) / (count - 1) * 5 / 4 + 512,
        };
        let len = (last - first) + guess.max(GRAIN_MARKER as u64);
        steps::announce(&*self.storage, Step::ReadCompressed);
        self.storage.read_at(input.room(len as usize)?, *first)
    }

    /// Reads part of a grain.
    fn read_part(
        &self,
        tools: &mut Tools,
        kept: Kept<'_>,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<()> {
        let within = offset % self.grain;
        let start = offset - within;
        let Grain::At(place) = self.lookup(start)? else {
            return Err(self.remapped(offset));
        };
        copy_from(&self.unit(tools, kept, place, start)?, within, buf)
    }

    /// A decoded grain, which is cached.
    fn unit(
        &self,
        tools: &mut Tools,
        kept: Kept<'_>,
        place: u64,
        start: u64,
    ) -> Result<Arc<IoBuf>> {
        kept.0.get_or_decode(self.key(place), 1, |bytes| {
            self.read_row(&mut tools.input, &[place])?;
            let bytes = bytes.room(self.bytes_of(start) as usize)?;
            self.decode(tools, 0, (place, start), bytes)
        })
    }

    fn key(&self, place: u64) -> u64 {
        (u64::from(self.id) << PLACE_BITS) | place
    }

    /// Decodes the grain that contains this byte, if there is one, and caches it; returns the end of the grain.
    ///
    /// # Errors
    /// As [`Sparse::read_compressed`].
    pub(super) fn decode_ahead(&self, kept: Kept<'_>, offset: u64) -> Result<u64> {
        let start = offset - offset % self.grain;
        if let Grain::At(place) = self.lookup(start)? {
            // As when reading.
            let mut tools = TOOLS.take();
            let unit = self.unit(&mut tools, kept, place, start);
            TOOLS.set(tools);
            unit?;
        }
        Ok(start.saturating_add(self.grain))
    }

    /// Decodes the grain whose marker is at `skip` of the input into `out`.
    fn decode(
        &self,
        tools: &mut Tools,
        skip: usize,
        (place, guest): (u64, u64),
        out: &mut [u8],
    ) -> Result<()> {
        let Tools {
            decoder,
            input,
            rest,
        } = tools;
        let input = input.get(skip..).unwrap_or_default();
        let (sector, len) = marker::parse_grain(input).unwrap_or_default();
        if sector.checked_mul(crate::size::SECTOR) != Some(guest)
            || len == 0
            || u64::from(len) > longest_grain(self.grain)
        {
            return Err(self.damaged(
                place,
                guest,
                &format!("its marker names sector {sector} and {len} bytes"),
            ));
        }
        let from = GRAIN_MARKER;
        // What is missing from a truncated file reads as zeroes, which may decode like any other bytes.
        if place.saturating_add(from as u64 + u64::from(len)) > self.storage.len()? {
            return Err(self.damaged(place, guest, "the file ends within it"));
        }
        let data = match input.get(from..from + len as usize) {
            Some(data) => data,
            None => {
                let room = rest.room(len as usize)?;
                self.storage.read_at(room, place + from as u64)?;
                &*rest
            }
        };
        decode_grain(decoder, data, out).map_err(|why| self.damaged(place, guest, why))
    }

    fn damaged(&self, place: u64, guest: u64, why: &str) -> Error {
        let name = self.storage.name();
        Error::corrupt(format!(
            "'{name}': the compressed grain at offset {guest} of the extent is damaged: {why}"
        ))
        .with_offset(place)
        .with_errno(libc::EIO)
    }

    fn remapped(&self, guest: u64) -> Error {
        let name = self.storage.name();
        Error::new(
            ErrorKind::Busy,
            format!("'{name}': offset {guest} of the extent was remapped meanwhile"),
        )
    }
}

/// Maximum length of a compressed grain in bytes.
pub(super) fn longest_grain(grain: u64) -> u64 {
    grain.saturating_mul(2) + 4096
}

/// Decodes a compressed grain, or returns the reason why that is not possible.
pub(super) fn decode_grain(
    decoder: &mut Decoder,
    data: &[u8],
    out: &mut [u8],
) -> std::result::Result<(), &'static str> {
    // Raw deflate according to the specification; what products write has a zlib header.
    let decoded = decoder.decode(Method::Zlib, data, out);
    decoded
        .or_else(|_| decoder.decode(Method::Deflate, data, out))
        .map_err(|_| "it does not decode as zlib or deflate")
}

/// Copies the bytes at `within` of a grain.
fn copy_from(grain: &[u8], within: u64, buf: &mut [u8]) -> Result<()> {
    let within = within as usize;
    match grain.get(within..within + buf.len()) {
        Some(bytes) => {
            buf.copy_from_slice(bytes);
            Ok(())
        }
        None => Err(Error::new(
            ErrorKind::Internal,
            "A read passes the end of a grain",
        )),
    }
}
