//! Packets in a stream (section 3).

use super::{MAX_PACKET, violation};
use crate::error::Result;
use crate::memory;

/// Splits a stream that arrives in pieces of any length into packets.
#[derive(Debug, Default)]
pub(in super::super) struct Packets {
    /// The start of an incomplete packet, including its length field.
    begun: Vec<u8>,
}

/// The length of the packet that starts here, including its length field; `None` if that field is incomplete.
fn whole(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(len) = bytes.first_chunk() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes(*len) as usize;
    if len == 0 || len > MAX_PACKET {
        return Err(violation(format!(
            "The server sent a packet of {len} bytes"
        )));
    }
    Ok(Some(len + 4))
}

impl Packets {
    /// Passes each complete packet to `take`, without its length field.
    ///
    /// # Errors
    /// For a packet that is empty or too long; errors of `take`.
    pub(in super::super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        while !bytes.is_empty() {
            if self.begun.is_empty()
                && let Some(len) = whole(bytes)?
                && let Some((packet, rest)) = bytes.split_at_checked(len)
            {
                take(packet.get(4..).unwrap_or_default())?;
                bytes = rest;
                continue;
            }
            // The length field first, then as much as it says.
            let wanted = whole(&self.begun)?.unwrap_or(4);
            let missing = wanted.saturating_sub(self.begun.len());
            let (now, rest) = bytes.split_at(missing.min(bytes.len()));
            memory::reserve(&mut self.begun, missing)?;
            self.begun.extend_from_slice(now);
            bytes = rest;
            if whole(&self.begun)? == Some(self.begun.len()) {
                take(self.begun.get(4..).unwrap_or_default())?;
                self.begun.clear();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(pieces: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
        let mut packets = Packets::default();
        let mut found = Vec::new();
        for piece in pieces {
            packets.feed(piece, |packet| {
                found.push(packet.to_vec());
                Ok(())
            })?;
        }
        Ok(found)
    }

    #[test]
    fn packets_are_found_however_the_stream_is_cut() {
        let stream = b"\0\0\0\x03abc\0\0\0\x01d\0\0\0\x05efghi";
        let all = packets(&[stream]).unwrap();
        assert_eq!(all, [b"abc".to_vec(), b"d".to_vec(), b"efghi".to_vec()]);
        for len in 1..stream.len() {
            let pieces: Vec<_> = stream.chunks(len).collect();
            assert_eq!(packets(&pieces).unwrap(), all, "{len}");
        }
        assert_eq!(packets(&[&stream[..9]]).unwrap(), [b"abc".to_vec()]);
    }

    #[test]
    fn no_memory_is_taken_for_a_packet_that_is_too_long() {
        for stream in [b"\xff\xff\xff\xff".as_slice(), b"\0\0\0\0", b"\0\x04\0\x01"] {
            let error = packets(&[stream]).unwrap_err();
            assert_eq!(error.errno(), libc::EPROTO);
            let bytes: Vec<_> = stream.chunks(1).collect();
            assert!(packets(&bytes).is_err());
        }
    }
}
