//! Where prepared ranges go: a new image through its bulk writer, or an existing one.

use std::io::IoSlice;

use crate::codec::Encoder;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::extent::StorageSlot;
use crate::format::Bulk;
use crate::image::Image;
use crate::memory::{self, IoBuf};
use crate::storage::{CopyOutcome, Storage, ZeroFlags};

use super::offload::Offload;
use super::piece::{Piece, PieceKind, Prepared};
use super::report::Tally;
use super::sources::Sources;

/// The most buffers in one system call.
const MAX_VECTORS: usize = 256;

/// Buffer of zeroes, and for what could not be copied inside the host after all.
const BOUNCE: usize = 256 << 10;

/// Where a piece that takes space begins in the target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    slot: StorageSlot,
    host: u64,
}

/// A target.
pub(super) trait Sink: Sync {
    /// Compresses one unit; false where it does not shrink.
    fn encode(&self, encoder: &mut Encoder, unit: &[u8], out: &mut IoBuf) -> Result<bool>;

    /// Reserves space. Called in guest order, one call at a time.
    fn place(&self, prepared: &mut Prepared) -> Result<()>;

    /// Writes what was placed. Called by many threads at once, in any order.
    fn write(&self, prepared: &Prepared) -> Result<()>;
}

pub(super) fn at_byte(offset: u64) -> impl FnOnce() -> String {
    move || format!("error while writing at byte {offset}")
}

/// A new image.
pub(super) struct BulkSink<'a> {
    pub bulk: &'a dyn Bulk,
    pub sources: &'a Sources,
    pub offload: &'a Offload,
    pub tally: &'a Tally,
    /// Zeroes before this guest offset must be recorded, as a backing file lies below.
    pub backing_end: u64,
    /// What is not reserved reads as zeroes.
    pub unreserved_is_zero: bool,
}

impl BulkSink<'_> {
    /// Reserves for one piece; None where it takes no space.
    fn place_piece(&self, piece: &Piece) -> Result<Option<Place>> {
        let (offset, len) = (piece.offset, piece.len);
        let reserved = match &piece.kind {
            PieceKind::Zero => {
                Tally::add(&self.tally.zero, len);
                return self.place_zero(offset, len);
            }
            PieceKind::Encoded { len, .. } => {
                Tally::add(&self.tally.units, 1);
                Tally::add(&self.tally.encoded, *len as u64);
                Tally::add(&self.tally.data, piece.len);
                let len = u32::try_from(*len)
                    .map_err(|_| Error::new(ErrorKind::Internal, "A unit is too large"))?;
                self.bulk.reserve_encoded(offset, len)?
            }
            PieceKind::Data => {
                Tally::add(&self.tally.data, len);
                self.bulk.reserve(offset, len)?
            }
            PieceKind::Offload { .. } => {
                Tally::add(&self.tally.offloaded, len);
                self.bulk.reserve(offset, len)?
            }
        };
        let (slot, host) = reserved;
        Ok(Some(Place { slot, host }))
    }

    /// Records zeroes where something lies below; some images can only store them.
    fn place_zero(&self, offset: u64, len: u64) -> Result<Option<Place>> {
        if offset < self.backing_end {
            match self.bulk.reserve_zero(offset, len) {
                Ok(()) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Unsupported => {}
                Err(error) => return Err(error),
            }
        } else if self.unreserved_is_zero {
            return Ok(None);
        }
        let (slot, host) = self.bulk.reserve(offset, len)?;
        Ok(Some(Place { slot, host }))
    }

    fn copy_inside_host(
        &self,
        piece: &Piece,
        from: &dyn Storage,
        from_offset: u64,
        place: Place,
    ) -> Result<()> {
        let target = self.bulk.storage(place.slot)?;
        let outcome = self
            .offload
            .copy(from, from_offset, &**target, place.host, piece.len)
            .context(at_byte(piece.offset))?;
        if outcome == CopyOutcome::Done {
            return Ok(());
        }
        let mut buf = memory::zeroed(BOUNCE)?;
        let mut done = 0;
        while done < piece.len {
            let len = (piece.len - done).min(BOUNCE as u64);
            let chunk = &mut buf[..len as usize];
            self.sources.read(chunk, piece.offset + done)?;
            self.bulk
                .write_data(
                    (place.slot, place.host + done),
                    piece.offset + done,
                    &[IoSlice::new(chunk)],
                )
                .context(at_byte(piece.offset + done))?;
            done += len;
        }
        Ok(())
    }

    fn write_zero_bytes(&self, piece: &Piece, place: Place) -> Result<()> {
        self.bulk
            .write_zero_data((place.slot, place.host), piece.offset, piece.len)
            .context(at_byte(piece.offset))
    }
}

