//! Reading a compressed file at any place.

use crate::error::Result;

/// Reads bytes of the file; past its end there are zeroes.
pub type ReadAt<'a> = dyn Fn(&mut [u8], u64) -> Result<()> + 'a;
