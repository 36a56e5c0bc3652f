//! Requests to a server, and the heads of its responses (RFC 9110, RFC 9112).

use std::time::Duration;

use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::memory;
use crate::printable::printable;
use crate::storage::remote::violation;

/// Maximum length of the head of a response.
pub(super) const MAX_HEAD: usize = 64 << 10;
/// Maximum number of lines in a head.
const MAX_LINES: usize = 128;
/// Maximum length of the Location header.
const MAX_LOCATION: usize = 16 << 10;

/// Whether a status means that the same request may succeed later.
pub(super) fn is_busy(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502..=504)
}

/// A request without a body. It may contain secrets, so it is wiped.
#[derive(Debug)]
pub(super) struct Request(Zeroizing<Vec<u8>>);

/// Capacity for a request with its headers: what a growing vector leaves behind is not wiped.
const REQUEST: usize = 64 << 10;

impl Request {
    /// Starts a request with its first line.
    pub(super) fn new(method: &str, target: &str) -> Result<Self> {
        let mut bytes = Zeroizing::new(Vec::new());
        memory::reserve(&mut *bytes, REQUEST)?;
        let mut request = Self(bytes);
        request.line(&[method.as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1"])?;
        Ok(request)
    }

    /// Adds a header. A value that would end its line is refused.
    pub(super) fn header(&mut self, name: &str, value: &[u8]) -> Result<()> {
        if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err(Error::invalid(format!(
                "The header '{name}' has more than one line"
            )));
        }
        self.line(&[name.as_bytes(), b": ", value])
    }

    fn line(&mut self, parts: &[&[u8]]) -> Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len + 4 > self.0.capacity() - self.0.len() {
            return Err(Error::new(ErrorKind::Limit, "The request is too long"));
        }
        for part in parts.iter().chain(&[&b"\r\n"[..]]) {
            self.0.extend_from_slice(part);
        }
        Ok(())
    }

    /// The bytes to send.
    pub(super) fn finish(mut self) -> Zeroizing<Vec<u8>> {
        self.0.extend_from_slice(b"\r\n");
        self.0
    }
}

/// Which part of the whole a response contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContentRange {
    /// The first byte and the one past the last; None if the requested range does not exist.
    pub(super) part: Option<(u64, u64)>,
    /// The length of the whole, if it is known.
    pub(super) whole: Option<u64>,
}

/// What marks the end of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// The given number of bytes.
    Length(u64),
    /// The last chunk.
    Chunked,
    /// The end of the connection.
    Close,
}

/// The head of a response.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) framing: Framing,
    /// The connection can be reused once the body has been read.
    pub(super) keep: bool,
    pub(super) range: Option<ContentRange>,
    /// The body is not the plain bytes, but compressed or in several parts.
    pub(super) coded: bool,
    pub(super) etag: Option<Vec<u8>>,
    pub(super) modified: Option<Vec<u8>>,
    pub(super) location: Option<Vec<u8>>,
    pub(super) retry_after: Option<Duration>,
}

impl Head {
    /// Parses a head, and returns how many bytes it occupies; None if more bytes are required.
    ///
    /// # Errors
    /// [`violation`].
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>> {
        let mut lines = [httparse::EMPTY_HEADER; MAX_LINES];
        let mut answer = httparse::Response::new(&mut lines);
        let len = match answer.parse(bytes) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
            Ok(httparse::Status::Partial) => {
                return Err(violation("The server's answer has a head without end"));
            }
            Err(error) => {
                return Err(violation(format!(
                    "The server does not speak HTTP: {error}"
                )));
            }
        };
        let status = answer.code.unwrap_or(0);
        // HTTP/1.0 closes the connection, unless it says otherwise.
        let mut keep = answer.version == Some(1);
        let mut length = None;
        let mut chunked = false;
        let mut head = Self {
            status,
            framing: Framing::Close,
            keep,
            range: None,
            coded: false,
            etag: None,
            modified: None,
            location: None,
            retry_after: None,
        };
        for line in answer.headers.iter() {
            let name = line.name.to_ascii_lowercase();
            let value = line.value.trim_ascii();
            match name.as_str() {
                "content-length" => {
                    let given = number(value).ok_or_else(|| bad(line))?;
                    if length.replace(given).is_some_and(|before| before != given) {
                        return Err(violation("The server tells two lengths of one answer"));
                    }
                }
                "transfer-encoding" => match value.eq_ignore_ascii_case(b"chunked") && !chunked {
                    true => chunked = true,
                    false => return Err(bad(line)),
                },
                "connection" => {
                    for word in value.split(|byte| *byte == b',') {
                        let word = word.trim_ascii();
                        if word.eq_ignore_ascii_case(b"close") {
                            keep = false;
                        } else if word.eq_ignore_ascii_case(b"keep-alive") {
                            keep = true;
                        }
                    }
                }
                "content-range" => {
                    head.range = Some(content_range(value).ok_or_else(|| bad(line))?);
                }
                "content-encoding" => head.coded |= !value.eq_ignore_ascii_case(b"identity"),
                "content-type" => {
                    let kind = value.get(..20).unwrap_or_default();
                    head.coded |=
                        status == 206 && kind.eq_ignore_ascii_case(b"multipart/byteranges");
                }
                "etag" => head.etag = Some(value.to_vec()),
                "last-modified" => head.modified = Some(value.to_vec()),
                "location" if value.len() <= MAX_LOCATION => head.location = Some(value.to_vec()),
                "retry-after" => head.retry_after = number(value).map(Duration::from_secs),
                _ => {}
            }
        }
        head.framing = match (status, chunked, length) {
            (100..=199 | 204 | 304, ..) => Framing::Length(0),
            // If the two disagree, an intermediary may believe the other one.
            (_, true, Some(_)) => {
                return Err(violation(
                    "The server tells the end of its answer in two ways",
                ));
            }
            (_, true, None) => Framing::Chunked,
            (_, false, Some(length)) => Framing::Length(length),
            (_, false, None) => Framing::Close,
        };
        head.keep = keep && head.framing != Framing::Close;
        Ok(Some((head, len)))
    }
}

fn bad(line: &httparse::Header<'_>) -> Error {
    let value = String::from_utf8_lossy(line.value.get(..100).unwrap_or(line.value));
    violation(format!(
        "The server sent the header '{}: {}'",
        line.name,
        printable(&value)
    ))
}

fn number(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    plain
        .then(|| std::str::from_utf8(digits).ok()?.parse().ok())
        .flatten()
}

/// RFC 9110, 14.4.
fn content_range(value: &[u8]) -> Option<ContentRange> {
    let text = std::str::from_utf8(value).ok()?;
    let (unit, rest) = text.split_once(' ')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (part, whole) = rest.trim().split_once('/')?;
    let whole = match whole {
        "*" => None,
        whole => Some(number(whole.as_bytes())?),
    };
    let part = match part {
        "*" => None,
        part => {
            let (first, last) = part.split_once('-')?;
            let (first, last) = (number(first.as_bytes())?, number(last.as_bytes())?);
            let end = last.checked_add(1)?;
            if first >= end || whole.is_some_and(|whole| end > whole) {
                return None;
            }
            Some((first, end))
        }
    };
    Some(ContentRange { part, whole })
}
