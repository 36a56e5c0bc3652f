//! The replies of a server to commands (RFC 959, 4.2).

use bstr::ByteSlice;

use crate::error::{Error, ErrorKind, Result};
use crate::printable::printable;
use crate::storage::remote::{Failure, Next, violation};

/// Maximum length of a line.
pub(super) const MAX_LINE: usize = 4096;
/// Maximum number of lines in one reply.
const MAX_LINES: usize = 128;
/// Maximum number of characters of a reply to show.
const MAX_SHOWN: usize = 200;

/// A complete reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    /// The text of its last line.
    pub(super) text: String,
}

/// Assembles a reply from its lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The code of a multi-line reply.
    code: Option<u16>,
    count: usize,
}

fn code_of(line: &[u8]) -> Option<u16> {
    let digits = line.get(..3)?;
    let plain =
        matches!(digits.first(), Some(b'1'..=b'6')) && digits.iter().all(u8::is_ascii_digit);
    plain.then(|| digits.to_str().ok()?.parse().ok()).flatten()
}

impl Lines {
    /// Adds a line without its line ending; returns the reply if this line is its last.
    ///
    /// # Errors
    /// [`violation`].
    pub(super) fn take(&mut self, line: &[u8]) -> Result<Option<Reply>> {
        self.count += 1;
        if self.count > MAX_LINES {
            return Err(violation("The server's reply has no end"));
        }
        let code = code_of(line);
        let last = !matches!(line.get(3), Some(b'-'));
        match (self.code, code) {
            (None, None) => Err(violation("The server does not speak FTP")),
            (None, Some(code)) if !last => {
                self.code = Some(code);
                Ok(None)
            }
            (Some(first), Some(code)) if first == code && line.get(3) == Some(&b' ') => {
                Ok(Some(reply(code, line)))
            }
            (Some(_), _) => Ok(None),
            (None, Some(code)) => Ok(Some(reply(code, line))),
        }
    }
}

fn reply(code: u16, line: &[u8]) -> Reply {
    let text = line.get(4..).unwrap_or_default().trim_ascii();
    Reply {
        code,
        text: text.to_str_lossy().into_owned(),
    }
}

impl Reply {
    /// Whether the command has succeeded.
    pub(super) fn is_done(&self) -> bool {
        (200..=299).contains(&self.code)
    }

    /// Whether a transfer begins.
    pub(super) fn is_begun(&self) -> bool {
        (100..=199).contains(&self.code)
    }

    /// Whether the server does not know the command.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.code, 500..=504 | 522)
    }

    /// Whether the command has failed only for the time being.
    pub(super) fn is_for_now(&self) -> bool {
        (400..=499).contains(&self.code)
    }

    /// Clears the text of a reply that repeats the secret.
    pub(super) fn conceal(&mut self, secret: &[u8]) {
        let text = self.text.to_ascii_lowercase();
        if !secret.is_empty() && text.as_bytes().contains_str(secret.to_ascii_lowercase()) {
            self.text.clear();
        }
    }

    fn shown(&self) -> String {
        let text: String = self.text.chars().take(MAX_SHOWN).collect();
        format!("{} {}", self.code, printable(&text))
            .trim_end()
            .to_owned()
    }

    /// The failure that this reply means if it is not the one that `doing` requires.
    pub(super) fn refusal(&self, doing: &str) -> Failure {
        let shown = self.shown();
        let of = |kind: ErrorKind, message: String| Error::new(kind, message);
        let (error, next) = match self.code {
            421 => (
                Error::os(libc::ECONNRESET)
                    .with_message(format!("The server ends the connection: {shown}")),
                Next::Again,
            ),
            430 | 530 | 532 => (
                of(
                    ErrorKind::Denied,
                    format!("The server refuses {doing}: {shown}"),
                ),
                Next::Nothing,
            ),
            550 => (
                of(
                    ErrorKind::NotFound,
                    format!("The server refuses {doing}: {shown}"),
                ),
                Next::Nothing,
            ),
            500..=504 => (
                Error::unsupported(format!("The server cannot do {doing}: {shown}")),
                Next::Nothing,
            ),
            400..=499 => (
                of(
                    ErrorKind::Os,
                    format!("The server refuses {doing}: {shown}"),
                ),
                Next::Again,
            ),
            505..=699 => (
                of(
                    ErrorKind::Os,
                    format!("The server refuses {doing}: {shown}"),
                ),
                Next::Nothing,
            ),
            _ => (
                violation(format!("The server answers {doing} with '{shown}'")),
                Next::Again,
            ),
        };
        Failure {
            error,
            next,
            after: None,
        }
    }

    /// As [`Reply::refusal`], for something that is indispensable.
    pub(super) fn denial(&self, doing: &str) -> Failure {
        let refusal = self.refusal(doing);
        match self.is_for_now() {
            true => refusal,
            false => Failure::last(refusal.error.with_kind(ErrorKind::Denied)),
        }
    }

    /// The port in a `229` reply (RFC 2428): `(|||PORT|)`, with any character in place of the bars.
    pub(super) fn extended_port(&self) -> Option<u16> {
        let (_, rest) = self.text.split_once('(')?;
        let (inside, _) = rest.split_once(')')?;
        let mark = inside.chars().next()?;
        let mut parts = inside.split(mark);
        let empty = parts.by_ref().take(3).all(str::is_empty);
        let port: u16 = parts.next().filter(|_| empty)?.parse().ok()?;
        (port != 0).then_some(port)
    }

    /// The port in a `227` reply (RFC 959). The address beside it is ignored: servers behind NAT give their own
    /// address, and hostile ones somebody else's.
    pub(super) fn port(&self) -> Option<u16> {
        let start = self.text.find(|c: char| c.is_ascii_digit())?;
        let list = self.text.get(start..)?;
        let end = list.find(|c: char| !c.is_ascii_digit() && c != ',');
        let list = list.get(..end.unwrap_or(list.len()))?;
        let mut bytes = list.split(',').map(str::parse::<u8>);
        let mut next = || bytes.next()?.ok();
        let numbers = [next()?, next()?, next()?, next()?, next()?, next()?];
        let [_, _, _, _, high, low] = numbers;
        let port = u16::from_be_bytes([high, low]);
        (port != 0).then_some(port)
    }

    /// The length in a `213` reply (RFC 3659).
    pub(super) fn size(&self) -> Option<u64> {
        let digits = self.text.split_ascii_whitespace().next()?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        let len: u64 = plain.then(|| digits.parse().ok()).flatten()?;
        (len <= i64::MAX as u64).then_some(len)
    }
}
