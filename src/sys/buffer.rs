//! Memory for a request that continues after the call that submitted it has returned.

use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::ptr::NonNull;

use libc::iovec;

use super::AlignedBuf;

/// One or more pieces of memory, owned or lent, that stay in place while this value moves.
pub struct Buffer {
    pieces: Pieces,
    len: u64,
    owner: Owner,
}

enum Pieces {
    One(iovec),
    Many(Vec<iovec>),
}

enum Owner {
    Lent,
    One(Vec<u8>),
    Many(Vec<Vec<u8>>),
    Aligned(#[allow(dead_code, reason = "only keeps the memory")] AlignedBuf),
}

// SAFETY: the memory is owned by the value, or its lender has promised to leave it alone until the value is dropped; so
// the holder of the value has exclusive access to it, on any thread.
unsafe impl Send for Buffer {}

impl Buffer {
    /// Wraps memory that somebody else owns.
    ///
    /// # Safety
    /// Each piece is readable, and writable if the buffer is read into, for its length, and nothing else uses it until
    /// the buffer is dropped. The total length fits in a `u64`, each single one in an `isize`.
    pub unsafe fn of_caller(pieces: &[iovec]) -> Self {
        let len = pieces.iter().map(|piece| piece.iov_len as u64).sum();
        let pieces = match pieces {
            [one] => Pieces::One(valid(*one)),
            many => Pieces::Many(many.iter().copied().map(valid).collect()),
        };
        Self {
            pieces,
            len,
            owner: Owner::Lent,
        }
    }

    /// `len` bytes with that value, aligned for direct I/O.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn aligned(len: usize, byte: u8) -> std::io::Result<Self> {
        const PAGE: usize = 4096;
        let mut memory = AlignedBuf::zeroed(len, PAGE)?;
        if byte != 0 {
            memory.fill(byte);
        }
        Ok(Self {
            pieces: Pieces::One(iovec {
                iov_base: memory.as_mut_ptr().cast(),
                iov_len: len,
            }),
            len: len as u64,
            owner: Owner::Aligned(memory),
        })
    }

    /// Total length of all pieces.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the total length is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes, if the buffer was created from a single vector.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        match self.owner {
            Owner::One(bytes) => Some(bytes),
            Owner::Lent | Owner::Aligned(_) | Owner::Many(_) => None,
        }
    }

    /// The vectors that the buffer was created from; empty if it was created otherwise.
    pub fn into_vectors(self) -> Vec<Vec<u8>> {
        match self.owner {
            Owner::Lent | Owner::Aligned(_) => Vec::new(),
            Owner::One(bytes) => vec![bytes],
            Owner::Many(vectors) => vectors,
        }
    }

    pub(super) fn iovecs(&self) -> &[iovec] {
        match &self.pieces {
            Pieces::One(piece) => std::slice::from_ref(piece),
            Pieces::Many(pieces) => pieces,
        }
    }

    /// The pieces, for writing from them.
    pub(crate) fn slices(&self) -> &[IoSlice<'_>] {
        let pieces = self.iovecs();
        // SAFETY: IoSlice is ABI-compatible with iovec, and each piece is valid for reads while
        // `self` is borrowed.
        unsafe { std::slice::from_raw_parts(pieces.as_ptr().cast(), pieces.len()) }
    }

    /// The pieces, for reading into them. Their order and lengths must be left unchanged.
    pub(crate) fn slices_mut(&mut self) -> &mut [IoSliceMut<'_>] {
        let pieces = match &mut self.pieces {
            Pieces::One(piece) => std::slice::from_mut(piece),
            Pieces::Many(pieces) => pieces.as_mut_slice(),
        };
        // SAFETY: IoSliceMut is ABI-compatible with iovec, and each piece is valid for writes and
        // used by nothing else while `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(pieces.as_mut_ptr().cast(), pieces.len()) }
    }
}

/// In C an empty piece may have any pointer, but that of a slice must not be null.
fn valid(piece: iovec) -> iovec {
    if piece.iov_len == 0 {
        iovec {
            iov_base: NonNull::<u8>::dangling().as_ptr().cast(),
            iov_len: 0,
        }
    } else {
        piece
    }
}

fn piece_of(bytes: &mut Vec<u8>) -> iovec {
    iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(mut bytes: Vec<u8>) -> Self {
        Self {
            pieces: Pieces::One(piece_of(&mut bytes)),
            len: bytes.len() as u64,
            owner: Owner::One(bytes),
        }
    }
}

impl From<Vec<Vec<u8>>> for Buffer {
    fn from(mut vectors: Vec<Vec<u8>>) -> Self {
        Self {
            pieces: Pieces::Many(vectors.iter_mut().map(piece_of).collect()),
            len: vectors.iter().map(|bytes| bytes.len() as u64).sum(),
            owner: Owner::Many(vectors),
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("len", &self.len)
            .field("pieces", &self.iovecs().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_those_of_the_vectors_and_come_back() {
        let mut buffer = Buffer::from(vec![vec![1u8, 2], Vec::new(), vec![3]]);
        assert_eq!(buffer.len(), 3);
        buffer.slices_mut()[2][0] = 9;
        let seen: Vec<u8> = buffer.slices().iter().flat_map(|s| s.to_vec()).collect();
        assert_eq!(seen, [1, 2, 9]);
        assert_eq!(buffer.into_vectors(), [vec![1, 2], vec![], vec![9]]);
        let mut one = Buffer::from(vec![7u8; 4]);
        one.slices_mut()[0].fill(8);
        assert_eq!(one.into_bytes(), Some(vec![8; 4]));
    }

    #[test]
    fn an_empty_piece_of_c_may_be_null() {
        let null = iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        // SAFETY: an empty piece is never accessed.
        let mut buffer = unsafe { Buffer::of_caller(&[null]) };
        assert!(buffer.is_empty() && buffer.slices_mut()[0].is_empty());
    }
}
