//! Writing a new image from its first byte to its last, for targets that can only be written sequentially.

use std::fmt::Debug;

use crate::codec::Encoder;
use crate::error::Result;
use crate::memory::IoBuf;

/// Receives the bytes of the image, piece by piece.
pub type TakeBytes<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;

/// A new image that is written sequentially: its beginning, those of its units that contain anything, in guest order,
/// and its end.
pub trait InOrder: Send + Sync + Debug {
    /// Guest bytes per unit.
    fn unit(&self) -> u32;

    /// How often everything has to be passed, from [`InOrder::begin`] to [`InOrder::end`]: more than once if the
    /// beginning depends on what follows. Bytes are only output in the last pass, and the units must be the same in
    /// every pass.
    fn passes(&self) -> u32 {
        1
    }

    /// Encodes the unit at `guest_offset`, or the shorter end of the image, on the calling thread, into at most
    /// [`most_encoded`](crate::format::bulk::most_encoded) bytes. May be called by any thread, in any order.
    ///
    /// # Errors
    /// If memory is exhausted.
    fn encode(
        &self,
        scratch: &mut Encoder,
        guest_offset: u64,
        unit: &[u8],
        out: &mut IoBuf,
    ) -> Result<()>;

    /// Outputs what precedes the first unit, and starts over if units have been passed already.
    ///
    /// # Errors
    /// The errors of `take`.
    fn begin(&self, take: &mut TakeBytes<'_>) -> Result<()>;

    /// Outputs an encoded unit; units must be passed in ascending order.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Limit`] if the image would become too large, and the errors of `take`.
    fn push(&self, guest_offset: u64, encoded: &[u8], take: &mut TakeBytes<'_>) -> Result<()>;

    /// Outputs what follows the last unit.
    ///
    /// # Errors
    /// The errors of `take`.
    fn end(&self, take: &mut TakeBytes<'_>) -> Result<()>;
}
