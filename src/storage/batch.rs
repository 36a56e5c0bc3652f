//! Requests that one thread hands to the thread of a connection, and waits for together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;

/// The longest time that a waiting thread goes without a look at the control.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// Why a connection ended.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    kind: ErrorKind,
    errno: i32,
    text: String,
    hints: Vec<String>,
}

impl Broken {
    pub(super) fn of(error: &Error) -> Self {
        Self {
            kind: error.kind(),
            errno: error.errno(),
            text: error.to_string(),
            hints: error.hints().to_vec(),
        }
    }

    pub(super) fn error(&self) -> Error {
        let error = Error::new(self.kind, self.text.clone()).with_errno(self.errno);
        self.hints.iter().cloned().fold(error, Error::with_hint)
    }

    /// Whether the peer broke the rules of its protocol.
    pub(super) fn is_violation(&self) -> bool {
        self.errno == libc::EPROTO
    }
}

/// Requests of one thread, which waits for all of their replies.
#[derive(Debug)]
pub(super) struct Batch<T> {
    replies: Mutex<Replies<T>>,
    done: Condvar,
    /// No thread is waiting any longer.
    abandoned: AtomicBool,
}

#[derive(Debug)]
struct Replies<T> {
    replies: Vec<Option<T>>,
    missing: usize,
    broken: Option<Broken>,
}

impl<T> Batch<T> {
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            replies: Mutex::new(Replies {
                replies: std::iter::repeat_with(|| None).take(count).collect(),
                missing: count,
                broken: None,
            }),
            done: Condvar::new(),
            abandoned: AtomicBool::new(false),
        })
    }

    pub(super) fn put(&self, index: usize, reply: T) {
        let mut replies = self.replies.lock();
        if let Some(place) = replies.replies.get_mut(index) {
            *place = Some(reply);
            replies.missing = replies.missing.saturating_sub(1);
        }
        if replies.missing == 0 {
            self.done.notify_one();
        }
    }

    pub(super) fn fail(&self, broken: &Broken) {
        self.replies.lock().broken.get_or_insert(broken.clone());
        self.done.notify_one();
    }

    pub(super) fn wait(&self, control: &JobControl) -> Result<Vec<T>> {
        let mut replies = self.replies.lock();
        loop {
            if replies.missing == 0 {
                let all = std::mem::take(&mut replies.replies);
                return Ok(all.into_iter().flatten().collect());
            }
            if let Some(broken) = &replies.broken {
                return Err(broken.error());
            }
            self.done.wait_for(&mut replies, LOOK);
            if let Err(error) = control.check() {
                self.abandoned.store(true, Ordering::Release);
                return Err(error);
            }
        }
    }

    /// Whether a wait would end at once.
    pub(super) fn is_done(&self) -> bool {
        let replies = self.replies.lock();
        replies.missing == 0 || replies.broken.is_some()
    }

    /// Whether no thread is waiting any longer.
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }
}