impl Sink for BulkSink<'_> {
    fn encode(&self, encoder: &mut Encoder, unit: &[u8], out: &mut IoBuf) -> Result<bool> {
        self.bulk.encode(encoder, unit, out)
    }

    fn place(&self, prepared: &mut Prepared) -> Result<()> {
        let unit = u64::from(self.bulk.unit()).max(1);
        Tally::add(&self.tally.backed, prepared.left_out());
        let mut placed = Vec::with_capacity(prepared.pieces.len());
        for piece in prepared.pieces.drain(..) {
            let (head, rest) = split_at_unit(piece, unit);
            for piece in head.into_iter().chain([rest]) {
                let place = self.place_piece(&piece).context(at_byte(piece.offset))?;
                if let Some(place) = place {
                    placed.push(piece);
                    prepared.places.push(place);
                }
            }
        }
        // Pieces that take no space are done with.
        prepared.pieces = placed;
        Ok(())
    }

    fn write(&self, prepared: &Prepared) -> Result<()> {
        let mut batch = Batch::new(self.bulk);
        let mut spans = prepared.spans.iter().copied();
        let mut next = spans.next();
        for (piece, place) in prepared.pieces.iter().zip(&prepared.places) {
            let end = piece.offset + piece.len;
            match &piece.kind {
                PieceKind::Zero => self.write_zero_bytes(piece, *place)?,
                PieceKind::Encoded { at, len } => {
                    batch.push(piece.offset, *place, prepared.buf.get(*at, *len))?;
                }
                PieceKind::Data => {
                    while let Some(span) = next.filter(|span| span.offset < end) {
                        let len = span.len.min((end - span.offset) as usize);
                        let place = Place {
                            slot: place.slot,
                            host: place.host + (span.offset - piece.offset),
                        };
                        batch.push(span.offset, place, prepared.buf.get(span.at, len))?;
                        next = if len < span.len {
                            Some(span.after(len))
                        } else {
                            spans.next()
                        };
                    }
                }
                PieceKind::Offload {
                    storage,
                    host_offset,
                } => self.copy_inside_host(piece, &**storage, *host_offset, *place)?,
            }
        }
        batch.flush()
    }
}

/// Data that begins inside a unit and goes on behind it, at the unit's end: space for the two
/// parts is reserved one after the other.
fn split_at_unit(mut piece: Piece, unit: u64) -> (Option<Piece>, Piece) {
    let head = (unit - piece.offset % unit) % unit;
    if !matches!(piece.kind, PieceKind::Data) || head == 0 || piece.len <= head {
        return (None, piece);
    }
    let first = Piece {
        offset: piece.offset,
        len: head,
        kind: PieceKind::Data,
    };
    piece.offset += head;
    piece.len -= head;
    (Some(first), piece)
}

/// Collects writes that are neighbours in the target into one system call.
struct Batch<'a, 'b> {
    bulk: &'a dyn Bulk,
    slices: Vec<&'b [u8]>,
    guest: u64,
    start: Place,
    len: u64,
    by_guest: bool,
}

impl<'a, 'b> Batch<'a, 'b> {
    fn new(bulk: &'a dyn Bulk) -> Self {
        Self {
            bulk,
            slices: Vec::new(),
            guest: 0,
            start: Place {
                slot: StorageSlot::MAIN,
                host: 0,
            },
            len: 0,
            by_guest: bulk.is_encrypted(),
        }
    }

