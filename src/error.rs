//! The one error type: a small kind to branch on, a one-line message, and its causes.

use std::borrow::Cow;
use std::fmt;

use bstr::{BStr, BString, ByteSlice};

use crate::printable::printable;

// An explicit path, for the thread models in `tests/loom`, which include this file from where it is.
#[path = "error/repeated.rs"]
mod repeated;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an error, for programs to branch on. Each kind is one `PLATTER_STATUS_*` of the C ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument, option or combination of options is wrong.
    Invalid,
    /// The operating system refused; see [`Error::errno`].
    Os,
    /// The format, protocol or kernel cannot do this.
    Unsupported,
    /// The file is not an image of the requested format.
    NotAnImage,
    /// The image's metadata is damaged; see [`Error::offset`].
    Corrupt,
    /// Another process holds a conflicting lock.
    Locked,
    /// A write to an image or storage that is open read-only.
    ReadOnly,
    /// The object to create exists already.
    Exists,
    /// A file, snapshot or bitmap that was named does not exist.
    NotFound,
    /// The host file system or device is full.
    NoSpace,
    /// The image is encrypted and no secret was given.
    NeedsSecret,
    /// The secret opens no key slot.
    WrongSecret,
    /// The open policy does not allow it.
    Denied,
    /// A limit of the open policy or of the format was exceeded.
    Limit,
    /// The object is in use by another operation of this process.
    Busy,
    /// The job was cancelled.
    Cancelled,
    /// A defect of this library.
    Internal,
}

impl ErrorKind {
    /// The errno that fits the kind best.
    pub fn errno(self) -> i32 {
        match self {
            Self::Invalid | Self::NotAnImage => libc::EINVAL,
            Self::Os | Self::Corrupt | Self::Internal => libc::EIO,
            Self::Unsupported => libc::ENOTSUP,
            Self::Locked => libc::EAGAIN,
            Self::ReadOnly => libc::EROFS,
            Self::Exists => libc::EEXIST,
            Self::NotFound => libc::ENOENT,
            Self::NoSpace => libc::ENOSPC,
            Self::NeedsSecret => libc::ENOKEY,
            Self::WrongSecret => libc::EKEYREJECTED,
            Self::Denied => libc::EACCES,
            Self::Limit => libc::EFBIG,
            Self::Busy => libc::EBUSY,
            Self::Cancelled => libc::ECANCELED,
        }
    }
}

/// What an operation was doing to an image when it failed, for the cases that programs need to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// It looked up where the guest bytes live.
    BlockStatus,
    /// It read guest bytes.
    Read,
    /// It compared what the children of a filter read as: it must be the same, but is not.
    Verify,
    /// It opened a file on this machine, by name or by descriptor.
    Open,
}

/// An error: kind, one-line message, errno, corrupt byte offset, causes and remedies.
///
/// [`fmt::Display`] prints the message and its causes joined by `": "` on one line.
#[derive(thiserror::Error)]
#[error("{}", self.full_message())]
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    errno: Option<i32>,
    offset: Option<u64>,
    stage: Option<Stage>,
    file: Option<BString>,
    hints: Vec<String>,
    cause: Option<Error>,
}

