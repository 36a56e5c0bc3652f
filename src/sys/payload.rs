//! The bytes of writes that may outlast the call that made them.
//!
//! Some libraries need the bytes of a write until its reply has come, even if the caller no longer waits for it. Bytes
//! in memory that the caller has lent to the call are kept alive by the write; any others are copied.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use super::{AlignedBuf, IoBuf};
use crate::error::Result;

thread_local! {
    /// The memory lent to the current call of this thread.
    static LENT: RefCell<Option<Arc<AlignedBuf>>> = const { RefCell::new(None) };
}

/// Lends memory to the writes that `call` makes on this thread. If the caller stops waiting for one of them,
/// [`Arc::get_mut`] fails until that one has come to an end.
pub(crate) fn lend<T>(memory: &Arc<AlignedBuf>, call: impl FnOnce() -> T) -> T {
    let _until_return = Restore(LENT.replace(Some(memory.clone())));
    call()
}

/// Restores what the surrounding call was lent.
struct Restore(Option<Arc<AlignedBuf>>);

impl Drop for Restore {
    fn drop(&mut self) {
        LENT.set(self.0.take());
    }
}

/// The bytes of a write, which stay in place and unchanged for as long as this lives.
pub(crate) struct Payload(Kind);

enum Kind {
    Shared(Arc<AlignedBuf>, Range<usize>),
    Own(IoBuf),
}

impl Payload {
    /// These bytes: shared if they are in memory that the caller has lent, and copied otherwise.
    ///
    /// # Errors
    /// If there is no memory for the copy.
    pub(crate) fn of(bytes: &[u8]) -> Result<Self> {
        let shared = LENT.with_borrow(|lent| {
            let memory = lent.as_ref()?;
            Some(Kind::Shared(memory.clone(), range_in(memory, bytes)?))
        });
        match shared {
            Some(shared) => Ok(Self(shared)),
            None => {
                let mut own = IoBuf::new();
                own.extend_from_slice(bytes)?;
                Ok(own.into())
            }
        }
    }
}

/// Where in `memory` the bytes are, if they are in it.
fn range_in(memory: &[u8], bytes: &[u8]) -> Option<Range<usize>> {
    let start = (bytes.as_ptr() as usize).checked_sub(memory.as_ptr() as usize)?;
    let end = start.checked_add(bytes.len())?;
    (end <= memory.len()).then_some(start..end)
}

impl Default for Payload {
    fn default() -> Self {
        IoBuf::new().into()
    }
}

impl From<IoBuf> for Payload {
    fn from(own: IoBuf) -> Self {
        Self(Kind::Own(own))
    }
}

impl Deref for Payload {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kind::Shared(memory, range) => memory.get(range.clone()).unwrap_or_default(),
            Kind::Own(own) => own,
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Arc<AlignedBuf> {
        let mut memory = AlignedBuf::zeroed(4096, 1).unwrap();
        for (byte, at) in memory.iter_mut().zip(0u32..) {
            *byte = (at % 251) as u8;
        }
        Arc::new(memory)
    }

    fn is_copy(payload: &Payload, of: &[u8]) -> bool {
        assert_eq!(**payload, *of);
        payload.as_ptr() != of.as_ptr()
    }

    #[test]
    fn what_is_lent_is_shared_until_the_write_has_ended() {
        let mut memory = memory();
        let payload = lend(&memory, || Payload::of(&memory[100..300]).unwrap());
        assert!(!is_copy(&payload, &memory[100..300]));
        assert!(Arc::get_mut(&mut memory).is_none());
        drop(payload);
        assert!(Arc::get_mut(&mut memory).is_some());
        let whole = lend(&memory, || Payload::of(&memory).unwrap());
        drop(memory);
        assert_eq!((whole[0], whole[4095]), (0, (4095 % 251) as u8));
    }

    #[test]
    fn what_is_not_lent_is_copied() {
        let (memory, other) = (memory(), memory());
        assert!(is_copy(&Payload::of(&memory[..9]).unwrap(), &memory[..9]));
        lend(&memory, || {
            assert!(is_copy(&Payload::of(&other[..9]).unwrap(), &other[..9]));
            // The loan is one to this thread.
            std::thread::scope(|scope| {
                scope.spawn(|| assert!(is_copy(&Payload::of(&memory).unwrap(), &memory)));
            });
            lend(&other, || {
                assert!(!is_copy(&Payload::of(&other).unwrap(), &other));
                assert!(is_copy(&Payload::of(&memory).unwrap(), &memory));
            });
            assert!(!is_copy(&Payload::of(&memory).unwrap(), &memory));
        });
        assert!(is_copy(&Payload::of(&memory).unwrap(), &memory));
    }

    #[test]
    fn only_what_is_inside_is_found() {
        let bytes = [7; 16];
        assert_eq!(range_in(&bytes, &bytes[3..5]), Some(3..5));
        assert_eq!(range_in(&bytes, &bytes[16..]), Some(16..16));
        assert_eq!(range_in(&bytes[4..12], &bytes[3..5]), None);
        assert_eq!(range_in(&bytes[4..12], &bytes[11..13]), None);
    }
}
