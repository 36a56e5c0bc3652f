//! A new image as a target, through its bulk writer.

use std::io::IoSlice;
use std::ops::Range;

use crate::codec::Encoder;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::format::Bulk;
use crate::image::{Image, ReadsAs};
use crate::memory::{self, IoBuf};
use crate::storage::{CopyOutcome, Storage};

use super::batch::Batch;
use super::offload::Offload;
use super::piece::{Piece, PieceKind, Prepared, TargetPlace};
use super::report::Counters;
use super::sink::{Sink, at_byte};
use super::sources::Sources;

/// Buffer for zeroes, and for what could not be copied inside the host after all.
const BOUNCE: usize = 256 << 10;

/// A new image.
pub(super) struct BulkSink<'a> {
    pub bulk: &'a dyn Bulk,
    pub sources: &'a Sources,
    pub offload: &'a Offload,
    pub counters: &'a Counters,
    /// The backing file: zeroes before its end must be recorded.
    pub below: Option<&'a Image>,
    /// Whether unreserved space reads as zeroes.
    pub unreserved_is_zero: bool,
    /// Whether reserved space reads as zeroes before it is written.
    pub unwritten_is_zero: bool,
}

impl BulkSink<'_> {
    /// Reserves space for one piece, which is split into as many as the target has runs for it; none if it takes no
    /// space.
    fn place_piece(&self, piece: Piece, placed: &mut Vec<(Piece, TargetPlace)>) -> Result<()> {
        match &piece.kind {
            PieceKind::Zero => {
                Counters::add(&self.counters.zero, piece.len);
                if self.records_zero(&piece)? {
                    return Ok(());
                }
                if let Some(below) = self.below {
                    return self.store_zeroes(below, piece, placed);
                }
            }
            PieceKind::Encoded { len, .. } => {
                Counters::add(&self.counters.units, 1);
                Counters::add(&self.counters.encoded, *len as u64);
                Counters::add(&self.counters.data, piece.len);
                let len = u32::try_from(*len)
                    .map_err(|_| Error::new(ErrorKind::Internal, "A unit is too large"))?;
                let (slot, host) = self.bulk.reserve_encoded(piece.offset, len)?;
                placed.push((piece, TargetPlace { slot, host }));
                return Ok(());
            }
            PieceKind::Data => Counters::add(&self.counters.data, piece.len),
            PieceKind::Offload { .. } => Counters::add(&self.counters.offloaded, piece.len),
        }
        self.store(piece, placed)
    }

    /// Reserves space for all bytes of a piece.
    fn store(&self, mut piece: Piece, placed: &mut Vec<(Piece, TargetPlace)>) -> Result<()> {
        loop {
            let run = self.bulk.reserve(piece.offset, piece.len)?;
            if !(1..=piece.len).contains(&run.len) {
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!("{} of {} bytes were reserved", run.len, piece.len),
                ));
            }
            let rest = piece.split_off(run.len);
            let place = TargetPlace {
                slot: run.slot,
                host: run.offset,
            };
            placed.push((piece, place));
            match rest {
                Some(rest) => piece = rest,
                None => return Ok(()),
            }
        }
    }

    /// Records zeroes over data of the backing file; false if the image can only store them.
    fn records_zero(&self, piece: &Piece) -> Result<bool> {
        if self.below.is_none_or(|below| piece.offset >= below.len()) {
            return Ok(self.unreserved_is_zero);
        }
        match self.bulk.reserve_zero(piece.offset, piece.len) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reserves space for zeroes that can only be stored, unless the backing file reads as zeroes anyway.
    fn store_zeroes(
        &self,
        below: &Image,
        piece: Piece,
        placed: &mut Vec<(Piece, TargetPlace)>,
    ) -> Result<()> {
        let unit = u64::from(self.bulk.zero_unit());
        let end = piece.offset + piece.len;
        let store = |range: &Range<u64>, placed: &mut _| match range.is_empty() {
            true => Ok(()),
            false => self.store(Piece::zero(range.start, range.end - range.start), placed),
        };
        // What is to be stored but not yet reserved.
        let mut pending = piece.offset..piece.offset;
        let mut at = piece.offset;
        while at < end.min(below.len()) {
            let found = below.map(at, end.min(below.len()) - at)?;
            let next = at + found.extent.len;
            if found.reads_as() != ReadsAs::Zero {
                let from = at - (at - piece.offset) % unit;
                if from > pending.end {
                    store(&pending, placed)?;
                    pending.start = from;
                }
                let whole = (next - piece.offset).next_multiple_of(unit);
                pending.end = (piece.offset + whole).min(end);
            }
            at = next;
        }
        store(&pending, placed)
    }

    fn copy_inside_host(
        &self,
        piece: &Piece,
        from: &dyn Storage,
        from_offset: u64,
        place: TargetPlace,
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

    fn write_zero_bytes(&self, piece: &Piece, place: TargetPlace) -> Result<()> {
        if self.unwritten_is_zero {
            return Ok(());
        }
        self.bulk
            .write_zero_data((place.slot, place.host), piece.offset, piece.len)
            .context(at_byte(piece.offset))
    }
}

impl Sink for BulkSink<'_> {
    fn encode(
        &self,
        encoder: &mut Encoder,
        offset: u64,
        unit: &[u8],
        out: &mut IoBuf,
    ) -> Result<bool> {
        self.bulk.encode(encoder, offset, unit, out)
    }

    fn place(&self, prepared: &mut Prepared) -> Result<()> {
        Counters::add(&self.counters.backed, prepared.left_out());
        let mut placed = Vec::with_capacity(prepared.pieces.len());
        for piece in prepared.pieces.drain(..) {
            let offset = piece.offset;
            self.place_piece(piece, &mut placed)
                .context(at_byte(offset))?;
        }
        prepared.placed = placed;
        Ok(())
    }

    fn write(&self, prepared: &Prepared) -> Result<()> {
        let mut batch = Batch::new(self.bulk);
        let mut spans = prepared.spans.iter().copied();
        let mut next = spans.next();
        for (piece, place) in &prepared.placed {
            let end = piece.offset + piece.len;
            match &piece.kind {
                PieceKind::Zero => self.write_zero_bytes(piece, *place)?,
                PieceKind::Encoded { at, len } => {
                    batch.push_encoded(piece.offset, *place, prepared.buf.get(*at, *len))?;
                }
                PieceKind::Data => {
                    while let Some(span) = next.filter(|span| span.offset < end) {
                        let len = span.len.min((end - span.offset) as usize);
                        let place = TargetPlace {
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