impl Error {
    /// A new error of `kind`; `message` is one line that names the file and the reason.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            errno: None,
            offset: None,
            stage: None,
            file: None,
            hints: Vec::new(),
            cause: None,
        }))
    }

    /// Shorthand for [`ErrorKind::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Shorthand for [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// Shorthand for [`ErrorKind::Corrupt`].
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// Shorthand for [`ErrorKind::Cancelled`].
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "Operation cancelled")
    }

    /// The error of a failed system call: the kind follows from `errno`, the message is `strerror`'s.
    pub fn os(errno: i32) -> Self {
        let kind = match errno {
            libc::ENOENT => ErrorKind::NotFound,
            libc::EEXIST => ErrorKind::Exists,
            libc::ENOSPC | libc::EDQUOT => ErrorKind::NoSpace,
            libc::EROFS => ErrorKind::ReadOnly,
            libc::EOPNOTSUPP => ErrorKind::Unsupported,
            _ => ErrorKind::Os,
        };
        let text = std::io::Error::from_raw_os_error(errno).to_string();
        // std appends " (os error N)"; users expect strerror's own words.
        let text = text
            .split(" (os error")
            .next()
            .unwrap_or_default()
            .to_owned();
        Self::new(kind, text).with_errno(errno)
    }

    /// As [`Error::os`], from a `std::io::Error`.
    pub fn io(error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::os(errno),
            None => Self::new(ErrorKind::Os, error.to_string()).with_errno(libc::EIO),
        }
    }

    /// Prepends `message`: `"message: cause"`. Kind, errno, offset, stage, file and hints carry over.
    #[must_use]
    pub fn context(mut self, message: impl Into<String>) -> Self {
        let hints = std::mem::take(&mut self.0.hints);
        let file = self.0.file.take();
        Self(Box::new(Inner {
            kind: self.0.kind,
            message: message.into(),
            errno: self.0.errno,
            offset: self.0.offset,
            stage: self.0.stage,
            file,
            hints,
            cause: Some(self),
        }))
    }

    /// As [`Error::context`], but only if the message is just that of the operating system.
    #[must_use]
    pub(crate) fn context_if_bare(self, message: impl FnOnce() -> String) -> Self {
        let bare = self.0.cause.is_none() && self.0.message == Self::os(self.errno()).0.message;
        if bare { self.context(message()) } else { self }
    }

    /// Replaces the kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Replaces the message of this level; kind, errno and causes are kept.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.0.message = message.into();
        self
    }

    /// Sets the errno.
    #[must_use]
    pub fn with_errno(mut self, errno: i32) -> Self {
        self.0.errno = Some(errno);
        self
    }

    /// Sets the byte offset at which a file is damaged.
    #[must_use]
    pub fn with_offset(mut self, offset: u64) -> Self {
        self.0.offset = Some(offset);
        self
    }

    /// Sets what the operation was doing.
    #[must_use]
    pub fn with_stage(mut self, stage: Stage) -> Self {
        self.0.stage = Some(stage);
        self
    }

    /// Records whose I/O failed, if a system call failed and no file is recorded yet.
    #[must_use]
    pub(crate) fn of_file(mut self, name: &BStr) -> Self {
        if self.0.errno.is_some() && self.0.kind != ErrorKind::Cancelled {
            self.0.file.get_or_insert_with(|| name.to_owned());
        }
        self
    }

    /// Another copy of the error, for each caller that asks again.
    #[must_use]
    pub(crate) fn again(&self) -> Self {
        let inner = &self.0;
        Self(Box::new(Inner {
            kind: inner.kind,
            message: inner.message.clone(),
            errno: inner.errno,
            offset: inner.offset,
            stage: inner.stage,
            file: inner.file.clone(),
            hints: inner.hints.clone(),
            cause: inner.cause.as_ref().map(Self::again),
        }))
    }

    /// Appends a line for the user that follows the message: a remedy or a question.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The errno: the operating system's, otherwise the one that fits the kind best.
    pub fn errno(&self) -> i32 {
        self.0.errno.unwrap_or_else(|| self.0.kind.errno())
    }

    /// The errno of a system call, if one failed.
    pub fn os_errno(&self) -> Option<i32> {
        self.0.errno
    }

    /// Whether it concerns only one place, whose bytes are wrong or can no longer be read; false if the file is out of
    /// reach, memory is lacking or the work was cancelled.
    pub(crate) fn is_of_one_place(&self) -> bool {
        match self.0.kind {
            ErrorKind::Corrupt => true,
            ErrorKind::Os => matches!(
                self.errno(),
                libc::EIO
                    | libc::ENODATA
                    | libc::EREMOTEIO
                    | libc::EILSEQ
                    | libc::EBADMSG
                    | libc::EUCLEAN
            ),
            _ => false,
        }
    }

    /// The byte offset at which the file is damaged, if known.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// What the operation was doing, if that is one of the cases that programs need to tell apart.
    pub fn stage(&self) -> Option<Stage> {
        self.0.stage
    }

    /// The file whose I/O failed, by the name of its storage; None if no I/O failed.
    pub fn file(&self) -> Option<&BStr> {
        self.0.file.as_ref().map(|name| name.as_bstr())
    }

    /// Lines that follow the message, without newline.
    pub fn hints(&self) -> &[String] {
        &self.0.hints
    }

    /// The message of this level only.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The error that this one puts into context.
    pub fn cause(&self) -> Option<&Error> {
        self.0.cause.as_ref()
    }

    /// On one line: it may contain names from images, which must not control a terminal. If a caller repeats its
    /// callee's message about a named file, it appears once.
    fn full_message(&self) -> String {
        let mut text = self.0.message.clone();
        let mut last = self;
        while let Some(error) = &last.0.cause {
            // Messages that name nothing may be about a different file each time.
            if error.0.message != last.0.message || !error.0.message.contains('\'') {
                text.push_str(": ");
                text.push_str(&error.0.message);
            }
            last = error;
        }
        match printable(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(escaped) => escaped,
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.full_message())?;
        for hint in &self.0.hints {
            write!(f, "\n{hint}")?;
        }
        Ok(())
    }
}

/// Adds context to the error of a result.
pub trait ResultExt<T> {
    /// Prepends a message to the error, see [`Error::context`].
    fn context(self, message: impl FnOnce() -> String) -> Result<T>;

    /// Records whose I/O failed, if that is not recorded yet; see [`Error::file`].
    fn of_file(self, name: &BStr) -> Result<T>;
}

impl<T> ResultExt<T> for Result<T> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.context(message()))
    }

    fn of_file(self, name: &BStr) -> Result<T> {
        self.map_err(|error| error.of_file(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_joins_on_one_line_and_keeps_kind_errno_and_hints() {
        let error = Error::os(libc::ENOENT)
            .with_hint("Is it there?")
            .with_stage(Stage::Read)
            .of_file("c".into())
            .of_file("d".into())
            .context("Could not open 'b'")
            .context("Could not open 'a'");
        assert_eq!(
            error.to_string(),
            "Could not open 'a': Could not open 'b': No such file or directory"
        );
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.errno(), libc::ENOENT);
        assert_eq!(error.stage(), Some(Stage::Read));
        assert_eq!(error.file(), Some("c".into()));
        assert_eq!(error.hints(), ["Is it there?"]);
    }

    #[test]
    fn what_two_levels_say_in_the_same_words_is_said_once() {
        let error = Error::os(libc::ENOENT).context("Could not open 'a'");
        let error = error.context("Could not open 'a'");
        assert_eq!(
            error.to_string(),
            "Could not open 'a': No such file or directory"
        );
        // Each message belongs to a different layer.
        let below = "Could not open backing file";
        assert_eq!(
            Error::invalid("x")
                .context(below)
                .context(below)
                .to_string(),
            format!("{below}: {below}: x")
        );
        // Replacing the outermost message leaves the one below it visible.
        assert_eq!(
            error.with_message("Could not use 'b'").to_string(),
            "Could not use 'b': Could not open 'a': No such file or directory"
        );
    }

    #[test]
    fn kinds_without_a_system_call_still_have_an_errno() {
        assert_eq!(Error::corrupt("x").errno(), libc::EIO);
        assert_eq!(Error::corrupt("x").os_errno(), None);
    }
}
