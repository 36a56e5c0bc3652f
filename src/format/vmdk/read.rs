//! Reading compressed grains: neighbours in the file are read together, and each is decoded by itself.

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

/// The most bytes of the file that are read at once.
const BATCH: u64 = 1 << 20;

/// So much is read of a grain whose length nothing hints at.
const PEEK: u64 = 16 << 10;

#[derive(Default)]
struct Tools {
    decoder: Decoder,
    /// What was read of the file.
    input: IoBuf,
    /// A grain that was read by itself.
    rest: IoBuf,
}

thread_local! {
    static TOOLS: RefCell<Tools> = RefCell::default();
}

/// Decoded grains, by their place: a grain that changes gets another one.
#[derive(Clone, Copy)]
pub(super) struct Kept<'a>(pub(super) &'a DecodedUnits);

/// Places in a file are below: no table names a sector beyond.
const PLACE_BITS: u32 = 42;

impl Sparse {
    /// Reads a run of compressed grains.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where a grain does not decode.
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

    /// Bytes of the guest in the grain at `guest`.
    fn bytes_of(&self, guest: u64) -> u64 {
        let start = guest - guest % self.grain;
        self.len().saturating_sub(start).min(self.grain)
    }

    /// Where the grains of a range are, as many from its beginning as stand one behind the other.
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

    /// Reads grains that stand in a row, the last one as far as its length can be guessed.
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

    /// Reads a part of a grain.
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

    /// A decoded grain, which is kept.
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

    /// Decodes the grain with that byte, if it is there; gives its end.
    ///
    /// # Errors
    /// As [`Sparse::read_compressed`].
    pub(super) fn decode_ahead(&self, kept: Kept<'_>, offset: u64) -> Result<u64> {
        let start = offset - offset % self.grain;
        if let Grain::At(place) = self.lookup(start)? {
            // As for reads.
            let mut tools = TOOLS.take();
            let unit = self.unit(&mut tools, kept, place, start);
            TOOLS.set(tools);
            unit?;
        }
        Ok(start.saturating_add(self.grain))
    }

    /// Decodes the grain whose marker stands at `skip` of the input into `out`.
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
        // What was cut off from the file reads as zeroes, which decode as well as any bytes.
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

/// The most bytes that a compressed grain takes.
pub(super) fn longest_grain(grain: u64) -> u64 {
    grain.saturating_mul(2) + 4096
}

/// Decodes a compressed grain, or tells why that cannot be done.
pub(super) fn decode_grain(
    decoder: &mut Decoder,
    data: &[u8],
    out: &mut [u8],
) -> std::result::Result<(), &'static str> {
    // By the specification raw deflate; what products write has the header of zlib.
    let decoded = decoder.decode(Method::Zlib, data, out);
    decoded
        .or_else(|_| decoder.decode(Method::Deflate, data, out))
        .map_err(|_| "it does not decode as zlib or deflate")
}

/// Copies what stands `within` a grain.
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
