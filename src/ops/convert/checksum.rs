//! The digest of the guest's bytes, taken while they are copied: ranges are prepared in any order and come here
//! in that of the guest, one at a time, before they get their place in the target.

use std::fmt;
use std::ops::Range;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::job::JobControl;
use crate::memory;

use super::piece::{PieceKind, Prepared};
use super::sources::Sources;

/// So many bytes are taken between two looks at whether the work was cancelled.
const STEP: usize = 1 << 20;

/// Zeroes that stay in the cache of a processor.
static ZEROES: [u8; 16 << 10] = [0; 16 << 10];

/// A digest by SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha256Sum(pub [u8; 32]);

impl fmt::Display for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A digest while bytes come in order.
#[derive(Debug, Default)]
pub(super) struct Checksum(Mutex<Sha256>);

impl Checksum {
    /// Takes further bytes.
    pub fn update(&self, bytes: &[u8]) {
        self.0.lock().update(bytes);
    }

    /// The digest of what came so far.
    pub fn sum(&self) -> Sha256Sum {
        Sha256Sum(self.0.lock().clone().finalize().into())
    }

    /// Takes the bytes of a range that was prepared. What was not read for it, as the target's backing file
    /// holds it or the host copies it, is read now.
    pub fn take(&self, prepared: &Prepared, sources: &Sources, control: &JobControl) -> Result<()> {
        let hash = &mut *self.0.lock();
        let mut at = prepared.start;
        for plain in &prepared.plain {
            gap(hash, prepared, at..plain.offset, sources, control)?;
            let buffer = prepared.kept.as_ref().unwrap_or(&prepared.buf);
            hash.update(buffer.get(plain.at, plain.len));
            at = plain.offset + plain.len as u64;
        }
        let end = prepared.start + prepared.len;
        gap(hash, prepared, at..end, sources, control)
    }
}

/// A part of a range of which no bytes are at hand.
fn gap(
    hash: &mut Sha256,
    prepared: &Prepared,
    range: Range<u64>,
    sources: &Sources,
    control: &JobControl,
) -> Result<()> {
    let mut at = range.start;
    let zeroes = prepared.pieces.iter();
    for piece in zeroes.filter(|piece| matches!(piece.kind, PieceKind::Zero)) {
        let from = piece.offset.max(at);
        let to = (piece.offset + piece.len).min(range.end);
        if from < to {
            read(hash, at..from, sources, control)?;
            zero(hash, to - from, control)?;
            at = to;
        }
    }
    read(hash, at..range.end, sources, control)
}

fn zero(hash: &mut Sha256, len: u64, control: &JobControl) -> Result<()> {
    let mut done = 0;
    while done < len {
        if done.is_multiple_of(STEP as u64) {
            control.checkpoint()?;
        }
        let part = (len - done).min(ZEROES.len() as u64);
        hash.update(&ZEROES[..part as usize]);
        done += part;
    }
    Ok(())
}

fn read(
    hash: &mut Sha256,
    range: Range<u64>,
    sources: &Sources,
    control: &JobControl,
) -> Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    let most = (range.end - range.start).min(STEP as u64) as usize;
    let mut buf = memory::zeroed(most)?;
    let mut at = range.start;
    while at < range.end {
        control.checkpoint()?;
        let len = (range.end - at).min(STEP as u64) as usize;
        let part = buf.get_mut(..len).unwrap_or_default();
        sources.read(part, at)?;
        hash.update(part);
        at += len as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_printed_as_by_the_tools() {
        let sum = Checksum::default();
        sum.update(b"abc");
        assert_eq!(
            sum.sum().to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        zero(&mut sum.0.lock(), 100_000, &JobControl::default()).expect("no end");
        let whole = Checksum::default();
        whole.update(b"abc");
        whole.update(&[0; 100_000]);
        assert_eq!(sum.sum(), whole.sum());
    }
}
