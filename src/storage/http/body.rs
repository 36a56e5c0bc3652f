//! The body of an answer, as it comes from the connection.

use crate::error::Result;

use crate::storage::remote::violation;

use super::head::Framing;

/// The longest line that begins a chunk, or stands behind the last one.
const MAX_LINE: usize = 4096;
/// The most bytes behind the last chunk.
const MAX_TRAILER: usize = 64 << 10;

/// What is still to come.
#[derive(Debug)]
pub(super) enum Body {
    /// That many bytes.
    Length(u64),
    /// Chunks.
    Chunks(Chunks),
    /// Whatever comes until the connection ends.
    Close,
    /// Nothing.
    Ended,
}

/// Where in a body of chunks the next byte stands.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    place: Place,
    line: Vec<u8>,
    trailer: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// In the line that tells a length.
    #[default]
    Size,
    /// In data, of which that much follows.
    Data(u64),
    /// In the end of the line behind data.
    End,
    /// In the lines behind the last chunk.
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

    /// How many bytes may be read from the connection straight into a buffer for as many.
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

    /// Notes that so many bytes of the data were read, no more than [`Body::direct`].
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

    /// Takes what stands between data; gives how many bytes that are.
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
    /// Takes a byte that is no data; true where it is the last of all.
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
