//! The body of a response, as it arrives on the connection.

use crate::error::Result;

use crate::storage::remote::violation;

use super::head::Framing;

/// Maximum length of a line that starts a chunk, or of one in the trailer.
const MAX_LINE: usize = 4096;
/// Maximum length of the trailer after the last chunk.
const MAX_TRAILER: usize = 64 << 10;

/// What remains to be received.
#[derive(Debug)]
pub(super) enum Body {
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunks(Chunks),
    /// Whatever arrives until the connection is closed.
    Close,
    /// Nothing.
    Ended,
}

/// The position of the next byte in a chunked body.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    place: Place,
    line: Vec<u8>,
    trailer: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// In the line with the length of a chunk.
    #[default]
    Size,
    /// In data, of which this many bytes remain.
    Data(u64),
    /// In the line ending after data.
    End,
    /// In the trailer after the last chunk.
    Trailer,
}

impl Body {
    pub(super) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(0) => Self::Ended,
            Framing::Length(len) => Self::Length(len),
            Framing::Chunked => Self::Chunks(Chunks::default()),
            Framing::Close => Self::Close,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// How many bytes may be read from the connection straight into the caller's buffer.
    pub(super) fn direct(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunks(Chunks {
                place: Place::Data(left),
                ..
            }) => *left,
            Self::Close => u64::MAX,
            Self::Chunks(_) | Self::Ended => 0,
        }
    }

    /// Notes that `len` bytes of data were read, no more than [`Body::direct`].
    pub(super) fn took(&mut self, len: u64) {
        match self {
            Self::Length(left) => {
                *left = left.saturating_sub(len);
                if *left == 0 {
                    *self = Self::Ended;
                }
            }
            Self::Chunks(chunks) => {
                if let Place::Data(left) = chunks.place {
                    let left = left.saturating_sub(len);
                    chunks.place = match left {
                        0 => Place::End,
                        left => Place::Data(left),
                    };
                }
            }
            Self::Close | Self::Ended => {}
        }
    }

    /// Consumes what stands between data; returns the number of bytes consumed.
    ///
    /// # Errors
    /// [`violation`].
    pub(super) fn skip(&mut self, bytes: &[u8]) -> Result<usize> {
        let Self::Chunks(chunks) = self else {
            return Ok(0);
        };
        let mut used = 0;
        for byte in bytes {
            if matches!(chunks.place, Place::Data(_)) {
                break;
            }
            used += 1;
            if chunks.take(*byte)? {
                *self = Self::Ended;
                break;
            }
        }
        Ok(used)
    }
}

impl Chunks {
    /// Consumes a byte that is not data; true if it is the last one of the body.
    fn take(&mut self, byte: u8) -> Result<bool> {
        if byte != b'\n' {
            if self.line.len() >= MAX_LINE {
                return Err(violation("The server sent a chunk whose length has no end"));
            }
            self.line.push(byte);
            return Ok(false);
        }
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        let mut ended = false;
        self.place = match self.place {
            Place::Size => {
                let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
                match hexadecimal(digits.trim_ascii()) {
                    Some(0) => Place::Trailer,
                    Some(len) => Place::Data(len),
                    None => {
                        return Err(violation("The server sent a chunk without a length"));
                    }
                }
            }
            Place::End if line.is_empty() => Place::Size,
            Place::End | Place::Data(_) => {
                return Err(violation(
                    "The server sent a chunk that is longer than it says",
                ));
            }
            Place::Trailer => {
                self.trailer += line.len() + 2;
                if self.trailer > MAX_TRAILER {
                    return Err(violation("The server's answer has a tail without end"));
                }
                ended = line.is_empty();
                Place::Trailer
            }
        };
        self.line.clear();
        Ok(ended)
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let text = plain.then(|| std::str::from_utf8(digits).ok()).flatten()?;
    u64::from_str_radix(text, 16).ok()
}
