//! Reading a compressed file at any offset.

use crate::error::Result;

/// Reads bytes of the file; past its end they are zeroes.
pub type ReadAt<'a> = dyn Fn(&mut [u8], u64) -> Result<()> + 'a;
