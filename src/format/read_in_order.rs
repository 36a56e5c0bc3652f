//! Reading of an image from the first byte of its file to the last: for images that come through a pipe.

use std::fmt::Debug;

use crate::error::Result;
use crate::policy::OpenPolicy;

/// Fills a buffer with the next bytes of the file; fewer come only at its end.
pub type NextBytes<'a> = dyn FnMut(&mut [u8]) -> Result<usize> + 'a;

/// Reads the beginning of a file, up to the first bytes of the guest.
pub type ReadInOrderFn =
    fn(policy: &OpenPolicy, next: &mut NextBytes<'_>) -> Result<Box<dyn ReadInOrder>>;

/// An image whose file goes by. The guest's bytes are given in their order, each of them once.
pub trait ReadInOrder: Send + Debug {
    /// Bytes of the guest.
    fn virtual_size(&self) -> u64;

    /// How many zeroes come next, up to what the file holds; reads on to there.
    ///
    /// # Errors
    /// Of `next`; [`crate::ErrorKind::Corrupt`]; [`crate::ErrorKind::Unsupported`] where the file is not in order.
    fn zeroes(&mut self, next: &mut NextBytes<'_>) -> Result<u64>;

    /// Leaves out so many of the zeroes that [`ReadInOrder::zeroes`] has reported.
    fn pass(&mut self, len: u64);

    /// Fills `buf`, which ends with the guest at the latest.
    ///
    /// # Errors
    /// As [`ReadInOrder::zeroes`].
    fn read(&mut self, buf: &mut [u8], next: &mut NextBytes<'_>) -> Result<()>;

    /// Reads on to the end of the file, once all bytes of the guest were given: only there it shows whether
    /// the file is whole.
    ///
    /// # Errors
    /// As [`ReadInOrder::zeroes`].
    fn end(&mut self, next: &mut NextBytes<'_>) -> Result<()>;
}
