//! The digest of bytes, computed while they are copied.

use std::fmt;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha256Sum(pub [u8; 32]);

impl fmt::Display for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A digest in progress; bytes arrive in order.
#[derive(Debug, Default)]
pub(super) struct Checksum(Mutex<Sha256>);

impl Checksum {
    /// Adds further bytes.
    pub fn update(&self, bytes: &[u8]) {
        self.0.lock().update(bytes);
    }

    /// The digest of the bytes so far.
    pub fn sum(&self) -> Sha256Sum {
        Sha256Sum(self.0.lock().clone().finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_printed_as_by_the_tools() {
        let sum = Checksum::default();
        sum.update(b"abc");
        assert_eq!(
            sum.sum().to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
