//! The test whether a buffer holds nothing but zeroes.

/// Bytes tested between two looks at the result: long enough to vectorise, short enough to stop early.
const STRIDE: usize = 256;

/// Whether every byte of `buf` is zero. Buffers of data are left after a few bytes.
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

#[cfg(test)]
mod tests {
    use super::is_zero;

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
