//! Reading an image from the first byte of its file to the last, for images that come through a pipe.

use std::fmt::Debug;

use crate::error::Result;
use crate::policy::OpenPolicy;

/// Fills a buffer with the next bytes of the file; fewer only at its end.
pub type NextBytes<'a> = dyn FnMut(&mut [u8]) -> Result<usize> + 'a;

/// Reads the beginning of a file, up to the first bytes of the guest.
pub type ReadInOrderFn =
    fn(policy: &OpenPolicy, next: &mut NextBytes<'_>) -> Result<Box<dyn ReadInOrder>>;

/// An image whose file is read sequentially. Guest bytes are returned in order, each of them once.
pub trait ReadInOrder: Send + Debug {
    /// The virtual size in bytes.
    fn virtual_size(&self) -> u64;

    /// How many zeroes come next, up to the next data in the file; reads the file up to there.
    ///
    /// # Errors
    /// The errors of `next`; [`crate::ErrorKind::Corrupt`]; [`crate::ErrorKind::Unsupported`] if the file is not in
    /// order.
    fn zeroes(&mut self, next: &mut NextBytes<'_>) -> Result<u64>;

    /// Skips this many of the zeroes reported by [`ReadInOrder::zeroes`].
    fn pass(&mut self, len: u64);

    /// Fills `buf`, which must not extend past the end of the guest.
    ///
    /// # Errors
    /// As [`ReadInOrder::zeroes`].
    fn read(&mut self, buf: &mut [u8], next: &mut NextBytes<'_>) -> Result<()>;

    /// Reads to the end of the file after all guest bytes have been read: only then is it known whether the file is
    /// complete.
    ///
    /// # Errors
    /// As [`ReadInOrder::zeroes`].
    fn end(&mut self, next: &mut NextBytes<'_>) -> Result<()>;
}
