//! Nonzero words of tables that are not otherwise examined, such as those past the end of a disk; holes are skipped.

use std::ops::Range;

use crate::bytes::le64;
use crate::error::Result;
use crate::memory;
use crate::storage::Storage;

/// Bytes to read at a time.
const PIECE: u64 = 64 << 10;
/// Bytes per word.
const WORD: usize = 8;

/// Calls `visit` with the nonzero little-endian words in a range of a file, up to its end: once per piece, with the
/// range of the piece and its words.
///
/// # Errors
/// If reading fails, if memory is exhausted, and the errors of `visit`.
pub(crate) fn each_nonzero(
    storage: &dyn Storage,
    range: Range<u64>,
    mut visit: impl FnMut(Range<u64>, &[(u64, u64)]) -> Result<()>,
) -> Result<()> {
    let mut at = range.start;
    let end = range.end.min(storage.len()?);
    let mut bytes = memory::zeroed(PIECE as usize)?;
    let mut words = Vec::new();
    while at < end {
        let run = storage.extent(at, end - at)?;
        let holes = run.len - run.len % WORD as u64;
        if run.zero && holes > 0 {
            at += holes;
            continue;
        }
        let len = run
            .len
            .next_multiple_of(WORD as u64)
            .min(PIECE)
            .min(end - at);
        let piece = bytes.get_mut(..len as usize).unwrap_or_default();
        storage.read_at(piece, at)?;
        words.clear();
        for (place, word) in (at..).step_by(WORD).zip(piece.chunks_exact(WORD)) {
            if let Some(word) = le64(word, 0).filter(|word| *word != 0) {
                memory::push(&mut words, (place, word))?;
            }
        }
        if !words.is_empty() {
            visit(at..at + len, &words)?;
        }
        at += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;

    #[test]
    fn words_are_told_with_their_place_to_the_end_of_the_file() {
        let mut bytes = vec![0; 3 * PIECE as usize + 4];
        for at in [8, 24, PIECE as usize + 16, 3 * PIECE as usize - 8] {
            bytes[at] = (at % 251) as u8 + 1;
        }
        let storage = MemoryStorage::with_bytes("x", bytes);
        let mut found = Vec::new();
        each_nonzero(&storage, 16..u64::MAX, |piece, words| {
            assert!(words.iter().all(|(place, _)| piece.contains(place)));
            found.extend_from_slice(words);
            Ok(())
        })
        .unwrap();
        let places: Vec<u64> = found.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [24, PIECE + 16, 3 * PIECE - 8]);
        assert_eq!(found[0].1, 25);
    }
}
