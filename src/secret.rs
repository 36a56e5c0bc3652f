//! Secrets: passphrases and keys, wiped when dropped and never shown.

use std::fmt;
use std::hint::black_box;
use std::sync::Arc;

use zeroize::{Zeroize, Zeroizing};

/// Bytes of a secret. Wiped when the last clone is dropped.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    /// Takes ownership of the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes.into())))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The stack depth of work on secrets, which puts nothing large on the stack.
const STACK: usize = 16 << 10;

/// Runs work on secrets, and then overwrites what it has left on the stack: libraries clear their values when they are
/// dropped, but not the copies made along the way.
pub(crate) fn scrubbing_stack<T>(work: impl FnOnce() -> T) -> T {
    let done = below(work);
    overwrite();
    done
}

/// Makes `work` use the part of the stack that [`overwrite`] clears.
#[inline(never)]
fn below<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn overwrite() {
    let mut room = [0_u8; STACK];
    room.zeroize();
    black_box(&mut room);
}

impl From<Zeroizing<Vec<u8>>> for Secret {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(Arc::new(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
