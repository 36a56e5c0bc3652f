//! Writing of a new image from its first byte to its last: for targets that take bytes in no other way.

use std::fmt::Debug;

use crate::codec::Encoder;
use crate::error::Result;
use crate::memory::IoBuf;

/// Takes the bytes of the image, one piece after the other.
pub type TakeBytes<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;

/// A new image that is written in order: its beginning, its units in guest order as far as they hold
/// anything, its end.
pub trait InOrder: Send + Sync + Debug {
    /// Guest bytes of a unit.
    fn unit(&self) -> u32;

    /// How often all of it is to be given, from [`InOrder::begin`] to [`InOrder::end`]: more than once where
    /// what comes first depends on what follows. Bytes leave the last time alone, and each time the units
    /// have to be the same.
    fn passes(&self) -> u32 {
        1
    }

    /// Encodes the unit at `guest_offset`, or the shorter end of the image, on the caller's thread, into
    /// [`most_encoded`](crate::format::bulk::most_encoded) bytes at most. Any thread, any order.
    ///
    /// # Errors
    /// Where there is no memory.
    fn encode(
        &self,
        scratch: &mut Encoder,
        guest_offset: u64,
        unit: &[u8],
        out: &mut IoBuf,
    ) -> Result<()>;

    /// Gives what stands before the first unit, and starts over where units were given already.
    ///
    /// # Errors
    /// Of `take`.
    fn begin(&self, take: &mut TakeBytes<'_>) -> Result<()>;

    /// Gives a unit that was encoded; none comes before those that were given already.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Limit`] where the image would grow too large; of `take`.
    fn push(&self, guest_offset: u64, encoded: &[u8], take: &mut TakeBytes<'_>) -> Result<()>;

    /// Gives what stands behind the last unit.
    ///
    /// # Errors
    /// Of `take`.
    fn end(&self, take: &mut TakeBytes<'_>) -> Result<()>;
}
