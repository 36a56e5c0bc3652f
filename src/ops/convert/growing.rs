//! Fills a new raw disk whose length is only known at the end.

use crate::codec::Encoder;
use crate::error::{Result, ResultExt};
use crate::extent::StorageSlot;
use crate::format::Bulk;
use crate::job::Job;
use crate::memory::IoBuf;
use crate::ops::create;
use crate::storage::Preallocation;

use super::batch::Batch;
use super::offload::Offload;
use super::open_target::final_durability;
use super::piece::{PieceKind, Prepared, TargetPlace};
use super::report::Counters;
use super::request::ConvertRequest;
use super::run::run;
use super::sink::{Sink, at_byte};
use super::sizes::{CopySizes, Writers};
use super::sources::Sources;

/// Fills a new raw disk, which becomes as long as the stream turns out to be.
pub(super) fn fill_growing(
    request: &ConvertRequest,
    sources: &Sources,
    target: create::UnfinishedImage,
    counters: &Counters,
    job: &mut Job,
) -> Result<u64> {
    let storage = target.storage().clone();
    let fixed = storage.limits().fixed_len;
    let sink = GrowingSink {
        bulk: target.bulk(),
        counters,
        unwritten_is_zero: target.bulk().initial_content().unwritten_is_zero,
    };
    let sizes = CopySizes {
        unwritten_is_zero: target.bulk().initial_content().unwritten_is_zero,
        in_flight: storage.limits().in_flight,
        ..CopySizes::new(request, u64::from(target.bulk().zero_unit()), None)
    };
    let sizes = sizes.in_units_of(storage.limits().write_unit);
    let offload = Offload::default();
    let writers = Writers::of(request, storage.limits().in_flight > 1);
    run(request, sources, &offload, &sink, sizes, writers, job)?;
    let len = sources.finish()?;
    let ended = match fixed {
        true => Ok(()),
        false => storage.set_len(len, Preallocation::Off),
    };
    ended
        .and_then(|()| storage.sync(final_durability(request)))
        .and_then(|()| target.keep())
        .context(|| format!("Could not write '{}'", request.target.location.display()))?;
    Ok(len)
}

/// A new raw disk whose length is only known at the end.
struct GrowingSink<'a> {
    bulk: &'a dyn Bulk,
    counters: &'a Counters,
    /// Whether unwritten space reads as zeroes.
    unwritten_is_zero: bool,
}

impl Sink for GrowingSink<'_> {
    fn encode(
        &self,
        encoder: &mut Encoder,
        offset: u64,
        unit: &[u8],
        out: &mut IoBuf,
    ) -> Result<bool> {
        self.bulk.encode(encoder, offset, unit, out)
    }

    fn place(&self, _prepared: &mut Prepared) -> Result<()> {
        Ok(())
    }

    fn write(&self, prepared: &Prepared) -> Result<()> {
        let place = |host| TargetPlace {
            slot: StorageSlot::MAIN,
            host,
        };
        for piece in &prepared.pieces {
            if !matches!(piece.kind, PieceKind::Zero) {
                Counters::add(&self.counters.data, piece.len);
                continue;
            }
            Counters::add(&self.counters.zero, piece.len);
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
