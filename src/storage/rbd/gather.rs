//! Cuts the buffers of a write into requests, each of which takes a single one.

use std::io::IoSlice;

use crate::error::Result;
use crate::memory::{IoBuf, Payload};

/// Calls `send` with the bytes of the buffers in order, in payloads of `most` bytes, of which the last may be shorter.
/// A payload is a part of one buffer where it can be, and is gathered from several otherwise.
///
/// # Errors
/// Of `send`, or if there is no memory.
pub(super) fn gather(
    bufs: &[IoSlice<'_>],
    most: usize,
    mut send: impl FnMut(Payload) -> Result<()>,
) -> Result<()> {
    let mut left: usize = bufs.iter().map(|buf| buf.len()).sum();
    let mut gathered = IoBuf::new();
    for buf in bufs {
        let mut rest: &[u8] = buf;
        while !rest.is_empty() {
            let wanted = most.min(gathered.len() + left) - gathered.len();
            let (now, later) = rest.split_at(rest.len().min(wanted));
            rest = later;
            left -= now.len();
            if gathered.is_empty() && now.len() == wanted {
                send(Payload::of(now)?)?;
                continue;
            }
            gathered.extend_from_slice(now)?;
            if now.len() == wanted {
                send(std::mem::take(&mut gathered).into())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::Error;
    use crate::memory::lend;
    use crate::sys::AlignedBuf;

    /// The payloads, and whether each is shared with `memory`, for buffers of these lengths in it.
    fn payloads(lens: &[usize], most: usize) -> Vec<(Vec<u8>, bool)> {
        let mut memory = AlignedBuf::zeroed(4096, 1).unwrap();
        for (byte, at) in memory.iter_mut().zip(0u32..) {
            *byte = (at % 251) as u8;
        }
        let memory = Arc::new(memory);
        let mut rest: &[u8] = &memory;
        let mut bufs = Vec::new();
        for len in lens {
            let (now, later) = rest.split_at(*len);
            bufs.push(IoSlice::new(now));
            rest = later;
        }
        let inside = memory.as_ptr_range();
        let mut sent = Vec::new();
        lend(&memory, || {
            gather(&bufs, most, |payload| {
                sent.push((payload.to_vec(), inside.contains(&payload.as_ptr())));
                Ok(())
            })
        })
        .unwrap();
        let whole: Vec<u8> = sent.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        assert_eq!(whole, memory[..lens.iter().sum::<usize>()]);
        sent
    }

    fn shapes(lens: &[usize], most: usize) -> Vec<(usize, bool)> {
        let sent = payloads(lens, most).into_iter();
        sent.map(|(bytes, shared)| (bytes.len(), shared)).collect()
    }

    #[test]
    fn parts_of_one_buffer_are_shared_and_those_of_several_gathered() {
        assert_eq!(shapes(&[], 8), []);
        assert_eq!(shapes(&[0, 0], 8), []);
        assert_eq!(shapes(&[20], 8), [(8, true), (8, true), (4, true)]);
        assert_eq!(shapes(&[8, 8], 8), [(8, true), (8, true)]);
        assert_eq!(shapes(&[0, 5, 0], 8), [(5, true)]);
        assert_eq!(shapes(&[3, 3], 8), [(6, false)]);
        assert_eq!(shapes(&[3, 13], 8), [(8, false), (8, true)]);
        assert_eq!(shapes(&[9, 1, 6, 2], 8), [(8, true), (8, false), (2, true)]);
    }

    #[test]
    fn lengths_of_all_kinds_give_all_bytes_in_order() {
        for first in 0..20 {
            for second in 0..20 {
                for most in 1..12 {
                    let sent = payloads(&[first, second, 3], most);
                    let (last, whole) = sent.split_last().unwrap();
                    assert!(whole.iter().all(|(bytes, _)| bytes.len() == most));
                    assert!((1..=most).contains(&last.0.len()));
                }
            }
        }
    }

    #[test]
    fn an_error_ends_it() {
        let mut count = 0;
        let failed = gather(&[IoSlice::new(&[1; 20])], 8, |_| {
            count += 1;
            Err(Error::os(libc::EIO))
        });
        assert_eq!((failed.unwrap_err().errno(), count), (libc::EIO, 1));
    }
}