    fn push(&mut self, guest: u64, place: Place, bytes: &'b [u8]) -> Result<()> {
        // A cipher may number its sectors by the guest's offsets.
        let follows = place.slot == self.start.slot
            && place.host == self.start.host + self.len
            && (!self.by_guest || guest == self.guest + self.len);
        if !follows || self.slices.len() == MAX_VECTORS {
            self.flush()?;
        }
        if self.slices.is_empty() {
            self.guest = guest;
            self.start = place;
        }
        self.slices.push(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.slices.is_empty() {
            return Ok(());
        }
        let slices: Vec<IoSlice<'_>> = self.slices.iter().map(|s| IoSlice::new(s)).collect();
        let place = (self.start.slot, self.start.host);
        let written = self.bulk.write_data(place, self.guest, &slices);
        self.slices.clear();
        self.len = 0;
        written.context(at_byte(self.guest))
    }
}

/// A new raw disk whose length is known only at its end.
pub(super) struct GrowingSink<'a> {
    pub bulk: &'a dyn Bulk,
    pub tally: &'a Tally,
    /// What is not written reads as zeroes.
    pub unwritten_is_zero: bool,
}

impl Sink for GrowingSink<'_> {
    fn encode(&self, encoder: &mut Encoder, unit: &[u8], out: &mut IoBuf) -> Result<bool> {
        self.bulk.encode(encoder, unit, out)
    }

    fn place(&self, _prepared: &mut Prepared) -> Result<()> {
        Ok(())
    }

    fn write(&self, prepared: &Prepared) -> Result<()> {
        let place = |host| Place {
            slot: StorageSlot::MAIN,
            host,
        };
        for piece in &prepared.pieces {
            if !matches!(piece.kind, PieceKind::Zero) {
                Tally::add(&self.tally.data, piece.len);
                continue;
            }
            Tally::add(&self.tally.zero, piece.len);
            if !self.unwritten_is_zero {
                self.bulk
                    .write_zero_data((StorageSlot::MAIN, piece.offset), piece.offset, piece.len)
                    .context(at_byte(piece.offset))?;
            }
        }
        let mut batch = Batch::new(self.bulk);
        for span in &prepared.spans {
            batch.push(
                span.offset,
                place(span.offset),
                prepared.buf.get(span.at, span.len),
            )?;
        }
        batch.flush()
    }
}

/// An image that exists already.
pub(super) struct ImageSink<'a> {
    pub image: &'a Image,
    pub tally: &'a Tally,
    /// The image reads as zeroes: runs of zeroes need not be written.
    pub is_zero: bool,
}

impl Sink for ImageSink<'_> {
    fn encode(&self, _encoder: &mut Encoder, _unit: &[u8], _out: &mut IoBuf) -> Result<bool> {
        Err(Error::new(
            ErrorKind::Internal,
            "An existing image compresses its units itself",
        ))
    }

    fn place(&self, _prepared: &mut Prepared) -> Result<()> {
        Ok(())
    }

    fn write(&self, prepared: &Prepared) -> Result<()> {
        Tally::add(&self.tally.backed, prepared.left_out());
        for piece in &prepared.pieces {
            if piece.offset + piece.len > self.image.len() {
                return Err(too_small());
            }
            match &piece.kind {
                PieceKind::Zero => {
                    Tally::add(&self.tally.zero, piece.len);
                    if !self.is_zero {
                        self.image
                            .write_zeroes(piece.offset, piece.len, ZeroFlags::MAY_UNMAP)
                            .context(at_byte(piece.offset))?;
                    }
                }
                PieceKind::Encoded { at, len } => {
                    let compressor = self.image.format().compressor().ok_or_else(|| {
                        Error::unsupported("Compression not supported for this file format")
                    })?;
                    compressor
                        .write_compressed(prepared.buf.get(*at, *len), piece.offset)
                        .context(at_byte(piece.offset))?;
                    Tally::add(&self.tally.units, 1);
                    Tally::add(&self.tally.data, piece.len);
                }
                PieceKind::Data => Tally::add(&self.tally.data, piece.len),
                PieceKind::Offload { .. } => {
                    return Err(Error::new(
                        ErrorKind::Internal,
                        "An existing image is not copied to inside the host",
                    ));
                }
            }
        }
        for span in &prepared.spans {
            self.image
                .write_at(prepared.buf.get(span.at, span.len), span.offset)
                .context(at_byte(span.offset))?;
        }
        Ok(())
    }
}

/// The error of an existing target into which the sources do not fit.
pub(super) fn too_small() -> Error {
    Error::invalid("output file is smaller than input file")
}
