//! Grains that are read before they are needed, and decoded in parallel.

use std::collections::VecDeque;

use super::super::read::decode_grain;
use crate::codec::{Decoder, parallel};
use crate::crew;
use crate::error::{Error, Result};
use crate::memory::{self, IoBuf};

/// Memory for what is read ahead, compressed and decoded; a single grain may take more.
const MOST: u64 = 8 << 20;

/// A grain as stored in the file.
#[derive(Debug)]
pub(super) struct Packed {
    /// Offset of its marker.
    pub(super) place: u64,
    /// Its guest offset, and its length in the guest.
    pub(super) start: u64,
    pub(super) len: usize,
    pub(super) bytes: IoBuf,
}

/// A grain of the guest.
#[derive(Debug, Default)]
pub(super) struct Grain {
    pub(super) start: u64,
    pub(super) bytes: IoBuf,
}

/// What is available of the guest after the current grain.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    packed: Vec<Packed>,
    bytes: u64,
    ready: VecDeque<Grain>,
    /// The error that follows them.
    failed: Option<Error>,
}

impl Ahead {
    /// Whether there is neither a grain nor an error.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.failed.is_none()
    }

    /// Whether these grains have to be decoded before more are read.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MOST
    }

    /// Adds a grain.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub(super) fn push(&mut self, packed: Packed) -> Result<()> {
        self.bytes += (packed.bytes.len() + packed.len) as u64;
        memory::push(&mut self.packed, packed)
    }

    /// Decodes what was added; `read` is an error if nothing more can be read.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub(super) fn decode(&mut self, read: Result<()>) -> Result<()> {
        let packed = std::mem::take(&mut self.packed);
        self.bytes = 0;
        // Several shares per thread, so that none has to wait long for the last one.
        let share = packed.len().div_ceil(4 * crew::processors()).max(1);
        let jobs = memory::collect(packed.chunks(share))?;
        for decoded in parallel::each(&jobs, |grains| decode_all(grains))? {
            let (grains, failed) = decoded.unwrap_or_else(|| (Vec::new(), Some(memory::lack())));
            self.ready
                .try_reserve(grains.len())
                .map_err(|_| memory::lack())?;
            self.ready.extend(grains);
            if failed.is_some() {
                self.failed = failed;
                return Ok(());
            }
        }
        self.failed = read.err();
        Ok(())
    }

    /// The next grain; `None` if more has to be read first.
    ///
    /// # Errors
    /// The error that follows the last one.
    pub(super) fn take(&mut self) -> Result<Option<Grain>> {
        match (self.ready.pop_front(), &mut self.failed) {
            (Some(grain), _) => Ok(Some(grain)),
            (None, Some(_)) => self.failed.take().map_or(Ok(None), Err),
            (None, None) => Ok(None),
        }
    }
}

/// Decodes grains up to the first that fails.
fn decode_all(packed: &[Packed]) -> (Vec<Grain>, Option<Error>) {
    let mut decoder = Decoder::new();
    let mut grains = Vec::new();
    for grain in packed {
        let decoded = decode(grain, &mut decoder).and_then(|it| memory::push(&mut grains, it));
        if let Err(error) = decoded {
            return (grains, Some(error));
        }
    }
    (grains, None)
}

fn decode(packed: &Packed, decoder: &mut Decoder) -> Result<Grain> {
    let mut bytes = memory::zeroed(packed.len)?;
    decode_grain(decoder, &packed.bytes, &mut bytes).map_err(|why| {
        let text = format!(
            "The compressed grain of guest offset {} is damaged: {why}",
            packed.start
        );
        Error::corrupt(text).with_offset(packed.place)
    })?;
    Ok(Grain {
        start: packed.start,
        bytes,
    })
}
