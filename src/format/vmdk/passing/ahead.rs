//! Grains that are read before they are needed, and decoded several at once.

use std::collections::VecDeque;

use super::super::read::decode_grain;
use crate::codec::{Decoder, parallel};
use crate::crew;
use crate::error::{Error, Result};
use crate::memory::{self, IoBuf};

/// What is read ahead takes so much, packed and decoded; one grain may take more.
const MOST: u64 = 8 << 20;

/// A grain as it stands in the file.
#[derive(Debug)]
pub(super) struct Packed {
    /// Where its marker stands.
    pub(super) place: u64,
    /// Where in the guest it begins, and how long it is there.
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

/// What is there of the guest behind the grain that is given out.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    packed: Vec<Packed>,
    bytes: u64,
    ready: VecDeque<Grain>,
    /// Why nothing follows them.
    failed: Option<Error>,
}

impl Ahead {
    /// Whether there is neither a grain nor an error.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.failed.is_none()
    }

    /// Whether no more grains are read before these are decoded.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MOST
    }

    /// Adds a grain.
    ///
    /// # Errors
    /// A lack of memory.
    pub(super) fn push(&mut self, packed: Packed) -> Result<()> {
        self.bytes += (packed.bytes.len() + packed.len) as u64;
        memory::push(&mut self.packed, packed)
    }

    /// Decodes what was added; `read` tells whether that is all that can be read.
    ///
    /// # Errors
    /// A lack of memory.
    pub(super) fn decode(&mut self, read: Result<()>) -> Result<()> {
        let packed = std::mem::take(&mut self.packed);
        self.bytes = 0;
        // Each thread has several, so that none waits long for the last one.
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

    /// The next grain; None where more must be read first.
    ///
    /// # Errors
    /// What was met behind the last one.
    pub(super) fn take(&mut self) -> Result<Option<Grain>> {
        match (self.ready.pop_front(), &mut self.failed) {
            (Some(grain), _) => Ok(Some(grain)),
            (None, Some(_)) => self.failed.take().map_or(Ok(None), Err),
            (None, None) => Ok(None),
        }
    }
}

/// Decodes grains up to the first that cannot be.
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
