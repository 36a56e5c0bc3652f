//! How old what a server said of holes may be: a client that asks about an image is told what is there now, as far as
//! it can be known, and not what was there a while ago.

use std::cell::Cell;
use std::marker::PhantomData;
use std::time::Instant;

thread_local! {
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Until this is dropped, its thread believes only those answers about holes that were asked for after it was made.
#[derive(Debug)]
#[must_use = "what was said before counts again when this is dropped"]
pub(crate) struct AskedAnew {
    before: Option<Instant>,
    /// Of this thread alone.
    here: PhantomData<*const ()>,
}

impl AskedAnew {
    /// From this moment on.
    pub(crate) fn from_now() -> Self {
        Self {
            before: SINCE.replace(Some(Instant::now())),
            here: PhantomData,
        }
    }
}

impl Drop for AskedAnew {
    fn drop(&mut self) {
        SINCE.set(self.before);
    }
}

/// Whether what was asked for at that time counts on this thread.
pub(super) fn counts(asked: Instant) -> bool {
    SINCE.get().is_none_or(|since| since <= asked)
}

/// How much a server is asked about: `len` bytes are wanted, and as an answer is kept for others, up to `most` are
/// asked for. One that is asked anew each time is asked for no more than is wanted.
pub(super) fn stride(len: u64, most: u64) -> u64 {
    match SINCE.get() {
        None => most,
        Some(_) => len.min(most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_before_does_not_count_meanwhile() {
        let before = Instant::now();
        assert!(counts(before));
        assert_eq!(stride(5, 100), 100);
        std::thread::sleep(std::time::Duration::from_millis(1));
        let anew = AskedAnew::from_now();
        assert!(!counts(before) && counts(Instant::now()));
        assert_eq!((stride(5, 100), stride(500, 100)), (5, 100));
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(counts(before)));
        });
        let inner = AskedAnew::from_now();
        drop(inner);
        assert!(!counts(before));
        drop(anew);
        assert!(counts(before));
    }
}
