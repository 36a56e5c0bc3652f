//! Zeroes in buffers: whether there is anything else, and where.

use std::ops::Range;

/// Bytes tested between two checks of the result: long enough to vectorise, short enough to stop early.
const STRIDE: usize = 256;

/// Whether every byte of `buf` is zero. Returns after a few bytes for most buffers of data.
pub fn is_zero(buf: &[u8]) -> bool {
    let middle = buf.len() / 2;
    // Data seldom has zeroes at all three places; most non-zero buffers end here.
    if let (Some(first), Some(last), Some(mid)) = (buf.first(), buf.last(), buf.get(middle))
        && first | last | mid != 0
    {
        return false;
    }
    let mut chunks = buf.chunks_exact(STRIDE);
    chunks
        .by_ref()
        .all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
        && chunks.remainder().iter().all(|byte| *byte == 0)
}

/// Bytes that are tested together when the data in a buffer is separated from its zeroes.
const BLOCK: usize = 4096;

/// Where `buf` holds data: every other byte is zero. Zeroes between two runs are at least `gap` bytes.
pub fn data_runs(buf: &[u8], gap: usize) -> impl Iterator<Item = Range<usize>> {
    let mut blocks = buf.chunks(BLOCK).enumerate();
    let mut next_data = move || {
        blocks.find_map(|(n, block)| {
            let start = n * BLOCK;
            (!is_zero(block)).then(|| start..start + block.len())
        })
    };
    let mut ahead = next_data();
    std::iter::from_fn(move || {
        let mut run = ahead.take()?;
        ahead = next_data();
        while let Some(block) = &ahead
            && block.start - run.end < gap.max(1)
        {
            run.end = block.end;
            ahead = next_data();
        }
        Some(run)
    })
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, data_runs, is_zero};

    #[test]
    fn runs_are_apart_and_leave_only_zeroes_out() {
        assert_eq!(data_runs(&[], 1).count(), 0);
        assert_eq!(data_runs(&[0; 3 * BLOCK], 1).count(), 0);
        let mut buf = vec![0; 8 * BLOCK + 100];
        for at in [5, 2 * BLOCK, 3 * BLOCK - 1, 6 * BLOCK + 7, 8 * BLOCK + 99] {
            buf[at] = 1;
        }
        let len = buf.len();
        let runs = |gap| data_runs(&buf, gap).collect::<Vec<_>>();
        let (first, second) = (0..BLOCK, 2 * BLOCK..3 * BLOCK);
        let (third, last) = (6 * BLOCK..7 * BLOCK, 8 * BLOCK..len);
        for gap in [0, BLOCK] {
            let all = [&first, &second, &third, &last].map(Clone::clone);
            assert_eq!(runs(gap), all);
        }
        let wide = [0..3 * BLOCK, 6 * BLOCK..len];
        assert_eq!(runs(BLOCK + 1), wide);
        assert_eq!(runs(3 * BLOCK), wide);
        assert_eq!(runs(3 * BLOCK + 1), std::slice::from_ref(&(0..len)));
    }

    #[test]
    fn finds_a_single_byte_anywhere() {
        assert!(is_zero(&[]));
        for len in [1, 2, 255, 256, 257, 4096, 5000] {
            let mut buf = vec![0; len];
            assert!(is_zero(&buf));
            for at in 0..len {
                buf[at] = 1;
                assert!(!is_zero(&buf), "{at} of {len}");
                buf[at] = 0;
            }
        }
    }
}
