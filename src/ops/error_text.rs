//! Errors in the words that users of the command line know; what exactly is wrong follows as a hint.

use crate::error::Error;

/// The error `line: reason`, with the operating system's words for the reason.
pub(crate) fn with_reason(line: String, error: Error) -> Error {
    let reason = Error::os(error.errno());
    let line = format!("{line}: {reason}");
    if error.to_string() == reason.to_string() {
        Error::new(error.kind(), line).with_errno(error.errno())
    } else {
        explain(line, error)
    }
}

/// The error `line`.
pub(crate) fn explain(line: String, error: Error) -> Error {
    let mut explained = Error::new(error.kind(), line)
        .with_errno(error.errno())
        .with_hint(error.to_string());
    if let Some(offset) = error.offset() {
        explained = explained.with_offset(offset);
    }
    for remedy in error.hints() {
        explained = explained.with_hint(remedy.clone());
    }
    explained
}
