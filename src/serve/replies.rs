//! The replies of the transmission phase, with the headers that were negotiated.

use crate::nbd::chunk::{ErrorChunk, OffsetData, OffsetHole};
use crate::nbd::errno;
use crate::nbd::flags::ChunkFlags;
use crate::nbd::reply::{Chunk, ChunkType, Headers, SimpleReply};
use crate::nbd::request::Request;
use crate::serve::outbox::{HEAD, Packet};

/// The head of a reply.
#[derive(Debug)]
pub(super) struct Head {
    bytes: [u8; HEAD],
    len: usize,
}

impl Head {
    fn new(parts: &[&[u8]]) -> Self {
        let mut head = Self {
            bytes: [0; HEAD],
            len: 0,
        };
        for part in parts {
            let end = head.len + part.len();
            if let Some(place) = head.bytes.get_mut(head.len..end) {
                place.copy_from_slice(part);
                head.len = end;
            }
        }
        head
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// The format of replies to a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replies(pub(super) Headers);

impl Replies {
    /// Whether a reply may consist of several chunks.
    pub(super) fn in_chunks(self) -> bool {
        self.0 != Headers::Simple
    }

    /// The reply to a request that succeeded and returns no data; with chunks, the final one.
    pub(super) fn done(self, request: &Request) -> Packet {
        self.packet(match self.0 {
            Headers::Simple => simple(request, 0),
            _ => self.chunk(request, true, ChunkType::NONE, 0, &[]),
        })
    }

    /// The reply to a request that has failed. It ends the reply only if it is the `last` part.
    pub(super) fn error(self, request: &Request, errno: i32, last: bool) -> Packet {
        let error = errno::to_wire(errno);
        if self.0 == Headers::Simple {
            return self.packet(simple(request, error));
        }
        // The system's message: those of the library name files of this host.
        let message = crate::Error::os(errno).message().to_owned();
        let payload = ErrorChunk {
            error,
            message: message.into(),
            offset: None,
        };
        let payload = payload.to_bytes();
        let payload = match payload.len() <= HEAD - Chunk::EXTENDED_LEN {
            true => payload,
            false => [&error.to_be_bytes()[..], &[0, 0]].concat(),
        };
        let len = payload.len() as u64;
        self.packet(self.chunk(request, last, ChunkType::ERROR, len, &payload))
    }

    /// The head for `len` bytes of data from `offset` on.
    pub(super) fn data(self, request: &Request, offset: u64, len: u64, last: bool) -> Head {
        if self.0 == Headers::Simple {
            return simple(request, 0);
        }
        let place = OffsetData { offset }.to_bytes();
        let total = len.saturating_add(place.len() as u64);
        self.chunk(request, last, ChunkType::OFFSET_DATA, total, &place)
    }

    /// Zeroes.
    pub(super) fn hole(self, request: &Request, offset: u64, len: u32, last: bool) -> Packet {
        let payload = OffsetHole { offset, len }.to_bytes();
        let total = payload.len() as u64;
        self.packet(self.chunk(request, last, ChunkType::OFFSET_HOLE, total, &payload))
    }

    /// The head for `len` bytes of block status.
    pub(super) fn status(self, request: &Request, len: u64, last: bool) -> Head {
        let kind = match self.0 {
            Headers::Extended => ChunkType::BLOCK_STATUS_EXT,
            _ => ChunkType::BLOCK_STATUS,
        };
        self.chunk(request, last, kind, len, &[])
    }

    /// A packet that consists of a head only.
    pub(super) fn packet(self, head: Head) -> Packet {
        Packet::new(&[head.bytes()])
    }

    fn chunk(
        self,
        request: &Request,
        last: bool,
        kind: ChunkType,
        len: u64,
        payload: &[u8],
    ) -> Head {
        let chunk = Chunk {
            flags: if last {
                ChunkFlags::DONE
            } else {
                ChunkFlags::empty()
            },
            kind,
            cookie: request.cookie,
            len,
        };
        match self.0 {
            Headers::Extended => Head::new(&[&chunk.to_extended(request.offset), payload]),
            // No reply is long enough for its length to exceed 32 bits.
            _ => Head::new(&[
                &chunk.to_compact().unwrap_or([0; Chunk::COMPACT_LEN]),
                payload,
            ]),
        }
    }
}

fn simple(request: &Request, error: u32) -> Head {
    let reply = SimpleReply {
        error,
        cookie: request.cookie,
    };
    Head::new(&[&reply.to_bytes()])
}
