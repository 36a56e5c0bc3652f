//! Translates the errors of decoders for a reader of the file.

use std::io;

use liblzma::stream::Error as LzmaError;

use super::Container;
use crate::error::{Error, ErrorKind};

/// Converts the error of a decoder that had reached offset `at` of the file, with its memory limit.
pub(super) fn of_decoder(kind: Container, at: u64, max_memory: u64, error: &io::Error) -> Error {
    let lzma = error.get_ref().and_then(|e| e.downcast_ref::<LzmaError>());
    match (error.kind(), lzma) {
        (_, Some(LzmaError::MemLimit)) => too_much_memory(kind, at, max_memory),
        (_, Some(LzmaError::Mem)) | (io::ErrorKind::OutOfMemory, _) => crate::memory::lack(),
        (io::ErrorKind::UnexpectedEof, _) => ends_early(kind, at),
        _ if error.to_string().contains("requires too much memory") => {
            too_much_memory(kind, at, max_memory)
        }
        _ => damaged(kind, at, &error.to_string()),
    }
}

/// It needs more memory than the policy allows.
fn too_much_memory(kind: Container, at: u64, max_memory: u64) -> Error {
    let text = format!(
        "The {} data takes more memory to decompress than the open policy allows ({max_memory} bytes)",
        kind.name(),
    );
    Error::new(ErrorKind::Limit, text)
        .with_offset(at)
        .with_hint("Decompress it first, or raise the limit on the memory of decoders")
}

/// It decompresses to more than the policy allows.
pub(super) fn too_long(kind: Container, at: u64, max_expansion: u64) -> Error {
    let text = format!(
        "The {} data becomes more than {max_expansion} times as long, which the open policy does not allow",
        kind.name(),
    );
    Error::new(ErrorKind::Limit, text).with_offset(at)
}

/// It is truncated.
pub(super) fn ends_early(kind: Container, at: u64) -> Error {
    damaged(kind, at, "it ends too early")
}

/// It is invalid.
pub(super) fn damaged(kind: Container, at: u64, why: &str) -> Error {
    let text = format!(
        "The {} data is damaged near offset {at}: {why}",
        kind.name()
    );
    Error::corrupt(text).with_offset(at)
}
