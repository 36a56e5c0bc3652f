//! Apple Data Compression: literal bytes, and copies of what has been decoded.

/// Fills `out` from `input`; false if that ends too soon or a copy refers to data before the beginning.
pub(super) fn decode(input: &[u8], out: &mut [u8]) -> bool {
    let (mut from, mut done) = (0, 0);
    while done < out.len() {
        let rest = input.get(from..).unwrap_or_default();
        let (len, distance, head) = match *rest {
            [code, ..] if code & 0x80 != 0 => (usize::from(code & 0x7f) + 1, None, 1),
            [code, high, low, ..] if code & 0x40 != 0 => {
                let distance = usize::from(high) << 8 | usize::from(low);
                (usize::from(code & 0x3f) + 4, Some(distance), 3)
            }
            [code, low, ..] if code & 0x40 == 0 => {
                let distance = usize::from(code & 3) << 8 | usize::from(low);
                (usize::from(code >> 2 & 0xf) + 3, Some(distance), 2)
            }
            _ => return false,
        };
        from += head;
        if len > out.len() - done {
            return false;
        }
        match distance {
            None => {
                let Some(literal) = input.get(from..from + len) else {
                    return false;
                };
                out[done..done + len].copy_from_slice(literal);
                from += len;
            }
            Some(distance) => {
                let Some(start) = done.checked_sub(distance + 1) else {
                    return false;
                };
                // Byte by byte: a copy may run on into its own output.
                for at in 0..len {
                    out[done + at] = out[start + at];
                }
            }
        }
        done += len;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(input: &[u8], len: usize) -> Option<Vec<u8>> {
        let mut out = vec![0; len];
        decode(input, &mut out).then_some(out)
    }

    #[test]
    fn literals_and_both_kinds_of_copies() {
        let input = [0x82, b'a', b'b', b'c', 0x04, 2, 0x41, 0, 0];
        assert_eq!(decoded(&input, 12).unwrap(), b"abcabcaaaaaa"[..12]);
        assert_eq!(decoded(&[0x80, 7, 0x7f, 0, 0], 68).unwrap(), [7; 68]);
        assert!(decoded(&[], 0).unwrap().is_empty());
    }

    #[test]
    fn what_is_cut_off_or_copies_from_nowhere_is_refused() {
        for (input, len) in [
            (&[][..], 1),
            (&[0x82, 1, 2], 3),
            (&[0x80, 1], 2),
            (&[0x00, 0], 3),
            (&[0x80, 1, 0x04, 1], 5),
            (&[0x80, 1, 0x40, 0], 5),
            (&[0x80, 1, 0x40, 1, 0], 5),
            // Longer than `out`.
            (&[0x82, 1, 2, 3], 2),
        ] {
            assert_eq!(decoded(input, len), None, "{input:?}");
        }
    }
}
