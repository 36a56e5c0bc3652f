//! Where prepared ranges go.

use crate::codec::Encoder;
use crate::error::Result;
use crate::memory::IoBuf;

use super::piece::Prepared;

/// A target.
pub(super) trait Sink: Sync {
    /// Compresses the unit at `offset`; false if it does not shrink.
    fn encode(
        &self,
        encoder: &mut Encoder,
        offset: u64,
        unit: &[u8],
        out: &mut IoBuf,
    ) -> Result<bool>;

    /// Reserves space. Called in guest order, one call at a time.
    fn place(&self, prepared: &mut Prepared) -> Result<()>;

    /// Writes what was placed. Called by many threads at once, in any order.
    fn write(&self, prepared: &Prepared) -> Result<()>;
}

pub(super) fn at_byte(offset: u64) -> impl FnOnce() -> String {
    move || format!("error while writing at byte {offset}")
}
