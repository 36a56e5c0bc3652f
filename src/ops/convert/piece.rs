//! A range that was read and tested, ready to be given its place in the target.

use std::sync::Arc;

use crate::extent::StorageSlot;
use crate::storage::Storage;

use super::buffer::Buffer;

/// How a run of guest bytes is handled.
pub(super) enum PieceKind {
    /// Must read as zeroes.
    Zero,
    /// Takes space in the target; [`Prepared::spans`] says which of its bytes are written.
    Data,
    /// A unit to be stored compressed: `len` bytes at `at` in the buffer.
    Encoded { at: usize, len: usize },
    /// Takes space in the target and is copied from `host_offset` of `storage` without being read.
    Offload {
        storage: Arc<dyn Storage>,
        host_offset: u64,
    },
}

/// A run of guest bytes that is handled uniformly. What the target's backing file holds is not a piece.
pub(super) struct Piece {
    pub offset: u64,
    pub len: u64,
    pub kind: PieceKind,
}

impl Piece {
    /// Zeroes.
    pub fn zero(offset: u64, len: u64) -> Self {
        Self {
            offset,
            len,
            kind: PieceKind::Zero,
        }
    }

    /// Cuts the piece off after its first `len` bytes, unless it ends there; returns the rest. Not for encoded units.
    pub fn split_off(&mut self, len: u64) -> Option<Self> {
        let left = self.len.checked_sub(len).filter(|left| *left > 0)?;
        let kind = match &self.kind {
            PieceKind::Offload {
                storage,
                host_offset,
            } => PieceKind::Offload {
                storage: storage.clone(),
                host_offset: host_offset + len,
            },
            PieceKind::Zero => PieceKind::Zero,
            PieceKind::Data => PieceKind::Data,
            PieceKind::Encoded { .. } => return None,
        };
        self.len = len;
        Some(Self {
            offset: self.offset + len,
            len: left,
            kind,
        })
    }
}

/// Where a piece that takes space begins in the target.
#[derive(Clone, Copy, Debug)]
pub(super) struct TargetPlace {
    pub slot: StorageSlot,
    pub host: u64,
}

/// Guest bytes to be written: `len` bytes at `at` in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub offset: u64,
    pub len: usize,
    pub at: usize,
}

impl Span {
    /// What remains of the span after its first `len` bytes.
    pub fn after(self, len: usize) -> Self {
        Self {
            offset: self.offset + len as u64,
            len: self.len - len,
            at: self.at + len,
        }
    }
}

/// Guest bytes as they were read, all of them: `len` bytes at `at` in a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain {
    pub offset: u64,
    pub len: usize,
    pub at: usize,
}

/// A task that is ready to be placed and written.
pub(super) struct Prepared {
    pub turn: u64,
    pub start: u64,
    pub len: u64,
    /// How many of its bytes had to be moved.
    pub moved: u64,
    pub buf: Buffer,
    /// How much of the buffer holds bytes of this task.
    pub used: usize,
    /// If a checksum is computed: what was read, in guest order, whether zeroes or not.
    pub plain: Vec<Plain>,
    /// The buffer of these bytes, if it is not that of the task.
    pub kept: Option<Buffer>,
    /// In guest order.
    pub pieces: Vec<Piece>,
    /// In guest order; each lies within data.
    pub spans: Vec<Span>,
    /// The pieces that take space, and where each begins in the target; they are moved here when their turn comes.
    pub placed: Vec<(Piece, TargetPlace)>,
}

impl Prepared {
    /// Guest bytes that belong to no piece: the target's backing file holds them.
    pub fn left_out(&self) -> u64 {
        let pieces: u64 = self.pieces.iter().map(|piece| piece.len).sum();
        self.len.saturating_sub(pieces)
    }
}
