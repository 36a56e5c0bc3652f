//! Numbers in messages that QEMU's tools print too.

use std::fmt;

/// A number in the hexadecimal form of C: 0 has no prefix.
pub(super) struct Hex(pub(super) u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            value => write!(f, "{value:#x}"),
        }
    }
}
