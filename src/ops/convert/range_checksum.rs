//! The checksum of prepared ranges: they are prepared in any order and arrive here in guest order, one at a time,
//! before they are given their place in the target.

use std::ops::Range;

use crate::error::Result;
use crate::job::JobControl;
use crate::memory;

use super::checksum::Checksum;
use super::piece::{PieceKind, Prepared};
use super::sources::Sources;

/// Bytes processed between two checks for cancellation.
const STEP: usize = 1 << 20;

/// A block of zeroes that stays in a processor's cache.
static ZEROES: [u8; 16 << 10] = [0; 16 << 10];

/// Adds the bytes of a prepared range. What was not read for it, because the target's backing file holds it or the host
/// copies it, is read now.
pub(super) fn take(
    checksum: &Checksum,
    prepared: &Prepared,
    sources: &Sources,
    control: &JobControl,
) -> Result<()> {
    let mut at = prepared.start;
    for plain in &prepared.plain {
        gap(checksum, prepared, at..plain.offset, sources, control)?;
        let buffer = prepared.kept.as_ref().unwrap_or(&prepared.buf);
        checksum.update(buffer.get(plain.at, plain.len));
        at = plain.offset + plain.len as u64;
    }
    let end = prepared.start + prepared.len;
    gap(checksum, prepared, at..end, sources, control)
}

/// Adds a part of a range whose bytes are not in memory.
fn gap(
    checksum: &Checksum,
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
            read(checksum, at..from, sources, control)?;
            zero(checksum, to - from, control)?;
            at = to;
        }
    }
    read(checksum, at..range.end, sources, control)
}

fn zero(checksum: &Checksum, len: u64, control: &JobControl) -> Result<()> {
    let mut done = 0;
    while done < len {
        if done.is_multiple_of(STEP as u64) {
            control.checkpoint()?;
        }
        let part = (len - done).min(ZEROES.len() as u64);
        checksum.update(&ZEROES[..part as usize]);
        done += part;
    }
    Ok(())
}

fn read(
    checksum: &Checksum,
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
        checksum.update(part);
        at += len as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_count_as_bytes() {
        let sum = Checksum::default();
        sum.update(b"abc");
        zero(&sum, 100_000, &JobControl::default()).expect("no end");
        let whole = Checksum::default();
        whole.update(b"abc");
        whole.update(&[0; 100_000]);
        assert_eq!(sum.sum(), whole.sum());
    }
}
