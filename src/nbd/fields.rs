//! Encoding and decoding of consecutive fields, in network byte order.

use bstr::BStr;

use crate::bytes;
use crate::error::Result;

use super::checked_string;

/// Encodes the fields of a structure of `N` bytes. Fields that are not written are zero.
pub(super) struct Fields<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Fields<N> {
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; N],
            at: 0,
        }
    }

    fn put(mut self, value: &[u8]) -> Self {
        let fits = bytes::put(&mut self.bytes, self.at, value);
        debug_assert!(fits, "a structure of {N} bytes has no room at {}", self.at);
        self.at += value.len();
        self
    }

    pub(super) fn u16(self, value: u16) -> Self {
        self.put(&value.to_be_bytes())
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.put(&value.to_be_bytes())
    }

    pub(super) fn u64(self, value: u64) -> Self {
        self.put(&value.to_be_bytes())
    }

    pub(super) fn end(self) -> [u8; N] {
        self.bytes
    }
}

/// Decodes the fields of a structure in order; None, or an error, if the bytes end before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taker<'a>(pub(super) &'a [u8]);

impl<'a> Taker<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N).and_then(|bytes| bytes.try_into().ok())
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string preceded by its length in 32 bits; None if it passes the end.
    ///
    /// # Errors
    /// As [`checked_string`].
    pub(super) fn string(&mut self, what: &str) -> Result<Option<&'a BStr>> {
        let taken = self
            .u32()
            .and_then(|len| self.take(usize::try_from(len).ok()?));
        taken.map(|bytes| checked_string(bytes, what)).transpose()
    }
}

/// Appends a string preceded by its length in 32 bits.
pub(super) fn push_string(to: &mut Vec<u8>, text: &[u8]) {
    // No string of the protocol is longer than 4096 bytes.
    to.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    to.extend_from_slice(text);
}
