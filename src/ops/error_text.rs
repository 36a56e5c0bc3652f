//! Errors in the wording that users of the command line know; the details follow as a hint.

use crate::error::Error;

/// The error `line: reason`, with the operating system's wording for the reason.
pub(crate) fn with_reason(line: String, error: Error) -> Error {
    let reason = Error::os(error.errno());
    let line = format!("{line}: {reason}");
    if error.to_string() == reason.to_string() {
        Error::new(error.kind(), line).with_errno(error.errno())
    } else {
        explain(line, error)
    }
}

/// The error `line`, with the original message as a hint.
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
